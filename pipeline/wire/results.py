"""What the stages say of frames. One row a frame; arrays are (N,) with N = len(span)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.wire.frames import FrameBatch
from pipeline.wire.ids import Span


def _rows(span: Span, **columns: NDArray[np.generic]) -> None:
    for name, column in columns.items():
        if column.shape[:1] != (len(span),):
            raise ValueError(f"{name} has {column.shape[:1]} rows, not {len(span)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class QualityReport:
    """How good the source's frames are.

    Attributes:
        span: which frames.
        exposure, sharpness, noise: (N,) float32 in [0, 1], 1 = best.
        black: (N,) bool, (nearly) nothing but black.
        frozen: (N,) bool, the picture equals the one before it.
    """

    span: Span
    exposure: NDArray[np.float32]
    sharpness: NDArray[np.float32]
    noise: NDArray[np.float32]
    black: NDArray[np.bool_]
    frozen: NDArray[np.bool_]

    def __post_init__(self) -> None:
        _rows(
            self.span,
            exposure=self.exposure,
            sharpness=self.sharpness,
            noise=self.noise,
            black=self.black,
            frozen=self.frozen,
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the columns."""
        return 14 * len(self.span)


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardReport:
    """What guard found and did.

    Attributes:
        span: which frames.
        enhanced: (N,) bool, whether anything of the enhanced picture was kept.
        stability: (N,) float32 in [0, 1], τ of spec §2.3, 1 = as stable as the source.
        restored_blocks: (N,) int32, blocks that were set back to the conventional up-scale.
        model_version: what enhanced them, "" if nothing did.
    """

    span: Span
    enhanced: NDArray[np.bool_]
    stability: NDArray[np.float32]
    restored_blocks: NDArray[np.int32]
    model_version: str

    def __post_init__(self) -> None:
        _rows(self.span, enhanced=self.enhanced, stability=self.stability, restored_blocks=self.restored_blocks)

    @property
    def nbytes(self) -> int:
        """Bytes of the columns."""
        return 9 * len(self.span)


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardResult:
    """Guard's output: the frames to encode, and what it did to them."""

    span: Span
    frames: FrameBatch
    report: GuardReport

    def __post_init__(self) -> None:
        if not self.span == self.frames.span == self.report.span:
            raise ValueError(f"{self.frames.span} and {self.report.span} are not both {self.span}")

    @property
    def nbytes(self) -> int:
        """Bytes of the pictures."""
        return self.frames.nbytes


@dataclass(frozen=True, kw_only=True, slots=True)
class RefineReport:
    """Which frames were refined.

    Attributes:
        span: which frames.
        refined: (N,) bool, whether TCSR refined it.
    """

    span: Span
    refined: NDArray[np.bool_]

    def __post_init__(self) -> None:
        _rows(self.span, refined=self.refined)

    @property
    def nbytes(self) -> int:
        """Bytes of the columns."""
        return len(self.span)


@dataclass(frozen=True, kw_only=True, slots=True)
class RefineResult:
    """Refine's output: the enhanced frames, some of them refined, and which."""

    span: Span
    frames: FrameBatch
    report: RefineReport

    def __post_init__(self) -> None:
        if not self.span == self.frames.span == self.report.span:
            raise ValueError(f"{self.frames.span} and {self.report.span} are not both {self.span}")

    @property
    def nbytes(self) -> int:
        """Bytes of the pictures."""
        return self.frames.nbytes
