"""RTMP out: H.264 packets to a server, as FLV. Only for a process of its own.

FFmpeg's network output connects at the first packet, knows no deadline and keeps the interpreter's lock meanwhile: a
server that hangs freezes the whole process (measured). So whoever pushes does it in a process that may be killed
(publisher/push.py); this module imports little, so that such a process is there in a moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.error

from pipeline.errors import Unreachable
from pipeline.media.address import without_secrets
from pipeline.wire.frames import Size

_MILLISECOND = Fraction(1, 1000)  # what FLV counts in


@dataclass(frozen=True, kw_only=True, slots=True)
class LivePacket:
    """A coded frame of a stream without reordering.

    Attributes:
        pts_ms: milliseconds since the stream began; rises from packet to packet.
        key: whether decoding can start here; then the parameter sets lie in front.
        data: Annex B.
    """

    pts_ms: int
    key: bool
    data: bytes


class FlvOut:
    """A push to `url` (rtmp:, rtmps: or a path ending in .flv); the first packet must be a key frame's.

    Raises, in all methods:
        Unreachable: the server refuses, or is gone.
    """

    def __init__(self, url: str, *, size: Size) -> None:
        self._where = without_secrets(url)
        try:
            self._container = av.open(url, "w", format="flv", options={"flvflags": "no_duration_filesize"})
            # Without extradata: FFmpeg takes the parameter sets from the first packet.
            self._stream = self._container.add_mux_stream(
                "h264", width=size.width_px, height=size.height_px, time_base=_MILLISECOND
            )
        except (av.error.FFmpegError, OSError) as error:
            raise self._unreachable(error) from error

    def write(self, packet: LivePacket) -> None:
        """Send a packet; the first one connects."""
        out: av.Packet[Any] = av.Packet(packet.data)
        out.stream = self._stream
        out.time_base = _MILLISECOND
        out.pts = out.dts = packet.pts_ms
        out.is_keyframe = packet.key
        try:
            self._container.mux(out)
        except (av.error.FFmpegError, OSError) as error:
            raise self._unreachable(error) from error

    def close(self) -> None:
        """Say goodbye and hang up."""
        try:
            self._container.close()
        except (av.error.FFmpegError, OSError) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> Unreachable:
        return Unreachable(f"cannot be pushed to: {error}", where=self._where, hint="is the server there, and the key?")
