"""A stage in simulated time: streams that ask, a queue, workers that sleep; its pool follows the scaling rule."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable

from pipeline.plan.load import LoadMeter, Window
from pipeline.plan.scale import ScaleRule, ScaleState, scale


class SimulatedPool:
    """Batches arrive, workers take `service_s` each; workers asked for come after `start_s`, and drain before they go.

    Args:
        rule: of scaling, asked every half second.
        service_s: of a batch.
        start_s: from asking for a worker until it works.
        streams: number of streams at a time.
        batch_hz: of one stream.
        jitter: share of the interval by which an arrival is off, either way.
        room: workers that the cluster has room for.
    """

    def __init__(
        self,
        rule: ScaleRule,
        *,
        streams: Callable[[float], float],
        service_s: float = 0.06,
        start_s: float = 1.5,
        batch_hz: float = 12.5,
        jitter: float = 0.2,
        room: int = 100,
        seed: int = 0,
    ) -> None:
        self.rule, self.service_s, self.start_s = rule, service_s, start_s
        self.streams, self.batch_hz, self.jitter, self.room = streams, batch_hz, jitter, room
        self.meter, self.lag = LoadMeter(), Window(2.0)
        self.state = ScaleState()
        self.wanted, self.workers, self.idle = 0, 0, 0
        self.leaving = 0
        self.history: list[tuple[float, int]] = []  # (when, wanted) at each change
        self.worst: list[tuple[float, float]] = []  # (when, p95 of the last 2 s), every half second
        self.peak = 0
        self._random = random.Random(seed)
        self._waiting: deque[float] = deque()
        self._order = itertools.count()
        self._events: list[tuple[float, int, str, float]] = []

    def run(self, until_s: float) -> None:
        self._at(0.0, "ask")
        self._at(0.01, "arrive")
        while self._events:
            now_s, _, what, value = heapq.heappop(self._events)
            if now_s > until_s:
                return
            getattr(self, f"_{what}")(now_s, value)
            self._assign(now_s)

    def lag_at(self, at_s: float) -> float:
        """The p95 that was told last before a moment."""
        return max((p95 for when, p95 in self.worst if at_s - 1 <= when <= at_s), default=0.0)

    def wanted_at(self, at_s: float) -> int:
        return next(wanted for when, wanted in reversed(self.history) if when <= at_s)

    def changes(self, from_s: float) -> list[tuple[float, int]]:
        return [change for change in self.history if change[0] >= from_s]

    def _at(self, when_s: float, what: str, value: float = 0.0) -> None:
        heapq.heappush(self._events, (when_s, next(self._order), what, value))

    def _arrive(self, now_s: float, _: float) -> None:
        streams = self.streams(now_s)
        if streams:
            self.meter.arrived(now_s)
            self._waiting.append(now_s)
        interval_s = 1 / (self.batch_hz * (streams or 1))
        self._at(now_s + interval_s * (1 + self.jitter * self._random.uniform(-1, 1)), "arrive")

    def _ask(self, now_s: float, _: float) -> None:
        load = self.meter.load(now_s, self.workers - self.leaving)
        wanted, self.state, _ = scale(load, self.rule, self.state, now_s)
        assert self.rule.min <= wanted <= self.rule.max
        if wanted != self.wanted or not self.history:
            self.history.append((now_s, wanted))
        for _ in range(self.wanted, min(wanted, self.room)):
            self._at(now_s + self.start_s, "come")
        for _ in range(wanted, self.wanted):
            self._at(now_s, "go")
        self.wanted = wanted
        self.peak = max(self.peak, wanted)
        self.worst.append((now_s, self.lag.quantiles(now_s).p95))
        self._at(now_s + 0.5, "ask")

    def _come(self, _: float, __: float) -> None:
        self.workers += 1
        self.idle += 1

    def _go(self, _: float, __: float) -> None:
        self.leaving += 1

    def _end(self, now_s: float, arrived_s: float) -> None:
        self.idle += 1
        self.meter.ended(now_s, self.service_s, now_s - arrived_s)
        self.lag.add(now_s - arrived_s, now_s)

    def _assign(self, now_s: float) -> None:
        while self.leaving and self.idle:
            self.leaving, self.idle, self.workers = self.leaving - 1, self.idle - 1, self.workers - 1
        while self.idle and self._waiting:
            self.idle -= 1
            self.meter.began(now_s)
            self._at(now_s + self.service_s, "end", self._waiting.popleft())
