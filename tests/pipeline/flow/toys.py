"""A small graph with one stage of every kind, on numbers instead of pictures: rules are tested by the thousand.

Packets carry frame numbers (0 to 3 each; every fourth packet is a random-access point). `split` decodes them, `double`
and `add` are pooled (add joins two inputs), `blur` needs a halo on a grid of its own, `total` is a per-stream stage
with state, `keep` and `log` are sinks with parts of 5 and 7 frames, `sound` is a sink that is driven by packets.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pipeline.graph import Edge, Graph, Node
from pipeline.stage import PooledStage, StageConfig, StageSpec, StreamStage, Work
from pipeline.wire.acks import Snapshot
from pipeline.wire.frames import Size
from pipeline.wire.ids import Span, StreamId
from pipeline.wire.packets import Codec, Packet, PacketBatch, Track

STREAM = StreamId("toy")
VIDEO = Codec(name="toy", extradata=b"", time_base=Fraction(1, 10), size=Size(width_px=2, height_px=2))
WRITTEN: dict[str, list[int]] = {}
"""What the sinks made durable, by name; the first of a name wins and every other must be equal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Numbers:
    span: Span
    values: NDArray[np.int64]

    @property
    def nbytes(self) -> int:
        return 10 * len(self.span)


def write(name: str, values: list[int]) -> None:
    assert WRITTEN.setdefault(name, values) == values, f"{name} differs: {WRITTEN[name]} and {values}"


class Split(StreamStage[StageConfig, PacketBatch, Numbers]):
    spec = StageSpec(name="split", version=1, takes=(PacketBatch,), gives=Numbers, batch_frames=4)

    def __init__(self, config: StageConfig) -> None:
        super().__init__(config)
        self._pending: list[int] = []
        self._seq = 0
        self._skip = 0  # frames that come again after a restart
        self._points: list[tuple[int, int]] = []  # (packet, frames before it) of random-access points

    def process(self, work: Work[PacketBatch]) -> list[Numbers]:
        out: list[Numbers] = []
        for number, packet in enumerate(work.item.packets, work.span.start):
            seen = self._seq + len(self._pending) - self._skip if self._skip == 0 else -1
            if packet.key and self._skip == 0:
                self._points.append((number, seen))
            for value in json.loads(packet.data):
                if self._skip > 0:
                    self._skip -= 1
                else:
                    self._pending.append(value)
        while len(self._pending) >= 4:
            out.append(self._give(work.span, 4))
        return out

    def _give(self, like: Span, count: int) -> Numbers:
        values, self._pending = self._pending[:count], self._pending[count:]
        span = like.part(self._seq, self._seq + count)
        self._seq += count
        return Numbers(span=span, values=np.array(values, np.int64))

    def finish(self) -> list[Numbers]:
        span = Span(stream=STREAM, epoch=self.env.epoch, start=0, stop=0)
        return [self._give(span, len(self._pending))] if self._pending else []

    def snapshot(self) -> Snapshot:
        fitting = [(p, f) for p, f in self._points if f <= self._seq]
        packet, frames = fitting[-1] if fitting else (0, 0)
        state = json.dumps([self._seq, self._seq - frames, packet, frames]).encode()
        return Snapshot(after=self._seq, resume_from=packet, state=state)

    def restore(self, snapshot: Snapshot) -> None:
        self._seq, self._skip, packet, frames = json.loads(snapshot.state) if snapshot.state else (0, 0, 0, 0)
        self._points = [(packet, frames)]

    def bypass(self, work: Work[PacketBatch]) -> list[Numbers]:
        return []


class Double(PooledStage[StageConfig, Numbers, Numbers]):
    spec = StageSpec(name="double", version=1, takes=(Numbers,), gives=Numbers, batch_frames=4)

    def process(self, work: Work[Numbers]) -> Numbers:
        return Numbers(span=work.span, values=work.item.values * 2)

    def bypass(self, work: Work[Numbers]) -> Numbers:
        return Numbers(span=work.span, values=work.item.values * 0)


class Add(PooledStage[StageConfig, Numbers, Numbers]):
    spec = StageSpec(name="add", version=1, takes=(Numbers, Numbers), gives=Numbers, batch_frames=8)

    def process(self, work: Work[Numbers]) -> Numbers:
        return Numbers(span=work.span, values=work.item.values + work.side[0].values)


class Blur(PooledStage[StageConfig, Numbers, Numbers]):
    spec = StageSpec(name="blur", version=1, takes=(Numbers,), gives=Numbers, batch_frames=3, halo_frames=(2, 1))

    def process(self, work: Work[Numbers]) -> Numbers:
        before = work.before.values if work.before is not None else np.zeros(0, np.int64)
        after = work.after.values if work.after is not None else np.zeros(0, np.int64)
        assert len(before) == min(2, work.span.start)
        row = np.concatenate([before, work.item.values, after])
        at = len(before)
        values = [int(row[max(0, at + i - 2) : at + i + 2].sum()) for i in range(len(work.span))]
        return Numbers(span=work.span, values=np.array(values, np.int64))


class Total(StreamStage[StageConfig, Numbers, Numbers]):
    spec = StageSpec(name="total", version=1, takes=(Numbers,), gives=Numbers, batch_frames=4)
    _sum = 0
    _at = 0

    def process(self, work: Work[Numbers]) -> list[Numbers]:
        assert work.span.start == self._at
        sums = self._sum + np.cumsum(work.item.values)
        self._sum, self._at = int(sums[-1]), work.span.stop
        return [Numbers(span=work.span, values=sums)]

    def finish(self) -> list[Numbers]:
        return []

    def snapshot(self) -> Snapshot:
        return Snapshot(after=self._at, resume_from=self._at, state=str(self._sum).encode())

    def restore(self, snapshot: Snapshot) -> None:
        self._at, self._sum = snapshot.after, int(snapshot.state or b"0")


class _Parts(StreamStage[StageConfig, Numbers, Numbers]):
    part = 5

    def __init__(self, config: StageConfig) -> None:
        super().__init__(config)
        self._rows: list[int] = []
        self._at = 0

    def process(self, work: Work[Numbers]) -> list[Numbers]:
        assert work.span.start == self._at + len(self._rows), f"{self.spec.name} got {work.span}, is at {self._at}"
        rows = work.item.values.copy()
        for side in work.side:
            assert side.span == work.span
            rows = rows * 1000 + side.values
        self._rows += rows.tolist()
        while len(self._rows) >= self.part:
            self._flush(self.part)
        return []

    def _flush(self, count: int) -> None:
        write(f"{self.spec.name}/{self.env.epoch}/{self._at}", self._rows[:count])
        self._rows = self._rows[count:]
        self._at += count

    def finish(self) -> list[Numbers]:
        if self._rows:
            self._flush(len(self._rows))
        return []

    def snapshot(self) -> Snapshot:
        return Snapshot(after=self._at, resume_from=self._at)

    def restore(self, snapshot: Snapshot) -> None:
        self._at = snapshot.after


class Keep(_Parts):
    spec = StageSpec(name="keep", version=1, takes=(Numbers,), gives=None, batch_frames=4)


class Log(_Parts):
    spec = StageSpec(name="log", version=1, takes=(Numbers, Numbers, Numbers), gives=None, batch_frames=4)
    part = 7


class Sound(StreamStage[StageConfig, PacketBatch, Numbers]):
    spec = StageSpec(name="sound", version=1, takes=(PacketBatch,), gives=None)

    def __init__(self, config: StageConfig) -> None:
        super().__init__(config)
        self._held: list[int] = []
        self._at = 0

    def process(self, work: Work[PacketBatch]) -> list[Numbers]:
        assert work.span.start == self._at + len(self._held)
        self._held += [len(p.data) for p in work.item.packets]
        while len(self._held) >= 3:
            write(f"sound/{self.env.epoch}/{self._at}", self._held[:3])
            self._held, self._at = self._held[3:], self._at + 3
        return []

    def finish(self) -> list[Numbers]:
        if self._held:
            write(f"sound/{self.env.epoch}/{self._at}", self._held)
            self._at, self._held = self._at + len(self._held), []
        return []

    def snapshot(self) -> Snapshot:
        return Snapshot(after=self._at, resume_from=self._at)

    def restore(self, snapshot: Snapshot) -> None:
        self._at = snapshot.resume_from


def _node(stage: type, *inputs: str) -> Node:
    edges = tuple(Edge(producer=name) for name in inputs)
    return Node(name=stage.spec.name, stage=stage, config=StageConfig(), inputs=edges)  # type: ignore[attr-defined]


GRAPH = Graph(
    name="toy",
    nodes=(
        _node(Split, "source"),
        _node(Sound, "source"),
        _node(Double, "split"),
        _node(Add, "double", "split"),
        _node(Blur, "split"),
        _node(Total, "add"),
        _node(Keep, "add"),
        _node(Log, "split", "blur", "total"),
    ),
)

PLANS: tuple[tuple[tuple[str, ...], ...], ...] = (
    tuple((node.name,) for node in GRAPH.nodes),
    (tuple(node.name for node in GRAPH.nodes),),
    (("split", "sound", "double", "blur"), ("add", "total", "keep", "log")),
    (("split", "double"), ("sound",), ("blur",), ("add", "keep"), ("total", "log")),
    (("split",), ("sound",), ("double", "add"), ("blur",), ("total",), ("keep", "log")),
)


def packets(counts: list[int], epoch: int = 0) -> list[PacketBatch]:
    """Return batches of two packets; packet i holds counts[i] frames."""
    made, frame = [], 0
    for number, count in enumerate(counts):
        values = [7 * (frame + i) % 31 for i in range(count)]
        frame += count
        data = json.dumps(values).encode()
        made.append(Packet(track=Track.VIDEO, pts=number, dts=number, duration=1, key=number % 4 == 0, data=data))
    return [
        PacketBatch(
            span=Span(stream=STREAM, epoch=epoch, start=i, stop=min(i + 2, len(made))),
            video=VIDEO,
            audio=None,
            packets=tuple(made[i : i + 2]),
            arrived_ns=0,
        )
        for i in range(0, len(made), 2)
    ]


def expected(counts: list[int], epoch: int = 0) -> dict[str, list[int]]:
    """Return what the sinks have to have written, computed without stages."""
    n = sum(counts)
    x = [7 * i % 31 for i in range(n)]
    added = [3 * v for v in x]
    blurred = [sum(x[max(0, i - 2) : i + 2]) for i in range(n)]
    totals = [sum(added[: i + 1]) for i in range(n)]
    logged = [(x[i] * 1000 + blurred[i]) * 1000 + totals[i] for i in range(n)]
    sizes = [len(p.data) for batch in packets(counts, epoch) for p in batch.packets]
    return {
        f"{name}/{epoch}/{at}": rows[at : at + part]
        for name, rows, part in (("keep", added, 5), ("log", logged, 7), ("sound", sizes, 3))
        for at in range(0, len(rows), part)
    }
