"""Pairs: what is looked at and what is cut out of them is aligned."""

from __future__ import annotations

import numpy as np

from pipeline.publisher.pairs import Pair, Sample, crops
from pipeline.vision.upscale import bicubic


def ramp(scale: int) -> Pair:
    """Each low-resolution pixel stands for scale² equal ones."""
    low = (np.arange(60)[:, None] * 4 + np.arange(80)[None]).astype(np.uint8)
    return Pair(at_s=0, captured_ns=0, low=low, high=low.repeat(scale, 0).repeat(scale, 1))


def test_strips_are_aligned_and_reach_from_top_to_bottom() -> None:
    """60 lines: strips of 32 (the least), at 0, 14 and 28."""
    sample = Sample.of(ramp(3))
    low, base, high = sample.strips()
    assert low.shape == (3, 32, 80) and base.shape == high.shape == (3, 96, 240)
    assert [int(each[0, 0]) for each in low] == [0, 56, 112]
    assert np.array_equal(high[:, ::3, ::3], low)
    assert np.array_equal(base[2], bicubic(sample.pair.low, 3)[84:180])


def test_crops_are_aligned_and_the_same_seed_gives_the_same() -> None:
    samples = [Sample.of(ramp(2)), Sample.of(ramp(2))]
    for seed in range(4):
        low, base, high = crops(samples, np.random.default_rng(seed), num=5, side_px=16, textured=0.5)
        assert low.shape == (5, 16, 16) and base.shape == high.shape == (5, 32, 32)
        assert np.array_equal(high[:, ::2, ::2], low)
        again = crops(samples, np.random.default_rng(seed), num=5, side_px=16, textured=0.5)
        assert np.array_equal(again[0], low)


def test_a_picture_smaller_than_a_crop_is_taken_whole() -> None:
    low, _, high = crops([Sample.of(ramp(2))], np.random.default_rng(0), num=2, side_px=64, textured=1.0)
    assert low.shape == (2, 60, 60) and high.shape == (2, 120, 120)
