"""Guard: what enhancement made worse goes back to the bicubic up-scale, block by block (spec §2.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.stage import PooledStage, Resources, StageConfig, StageEnv, StageSpec, Work
from pipeline.vision.stability import Stability, measure, num_blocks, restore
from pipeline.vision.upscale import bicubic, upscale
from pipeline.wire.acks import CONVENTIONAL_RUNTIME
from pipeline.wire.frames import FrameBatch
from pipeline.wire.ids import Span
from pipeline.wire.results import GuardReport, GuardResult


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardConfig(StageConfig):
    """When a block goes back, and when the whole frame does; measured, see docs/design.md §7."""

    stability: float = 0.9  # below this t_i (0..1) a block goes back; 0: never
    tolerance: float = 1.5  # code values; how much further from the source, root mean square, a block may lie
    detail: float = 0.5  # of Stability.detail, that a block may have
    frame_share: float = 0.15  # of the blocks: where more go back, the others are not believed either
    frame_detail: float = 0.07  # of Stability.detail, that the mean of the blocks that are left may have

    def __post_init__(self) -> None:
        limits = {
            "stability": (0, 1),
            "tolerance": (0, 255),
            "detail": (0, math.inf),
            "frame_share": (0, 1),
            "frame_detail": (0, math.inf),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value!r}", where=f"guard.{name}", hint=f"use {low:g} to {high:g}")


class Guard(PooledStage[GuardConfig, FrameBatch, GuardResult]):
    """The enhanced frames, never worse than bicubic where the source can tell; first input enhanced, second source."""

    spec = StageSpec(
        name="guard",
        version=1,
        takes=(FrameBatch, FrameBatch),
        gives=GuardResult,
        batch_frames=8,
        resources=Resources(cpus=1),
        latency_target_s=0.05,
    )
    Config = GuardConfig

    def open(self, env: StageEnv) -> None:
        super().open(env)
        cv2.setNumThreads(env.threads)

    def process(self, work: Work[FrameBatch]) -> GuardResult:
        """Return the frames to encode and what was done; the enhanced batch itself where nothing goes back."""
        enhanced, (source,) = work.item, work.side
        scale = _scale(enhanced, source)
        n = len(enhanced)
        if work.stamp.runtime == CONVENTIONAL_RUNTIME:  # it is what it would be compared with
            return GuardResult(span=work.span, frames=enhanced, report=_conventional(work.span, n, restored=0))
        stability, restored, kept = np.empty(n, np.float32), np.zeros(n, np.int32), np.ones(n, np.bool_)
        data = enhanced.data
        plain_HW = np.empty((enhanced.size.height_px, enhanced.size.width_px), np.uint8)
        source_NHW, enhanced_NHW = source.planes().y, enhanced.planes().y
        for i, source_HW in enumerate(source_NHW):
            bicubic(source_HW, scale, plain_HW)
            found = measure(enhanced_NHW[i], plain_HW, source_HW, scale)
            stability[i] = found.index
            back_BC = self._back(found)
            restored[i] = np.count_nonzero(back_BC)
            kept[i] = restored[i] < back_BC.size
            if restored[i]:
                if data is enhanced.data:
                    data = enhanced.data.copy()
                y_HW = data[i, : plain_HW.size].reshape(plain_HW.shape)
                restore(y_HW, plain_HW, back_BC, scale=scale)
        frames = enhanced if data is enhanced.data else replace(enhanced, data=data)
        set_aside = "enhance" in work.stamp.set_aside
        return GuardResult(
            span=work.span,
            frames=frames,
            report=GuardReport(
                span=work.span,
                enhanced=kept & (not set_aside),
                stability=stability,
                restored_blocks=restored,
                model_version="" if set_aside else work.stamp.model,
            ),
        )

    def _back(self, found: Stability) -> NDArray[np.bool_]:
        """Return (B, C) which blocks go back: bad ones, or all of a frame that does not look enhanced."""
        config = self.config
        back_BC = (
            (found.stable < config.stability) | (found.excess > config.tolerance**2) | (found.detail > config.detail)
        )
        if back_BC.all():
            return back_BC
        share, detail = float(back_BC.mean()), float(found.detail[~back_BC].mean())
        if share > config.frame_share or detail > config.frame_detail:
            back_BC[:] = True
        return back_BC

    def bypass(self, work: Work[FrameBatch]) -> GuardResult:
        """Return the bicubic up-scale of the source: all blocks are set back."""
        (source,) = work.side
        n = len(source)
        return GuardResult(
            span=work.span,
            frames=upscale(source, _scale(work.item, source)),
            report=_conventional(work.span, n, restored=num_blocks(source.size)),
        )


def _conventional(span: Span, n: int, *, restored: int) -> GuardReport:
    return GuardReport(
        span=span,
        enhanced=np.zeros(n, np.bool_),
        stability=np.ones(n, np.float32),
        restored_blocks=np.full(n, restored, np.int32),
        model_version="",
    )


def _scale(enhanced: FrameBatch, source: FrameBatch) -> int:
    scale = enhanced.size.width_px // source.size.width_px
    assert enhanced.size == source.size.times(scale), f"{enhanced.size} is no multiple of {source.size}"
    assert enhanced.span == source.span, f"{enhanced.span} is not {source.span}"
    return scale
