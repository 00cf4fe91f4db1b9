"""Decoded pictures: consecutive frames of one stream, planar YUV 4:2:0."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.wire.ids import Span


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """Width and height of the luma plane in pixels; odd is legal."""

    width_px: int
    height_px: int

    def __post_init__(self) -> None:
        if self.width_px < 1 or self.height_px < 1:
            raise ValueError(f"not a size: {self.width_px}×{self.height_px}")

    def __str__(self) -> str:
        return f"{self.width_px}×{self.height_px}"

    @property
    def chroma(self) -> Size:
        """The size of each chroma plane: half, rounded up."""
        return Size(width_px=(self.width_px + 1) // 2, height_px=(self.height_px + 1) // 2)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one I420 frame without padding."""
        c = self.chroma
        return self.width_px * self.height_px + 2 * c.width_px * c.height_px

    def times(self, scale: int) -> Size:
        """Return this size times an integer."""
        return Size(width_px=self.width_px * scale, height_px=self.height_px * scale)


@dataclass(frozen=True, kw_only=True, slots=True)
class ColorSpec:
    """What the code values mean, as ITU-T H.273 codes; 2 is "unspecified".

    `full_range` is the sample range: False is 16–235 (luma), True is 0–255.
    """

    matrix: int = 2
    primaries: int = 2
    transfer: int = 2
    full_range: bool = False


class Planes(NamedTuple):
    """Views of a batch: y (N, H, W), u and v (N, ⌈H/2⌉, ⌈W/2⌉), uint8."""

    y: NDArray[np.uint8]
    u: NDArray[np.uint8]
    v: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameBatch:
    """Consecutive frames of one stream, I420, 8 bit.

    Attributes:
        span: which frames these are (N = len(span)).
        size: of luma.
        color: what the code values mean.
        time_base: seconds a tick.
        pts: (N,) int64 ticks, strictly increasing.
        duration: (N,) int64 ticks that a frame stays; 0 where the source does not say (then: until the next).
        captured_ns: (N,) int64 Unix time of capture or arrival; for latency and labels only, never content time.
        keyframe: (N,) bool, the source's random-access points.
        data: (N, size.frame_bytes) uint8, I420 without padding, C-contiguous.
    """

    span: Span
    size: Size
    color: ColorSpec
    time_base: Fraction
    pts: NDArray[np.int64]
    duration: NDArray[np.int64]
    captured_ns: NDArray[np.int64]
    keyframe: NDArray[np.bool_]
    data: NDArray[np.uint8]

    def __post_init__(self) -> None:
        n = len(self.span)
        if n < 1:
            raise ValueError("a batch holds at least one frame")
        for name, shape in (("pts", (n,)), ("duration", (n,)), ("captured_ns", (n,)), ("keyframe", (n,))):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, not {shape}")
        if self.data.shape != (n, self.size.frame_bytes) or self.data.dtype != np.uint8:
            raise ValueError(f"data is {self.data.dtype}{self.data.shape}, not uint8({n}, {self.size.frame_bytes})")
        if not self.data.flags.c_contiguous:
            raise ValueError("data is not contiguous")
        if n > 1 and not bool(np.all(np.diff(self.pts) > 0)):
            raise ValueError("pts do not increase strictly")

    def __len__(self) -> int:
        return len(self.span)

    @property
    def nbytes(self) -> int:
        """Bytes of the pictures."""
        return int(self.data.nbytes)

    def planes(self) -> Planes:
        """Return y, u, v of all frames as views, never copies."""
        n, c = len(self), self.size.chroma
        luma, chroma = self.size.width_px * self.size.height_px, c.width_px * c.height_px
        return Planes(
            y=self.data[:, :luma].reshape(n, self.size.height_px, self.size.width_px),
            u=self.data[:, luma : luma + chroma].reshape(n, c.height_px, c.width_px),
            v=self.data[:, luma + chroma :].reshape(n, c.height_px, c.width_px),
        )

    def cut(self, start: int, stop: int) -> FrameBatch:
        """Return the frames [start, stop) (sequence numbers) as views; they must lie inside the span."""
        if (start, stop) == (self.span.start, self.span.stop):
            return self
        inner = self.span.part(start, stop)
        if not self.span.covers(inner):
            raise ValueError(f"{inner} is not inside {self.span}")
        part = slice(start - self.span.start, stop - self.span.start)
        return replace(
            self,
            span=inner,
            pts=self.pts[part],
            duration=self.duration[part],
            captured_ns=self.captured_ns[part],
            keyframe=self.keyframe[part],
            data=self.data[part],
        )

    @staticmethod
    def join(parts: Sequence[FrameBatch]) -> FrameBatch:
        """Return consecutive batches as one; a single part is returned as it is, without a copy."""
        if len(parts) == 1:
            return parts[0]
        first, last = parts[0], parts[-1]
        for a, b in itertools.pairwise(parts):
            if a.span.stop != b.span.start or a.size != b.size:
                raise ValueError(f"{b.span} does not continue {a.span}")
        return replace(
            first,
            span=first.span.part(first.span.start, last.span.stop),
            pts=np.concatenate([p.pts for p in parts]),
            duration=np.concatenate([p.duration for p in parts]),
            captured_ns=np.concatenate([p.captured_ns for p in parts]),
            keyframe=np.concatenate([p.keyframe for p in parts]),
            data=np.concatenate([p.data for p in parts]),
        )
