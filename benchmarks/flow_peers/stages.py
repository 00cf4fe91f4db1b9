"""The stages as Limpid's own, for its graphs: `settings.stage_modules` names this module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from flow_peers.load import WORKERS, Log, make_frames, work
from pipeline.stage import PooledStage, StageConfig, StageEnv, StageSpec, StreamStage, Work
from pipeline.wire.acks import Snapshot
from pipeline.wire.frames import ColorSpec, FrameBatch, Size
from pipeline.wire.ids import Span
from pipeline.wire.packets import PacketBatch

SIZE = Size(width_px=1280, height_px=720)
DURABLE_FRAMES = 48  # the sink says "durable" in steps of two seconds, as encode does with its segments


@dataclass(frozen=True, kw_only=True, slots=True)
class MakeConfig(StageConfig):
    folder: str = ""  # for the logs


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkConfig(StageConfig):
    spin_ms: float = 0.0  # of CPU time a frame
    folder: str = ""  # for the logs
    number: int = 1  # of the stage


@dataclass(frozen=True, kw_only=True, slots=True)
class CountConfig(StageConfig):
    folder: str = ""  # for the logs


class Make1(StreamStage[MakeConfig, PacketBatch, FrameBatch]):
    """Makes a frame of every packet, in batches on a grid, as decode does."""

    spec = StageSpec(name="make", version=1, takes=(PacketBatch,), gives=FrameBatch, batch_frames=1)
    Config = MakeConfig

    def open(self, env: StageEnv) -> None:
        super().open(env)
        self._given = self._taken = 0
        self._log = Log(self.config.folder, 0)

    def process(self, work: Work[PacketBatch]) -> Sequence[FrameBatch]:
        self._taken = work.span.stop
        return self._give(self._taken - self._taken % self.spec.batch_frames)

    def finish(self) -> Sequence[FrameBatch]:
        return self._give(self._taken)

    def snapshot(self) -> Snapshot:
        return Snapshot(after=self._given, resume_from=self._given)

    def restore(self, snapshot: Snapshot) -> None:
        self._given = self._taken = snapshot.after

    def _give(self, stop: int) -> list[FrameBatch]:
        out = []
        assert self.env.stream is not None
        while self._given < stop:
            end = min(stop, self._given + self.spec.batch_frames)
            numbers = np.arange(self._given, end, dtype=np.int64)
            out.append(
                FrameBatch(
                    span=Span(stream=self.env.stream, epoch=self.env.epoch, start=self._given, stop=end),
                    size=SIZE,
                    color=ColorSpec(),
                    time_base=Fraction(1, 25),
                    pts=numbers,
                    duration=np.ones_like(numbers),
                    captured_ns=np.zeros_like(numbers),
                    keyframe=np.zeros(len(numbers), np.bool_),
                    data=make_frames(numbers.tolist()),
                )
            )
            self._log.done(out[-1].data)
            self._given = end
        return out


class Work1(PooledStage[WorkConfig, FrameBatch, FrameBatch]):
    """Looks at the frames, uses CPU time, gives them on."""

    spec = StageSpec(name="work", version=1, takes=(FrameBatch,), gives=FrameBatch, batch_frames=1)
    Config = WorkConfig

    def open(self, env: StageEnv) -> None:
        super().open(env)
        self._log = Log(self.config.folder, self.config.number)

    def process(self, work_: Work[FrameBatch]) -> FrameBatch:
        work(work_.item.data, self.config.spin_ms)
        self._log.done(work_.item.data)
        return work_.item


class Count1(StreamStage[CountConfig, FrameBatch, None]):
    """Notes when each frame came."""

    spec = StageSpec(name="count", version=1, takes=(FrameBatch,), gives=None, batch_frames=1)
    Config = CountConfig

    def open(self, env: StageEnv) -> None:
        super().open(env)
        self._log = Log(self.config.folder, WORKERS + 1)
        self._taken = 0
        self._ended = False

    def process(self, work_: Work[FrameBatch]) -> Sequence[None]:
        work(work_.item.data, 0.0)
        self._log.done(work_.item.data)
        self._taken = work_.span.stop
        return ()

    def finish(self) -> Sequence[None]:
        self._ended = True
        return ()

    def snapshot(self) -> Snapshot:
        durable = self._taken if self._ended else self._taken - self._taken % DURABLE_FRAMES
        return Snapshot(after=durable, resume_from=durable)

    def restore(self, snapshot: Snapshot) -> None:
        self._taken = snapshot.after


class Make4(Make1):
    spec = StageSpec(name="make", version=1, takes=(PacketBatch,), gives=FrameBatch, batch_frames=4)


class Work4(Work1):
    spec = StageSpec(name="work", version=1, takes=(FrameBatch,), gives=FrameBatch, batch_frames=4)


class Count4(Count1):
    spec = StageSpec(name="count", version=1, takes=(FrameBatch,), gives=None, batch_frames=4)


class Make8(Make1):
    spec = StageSpec(name="make", version=1, takes=(PacketBatch,), gives=FrameBatch, batch_frames=8)


class Work8(Work1):
    spec = StageSpec(name="work", version=1, takes=(FrameBatch,), gives=FrameBatch, batch_frames=8)


class Count8(Count1):
    spec = StageSpec(name="count", version=1, takes=(FrameBatch,), gives=None, batch_frames=8)


def graph(*, batch: int, spin_ms: float, folder: str) -> str:
    """Return the graph as YAML; stages write their logs into `folder`."""
    module = "flow_peers.stages"
    lines = ["name: flow", "stages:"]
    lines.append(f"  - {{stage: '{module}:Make{batch}', name: make, after: source, config: {{folder: '{folder}'}}}}")
    before = "make"
    for n in range(1, WORKERS + 1):
        config = f"{{spin_ms: {spin_ms}, folder: '{folder}', number: {n}}}"
        lines.append(f"  - {{stage: '{module}:Work{batch}', name: work{n}, after: {before}, config: {config}}}")
        before = f"work{n}"
    lines.append(
        f"  - {{stage: '{module}:Count{batch}', name: count, after: {before}, config: {{folder: '{folder}'}}}}"
    )
    return "\n".join(lines) + "\n"
