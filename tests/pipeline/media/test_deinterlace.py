"""Deinterlacing gives as many pictures as came, in order, with their own times and numbers."""

from __future__ import annotations

import av
import numpy as np
import pytest

from pipeline.media.deinterlace import Deinterlacer
from pipeline.media.picture import Picture
from tests import media_files as made


def picture(number: int, width: int = 96, height: int = 64) -> Picture:
    frame = av.VideoFrame.from_ndarray(made.picture(number, width, height), format="rgb24").reformat(format="yuv420p")
    return Picture(frame=frame, number=number, pts=None, dts=None, duration=1, key=number == 0, arrived_ns=number)


def passed(pictures: list[Picture]) -> list[Picture]:
    filter_ = Deinterlacer()
    out = [p for one in pictures for p in filter_.push(one)]
    return out + list(filter_.flush())


@pytest.mark.parametrize("count", [0, 1, 2, 3, 20])
def test_as_many_come_out_as_went_in(count: int) -> None:
    found = passed([picture(i) for i in range(count)])
    assert [p.number for p in found] == list(range(count))
    assert [p.arrived_ns for p in found] == list(range(count))
    assert all(p.pts is None for p in found)


def test_progressive_pictures_pass_unchanged() -> None:
    given = [picture(i) for i in range(5)]
    expected = [made.i420(p.frame) for p in given]
    for found, reference in zip(passed(given), expected, strict=True):
        assert np.array_equal(made.i420(found.frame), reference)


def test_change_of_size_loses_nothing() -> None:
    given = [picture(0), picture(1), picture(2, 64, 48), picture(3, 64, 48), picture(4)]
    found = passed(given)
    assert [p.number for p in found] == [0, 1, 2, 3, 4]
    assert [p.frame.width for p in found] == [96, 96, 64, 64, 96]


def test_pictures_too_small_for_the_filter_pass() -> None:
    assert [p.number for p in passed([picture(i, 2, 2) for i in range(3)])] == [0, 1, 2]
