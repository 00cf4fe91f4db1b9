"""Capture devices of this machine: cameras, screens, cards, by FFmpeg's input devices.

`device:FORMAT:NAME` names one: `device:v4l2:/dev/video0` (Linux; a bare `/dev/video0` as well),
`device:avfoundation:0` (macOS), `device:dshow:video=USB Camera` (Windows), `device:x11grab::0`. FFmpeg's test pictures
are one too: `device:lavfi:testsrc2=size=1280x720:rate=30` (`,realtime` behind it gives them at their own speed).
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import av
import av.error

from pipeline.errors import ConfigError, CorruptMedia, Unreachable, UnsupportedMedia
from pipeline.media.color import color_of
from pipeline.media.decode import MEDIA_ERRORS
from pipeline.media.degrade import Picture, picture_of
from pipeline.wire.frames import ColorSpec

_PREFIX = "device:"
_VIDEO4LINUX = "/dev/video"


class Grabbed(NamedTuple):
    """A picture of a device, and its moment on the device's own clock, in seconds."""

    picture: Picture
    color: ColorSpec
    at_s: float


def is_device(uri: str) -> bool:
    """Say whether `uri` names a capture device."""
    return uri.startswith((_PREFIX, _VIDEO4LINUX))


class Device:
    """An opened device.

    Raises:
        ConfigError: the name is none.
        Unreachable: it cannot be opened.
        UnsupportedMedia: it gives no video.
    """

    def __init__(self, uri: str) -> None:
        self._where = uri
        if uri.startswith(_VIDEO4LINUX):
            uri = f"{_PREFIX}v4l2:{uri}"
        kind, colon, name = uri.removeprefix(_PREFIX).partition(":")
        if not (kind and colon and name):
            raise ConfigError(f"'{uri}' is no device", where="SOURCE", hint="give device:FORMAT:NAME, see docs")
        try:
            self._container = av.open(name, format=kind, mode="r")
        except ValueError as error:
            if not isinstance(error, av.error.FFmpegError):  # PyAV's word for a format that it does not know
                raise ConfigError(f"no devices of the kind '{kind}' here", where=self._where) from error
            raise Unreachable(f"cannot be opened: {error}", where=self._where) from error
        except (av.error.FFmpegError, OSError) as error:
            raise Unreachable(
                f"cannot be opened: {error}", where=self._where, hint="is it there, and may this user open it?"
            ) from error
        if not self._container.streams.video:
            self._container.close()
            raise UnsupportedMedia("it gives no video", where=self._where)
        self._track = self._container.streams.video[0]
        self.rate: Fraction | None = self._track.average_rate

    def pictures(self) -> Iterator[Grabbed]:
        """Yield pictures as they come, until the device ends.

        Raises:
            CorruptMedia: what it gives cannot be read.
        """
        try:
            for frame in self._container.decode(self._track):
                if frame.time is not None:
                    yield Grabbed(picture_of(frame), color_of(frame), frame.time)
        except MEDIA_ERRORS as error:
            raise CorruptMedia(f"cannot be read any more: {error}", where=self._where) from error

    def close(self) -> None:
        """Let go of it; not while `pictures` runs in another thread."""
        self._container.close()
