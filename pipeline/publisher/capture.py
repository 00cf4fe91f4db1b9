"""Capture: true pictures in, at live speed; low-resolution packets and pairs of key frames out.

A file is paced by its own time stamps; what is live comes when it comes. Where the machine or
the file's server is too slow, the stream is late by as much (and says so): no picture is left out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.media.degrade import Picture
from pipeline.media.live_encode import LiveDecoder, LiveEncoder
from pipeline.media.push import LivePacket
from pipeline.publisher.frames import Frame, Frames
from pipeline.publisher.pairs import Pair
from pipeline.wire.frames import Size

_LATE_S = 1.0  # behind its time, from which on a file is late for good; less is caught up
_LEAST_PX = 48  # sides of the low-resolution picture: a training crop


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptureConfig:
    """What is made of the source.

    Attributes:
        height_px: of the low-resolution stream; None: 360, or what the source has to be the truth of.
        scale: of the network; pairs hold the source at exactly so many times the low resolution.
        bitrate_bps: of the low-resolution stream.
        pairs_every_s: between two pairs.
    """

    height_px: int | None = None
    scale: int = 2
    bitrate_bps: int = 500_000
    pairs_every_s: float = 0.5


def low_size(source: Size, config: CaptureConfig) -> Size:
    """Return the size of the low-resolution stream; both sides are even.

    Raises:
        ConfigError: the source is too small to be the truth of it.
    """
    most = source.height_px // config.scale
    height = min(360, most) if config.height_px is None else config.height_px
    height -= height % 2
    width = round(source.width_px * height / source.height_px / 2) * 2
    if height > most or min(height, width) < _LEAST_PX:
        raise ConfigError(
            f"a source of {source} cannot be the truth of {width}×{height} times {config.scale}",
            where="--height",
            hint=f"give a height from {_LEAST_PX} to {most - most % 2}" if most >= _LEAST_PX else "it is too small",
        )
    return Size(width_px=width, height_px=height)


@dataclass(kw_only=True, slots=True)
class Captured:
    """So far: frames pushed, pairs taken, the stream's time, and by how much a file has come to be late, in seconds."""

    frames: int = 0
    pairs: int = 0
    at_s: float = 0.0
    late_s: float = 0.0


class Capture:
    """Reads `frames` to its end with `run`.

    Args:
        begin: called with the low-resolution size before the first packet; returns where packets go.
        pair: where pairs go.
        stop: set to have `run` return.
    """

    def __init__(
        self,
        frames: Frames,
        config: CaptureConfig,
        *,
        begin: Callable[[Size], Callable[[LivePacket], None]],
        pair: Callable[[Pair], None],
        stop: threading.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._frames, self._config, self._begin, self._pair = frames, config, begin, pair
        self._stop, self._clock = stop, clock
        self.counts = Captured()

    def run(self) -> None:
        """Capture until the source ends or `stop` is set.

        Raises:
            ConfigError: the source is too small.
            SourceError, StageError: it cannot be read.
        """
        coder: _Coder | None = None
        self._begun_s: float | None = None
        try:
            for frame in self._frames.frames():
                if self._stop.is_set():
                    return
                if frame is None:
                    continue
                if not self._frames.live:
                    self._await(frame.at_s)
                if coder is None:
                    height, width = frame.picture.y.shape
                    low = low_size(Size(width_px=width, height_px=height), self._config)
                    coder = _Coder(low, self._config, frame, self._frames, self._begin(low))
                pair = coder.take(frame)
                self.counts.frames += 1
                self.counts.at_s = frame.at_s
                if pair is not None:
                    self.counts.pairs += 1
                    self._pair(pair)
        finally:
            self._frames.close()

    def _await(self, at_s: float) -> None:
        """Wait until a picture of a file is due."""
        now_s = self._clock()
        if self._begun_s is None:
            self._begun_s = now_s - at_s
        left_s = self._begun_s + at_s - now_s
        if left_s < -_LATE_S:
            self.counts.late_s -= left_s
            self._begun_s -= left_s
        elif left_s > 0:
            self._stop.wait(left_s)


class _Coder:
    """Scales, encodes and decodes again; takes a pair now and then."""

    def __init__(
        self,
        low: Size,
        config: CaptureConfig,
        first: Frame,
        frames: Frames,
        put: Callable[[LivePacket], None],
    ) -> None:
        self._low, self._config, self._put = low, config, put
        self._high = low.times(config.scale)
        self._encoder = LiveEncoder(size=low, rate=frames.rate, bitrate_bps=config.bitrate_bps, color=first.color)
        self._decoder = LiveDecoder()
        self._last_ms = -1
        self._pair_due_s = first.at_s

    def take(self, frame: Frame) -> Pair | None:
        """Push a picture; return the pair, if one is due."""
        true = _sized(frame.picture, self._high)
        self._last_ms = max(self._last_ms + 1, round(frame.at_s * 1000))
        packet = self._encoder.encode(_sized(true, self._low), self._last_ms)
        self._put(packet)
        low = self._decoder.decode(packet)  # each packet, since the next one refers to it
        if frame.at_s < self._pair_due_s:
            return None
        self._pair_due_s = max(self._pair_due_s + self._config.pairs_every_s, frame.at_s)
        return Pair(at_s=frame.at_s, captured_ns=frame.captured_ns, low=low, high=true.y.copy())


def _sized(picture: Picture, size: Size) -> Picture:
    if picture.y.shape == (size.height_px, size.width_px):
        return picture
    return picture.resized(size.width_px, size.height_px, "area")
