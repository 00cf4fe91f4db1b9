from __future__ import annotations

import itertools
import pickle
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from pipeline.wire.frames import ColorSpec, FrameBatch, Size
from pipeline.wire.ids import Span, StreamId

ODD = Size(width_px=5, height_px=3)  # chroma 3×2: 15 + 2 × 6 = 27 bytes a frame


def batch(start: int, stop: int, size: Size = ODD) -> FrameBatch:
    seq = np.arange(start, stop, dtype=np.int64)
    data = (seq[:, None] * 7 + np.arange(size.frame_bytes)).astype(np.uint8)
    return FrameBatch(
        span=Span(stream=StreamId("a"), epoch=0, start=start, stop=stop),
        size=size,
        color=ColorSpec(matrix=1, primaries=1, transfer=1),
        time_base=Fraction(1, 90000),
        pts=seq * 3003,
        duration=np.full_like(seq, 3003),
        captured_ns=seq + 1,
        keyframe=seq % 4 == 0,
        data=data,
    )


def same(a: FrameBatch, b: FrameBatch) -> bool:
    arrays = ("pts", "duration", "captured_ns", "keyframe", "data")
    rest = ("span", "size", "color", "time_base")
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in arrays) and all(
        getattr(a, n) == getattr(b, n) for n in rest
    )


def test_chroma_is_half_rounded_up_and_a_frame_has_no_padding() -> None:
    assert ODD.chroma == Size(width_px=3, height_px=2)
    assert ODD.frame_bytes == 27
    assert Size(width_px=1, height_px=1).frame_bytes == 3
    assert ODD.times(2) == Size(width_px=10, height_px=6)
    assert str(ODD) == "5×3"


@pytest.mark.parametrize(("width", "height"), [(0, 1), (1, 0), (-1, 1)])
def test_sizes_without_a_pixel_are_refused(width: int, height: int) -> None:
    with pytest.raises(ValueError, match="not a size"):
        Size(width_px=width, height_px=height)


def test_planes_are_views_one_after_the_other() -> None:
    """Frame 1's bytes are 7, 8, …, 33: luma 7–21, u 22–27, v 28–33."""
    b = batch(0, 2)
    y, u, v = b.planes()
    assert (y.shape, u.shape, v.shape) == ((2, 3, 5), (2, 2, 3), (2, 2, 3))
    assert y[1].ravel().tolist() == list(range(7, 22))
    assert u[1].ravel().tolist() == list(range(22, 28))
    assert v[1].ravel().tolist() == list(range(28, 34))
    assert all(np.shares_memory(plane, b.data) for plane in (y, u, v))


def test_a_cut_is_a_view_of_the_frames_asked_for() -> None:
    b = batch(10, 18)
    part = b.cut(12, 15)
    assert same(part, batch(12, 15))
    assert np.shares_memory(part.data, b.data)
    assert b.cut(10, 18) is b


@pytest.mark.parametrize(("start", "stop"), [(9, 12), (17, 19), (12, 12)])
def test_frames_that_are_not_there_cannot_be_cut(start: int, stop: int) -> None:
    with pytest.raises(ValueError):
        batch(10, 18).cut(start, stop)


@pytest.mark.parametrize("borders", [[10, 11, 18], [10, 14, 18], [10, *range(11, 19)]])
def test_cutting_and_joining_gives_the_same_frames(borders: list[int]) -> None:
    b = batch(10, 18)
    joined = FrameBatch.join([b.cut(i, j) for i, j in itertools.pairwise(borders)])
    assert same(joined, b)
    assert joined.data.flags.c_contiguous


def test_joining_one_batch_copies_nothing() -> None:
    b = batch(0, 3)
    assert FrameBatch.join([b]) is b


def test_batches_that_do_not_continue_each_other_are_not_joined() -> None:
    for second in (batch(4, 6), batch(2, 4), batch(3, 6, Size(width_px=4, height_px=3))):
        with pytest.raises(ValueError, match="does not continue"):
            FrameBatch.join([batch(0, 3), second])


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("pts", np.zeros(3, np.int64), "pts has shape"),
        ("keyframe", np.zeros(1, np.bool_), "keyframe has shape"),
        ("pts", np.array([5, 5]), "increase strictly"),
        ("pts", np.array([5, 4]), "increase strictly"),
        ("data", np.zeros((2, 26), np.uint8), r"uint8\(2, 27\)"),
        ("data", np.zeros((2, 27), np.int8), r"uint8\(2, 27\)"),
        ("data", np.zeros((2, 54), np.uint8)[:, ::2], "not contiguous"),
    ],
)
def test_batches_that_contradict_themselves_are_refused(field: str, value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(batch(0, 2), **{field: value})


def test_an_empty_batch_is_none() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        batch(3, 3)


def test_pickling_keeps_everything_and_moves_the_pictures_out_of_band() -> None:
    """Ray reads buffers of pickle 5 without a copy; the pictures have to be among them."""
    b = batch(0, 4)
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(b, protocol=5, buffer_callback=buffers.append)
    assert max(len(buffer.raw()) for buffer in buffers) == b.nbytes == 4 * 27
    assert same(pickle.loads(data, buffers=buffers), b)
