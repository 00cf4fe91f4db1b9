"""What a stream's answers say of how it is doing: rates, lags, CPU."""

from __future__ import annotations

import math
import time
from dataclasses import replace

from actors.calls import Reply
from pipeline.flow.boxes import SOURCE, Box
from pipeline.flow.job import Progress
from pipeline.plan.load import Rate, Window
from pipeline.wire.status import SourceState

_COMING_S = 1.0  # since the last frame until none are coming any more
_SETTLING_S = 3.0
_LAG_WINDOW_S = 5.0


class Meters:
    """Of one run of a stream. Times are time.monotonic(); lags are taken against the Unix time of arrival."""

    def __init__(self, rung: int) -> None:
        self.source = SourceState(connected=False)
        self.rung = rung
        self._lag, self._lag_now = Window(window_s=_LAG_WINDOW_S), Window(window_s=2.0, slices=8)
        self._came_s = self._done_s = 0.0  # when something last arrived, and was last done
        self._first_s = math.inf  # when something was first done
        self._in, self._cpu = Rate(), Rate()
        self._out: dict[str, Rate] = {}  # by sink
        self._latency: dict[str, Window] = {}

    def read(self, reply: Reply, now_s: float) -> None:
        """Take an answer to ReadOn."""
        if reply.source is not None:
            self.source = reply.source
        self._in.add(reply.frames, now_s)
        if reply.frames:
            self._came_s = now_s
        self._cpu.add(reply.cpu_s, now_s)

    def worked(self, box: Box, reply: Reply, now_s: float) -> None:
        """Take an answer to WorkOn."""
        self._cpu.add(reply.cpu_s, now_s)
        if not reply.captured_ns:
            return
        lag_s = max(0.0, time.time() - reply.captured_ns / 1e9)
        self._latency.setdefault(box.name, Window()).add(lag_s, now_s)
        if any(node.name in box.sinks and node.inputs[0].producer != SOURCE for node in box.nodes):
            self._lag.add(lag_s, now_s)
            self._lag_now.add(lag_s, now_s)
            self._done_s = now_s
            self._first_s = min(self._first_s, now_s)
            self._out.setdefault(box.name, Rate()).add(reply.frames, now_s)

    def lag_now_s(self, now_s: float) -> float:
        """Return the lag of the last seconds; where nothing is done although frames come, since when."""
        lag_s = self._lag_now.quantiles(now_s).p95
        stuck = self._done_s and self._came_s > max(self._done_s, now_s - _COMING_S)
        return max(lag_s, now_s - self._done_s) if stuck else lag_s

    def settled(self, now_s: float) -> bool:
        """Say whether lags tell of the machine: at first they tell of what arrived while processes started."""
        return now_s - self._first_s > _SETTLING_S

    def status(self, progress: Progress, now_s: float) -> Progress:
        """Return a progress with what was measured put in."""
        return replace(
            progress,
            fps_in=self._in.per_s(now_s),
            fps_out=min((rate.per_s(now_s) for rate in self._out.values()), default=0.0),
            lag_s=self._lag.quantiles(now_s),
            settling=now_s - self._first_s <= _SETTLING_S + _LAG_WINDOW_S,
            latency_s={name: window.quantiles(now_s) for name, window in self._latency.items()},
            cpu_cores=self._cpu.per_s(now_s),
            rung=self.rung,
            source=self.source,
        )
