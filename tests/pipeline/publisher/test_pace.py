"""The token bucket: uploads take what the video leaves, and nothing of what it needs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.publisher.pace import Bucket

PIECE = 1400


def sent_bytes(bucket: Bucket, *, seconds: float, video_bps: float) -> int:
    """What goes within so many seconds, asked as the uploader asks."""
    now_s, total = 0.0, 0
    while now_s < seconds:
        wait_s = bucket.wait_s(PIECE, video_bps=video_bps, now_s=now_s)
        total += 0 if wait_s else PIECE
        now_s += wait_s
    return total


def test_the_rate_is_what_is_left() -> None:
    """1 Mb/s less a tenth, by 1.06 for headers, less 500 kb/s: 349 kb/s; 10 s of it are 436 kB."""
    bucket = Bucket(1e6)
    assert bucket.free_bps(5e5) == pytest.approx(349_057, abs=1)
    assert sent_bytes(bucket, seconds=10, video_bps=5e5) == pytest.approx(436_320, abs=2 * PIECE)


def test_nothing_goes_where_the_video_needs_it_all() -> None:
    assert sent_bytes(Bucket(1e6), seconds=10, video_bps=1e6) == 0


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2e6)), max_size=40))
def test_a_pause_is_not_made_up_for(asked: list[tuple[float, float]]) -> None:
    """At any moment no more has gone than the free rate of all time gives, and after a silence one burst at most."""
    bucket, now_s = Bucket(1e6), 0.0
    allowed = 8.0 * PIECE
    gone = 0.0
    for passed_s, video_bps in asked:
        now_s += passed_s
        allowed += passed_s * bucket.free_bps(video_bps)
        pieces = 0
        while bucket.wait_s(PIECE, video_bps=video_bps, now_s=now_s) == 0:
            gone += 8 * PIECE
            pieces += 1
        assert gone <= allowed + 1e-3
        assert 8 * PIECE * pieces <= max(8 * PIECE, 0.05 * 1e6)
