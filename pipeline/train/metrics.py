"""How close an enhanced picture is to the true one: PSNR and SSIM on luma."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

PEAK = 255.0  # of 8-bit code values, whatever the signal's own range
BORDER_PX = 4  # left out on each side by the project's protocol


def psnr_db(one_HW: NDArray[np.uint8], other_HW: NDArray[np.uint8], *, border_px: int = BORDER_PX) -> float:
    """Return 10·log10(255² / mean squared difference) of two planes in dB; `inf` where they are equal.

    `border_px` pixels are left out on each side: what lies beyond the border is a guess of every up-scaler.
    """
    one, other = _inner(one_HW, border_px), _inner(other_HW, border_px)
    assert one.shape == other.shape, (one.shape, other.shape)
    mse = float(np.mean(np.square(one.astype(np.float64) - other)))
    return 10 * math.log10(PEAK**2 / mse) if mse else math.inf


def ssim(one_HW: NDArray[np.uint8], other_HW: NDArray[np.uint8], *, border_px: int = BORDER_PX) -> float:
    """Return the mean structural similarity of two planes, in −1..1; 1 where they are equal.

    Wang et al. 2004, §III-C: local moments in an 11×11 Gaussian window (σ 1.5, sum 1), C1 = (0.01·255)²,
    C2 = (0.03·255)², mean over all places where the window lies wholly inside. The inner planes must be at
    least 11×11.
    """
    one = _inner(one_HW, border_px).astype(np.float64)
    other = _inner(other_HW, border_px).astype(np.float64)
    assert one.shape == other.shape, (one.shape, other.shape)
    assert min(one.shape) >= 11, one.shape
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2

    def local(x: NDArray[np.float64]) -> NDArray[np.float64]:
        out: NDArray[np.float64] = cv2.GaussianBlur(x, (11, 11), 1.5)[5:-5, 5:-5]  # type: ignore[assignment]
        return out

    mean1, mean2 = local(one), local(other)
    var1 = local(one * one) - mean1**2
    var2 = local(other * other) - mean2**2
    cov = local(one * other) - mean1 * mean2
    # Eq. (13)
    index = (2 * mean1 * mean2 + c1) * (2 * cov + c2) / ((mean1**2 + mean2**2 + c1) * (var1 + var2 + c2))
    return float(index.mean())


def _inner(plane_HW: NDArray[np.uint8], border_px: int) -> NDArray[np.uint8]:
    height, width = plane_HW.shape
    return plane_HW[border_px : height - border_px, border_px : width - border_px]
