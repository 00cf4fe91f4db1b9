"""Conventional up-scaling keeps sizes exact and everything but the pictures."""

from __future__ import annotations

from dataclasses import fields
from fractions import Fraction

import cv2
import numpy as np
import pytest

from pipeline.vision.upscale import bicubic, upscale
from pipeline.wire.frames import ColorSpec, FrameBatch, Size
from pipeline.wire.ids import Span, stream_id


def batch(width: int, height: int, n: int = 2) -> FrameBatch:
    size = Size(width_px=width, height_px=height)
    data = np.random.default_rng(1).integers(0, 256, (n, size.frame_bytes), dtype=np.uint8)
    return FrameBatch(
        span=Span(stream=stream_id("s"), epoch=0, start=5, stop=5 + n),
        size=size,
        color=ColorSpec(matrix=1),
        time_base=Fraction(1, 90000),
        pts=np.arange(n, dtype=np.int64) * 3003,
        duration=np.full(n, 3003, np.int64),
        captured_ns=np.arange(n, dtype=np.int64),
        keyframe=np.arange(n) == 0,
        data=data,
    )


@pytest.mark.parametrize(("width", "height"), [(16, 12), (15, 11), (1, 1), (2, 3)])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_sizes_are_exactly_scale_times_and_all_else_is_kept(width: int, height: int, scale: int) -> None:
    source = batch(width, height)
    out = upscale(source, scale)
    assert out.size == Size(width_px=width * scale, height_px=height * scale)
    for field in fields(FrameBatch):
        if field.name not in ("size", "data"):
            assert np.array_equal(getattr(out, field.name), getattr(source, field.name)), field.name
    for name in ("y", "u", "v"):
        low, high = getattr(source.planes(), name)[1], getattr(out.planes(), name)[1]
        whole = cv2.resize(low, (low.shape[1] * scale, low.shape[0] * scale), interpolation=cv2.INTER_CUBIC)
        assert np.array_equal(high, whole[: high.shape[0], : high.shape[1]]), name


def test_bicubic_of_a_constant_is_that_constant() -> None:
    assert (bicubic(np.full((3, 5), 77, np.uint8), 2) == 77).all()


def test_bicubic_writes_where_the_caller_says() -> None:
    out_HW = np.zeros((6, 10), np.uint8)
    assert bicubic(np.full((3, 5), 77, np.uint8), 2, out_HW) is out_HW
    assert (out_HW == 77).all()
