from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from pipeline.stage import StageEnv, Work
from pipeline.stages.quality import Quality, QualityConfig
from pipeline.wire.frames import ColorSpec, FrameBatch, Size
from pipeline.wire.ids import Span, StreamId
from pipeline.wire.items import join
from pipeline.wire.results import QualityReport

SIZE = Size(width_px=33, height_px=17)  # odd, as sources may be
N = 24


def batch() -> FrameBatch:
    """24 frames of noise; 5 to 8 show the same picture, 12 to 14 are black."""
    rng = np.random.default_rng(3)
    data = rng.integers(16, 235, (N, SIZE.frame_bytes), np.uint8)
    data[6:9] = data[5]
    data[12:15] = 16
    n = np.arange(N, dtype=np.int64)
    return FrameBatch(
        span=Span(stream=StreamId("a"), epoch=0, start=0, stop=N), size=SIZE, color=ColorSpec(),
        time_base=Fraction(1, 25), pts=n, duration=np.ones_like(n), captured_ns=n, keyframe=n == 0, data=data,
    )  # fmt: skip


def report(size: int) -> QualityReport:
    stage = Quality(QualityConfig())
    stage.open(StageEnv())
    whole, parts = batch(), []
    for start in range(0, N, size):
        item = whole.cut(start, min(N, start + size))
        before = whole.cut(start - 1, start) if start else None
        parts.append(stage.process(Work(item=item, span=item.span, before=before)))
    stage.close()
    return join(parts)


def test_black_and_frozen_frames_are_found() -> None:
    """13 and 14 equal the black frame before them."""
    found = report(N)
    assert np.flatnonzero(found.black).tolist() == [12, 13, 14]
    assert np.flatnonzero(found.frozen).tolist() == [6, 7, 8, 13, 14]


@pytest.mark.parametrize("size", [1, 3, 8])
def test_batch_sizes_do_not_show(size: int) -> None:
    found, expected = report(size), report(N)
    for name in ("exposure", "sharpness", "noise", "black", "frozen"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
        assert getattr(found, name).dtype == getattr(expected, name).dtype
    assert found.span == expected.span


def test_a_batch_that_is_set_aside_is_unknown_not_bad() -> None:
    item = batch()
    found = Quality(QualityConfig()).bypass(Work(item=item, span=item.span))
    assert found.span == item.span
    assert np.isnan(found.exposure).all() and np.isnan(found.sharpness).all() and np.isnan(found.noise).all()
    assert not found.black.any() and not found.frozen.any()
