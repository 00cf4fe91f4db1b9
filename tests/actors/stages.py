"""A stage for tests on Ray: doubles pictures in a line of NumPy; waits, raises or dies where a test asks for it."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.stage import PooledStage, StageConfig, StageEnv, StageSpec, Work
from pipeline.wire.acks import Stamp
from pipeline.wire.frames import FrameBatch

_PATIENCE_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TwiceConfig(StageConfig):
    """Where to misbehave.

    `gate`: a file; batches from frame `gate_frame` on wait until it exists. `poison_frame`: the batch that holds it
    kills the process ("exit"), raises ("raise"), or is processed ("").
    """

    gate: str = ""
    gate_frame: int = 0
    poison_frame: int = -1
    poison: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuringConfig(TwiceConfig):
    """`deaths`: a directory with one file for each process that is still to die of the measurement."""

    deaths: str = ""


class Twice(PooledStage[TwiceConfig, FrameBatch, FrameBatch]):
    spec = StageSpec(name="twice", version=1, takes=(FrameBatch,), gives=FrameBatch, batch_frames=8)
    Config = TwiceConfig

    def process(self, work: Work[FrameBatch]) -> FrameBatch:
        """Return each pixel twice in both directions, 3 code values brighter."""
        config = self.config
        if config.gate and work.span.stop > config.gate_frame:
            until = time.monotonic() + _PATIENCE_S
            while not Path(config.gate).exists():
                assert time.monotonic() < until, "nobody opened the gate"
                threading.Event().wait(0.01)
        if work.span.start <= config.poison_frame < work.span.stop:
            if config.poison == "exit":
                os._exit(7)
            if config.poison == "raise":
                raise ValueError("poison")
        return _doubled(work.item, 3)

    def bypass(self, work: Work[FrameBatch]) -> FrameBatch:
        """Return each pixel twice, no brighter: what was passed over can be seen."""
        return _doubled(work.item, 0)


class Measuring(Twice):
    """Twice, with something to choose when a stream begins: it measures, and may die of it."""

    spec = StageSpec(
        name="measuring", version=1, takes=(FrameBatch,), gives=FrameBatch, batch_frames=8, models=("toy",)
    )
    Config = MeasuringConfig

    def open(self, env: StageEnv) -> None:
        super().open(env)
        for death in sorted(Path(self.config.deaths).iterdir())[:1]:
            death.unlink()
            os._exit(7)

    def stamp(self) -> Stamp:
        return Stamp(model="toy@1", runtime="measured", threads=1)


class Slow(Twice):
    """Twice, in 60 ms a batch that take no CPU: a worker more is capacity more, whatever the machine has."""

    spec = StageSpec(name="slow", version=1, takes=(FrameBatch,), gives=FrameBatch, batch_frames=8)

    def process(self, work: Work[FrameBatch]) -> FrameBatch:
        threading.Event().wait(0.06)
        return super().process(work)


def _doubled(batch: FrameBatch, brighter: int) -> FrameBatch:
    planes = [p.repeat(2, axis=1).repeat(2, axis=2) for p in batch.planes()]
    planes[0] = np.minimum(planes[0], 255 - brighter) + np.uint8(brighter)
    n = len(batch)
    data = np.concatenate([p.reshape(n, -1) for p in planes], axis=1)
    return replace(batch, size=batch.size.times(2), data=data)
