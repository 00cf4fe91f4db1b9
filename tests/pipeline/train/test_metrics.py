"""PSNR and SSIM against values derived by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.train.metrics import psnr_db, ssim


def test_psnr_of_a_difference_of_5_everywhere() -> None:
    """MSE 25: 10·log10(65025 / 25) = 10·log10(2601) = 34.151 dB."""
    one = np.full((32, 32), 100, np.uint8)
    assert psnr_db(one, one + 5) == pytest.approx(34.1514, abs=1e-4)


def test_psnr_of_one_wrong_pixel() -> None:
    """16×16 inside a border of 4, one pixel off by 16: MSE 256/256 = 1, 10·log10(65025) = 48.131 dB."""
    one = np.zeros((24, 24), np.uint8)
    other = one.copy()
    other[10, 10] = 16
    assert psnr_db(one, other) == pytest.approx(48.1308, abs=1e-4)


def test_psnr_takes_negative_differences_for_what_they_are() -> None:
    """uint8 would wrap 0 − 5 to 251."""
    one = np.full((16, 16), 100, np.uint8)
    assert psnr_db(one, one - 5) == psnr_db(one - 5, one) == pytest.approx(34.1514, abs=1e-4)


def test_the_border_does_not_count() -> None:
    one = np.full((32, 32), 100, np.uint8)
    other = one.copy()
    other[:4] = other[-4:] = 0
    other[:, :4] = other[:, -4:] = 0
    assert psnr_db(one, other) == math.inf
    assert ssim(one, other) == pytest.approx(1.0)
    assert psnr_db(one, other, border_px=3) < 40


def test_ssim_of_two_flat_planes_is_the_luminance_term() -> None:
    """(2·100·110 + 6.5025) / (100² + 110² + 6.5025) = 22006.5025 / 22106.5025 = 0.995476; no variance: × C2/C2."""
    one = np.full((32, 32), 100, np.uint8)
    assert ssim(one, one + 10) == pytest.approx(0.995476, abs=1e-6)


def test_ssim_of_a_pattern_and_its_negative_is_the_structure_term() -> None:
    """Chequers of 128 ± 10 against 128 ∓ 10: variances 100, covariance −100, means equal:
    (−200 + 58.5225) / (200 + 58.5225) = −0.547254."""
    rows, columns = np.indices((40, 40))
    sign = np.where((rows + columns) % 2, 1, -1)
    one, other = (128 + 10 * sign).astype(np.uint8), (128 - 10 * sign).astype(np.uint8)
    assert ssim(one, one) == pytest.approx(1.0)
    assert ssim(one, other) == pytest.approx(-0.547254, abs=1e-4)


def test_ssim_window_weighs_as_a_gaussian_of_sigma_one_and_a_half() -> None:
    """One place only (11×11 inside no border), a lone pixel of 255 in its middle against black.

    The middle weight is g² with g = 1 / Σ exp(−i² / 4.5), i = −5…5 : Σ = 1 + 2·(0.800737 + 0.411112 + 0.135335 +
    0.028566 + 0.003866) = 3.759232, g = 0.266012, w = 0.0707622. Mean 255·w = 18.04436, variance
    255²·w − mean² = 4601.31 − 325.599 = 4275.71. SSIM = C1/(mean² + C1) · C2/(variance + C2)
    = 6.5025/332.101 · 58.5225/4334.24 = 0.0195799 · 0.0135024 = 0.000264376.
    """
    one = np.zeros((11, 11), np.uint8)
    other = one.copy()
    other[5, 5] = 255
    assert ssim(one, other, border_px=0) == pytest.approx(0.000264376, rel=1e-3)
