"""How good a picture is, from its luma alone and without a reference; each score in [0, 1], 1 = best.

Shapes: y is (H, W) uint8, any size from 1×1. Costs are bounded: of pictures above `PIXELS`, blur and noise are measured
on evenly spread bands of rows at full resolution (they would change with the scale), light on every n-th pixel.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]

PIXELS = 80_000
"""Pixels looked at in each picture (chosen: on real clips it moves scores by 0.015 on average, 0.07 at most)."""

_BAND = 16


class Scores(NamedTuple):
    """What `score` says of one picture: three scores in [0, 1] (1 = best) and whether it is (nearly) black."""

    exposure: float
    sharpness: float
    noise: float
    black: bool


def score(y: U8, *, full_range: bool = False) -> Scores:
    """Return the scores of one picture; `full_range` says that black is 0 and white 255, not 16 and 235."""
    step = max(1, math.isqrt(y.size // PIXELS))
    sample = np.ascontiguousarray(y[::step, ::step])
    # cv2 counts ten times as fast as np.bincount, which makes int64 of every pixel first.
    histogram = np.asarray(cv2.calcHist([sample], [0], None, [256], [0, 256]), np.float32).ravel()
    return Scores(
        exposure=exposure(histogram, full_range=full_range),
        sharpness=sharpness(y),
        noise=noise_score(noise_sigma(y)),
        black=black(histogram, full_range=full_range),
    )


def _bands(length: int, across: int) -> list[slice]:
    """Return which of `length` lines of `across` pixels are looked at: all, or evenly spread bands of `_BAND`.

    Scores of small pictures are exact. A picture's bands are about its k equal parts' middles.
    """
    count = max(1, PIXELS // 2 // (across * _BAND))
    if count * _BAND >= length:
        return [slice(0, length)]
    starts = [(2 * i + 1) * length // (2 * count) - _BAND // 2 for i in range(count)]
    return [slice(s, s + _BAND) for s in starts]


def exposure(histogram: NDArray[np.float32], *, full_range: bool = False) -> float:
    """Return how well a picture is exposed, from its 256 counts of luma: mean × what is not clipped.

    The mean's term is 1 between 0.2 and 0.7 of the range and falls linearly to 0 at black and at white; the other is
    1 − (share of pixels within 1 % of white, beyond the 2 % that lamps and reflections have) × 2, at least 0 (chosen:
    photographers' rule of histogram and highlight clipping). Shadows at black do not count as clipped: letterbox bars
    and nights have them by right, and a picture that is too dark shows in the mean. Bars are left out of the mean.
    """
    low, high = (0, 255) if full_range else (16, 235)
    values = (np.arange(256) - low) / (high - low)
    lit = histogram * (values > 0.01)
    total = float(lit.sum())
    if total == 0:
        return 0.0
    # A picture that is all but black has few lit pixels: their mean counts only as far as they are many.
    share = min(1.0, 4 * total / float(histogram.sum()))
    mean = float((lit * np.clip(values, 0, 1)).sum()) / total * share
    clipped = float(histogram[values > 0.99].sum() / histogram.sum())
    term = min(1.0, mean / 0.2, (1 - mean) / 0.3)
    return float(np.clip(term * (1 - 2 * max(0.0, clipped - 0.02)), 0, 1))


def black(histogram: NDArray[np.float32], *, full_range: bool = False) -> bool:
    """Say whether (nearly) nothing but black is seen: 98 % of the pixels below 10 % of the range.

    Both figures are those of FFmpeg's filter blackdetect (picture_black_ratio_th, pixel_black_th).
    """
    low, high = (0, 255) if full_range else (16, 235)
    dark = float(histogram[: int(low + 0.1 * (high - low)) + 1].sum())
    return dark >= 0.98 * float(histogram.sum())


def sharpness(y: U8) -> float:
    """Return 1 − blur, blur after Crete et al., "The blur effect" (SPIE 6492, 2007): 0.5 to 0.85 on ordinary pictures.

    A picture is blurred once more (mean of 9 pixels, across, then down). Where that takes little of the variation
    between neighbours, the picture was blurred before: blur = 1 − Σ max(0, D − D_blurred) ÷ Σ D, the larger of both
    directions. It is a ratio, so contrast and content hardly matter. 0 where nothing varies or the picture is tiny.
    """
    if min(y.shape) < 3:
        return 0.0
    height, width = y.shape
    # Across on whole rows, down on whole columns: where bands are joined there are steps that the picture has not.
    rows = np.concatenate([y[band] for band in _bands(height, width)])
    columns = np.concatenate([y[:, band] for band in _bands(width, height)], axis=1)
    kept = []
    for strip, axis, kernel in ((rows, 1, (9, 1)), (columns, 0, (1, 9))):
        smooth = np.asarray(cv2.blur(strip, kernel), np.uint8)
        before, after = _steps(strip, axis), _steps(smooth, axis)
        total = cv2.sumElems(before)[0]
        if total == 0:
            return 0.0
        kept.append(cv2.sumElems(cv2.subtract(before, after))[0] / total)  # cv2.subtract stops at 0
    return float(min(kept))


def _steps(y: U8, axis: int) -> U8:
    steps: U8 = np.asarray(cv2.absdiff(y[1:], y[:-1]) if axis == 0 else cv2.absdiff(y[:, 1:], y[:, :-1]), np.uint8)
    return steps


def noise_sigma(y: U8) -> float:
    """Return the standard deviation of the noise in code values, after Immerkær (CVIU 64(2), 1996).

    σ = √(π/2) ÷ 6 × mean |y ∗ N|, N = [1 −2 1; −2 4 −2; 1 −2 1], which edges and slopes hardly excite. Texture does,
    so the mean is taken block by block, and the blocks' lower quartile counts (chosen), without blocks that are clipped
    to black or white, which lost their noise.
    """
    if min(y.shape) < 3:
        return 0.0
    means, levels = [], []
    for band in _bands(*y.shape):
        part = y[band]
        laplacian_x16 = cv2.sepFilter2D(part, cv2.CV_16S, _LAPLACE_X4, _LAPLACE_X4)[1:-1, 1:-1]
        blocks = (max(1, laplacian_x16.shape[1] // 16), max(1, laplacian_x16.shape[0] // 16))
        means.append(cv2.resize(np.abs(laplacian_x16), blocks, interpolation=cv2.INTER_AREA).ravel())
        levels.append(cv2.resize(part[1:-1, 1:-1], blocks, interpolation=cv2.INTER_AREA).ravel())
    mean, level = np.concatenate(means), np.concatenate(levels)
    usable = mean[(level > 17) & (level < 234)]
    if usable.size == 0:
        return 0.0
    return math.sqrt(math.pi / 2) / 6 * float(np.percentile(usable, 25)) / 16


# Four times each: means of int16 blocks are rounded, and 16 × 8 × 255 still fits.
_LAPLACE_X4 = np.array([4, -8, 4], np.float32)


def noise_score(sigma: float) -> float:
    """Return exp(−σ/10): 1 without noise, 0.61 at σ = 5 (a camera at dusk), 0.14 at σ = 20 (chosen)."""
    return math.exp(-sigma / 10)


def frozen(y: U8, previous: U8 | None) -> bool:
    """Say whether a picture equals the one before it, but for what coding the same picture again changes.

    Mean |difference| below 0.5 code values, and at most 1 pixel in 10,000 off by more than 8 (chosen, after FFmpeg's
    freezedetect, whose −60 dB are a mean of 0.26): the mean alone would miss one small thing that moves. A live picture
    of a still scene cannot be told from a frozen one once a codec has smoothed its noise. False where there is none
    before it, or one of another size.
    """
    if previous is None or previous.shape != y.shape:
        return False
    difference = cv2.absdiff(y, previous)
    if cv2.sumElems(difference)[0] >= 0.5 * y.size:
        return False
    return int(np.count_nonzero(difference > 8)) <= y.size // 10_000
