"""Stability of blocks, worked out by hand, and the way back to the conventional picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.vision.stability import in_source_band, measure, num_blocks, restore
from pipeline.vision.upscale import bicubic
from pipeline.wire.frames import Size


def plane(value: int, height: int = 32, width: int = 32) -> NDArray[np.uint8]:
    return np.full((height, width), value, np.uint8)


def test_equal_pictures_are_fully_stable() -> None:
    found = measure(plane(90), plane(90), plane(95), 1)
    assert (found.stable == 1).all() and found.index == 1 and (found.excess == 0).all()


def test_a_flat_block_moved_by_the_floor_has_stability_one_half() -> None:
    """σ = 0, c = 2, y − x̂ = 2: T² = 1, t = 1/2; one block of four: τ = (3 + ½) / 4."""
    y_HW = plane(90)
    y_HW[:16, 16:] += 2
    found = measure(y_HW, plane(90), plane(90), 1)
    assert found.stable.tolist() == [[1, 0.5], [1, 1]]
    assert found.index == pytest.approx(3.5 / 4)


def test_a_textured_block_may_move_further() -> None:
    """Columns 80, 100, 80, …: σ = 10; y − x̂ = 12 everywhere: T² = (12 / 12)² = 1."""
    textured_HW = plane(80, 16, 16)
    textured_HW[:, ::2] = 100
    assert measure(textured_HW + 12, textured_HW, textured_HW, 1).stable.tolist() == [[pytest.approx(0.5)]]


def test_smaller_blocks_at_the_border_count_their_own_pixels() -> None:
    """18 × 17: blocks 16×16, 16×1, 2×16, 2×1; a change by 2 in the last two pixels alone gives t = ½ there."""
    y_HW = plane(90, 18, 17)
    y_HW[16:, 16:] = 92
    found = measure(y_HW, plane(90, 18, 17), plane(90, 18, 17), 1)
    assert found.stable.tolist() == [[1, 1], [1, 0.5]]
    assert num_blocks(Size(width_px=17, height_px=18)) == 4


def test_excess_is_how_much_further_from_the_source() -> None:
    """Enhanced 6 off, conventional 2 off: 36 − 4; the other way round it is negative."""
    assert measure(plane(96), plane(92), plane(90), 1).excess.max() == 32
    assert measure(plane(92), plane(96), plane(90), 1).excess.max() == -32


def test_detail_is_what_the_source_cannot_show() -> None:
    """A checkerboard of ±3 on a flat block: mean r² = 9, the mean of each cell 0; σ = 0, c² = 4: 9 / 4."""
    board = np.where(np.indices((32, 32)).sum(axis=0) % 2, 93, 87).astype(np.uint8)
    found = measure(board, plane(90), plane(90, 16, 16), 2)
    assert found.detail.tolist() == [[2.25]] and found.stable.tolist() == [[1.0]] and (found.excess == 0).all()


def test_a_flat_change_is_no_detail() -> None:
    assert measure(plane(96), plane(90), plane(90, 16, 16), 2).detail.tolist() == [[0.0]]


@pytest.mark.parametrize("kind", ["noise", "blocking", "ringing", "blur"])
def test_stability_falls_steadily_with_damage(kind: str) -> None:
    """τ of a textured picture, damaged more and more (spec §2.3)."""
    rng = np.random.default_rng(4)
    source = cv2.GaussianBlur(rng.integers(0, 256, (96, 128), np.uint8), (0, 0), 2.0)
    plain = bicubic(source, 2)

    def damaged(strength: int) -> NDArray[np.uint8]:
        if kind == "noise":
            out = plain + np.random.default_rng(5).normal(0, 4 * strength, plain.shape)
        elif kind == "blocking":
            coarse = cv2.resize(plain, None, fx=1 / 8, fy=1 / 8, interpolation=cv2.INTER_AREA)
            blocky = cv2.resize(coarse, plain.shape[::-1], interpolation=cv2.INTER_NEAREST)
            out = plain + (blocky.astype(float) - plain) * strength / 4
        elif kind == "ringing":
            out = plain + 1.5 * strength * (plain.astype(float) - cv2.GaussianBlur(plain, (0, 0), 3.0))
        else:
            out = cv2.GaussianBlur(plain, (0, 0), 1.5 * strength).astype(float)
        return np.clip(np.rint(out), 0, 255).astype(np.uint8)

    taus = [measure(damaged(n), plain, source, 2).index for n in (1, 2, 3, 4)]
    assert taus == sorted(taus, reverse=True) and len(set(taus)) == 4 and taus[-1] < 0.9
    flagged = measure(damaged(4), plain, source, 2)
    assert ((flagged.stable < 0.9) | (flagged.excess > 1)).mean() > 0.5


def test_the_largest_differences_are_summed_exactly() -> None:
    found = measure(plane(255), plane(0), plane(0), 1)
    assert (found.excess == 255.0**2).all()


def test_source_band_is_the_mean_of_each_cell() -> None:
    assert in_source_band(np.array([[0, 4, 8, 8], [4, 8, 8, 8]], np.uint8), 2).tolist() == [[4, 8]]


@pytest.mark.parametrize("shape", [(64, 96), (70, 90)])
def test_nothing_changes_where_no_block_goes_back(shape: tuple[int, int]) -> None:
    enhanced_HW = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    before = enhanced_HW.copy()
    restore(enhanced_HW, plane(0, *shape), np.zeros((3, 3), np.bool_), scale=2)
    assert np.array_equal(enhanced_HW, before)


@pytest.mark.parametrize("back", [[(1, 1)], [(0, 0)], [(3, 4)], [(0, 2), (2, 2)], [(0, 0), (3, 4)]], ids=str)
def test_a_block_goes_back_whole_and_its_far_neighbours_not_at_all(back: list[tuple[int, int]]) -> None:
    rng = np.random.default_rng(0)
    enhanced_HW, conventional_HW = (rng.integers(0, 256, (118, 150), dtype=np.uint8) for _ in range(2))
    before = enhanced_HW.copy()
    back_BC = np.zeros((4, 5), np.bool_)
    for place in back:
        back_BC[place] = True
    restore(enhanced_HW, conventional_HW, back_BC, scale=2)
    grown = np.pad(back_BC, 1)
    near_BC = np.logical_or.reduce([grown[i : i + 4, k : k + 5] for i in range(3) for k in range(3)])
    whole = np.kron(back_BC, np.ones((32, 32), np.bool_))[:118, :150]
    far = ~np.kron(near_BC, np.ones((32, 32), np.bool_))[:118, :150]
    assert np.array_equal(enhanced_HW[whole], conventional_HW[whole])
    assert np.array_equal(enhanced_HW[far], before[far])


def test_there_is_no_seam_at_a_block_that_goes_back() -> None:
    """Enhanced 200, conventional 100: along a row the value never jumps by more than a tenth of the difference."""
    enhanced_HW = plane(200, 96, 96)
    back_BC = np.zeros((3, 3), np.bool_)
    back_BC[1, 1] = True
    restore(enhanced_HW, plane(100, 96, 96), back_BC, scale=2)
    assert np.abs(np.diff(enhanced_HW[48].astype(int))).max() <= 13
    assert (enhanced_HW[48, 32:64] == 100).all() and enhanced_HW[48, 0] == enhanced_HW[48, 95] == 200
