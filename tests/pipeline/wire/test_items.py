from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from pipeline.wire.frames import ColorSpec, FrameBatch, Size
from pipeline.wire.ids import Span, StreamId
from pipeline.wire.items import Item, cut, join
from pipeline.wire.results import GuardReport, GuardResult, QualityReport


def span(start: int, stop: int) -> Span:
    return Span(stream=StreamId("a"), epoch=1, start=start, stop=stop)


def report(start: int, stop: int) -> GuardReport:
    n = stop - start
    seq = np.arange(start, stop)
    return GuardReport(
        span=span(start, stop),
        enhanced=seq % 2 == 0,
        stability=(seq / 100).astype(np.float32),
        restored_blocks=seq.astype(np.int32) + np.zeros(n, np.int32),
        model_version="m@1",
    )


def result(start: int, stop: int) -> GuardResult:
    seq = np.arange(start, stop, dtype=np.int64)
    frames = FrameBatch(
        span=span(start, stop), size=Size(width_px=2, height_px=2), color=ColorSpec(), time_base=Fraction(1, 25),
        pts=seq, duration=np.ones_like(seq), captured_ns=seq, keyframe=seq == 0,
        data=np.repeat(seq[:, None].astype(np.uint8), 6, axis=1),
    )  # fmt: skip
    return GuardResult(span=span(start, stop), frames=frames, report=report(start, stop))


def test_columns_are_cut_to_the_frames_as_views_and_the_rest_is_kept() -> None:
    whole = report(10, 20)
    part = cut(whole, 13, 15)
    assert part.span == span(13, 15)
    assert part.restored_blocks.tolist() == [13, 14]
    assert part.model_version == "m@1"
    assert np.shares_memory(part.stability, whole.stability)
    assert cut(whole, 10, 20) is whole


def test_items_inside_items_are_cut_and_joined_with_them() -> None:
    """A GuardResult would refuse parts whose spans differ."""
    whole = result(10, 20)
    parts = [cut(whole, 10, 13), cut(whole, 13, 14), cut(whole, 14, 20)]
    assert parts[1].frames.data[:, 0].tolist() == [13]
    assert parts[1].report.restored_blocks.tolist() == [13]
    joined = join(parts)
    assert joined.span == joined.frames.span == joined.report.span == span(10, 20)
    assert joined.frames.data[:, 0].tolist() == joined.report.restored_blocks.tolist() == list(range(10, 20))


def test_frames_have_their_own_way_to_be_cut_and_joined() -> None:
    frames = result(0, 6).frames
    assert join([cut(frames, 0, 2), cut(frames, 2, 6)]).pts.tolist() == [0, 1, 2, 3, 4, 5]


def test_an_empty_part_of_a_report_is_legal() -> None:
    assert len(cut(report(10, 20), 12, 12).stability) == 0


def test_one_part_is_joined_without_a_copy() -> None:
    whole = report(0, 3)
    assert join([whole]) is whole


def test_parts_with_a_hole_or_an_overlap_and_frames_outside_are_bugs() -> None:
    with pytest.raises(AssertionError, match="does not continue"):
        join([report(0, 3), report(4, 6)])
    with pytest.raises(AssertionError, match="does not continue"):
        join([report(0, 3), report(2, 6)])
    with pytest.raises(AssertionError, match="is not inside"):
        cut(report(0, 3), 2, 4)


def test_what_moves_is_an_item() -> None:
    n = np.zeros(1, np.float32)
    no = np.zeros(1, np.bool_)
    quality = QualityReport(span=span(0, 1), exposure=n, sharpness=n, noise=n, black=no, frozen=no)
    for item in (report(0, 1), result(0, 1), quality, result(0, 1).frames):
        assert isinstance(item, Item)
        assert item.nbytes > 0
