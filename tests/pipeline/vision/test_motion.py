"""Dense flow: it finds known shifts, carries pictures as PyTorch does, and gives up where it would do harm."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.media.synthetic import Scene, SceneConfig
from pipeline.models.runtime.choose import pattern
from pipeline.vision.motion import (
    LEAST_PX,
    PRESETS,
    aligned_plane,
    dense_flow,
    enlarged,
    warp,
    warp_tensor,
    zero_where_worse,
)
from pipeline.vision.upscale import bicubic
from pipeline.wire.frames import Size

Plane = NDArray[np.uint8]


@pytest.fixture(scope="module")
def street() -> Plane:
    """A large frame of the rendered street, from which shifted windows are cut."""
    scene = Scene(SceneConfig(width=240, height=160, seed=5, noise=0.0, audio=False))
    return scene.frame(0).i420[: 240 * 160].reshape(160, 240)


def shifted(street: Plane, x: int, y: int) -> Plane:
    return np.ascontiguousarray(street[16 + y : 136 + y, 24 + x : 216 + x])


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("x", "y"), [(3, 0), (-2, 4)])
def test_flow_finds_a_known_shift(street: Plane, preset: str, x: int, y: int) -> None:
    """What the target shows at p, a window cut (x, y) further to the right and down shows at p − (x, y)."""
    target, neighbour = shifted(street, 0, 0), shifted(street, x, y)
    flow = dense_flow(target, neighbour, preset)
    inner = flow[20:-20, 20:-20]
    assert np.abs(np.median(inner, axis=(0, 1)) - (-x, -y)).max() < 0.3
    before, after = (
        np.abs(plane.astype(int) - target)[20:-20, 20:-20].mean() for plane in (neighbour, warp(neighbour, flow))
    )
    assert after < 0.35 * before


def test_flow_on_the_low_grid_aligns_the_large_planes(street: Plane) -> None:
    """The planes are twice as large, so the shift is of 6 pixels; the flow is found at half the size."""
    large = bicubic(street, 2)
    target, neighbour = large[32:272, 48:432], large[32:272, 54:438]
    aligned = aligned_plane(target, neighbour, 2)
    before, after = (np.abs(plane.astype(int) - target)[40:-40, 40:-40].mean() for plane in (neighbour, aligned))
    assert after < 0.35 * before


def test_planes_that_are_equal_stay_as_they_are(street: Plane) -> None:
    assert np.array_equal(aligned_plane(street, street, 2), street)


def test_a_neighbour_across_a_cut_is_no_neighbour(street: Plane) -> None:
    """White against anything is off by more than 16 code values; the target stands in for it."""
    assert np.array_equal(aligned_plane(street, np.full_like(street, 255), 2), street)


@pytest.mark.parametrize("size", [(1, 1), (LEAST_PX - 1, 200), (LEAST_PX, LEAST_PX), (25, 33), (41, 24), (37, 211)])
def test_every_size_has_a_flow(size: tuple[int, int]) -> None:
    plane = pattern(Size(width_px=size[1], height_px=size[0]))
    flow = dense_flow(plane, np.roll(plane, 1, axis=1))
    assert flow.shape == (*size, 2) and flow.dtype == np.float32 and np.isfinite(flow).all()
    assert aligned_plane(plane, plane, 1).shape == size


def test_the_number_of_threads_does_not_show(street: Plane) -> None:
    target, neighbour = shifted(street, 0, 0), shifted(street, 2, 1)
    before = cv2.getNumThreads()
    try:
        flows = []
        for threads in (1, 2):
            cv2.setNumThreads(threads)
            flows.append(dense_flow(target, neighbour))
    finally:
        cv2.setNumThreads(before)
    assert np.array_equal(*flows)


def test_a_flow_that_makes_it_worse_is_zero() -> None:
    """Left of column 32 the flow is right (the neighbour is 2 to the left), right of it the picture stands still."""
    target = pattern(Size(width_px=64, height_px=48))
    neighbour = target.copy()
    neighbour[:, :32] = np.roll(target, -2, axis=1)[:, :32]
    flow = np.full((48, 64, 2), (-2.0, 0.0), np.float32)
    found = zero_where_worse(flow, target, neighbour)
    assert (found[:, 8:24, 0] == -2).all()
    assert (found[:, 40:] == 0).all()


def test_enlarging_scales_vectors_and_grid() -> None:
    flow = np.full((3, 5, 2), (0.5, -1.0), np.float32)
    assert np.array_equal(enlarged(flow, 3), np.full((9, 15, 2), (1.5, -3.0), np.float32))


def test_both_warps_agree(street: Plane) -> None:
    """OpenCV places pixels on a 32nd grid and rounds: at steep edges that is 2 code values off PyTorch's bicubic."""
    rng = np.random.default_rng(3)
    flow = cv2.GaussianBlur(rng.normal(0, 30, (160, 240, 2)).astype(np.float32), (0, 0), 9)
    assert np.abs(flow).max() > 2
    ours = warp(street, flow).astype(float)
    tensors = torch.from_numpy(street.copy())[None, None].float(), torch.from_numpy(flow.transpose(2, 0, 1))[None]
    error = np.abs(ours - warp_tensor(*tensors)[0, 0].clamp(0, 255).numpy())
    assert error.mean() < 0.4
    assert np.percentile(error, 99) < 2


def test_a_bilinear_warp_mixes_by_distance_and_repeats_the_border() -> None:
    """[0, 2, 8] seen a quarter of a pixel further: 0.75 · 0 + 0.25 · 2 = 0.5, 1.5 + 2 = 3.5, and the last one again."""
    flow = torch.zeros(1, 2, 1, 3)
    flow[:, 0] = 0.25
    assert warp_tensor(torch.tensor([[[[0.0, 2.0, 8.0]]]]), flow, mode="bilinear").tolist() == [[[[0.5, 3.5, 8.0]]]]


def test_the_warp_of_tensors_has_gradients() -> None:
    x = torch.rand(1, 1, 6, 7, requires_grad=True)
    flow = torch.full((1, 2, 6, 7), 0.3, requires_grad=True)
    warp_tensor(x, flow).square().sum().backward()
    assert x.grad is not None and flow.grad is not None
    assert bool((flow.grad != 0).any())
