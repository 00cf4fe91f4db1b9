"""Pixel stability of an enhanced frame against its source, block by block, and the way back (spec §2.3).

Stability is judged in the source's band, at the source's size: y is the enhanced luma averaged down by s, x̂ the
bicubic up-scale averaged down likewise, x the source itself. Per block i of μ pixels:

    T_ij = (y_ij − x̂_ij) / (σ_i(x̂) + c),  t_i = 1 / (1 + 1/μ Σ_j T_ij²),  τ = 1/N Σ_i t_i       (spec §2.3, chosen)

c is 2/255 of full scale: 2 code values. Blocks at the right and bottom may be smaller; each counts once.

Above that band the source says nothing, and weights that are damaged show there first. What can still be asked is how
much enhancement added there (chosen; figures in docs/design.md): `detail`, the energy of y − x̂ above the source's band,
÷ (σ_i + c)². The mean over s × s cells is an orthogonal projection, so that energy is the mean square of the difference
at full size less that of the averaged one.

Shapes: H × W source luma, s scale, B × C = ⌈H/b⌉ × ⌈W/b⌉ blocks of b × b source pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.wire.frames import Size

BLOCK_PX = 16  # of the source (chosen); sums of squares of 16 × 16 bytes are exact in float32
FLOOR = 2.0  # c, code values


@dataclass(frozen=True, kw_only=True, slots=True)
class Stability:
    """What the blocks of one frame show.

    Attributes:
        stable: (B, C) t_i, float32 in (0, 1], 1 = equal to the conventional up-scale.
        excess: (B, C) float32 code values²: mean (y − x)² less mean (x̂ − x)²; above 0 where the enhanced picture,
            seen at the source's size, lies further from the source than the conventional one does.
        detail: (B, C) float32, at least 0; 0 at scale 1.
    """

    stable: NDArray[np.float32]
    excess: NDArray[np.float32]
    detail: NDArray[np.float32]

    @property
    def index(self) -> float:
        """τ, in (0, 1]."""
        return float(self.stable.mean(dtype=np.float64))


def measure(
    enhanced_HW: NDArray[np.uint8],
    conventional_HW: NDArray[np.uint8],
    source_HW: NDArray[np.uint8],
    scale: int,
    block_px: int = BLOCK_PX,
) -> Stability:
    """Return what the blocks of one frame show; the first two planes are (s·H, s·W), the source is (H, W)."""
    y_HW, plain_HW = in_source_band(enhanced_HW, scale), in_source_band(conventional_HW, scale)
    moved_BC = _mean_square(_difference(y_HW, plain_HW), block_px)
    enhanced_BC = _mean_square(_difference(y_HW, source_HW), block_px)
    plain_BC = _mean_square(_difference(plain_HW, source_HW), block_px)
    variance_BC = _mean_square(plain_HW, block_px) - np.square(_mean(plain_HW, block_px))
    room_BC = np.square(np.sqrt(np.maximum(variance_BC, 0)) + FLOOR)
    added_BC = _mean_square(_difference(enhanced_HW, conventional_HW), scale * block_px) - moved_BC
    return Stability(
        stable=(1 / (1 + moved_BC / room_BC)).astype(np.float32),
        excess=(enhanced_BC - plain_BC).astype(np.float32),
        detail=(np.maximum(added_BC, 0) / room_BC).astype(np.float32),
    )


def in_source_band(plane_HW: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Return a plane (s·H, s·W) low-passed to its source's band: the mean of each s × s cell, (H, W)."""
    height, width = plane_HW.shape
    out: NDArray[np.uint8] = cv2.resize(  # type: ignore[assignment]
        plane_HW, (width // scale, height // scale), interpolation=cv2.INTER_AREA
    )
    return out


def num_blocks(size: Size, block_px: int = BLOCK_PX) -> int:
    """Return B · C, the number of blocks of a source of `size`."""
    return -(-size.height_px // block_px) * -(-size.width_px // block_px)


def restore(
    enhanced_HW: NDArray[np.uint8],
    conventional_HW: NDArray[np.uint8],
    back_BC: NDArray[np.bool_],
    *,
    scale: int,
    block_px: int = BLOCK_PX,
) -> None:
    """Set the blocks `back_BC` of an enhanced plane (s·H, s·W) back to the conventional one, in place.

    Inside such a block the result is the conventional picture exactly; from its border the weight falls to 0 within
    half a block, so that no seam is seen. Where no neighbour goes back, not a byte changes.
    """
    side = scale * block_px
    height, width = enhanced_HW.shape
    for first, last in _runs(np.logical_or.reduce(back_BC, axis=1)):
        # One block more at each side holds the slope.
        rows = slice(max(0, first - 1), min(back_BC.shape[0], last + 1))
        touched = np.flatnonzero(back_BC[rows].any(axis=0))
        columns = slice(max(0, int(touched[0]) - 1), min(back_BC.shape[1], int(touched[-1]) + 2))
        part = (
            slice(rows.start * side, min(rows.stop * side, height)),
            slice(columns.start * side, min(columns.stop * side, width)),
        )
        kept_HW = enhanced_HW[part]
        weight_HW = _weights(back_BC[rows, columns], side)[: kept_HW.shape[0], : kept_HW.shape[1]]
        # blendLinear divides by the weights' sum + 1e-5; at weights 0 and 1 it still gives the byte itself.
        kept_HW[...] = cv2.blendLinear(conventional_HW[part], kept_HW, weight_HW, 1 - weight_HW)


def _weights(back_BC: NDArray[np.bool_], side: int) -> NDArray[np.float32]:
    """Return for each pixel of blocks of `side` how much of the conventional picture it takes, 0..1."""
    b, c = back_BC.shape
    # Bilinear between block centres is at least ¼ inside a block that goes back: times 4 it is 1 all over.
    smooth = cv2.resize(back_BC.astype(np.float32), (c * side, b * side), interpolation=cv2.INTER_LINEAR)
    out: NDArray[np.float32] = np.minimum(smooth * 4, 1, dtype=np.float32)
    return out


def _runs(rows_B: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the [first, last) of runs of set rows, joined where their slopes would meet (fewer than 2 rows apart)."""
    runs: list[tuple[int, int]] = []
    for i in np.flatnonzero(rows_B).tolist():
        if runs and i - runs[-1][1] < 2:
            runs[-1] = (runs[-1][0], i + 1)
        else:
            runs.append((i, i + 1))
    return runs


def _difference(a_HW: NDArray[np.uint8], b_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    out: NDArray[np.uint8] = cv2.absdiff(a_HW, b_HW)  # type: ignore[assignment]
    return out


def _mean_square(plane_HW: NDArray[np.uint8], block_px: int) -> NDArray[np.float64]:
    square_HW: NDArray[np.float32] = cv2.multiply(plane_HW, plane_HW, dtype=cv2.CV_32F)  # type: ignore[assignment]
    return _mean(square_HW, block_px)


def _mean(plane_HW: NDArray[np.uint8] | NDArray[np.float32], block_px: int) -> NDArray[np.float64]:
    """Return the mean of each block, exactly where sums stay below 2²⁴, which float32 holds (16 × 16 bytes squared)."""
    height, width = plane_HW.shape
    rows_BW = _sums(plane_HW, block_px)
    sums_BC = _sums(np.ascontiguousarray(rows_BW.T), block_px).T
    tall = np.minimum(block_px, height - np.arange(0, height, block_px))
    wide = np.minimum(block_px, width - np.arange(0, width, block_px))
    return sums_BC.astype(np.float64) / np.outer(tall, wide)


def _sums(x_HW: NDArray[np.uint8] | NDArray[np.float32], block_px: int) -> NDArray[np.float32]:
    """Return the sums of each `block_px` rows; the last may be of fewer."""
    height, width = x_HW.shape
    whole = height // block_px
    out_BW = np.empty((-(-height // block_px), width), np.float32)
    np.add.reduce(
        x_HW[: whole * block_px].reshape(whole, block_px, width), axis=1, dtype=np.float32, out=out_BW[:whole]
    )
    if whole < len(out_BW):
        np.add.reduce(x_HW[whole * block_px :], axis=0, dtype=np.float32, out=out_BW[whole])
    return out_BW
