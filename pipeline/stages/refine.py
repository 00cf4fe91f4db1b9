"""Refine: some of the enhanced frames, refined by TCSR with their neighbours (spec §1)."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, ModelError
from pipeline.models import model_path
from pipeline.stage import PooledStage, Resources, StageConfig, StageEnv, StageSpec, Work
from pipeline.wire.acks import CONVENTIONAL_RUNTIME, Stamp
from pipeline.wire.frames import FrameBatch, Size
from pipeline.wire.ids import Span
from pipeline.wire.results import RefineReport, RefineResult

if TYPE_CHECKING:
    from pipeline.models.runtime.refiner import Refiner
    from pipeline.models.tcsr import Tcsr

FAMILY = "tcsr"
"""Name of the shipped model of whatever scale is asked for, in `RefineConfig.model`."""

NUM_ENGINES = 4  # ready at a time, one a frame size: streams of several sizes share a worker
HALO = 1  # frames on each side that the flow supplies, and a model looks at


@dataclass(frozen=True, kw_only=True, slots=True)
class RefineConfig(StageConfig):
    """How many frames are refined, and by what."""

    budget: float = 0.0  # share of the frames, 0 to 1; one costs fifteen times what enhance does in int8
    scale: int = 2  # of the frames against the source, 2 to 4; a model has one
    model: str = FAMILY  # or a shipped model's name, or a model file's path
    threads: int = 0  # of the network, where the work brings no stamp; 0: as many as the worker has

    def __post_init__(self) -> None:
        if not 0 <= self.budget <= 1:
            raise ConfigError(f"budget is {self.budget!r}", where="refine.budget", hint="use 0 to 1")
        if type(self.threads) is not int or not 0 <= self.threads <= 256:
            raise ConfigError(f"threads is {self.threads!r}", where="refine.threads", hint="use 0 to 256")


class Refine(PooledStage[RefineConfig, FrameBatch, RefineResult]):
    """The batch with the luma of `budget` of its frames refined; all else is kept.

    Frames are picked evenly by their number, whatever they show *(chosen: picking by gain needs its prediction)*. The
    motion is found between enhanced frames averaged down to the source's size: the flow supplies neighbours of the
    driving input only, not of the source. At an epoch's ends a missing neighbour is the frame itself.
    """

    spec = StageSpec(
        name="refine",
        version=1,
        takes=(FrameBatch,),
        gives=RefineResult,
        batch_frames=8,
        halo_frames=(HALO, HALO),
        resources=Resources(cpus=1),
        latency_target_s=0.3,
        models=("tcsr",),
    )
    Config = RefineConfig

    def open(self, env: StageEnv) -> None:
        """Load the weights.

        Raises:
            ModelError, Unreachable: the model cannot be read, is of another scale, or looks further than one frame.
        """
        super().open(env)
        from pipeline.models.load import load_tcsr  # noqa: PLC0415  # PyTorch; see pipeline.models

        cv2.setNumThreads(env.threads)
        path = model_path(self.config.model, self.config.scale)
        _, net = load_tcsr(path)
        if net.config.scale != self.config.scale:
            raise ModelError(
                f"the model is for frames up-scaled by {net.config.scale}, not by {self.config.scale}",
                where=str(path),
                hint=f"set enhance.scale to {net.config.scale}, or refine.budget to 0",
            )
        if net.config.k != HALO:
            raise ModelError(
                f"the model looks at {net.config.k} frames on each side", where=str(path), hint="train one with k 1"
            )
        self._net: Tcsr = net.to(env.device)
        self._refiners: OrderedDict[tuple[Size, int], Refiner] = OrderedDict()

    def process(self, work: Work[FrameBatch]) -> RefineResult:
        """Return the batch with the picked frames refined; as it is where no network enhanced it."""
        batch, stamp = work.item, work.stamp
        picked = picked_frames(work.span, self.config.budget)
        if stamp.runtime == CONVENTIONAL_RUNTIME or "enhance" in stamp.set_aside or not picked.any():
            return _unrefined(batch)
        refiner = self._refiner(batch.size, self._threads(stamp))
        out = replace(batch, data=batch.data.copy())
        y_NHW, refined_NHW = batch.planes().y, out.planes().y
        before = y_NHW[0] if work.before is None else work.before.planes().y[-1]
        after = y_NHW[-1] if work.after is None else work.after.planes().y[0]
        around = [before, *y_NHW, after]
        for i in np.flatnonzero(picked):
            neighbours = (around[i], around[i + 2])
            refined_NHW[i] = refiner.refine(y_NHW[i], neighbours)
        return RefineResult(span=work.span, frames=out, report=RefineReport(span=work.span, refined=picked))

    def bypass(self, work: Work[FrameBatch]) -> RefineResult:
        """Return the enhanced frames as they are."""
        return _unrefined(work.item)

    def close(self) -> None:
        """Let go of the compiled networks."""
        self._refiners = OrderedDict()

    def _threads(self, stamp: Stamp) -> int:
        return stamp.threads if stamp.runtime else self.config.threads or self.env.threads

    def _refiner(self, size: Size, threads: int) -> Refiner:
        from pipeline.models.runtime.refiner import open_refiner  # noqa: PLC0415  # PyTorch, loaded at `open`

        key = (size, threads)
        if key not in self._refiners:
            self._refiners[key] = open_refiner(self._net, size, device=self.env.device, threads=threads)
            if len(self._refiners) > NUM_ENGINES:
                self._refiners.popitem(last=False)
        self._refiners.move_to_end(key)
        return self._refiners[key]


def picked_frames(span: Span, budget: float) -> NDArray[np.bool_]:
    """Return which frames of `span` are refined (N,): evenly spaced by number, of the first n frames ⌊n · budget⌋."""
    counts = [math.floor(n * budget) for n in range(span.start, span.stop + 1)]
    return np.diff(counts) > 0


def _unrefined(batch: FrameBatch) -> RefineResult:
    report = RefineReport(span=batch.span, refined=np.zeros(len(batch), np.bool_))
    return RefineResult(span=batch.span, frames=batch, report=report)
