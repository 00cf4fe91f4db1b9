from __future__ import annotations

import pytest

from pipeline.errors import ConfigError
from pipeline.wire.ids import Span, StreamId, stream_id


@pytest.mark.parametrize("text", ["a", "gate-3", "0", "-", "x" * 64])
def test_ids_are_lower_case_digits_and_dashes(text: str) -> None:
    assert stream_id(text) == text


@pytest.mark.parametrize("text", ["", "A", "a_b", "a/b", "..", "a b", "ä", "x" * 65, "a\n"])
def test_other_ids_are_refused_with_the_rule(text: str) -> None:
    with pytest.raises(ConfigError, match=r"no stream id.*1 to 64 characters"):
        stream_id(text)


def span(start: int, stop: int, *, epoch: int = 0, stream: str = "a") -> Span:
    return Span(stream=StreamId(stream), epoch=epoch, start=start, stop=stop)


@pytest.mark.parametrize(("epoch", "start", "stop"), [(-1, 0, 1), (0, -1, 1), (0, 2, 1)])
def test_spans_that_are_none_are_refused(epoch: int, start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="not a span"):
        span(start, stop, epoch=epoch)


def test_a_span_counts_and_shows_its_units() -> None:
    assert len(span(3, 8)) == 5
    assert len(span(3, 3)) == 0
    assert str(span(3, 8, epoch=2)) == "a/2[3:8]"


def test_a_span_covers_what_lies_inside_it_in_its_own_epoch_and_stream() -> None:
    assert span(3, 8).covers(span(3, 8)) and span(3, 8).covers(span(5, 5))
    assert not span(3, 8).covers(span(2, 4))
    assert not span(3, 8).covers(span(7, 9))
    assert not span(3, 8).covers(span(4, 5, epoch=1))
    assert not span(3, 8).covers(span(4, 5, stream="b"))


def test_spans_sort_in_the_order_of_the_stream() -> None:
    ordered = [span(0, 4), span(4, 8), span(0, 4, epoch=1), span(0, 4, stream="b")]
    backwards = ordered[::-1]
    assert sorted(backwards) == ordered


def test_a_part_stays_in_the_epoch() -> None:
    assert span(3, 8, epoch=2).part(10, 12) == span(10, 12, epoch=2)
