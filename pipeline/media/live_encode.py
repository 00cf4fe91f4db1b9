"""The low-resolution stream of a publisher: x264 as live encoders are set, and what a viewer's decoder makes of it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import av.error
import numpy as np
from av.codec.context import CodecContext
from numpy.typing import NDArray

from pipeline.media.degrade import Picture
from pipeline.media.push import LivePacket
from pipeline.wire.frames import ColorSpec, Size

GOP_S = 2.0
_PRESET = "veryfast"


class LiveEncoder:
    """x264 veryfast, zerolatency: a packet for each picture, at once; a key frame every `GOP_S` seconds.

    The bitrate is also the cap over any second. Pictures of a variable rate are coded as if they came at `rate`.
    """

    def __init__(self, *, size: Size, rate: Fraction, bitrate_bps: int, color: ColorSpec) -> None:
        context = CodecContext.create("libx264", "w")
        assert isinstance(context, av.VideoCodecContext)
        context.width, context.height = size.width_px, size.height_px
        context.pix_fmt = "yuv420p"
        context.time_base = Fraction(1, 1000)
        context.framerate = rate
        context.gop_size = max(1, round(GOP_S * rate))
        context.bit_rate = bitrate_bps
        context.thread_count = 1
        context.color_primaries = color.primaries
        context.color_trc = color.transfer
        context.colorspace = color.matrix
        context.color_range = 2 if color.full_range else 1  # AVCOL_RANGE_JPEG, _MPEG
        context.options = {
            "preset": _PRESET,
            "tune": "zerolatency",
            "maxrate": str(bitrate_bps),
            "bufsize": str(bitrate_bps),
            "sc_threshold": "0",
            "forced-idr": "1",
        }
        self._context = context

    def encode(self, picture: Picture, pts_ms: int) -> LivePacket:
        """Return the packet of the next picture; `pts_ms` rises."""
        frame = _av_frame(picture)
        frame.pts, frame.time_base = pts_ms, Fraction(1, 1000)
        (packet,) = self._context.encode(frame)
        return LivePacket(pts_ms=pts_ms, key=packet.is_keyframe, data=bytes(packet))


class LiveDecoder:
    """What a viewer sees of the packets of one `LiveEncoder`."""

    def __init__(self) -> None:
        context = CodecContext.create("h264", "r")
        assert isinstance(context, av.VideoCodecContext)
        context.thread_count = 1
        context.options = {"flags": "low_delay"}
        self._context = context

    def decode(self, packet: LivePacket) -> NDArray[np.uint8]:
        """Return the luma (H, W) of the packet's picture; every packet has to be given, in order."""
        fed: av.Packet[Any] = av.Packet(packet.data)
        fed.pts = fed.dts = packet.pts_ms
        (frame,) = self._context.decode(fed)
        plane = frame.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        out: NDArray[np.uint8] = rows[: frame.height, : frame.width].copy()
        return out


def _av_frame(picture: Picture) -> av.VideoFrame:
    height, width = picture.y.shape
    frame = av.VideoFrame(width, height, "yuv420p")
    for plane, source in zip(frame.planes, (picture.y, picture.u, picture.v), strict=True):
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        rows[: source.shape[0], : source.shape[1]] = source
    return frame
