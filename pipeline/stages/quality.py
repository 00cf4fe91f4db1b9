"""quality: how good the source's frames are, a row a frame."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.stage import PooledStage, StageConfig, StageEnv, StageSpec, Work
from pipeline.vision import quality
from pipeline.wire.frames import FrameBatch
from pipeline.wire.results import QualityReport


@dataclass(frozen=True, kw_only=True, slots=True)
class QualityConfig(StageConfig):
    """Nothing to set: every score has one definition (vision/quality.py), so that streams can be compared."""


class Quality(PooledStage[QualityConfig, FrameBatch, QualityReport]):
    """Score exposure, sharpness and noise of each frame, and say which are black or equal the one before."""

    spec = StageSpec(
        name="quality",
        version=1,
        takes=(FrameBatch,),
        gives=QualityReport,
        batch_frames=8,
        halo_frames=(1, 0),
        latency_target_s=0.05,
    )
    Config = QualityConfig

    def open(self, env: StageEnv) -> None:
        """See Stage."""
        super().open(env)
        cv2.setNumThreads(env.threads)

    def process(self, work: Work[FrameBatch]) -> QualityReport:
        """Return the report on `work`'s frames; the epoch's first frame has none before it, so it is never frozen."""
        y_NHW = work.item.planes().y
        before = None if work.before is None else work.before.planes().y[-1]
        full_range = work.item.color.full_range
        scores = [quality.score(y, full_range=full_range) for y in y_NHW]
        previous = [before, *y_NHW[:-1]]
        return QualityReport(
            span=work.span,
            exposure=np.array([s.exposure for s in scores], np.float32),
            sharpness=np.array([s.sharpness for s in scores], np.float32),
            noise=np.array([s.noise for s in scores], np.float32),
            black=np.array([s.black for s in scores], np.bool_),
            frozen=np.array([quality.frozen(y, p) for y, p in zip(y_NHW, previous, strict=True)], np.bool_),
        )

    def bypass(self, work: Work[FrameBatch]) -> QualityReport:
        """Return a report that knows nothing: NaN, and neither black nor frozen."""
        n = len(work.span)
        unknown = np.full(n, np.nan, np.float32)
        no = np.zeros(n, np.bool_)
        return QualityReport(span=work.span, exposure=unknown, sharpness=unknown, noise=unknown, black=no, frozen=no)
