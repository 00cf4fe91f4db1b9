"""Scores on rendered pictures whose degradation is known."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.vision import quality
from pipeline.vision.quality import frozen, noise_score, noise_sigma, score

U8 = NDArray[np.uint8]


def scene(height: int = 360, width: int = 640) -> U8:
    """Shaded discs and bars of all sizes: sharp, well exposed, without noise."""
    rng = np.random.default_rng(7)
    y = np.tile(np.linspace(60, 140, width), (height, 1)).astype(np.uint8)
    for _ in range(150):
        x, z, r = int(rng.integers(width)), int(rng.integers(height)), int(rng.integers(2, max(3, height // 8)))
        color = int(rng.integers(40, 210))
        if rng.random() < 0.5:
            cv2.circle(y, (x, z), r, color, -1)
        else:
            cv2.rectangle(y, (x, z), (x + 2 * r, z + r), color, -1)
    return y


def noisy(y: U8, sigma: float) -> U8:
    rng = np.random.default_rng(1)
    return np.clip(np.rint(y + rng.normal(0, sigma, y.shape)), 0, 255).astype(np.uint8)


def blurred(y: U8, sigma: float) -> U8:
    return np.asarray(cv2.GaussianBlur(y, (0, 0), sigma), np.uint8)


def gained(y: U8, gain: float) -> U8:
    return np.clip((y - 16.0) * gain + 16, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(180, 320), (360, 640), (720, 1280)])
def test_blur_lowers_sharpness_step_by_step(size: tuple[int, int]) -> None:
    y = scene(*size)
    scores = [score(y).sharpness] + [score(blurred(y, s)).sharpness for s in (0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)]
    assert all(a > b for a, b in itertools.pairwise(scores))
    assert scores[0] > 0.7 and scores[-1] < 0.2


def test_sharpness_does_not_depend_on_contrast() -> None:
    y = scene()
    assert score(gained(y, 0.5)).sharpness == pytest.approx(score(y).sharpness, abs=0.05)


@pytest.mark.parametrize("sigma", [2.0, 5.0, 10.0, 20.0])
def test_the_noise_that_was_added_is_found(sigma: float) -> None:
    """Gaussian noise of known σ on smooth shading: within 10 % (the lower quartile of the blocks lies a little low)."""
    smooth = np.tile(np.linspace(80, 160, 640), (360, 1)).astype(np.uint8)
    assert noise_sigma(noisy(smooth, sigma)) == pytest.approx(sigma, rel=0.1)


def test_noise_lowers_the_noise_score_step_by_step_also_on_texture() -> None:
    scores = [score(noisy(scene(), s)).noise for s in (0, 1, 2, 4, 8, 16, 32)]
    assert all(a > b for a, b in itertools.pairwise(scores))
    assert scores[0] > 0.95 and scores[-1] < 0.1


def test_the_noise_score_is_the_formula() -> None:
    assert noise_score(0.0) == 1.0
    assert noise_score(10.0) == pytest.approx(1 / math.e)


def test_over_and_under_exposure_lower_the_exposure_score() -> None:
    y = scene()
    assert score(y).exposure > 0.95
    over = [score(gained(y, g)).exposure for g in (1.0, 1.6, 1.8, 2.0, 2.5)]
    under = [score(gained(y, g)).exposure for g in (1.0, 0.3, 0.2, 0.1, 0.05)]
    for scores in (over, under):
        assert all(a > b for a, b in itertools.pairwise(scores))
    assert over[-1] < 0.1 and under[-1] < 0.2


@pytest.mark.parametrize(("level", "expected"), [(126, 1.0), (16, 0.0), (235, 0.0), (38, 0.5), (202, 0.5)])
def test_the_mean_of_an_even_picture_decides(level: int, expected: float) -> None:
    """Levels of the range 16–235: 126 → 0.50 (inside 0.2–0.7); 38 → 0.10 = half of 0.2; 202 → 0.85, half of 0.3 from
    white; 16 and 235 are black and white themselves.
    """
    assert score(np.full((90, 160), level, np.uint8)).exposure == pytest.approx(expected, abs=0.01)


def test_letterbox_bars_do_not_count_as_dark() -> None:
    y = scene()
    boxed = y.copy()
    boxed[:60] = boxed[-60:] = 16
    assert score(boxed).exposure == pytest.approx(score(y[60:-60]).exposure, abs=0.02)
    assert not score(boxed).black


def test_black_is_black_in_both_ranges() -> None:
    dark = noisy(np.full((90, 160), 17, np.uint8), 3)
    assert score(dark).black
    assert not score(np.full((90, 160), 60, np.uint8)).black
    thirty = np.full((90, 160), 30, np.uint8)  # 6 % of 16–235, but 12 % of 0–255
    assert score(thirty).black and not score(thirty, full_range=True).black
    caption = np.full((90, 160), 16, np.uint8)
    caption[40:50, 40:120] = 235  # 5.6 % of the picture
    assert not score(caption).black


def test_the_same_picture_coded_again_is_frozen_and_a_small_moving_thing_is_not() -> None:
    y = scene()
    again = y.copy()
    again[::4, ::4] += 1  # mean |difference| 1/16
    assert frozen(y, y) and frozen(again, y)
    moved = y.copy()
    moved[100:106, 100:106] ^= 64  # 36 of 230,400 pixels; the limit is 23
    assert not frozen(moved, y)
    assert not frozen(np.asarray(y + 1, np.uint8), y)  # all of it brighter by 1
    assert not frozen(y, None) and not frozen(y, y[:, :-1])


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (3, 3), (17, 5), (5, 4097), (241, 319)])
@pytest.mark.parametrize("level", [0, 100, 255])
def test_any_size_and_level_has_scores_in_range(shape: tuple[int, int], level: int) -> None:
    for y in (np.full(shape, level, np.uint8), noisy(np.full(shape, level, np.uint8), 30)):
        found = score(y)
        assert all(0 <= value <= 1 for value in found[:3])
        assert frozen(y, y)


def test_large_pictures_are_sampled_and_score_nearly_as_the_whole_does(monkeypatch: pytest.MonkeyPatch) -> None:
    y = noisy(scene(1080, 1920), 4)
    sampled = score(y)
    monkeypatch.setattr(quality, "PIXELS", y.size * 2)
    whole = score(y)
    assert sampled[:3] != whole[:3]
    assert sampled[:3] == pytest.approx(whole[:3], abs=0.07)


def test_joining_the_bands_adds_no_edges() -> None:
    """A picture that only changes from row to row, slowly: no step across, and none between bands."""
    y = np.tile(np.linspace(16, 235, 1080)[:, None], (1, 1920)).astype(np.uint8)
    assert score(y).sharpness == 0.0
    assert score(y).noise > 0.95


def test_real_pictures_lie_where_the_documentation_says(shared_data: Path) -> None:
    """One still, as shot and blurred with σ = 4: above and below the level of the event."""
    still = next(iter(sorted((shared_data / "stills").glob("**/*.png"))), None)
    if still is None:
        pytest.skip("the shared data has no PNG stills")
    y = cv2.imread(str(still), cv2.IMREAD_GRAYSCALE)
    assert y is not None
    picture = np.asarray(y, np.uint8)
    assert score(picture, full_range=True).sharpness > 0.45
    assert score(blurred(picture, 4.0), full_range=True).sharpness < 0.3
