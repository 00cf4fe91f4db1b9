"""Measurements over sliding windows: rates, quantiles, and the load of a stage; memory does not grow with their number.

A window is cut into slices; what is older than the window falls off a slice at a time, so a window of w seconds covers
between w less one slice and w. Times are seconds of any steady clock; one that goes back counts as standing still.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from pipeline.wire.status import Quantiles

T = TypeVar("T")

LEAST_S = 1.0
"""Seconds that a rate is taken over at least: the first frame after a start is no rate of a thousand a second."""

_FINEST_S = 1e-4  # durations up to this count as it
_LARGEST_S = 1e5
_GROWTH = 1.04  # from one bin to the next: a quantile is right to 2 %


@dataclass(frozen=True, kw_only=True, slots=True)
class StageLoad:
    """What one stage is asked for, and what it has.

    Attributes:
        arrival_hz: batches a second that are given to it.
        service_s: seconds that a worker takes for a batch; 0: not measured yet.
        queue: batches that wait for a worker.
        queue_age_s: how long the oldest of them has waited.
        workers: that are there (not those that start).
        busy: mean number of workers at work.
    """

    arrival_hz: float
    service_s: float
    queue: int
    queue_age_s: float
    workers: int
    busy: float


class _Slices(Generic[T]):
    """The slices of the last `window_s` seconds."""

    def __init__(self, window_s: float, slices: int, new: Callable[[], T]) -> None:
        self._width_s = window_s / slices
        self._slices, self._new = slices, new
        self._kept: deque[tuple[int, T]] = deque()
        self._now_s = -math.inf
        self._began_s = math.inf

    def at(self, now_s: float) -> T:
        """Return the slice of this moment, to be changed."""
        index = self._move(now_s)
        self._began_s = min(self._began_s, self._now_s)
        if not self._kept or self._kept[-1][0] != index:
            self._kept.append((index, self._new()))
        return self._kept[-1][1]

    def all(self, now_s: float) -> Iterator[T]:
        self._move(now_s)
        return (value for _, value in self._kept)

    def covered_s(self, now_s: float) -> float:
        """Return the seconds that `all` tells of: less than the window soon after the first entry."""
        index = self._move(now_s)
        first_s = max(self._began_s, (index - self._slices + 1) * self._width_s)
        return max(self._now_s - first_s, 0.0)

    def _move(self, now_s: float) -> int:
        self._now_s = max(self._now_s, now_s)
        index = math.floor(self._now_s / self._width_s)
        while self._kept and self._kept[0][0] <= index - self._slices:
            self._kept.popleft()
        return index


@dataclass(slots=True)
class _Sum:
    amount: float = 0.0
    count: int = 0


class Rate:
    """Things a second (frames, batches, seconds of CPU) over the last `window_s` seconds."""

    def __init__(self, window_s: float = 5.0) -> None:
        self._window = _Slices(window_s, 20, _Sum)

    def add(self, amount: float, now_s: float) -> None:
        """Count `amount` more."""
        self._window.at(now_s).amount += amount

    def per_s(self, now_s: float) -> float:
        """Return the rate; 0 where nothing came."""
        amount = sum(each.amount for each in self._window.all(now_s))
        return amount / max(self._window.covered_s(now_s), LEAST_S)


class Window:
    """Quantiles of durations over the last `window_s` seconds, right to 2 %; at most 530 counts a slice are kept."""

    def __init__(self, window_s: float = 60.0, slices: int = 12) -> None:
        self._window: _Slices[Counter[int]] = _Slices(window_s, slices, Counter)

    def add(self, value_s: float, now_s: float, n: int = 1) -> None:
        """Note a duration, seconds, `n` times."""
        within = min(max(value_s, _FINEST_S), _LARGEST_S)
        self._window.at(now_s)[round(math.log(within / _FINEST_S, _GROWTH))] += n

    def quantiles(self, now_s: float) -> Quantiles:
        """Return p50, p95 and p99 (nearest rank), seconds; 0 where nothing was noted."""
        whole: Counter[int] = Counter()
        for each in self._window.all(now_s):
            whole.update(each)
        bins, total = sorted(whole.items()), whole.total()

        def at(share: float) -> float:
            rank = math.ceil(share * total)
            for number, count in bins:
                rank -= count
                if rank <= 0:
                    return _FINEST_S * _GROWTH**number if number else 0.0
            return 0.0

        return Quantiles(p50=at(0.5), p95=at(0.95), p99=at(0.99))


class LoadMeter:
    """Told of every batch of a stage, over all its streams, it gives the stage's load.

    A batch is told of as `arrived`, `began`, `ended`. If its worker dies under it: `returned`, and `began` again when
    another takes it. If it is not wanted any more: `withdrawn`, with what it was doing.
    """

    def __init__(self, window_s: float = 5.0) -> None:
        self._arrivals = Rate(window_s)
        self._service = _Slices(window_s, 20, _Sum)
        self._latency = Window()
        self._waiting: deque[float] = deque()  # since when; which batch is which does not matter
        self._lately_s = 0.0  # a batch's service, to be told while nothing ends

    def arrived(self, now_s: float) -> None:
        """A batch wants a worker."""
        self._arrivals.add(1, now_s)
        self._waiting.append(now_s)

    def began(self, now_s: float) -> None:
        """A worker has taken the batch that waits longest (or another: then the age told is of that one)."""
        if self._waiting:
            self._waiting.popleft()

    def ended(self, now_s: float, service_s: float, latency_s: float) -> None:
        """A worker is done with a batch: seconds of its work, and from the batch's arrival here until now."""
        done = self._service.at(now_s)
        done.count += 1
        done.amount += service_s
        self._lately_s += (service_s - self._lately_s) / 5 if self._lately_s else service_s
        self._latency.add(latency_s, now_s)

    def returned(self, now_s: float) -> None:
        """A batch that had begun waits again, in front of all others: its worker died. It is no new arrival."""
        self._waiting.appendleft(min(now_s, self._waiting[0]) if self._waiting else now_s)

    def withdrawn(self) -> None:
        """A batch that waits is not wanted any more (its stream has ended)."""
        if self._waiting:
            self._waiting.pop()

    def load(self, now_s: float, workers: int) -> StageLoad:
        """Return the load of the last seconds.

        Args:
            now_s: not before what was told.
            workers: that are there.
        """
        ended = list(self._service.all(now_s))
        count, seconds = sum(each.count for each in ended), sum(each.amount for each in ended)
        busy = seconds / max(self._service.covered_s(now_s), LEAST_S)
        return StageLoad(
            arrival_hz=self._arrivals.per_s(now_s),
            service_s=seconds / count if count else self._lately_s,
            queue=len(self._waiting),
            queue_age_s=max(now_s - self._waiting[0], 0.0) if self._waiting else 0.0,
            workers=workers,
            busy=min(busy, float(workers)) if workers else busy,
        )

    def latency(self, now_s: float) -> Quantiles:
        """Return the quantiles of the last minute's latencies."""
        return self._latency.quantiles(now_s)
