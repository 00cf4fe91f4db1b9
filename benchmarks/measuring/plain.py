"""The plain loop: a graph's stages called in turn, one process, one thread, no flow. What the dataflow is held against.

It is also where the time of each stage is taken, for nothing else runs meanwhile. Stages have to work on one grid of
frames (the shipped ones do), for nothing joins them here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.flow.job import Job
from pipeline.flow.ledger import choose_stamp
from pipeline.graph import SOURCE, Graph, Node, graph_of
from pipeline.media.source import open_source
from pipeline.stage import PooledStage, StageEnv, Work
from pipeline.store.objects import open_store
from pipeline.wire.acks import Stamp


@dataclass(slots=True)
class Spent:
    """Time that one stage took."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    calls: int = 0


@dataclass(kw_only=True, slots=True)
class Passed:
    """What a plain loop did.

    Attributes:
        frames: that every sink has made durable.
        marks: (time.monotonic(), frames durable), one whenever there were more.
        spent: by stage; "source" is reading.
    """

    frames: int = 0
    marks: list[tuple[float, int]] = field(default_factory=list)
    spent: dict[str, Spent] = field(default_factory=dict)


class PlainLoop:
    """One pass of one stream."""

    def __init__(self, job: Job, *, max_frames: int = 0, stamp: Stamp | None = None) -> None:
        self._job = job
        self._max_frames = max_frames
        self._graph: Graph = graph_of(job.settings)
        self._stamp = stamp or choose_stamp(self._graph)
        self._stages: dict[str, Any] = {}
        self._sinks = [n.name for n in self._graph.sinks() if n.inputs[0].producer != SOURCE]
        self._passed = Passed(spent={name: Spent() for name in (SOURCE, *(n.name for n in self._graph.nodes))})

    def run(self) -> Passed:
        """Open, process everything, close; opening and closing are in no mark and no time."""
        open_store(self._job.store).check()
        stream = self._job.stream
        for node in self._graph.nodes:
            stage = self._stages[node.name] = node.build()
            pooled = isinstance(stage, PooledStage)
            stage.open(StageEnv() if pooled else StageEnv(stream=stream, epoch=0, store=self._job.store))
        source = open_source(self._job.source)
        try:
            self._passed.marks.append((time.monotonic(), 0))
            batches = source.batches(stream=stream)
            while (batch := self._timed(SOURCE, lambda: next(batches, None))) is not None:
                assert batch.span.epoch == 0, "the plain loop knows one epoch"
                self._give(SOURCE, batch)
                self._mark()
                if self._max_frames and self._passed.frames >= self._max_frames:
                    break
            self._finish()
        finally:
            source.close()
            for stage in self._stages.values():
                stage.close()
        return self._passed

    def _give(self, producer: str, item: Any) -> None:
        """Hand an item of one producer down to all who wait for nothing else."""
        made: dict[str, Any] = {producer: item}
        for node in self._graph.nodes:
            if node.name in made or not all(edge.producer in made for edge in node.inputs):
                continue
            out = self._call(node, made)
            if isinstance(self._stages[node.name], PooledStage):
                made[node.name] = out
            elif producer == SOURCE:
                for one in out:
                    self._give(node.name, one)
            elif out:
                assert [one.span for one in out] == [made[producer].span], f"{node.name} is on another grid"
                made[node.name] = out[0]

    def _call(self, node: Node, made: dict[str, Any]) -> Any:
        values = [getattr(made[e.producer], e.field) if e.field else made[e.producer] for e in node.inputs]
        work = Work(item=values[0], span=values[0].span, side=tuple(values[1:]), stamp=self._stamp)
        stage = self._stages[node.name]
        return self._timed(node.name, lambda: stage.process(work))

    def _finish(self) -> None:
        for node in self._graph.nodes:
            stage = self._stages[node.name]
            if not isinstance(stage, PooledStage):
                for one in self._timed(node.name, stage.finish):
                    self._give(node.name, one)
        self._mark()

    def _mark(self) -> None:
        frames = min((self._stages[name].snapshot().after for name in self._sinks), default=0)
        if frames > self._passed.frames:
            self._passed.frames = frames
            self._passed.marks.append((time.monotonic(), frames))

    def _timed(self, name: str, call: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        out = call()
        spent = self._passed.spent[name]
        spent.wall_s += time.perf_counter() - wall
        spent.cpu_s += time.process_time() - cpu
        spent.calls += 1
        return out


def steady(marks: Sequence[tuple[float, int]]) -> tuple[float, float, int]:
    """Return (start, stop, frames) of the steady part of a run: from the first durable frames to the last.

    With one mark only, the run's beginning counts as its start.
    """
    durable = [mark for mark in marks if mark[1] > 0]
    first = durable[0] if len(durable) > 1 else marks[0]
    return first[0], durable[-1][0], durable[-1][1] - first[1]
