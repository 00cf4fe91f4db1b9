"""Byte moves that equal torch's pixel shuffle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipeline.models.runtime.shuffle import shuffle, unshuffle


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 6, 8])
def test_shuffle_equals_torch(factor: int) -> None:
    x_HWC = np.random.default_rng(0).integers(-128, 128, (5, 7, factor**2), dtype=np.int8)
    out_HW = np.zeros((5 * factor, 7 * factor), np.int8)
    shuffle(x_HWC, factor, out_HW)
    wanted = functional.pixel_shuffle(torch.from_numpy(x_HWC).permute(2, 0, 1)[None].float(), factor)[0, 0]
    assert np.array_equal(out_HW, wanted.numpy())


@pytest.mark.parametrize("factor", [1, 2])
def test_unshuffle_equals_torch(factor: int) -> None:
    y_HW = np.random.default_rng(0).integers(0, 256, (6, 10), dtype=np.uint8)
    out_HWC = np.zeros((6 // factor, 10 // factor, factor**2), np.uint8)
    unshuffle(y_HW, factor, out_HWC)
    wanted = functional.pixel_unshuffle(torch.from_numpy(y_HW)[None, None].float(), factor)[0].permute(1, 2, 0)
    assert np.array_equal(out_HWC, wanted.numpy())
