"""Pictures of any source on one timeline: seconds since the publisher's stream began, rising without end."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from pipeline.media.degrade import Picture, Plane
from pipeline.media.device import Device, is_device
from pipeline.media.source import Source, SourceOptions, is_live, open_source
from pipeline.stage import StageEnv, Work
from pipeline.stages.decode import Decode, DecodeConfig
from pipeline.wire.frames import ColorSpec, FrameBatch
from pipeline.wire.ids import StreamId

_STREAM = StreamId("publish")
_NS = 1_000_000_000
_RATE = Fraction(30)  # of a source that does not say (chosen)


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """A true picture at `at_s` of the stream; `captured_ns` is Unix time."""

    picture: Picture
    color: ColorSpec
    at_s: float
    captured_ns: int


class Frames(ABC):
    """Frames of a source. `live`: they pass whether they are read or not; `rate`: frames a second, as far as known."""

    live: bool

    @property
    @abstractmethod
    def rate(self) -> Fraction:
        """Frames a second; known once a frame has come."""

    @abstractmethod
    def frames(self) -> Iterator[Frame | None]:
        """Yield frames to the source's end; None where none has come for a while.

        Raises:
            SourceError, StageError: it cannot be read any more.
        """

    @abstractmethod
    def close(self) -> None:
        """Have `frames` end, from any thread."""


def open_frames(uri: str) -> Frames:
    """Open a file, an address (pipeline.media.source) or a device (pipeline.media.device).

    Raises:
        ConfigError, SourceError: as they do.
    """
    if is_device(uri):
        return _DeviceFrames(Device(uri))
    return _SourceFrames(open_source(uri, options=SourceOptions()), live=is_live(uri))


class _Clock:
    """The stream's time: an epoch's own time, moved behind what came before; a live one to the moment it begins."""

    def __init__(self, *, live: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._live, self._clock = live, clock
        self._begun_s: float | None = None
        self._last_s: float | None = None
        self._offset_s = 0.0

    def begin(self, first_s: float, step_s: float) -> None:
        """An epoch begins with the time `first_s` of its own; its frames are about `step_s` apart."""
        now_s = self._clock()
        if self._begun_s is None or self._last_s is None:
            self._begun_s = now_s
            self._offset_s = -first_s
            return
        at_s = self._last_s + step_s
        self._offset_s = (max(at_s, now_s - self._begun_s) if self._live else at_s) - first_s

    def at_s(self, own_s: float) -> float:
        """Return the stream's time of a frame of the epoch."""
        self._last_s = own_s + self._offset_s
        return self._last_s


class _SourceFrames(Frames):
    def __init__(self, source: Source, *, live: bool) -> None:
        self._source, self.live = source, live
        self._closed = False

    @property
    def rate(self) -> Fraction:
        return self._source.info.frame_rate or _RATE

    def frames(self) -> Iterator[Frame | None]:
        clock = _Clock(live=self.live)
        stage: Decode | None = None
        epoch, fresh = -1, True
        for batch in self._source.batches(stream=_STREAM):
            if self._closed:
                return
            if batch is None:
                yield None
                continue
            if stage is None or batch.span.epoch != epoch:
                if stage is not None:
                    yield from self._placed(stage.finish(), clock, fresh=fresh)
                stage, epoch, fresh = Decode(DecodeConfig()), batch.span.epoch, True
                stage.open(StageEnv(stream=_STREAM, epoch=epoch, batch_frames=1))
            for frame in self._placed(stage.process(Work(item=batch, span=batch.span)), clock, fresh=fresh):
                fresh = False
                yield frame
        if stage is not None and not self._closed:
            yield from self._placed(stage.finish(), clock, fresh=fresh)

    def close(self) -> None:
        self._closed = True
        self._source.close()

    def _placed(self, batches: Sequence[FrameBatch], clock: _Clock, *, fresh: bool) -> Iterator[Frame]:
        for batch in batches:
            planes = batch.planes()
            for i in range(len(batch)):
                own_s = float(int(batch.pts[i]) * batch.time_base)
                if fresh:
                    clock.begin(own_s, float(1 / self.rate))
                    fresh = False
                yield Frame(
                    picture=_even(planes.y[i], planes.u[i], planes.v[i]),
                    color=batch.color,
                    at_s=clock.at_s(own_s),
                    captured_ns=int(batch.captured_ns[i]) if self.live else time.time_ns(),
                )


class _DeviceFrames(Frames):
    live = True

    def __init__(self, device: Device) -> None:
        self._device = device
        self._closed = False

    @property
    def rate(self) -> Fraction:
        return self._device.rate or _RATE

    def frames(self) -> Iterator[Frame | None]:
        clock = _Clock(live=True)
        first = True
        try:
            for grabbed in self._device.pictures():
                if self._closed:
                    return
                if first:
                    clock.begin(grabbed.at_s, float(1 / self.rate))
                    first = False
                yield Frame(
                    picture=grabbed.picture,
                    color=grabbed.color,
                    at_s=clock.at_s(grabbed.at_s),
                    captured_ns=time.time_ns(),
                )
        finally:
            self._device.close()

    def close(self) -> None:
        self._closed = True


def _even(y: Plane, u: Plane, v: Plane) -> Picture:
    """Return views of planes without an odd last row or column."""
    height, width = (side // 2 * 2 for side in y.shape)
    return Picture(y=y[:height, :width], u=u[: height // 2, : width // 2], v=v[: height // 2, : width // 2])
