from __future__ import annotations

import json
import math
from collections.abc import Iterable

import pytest

from pipeline.vision.alerts import Alerts, Change, Limits, Row

LIMITS = Limits(picture_hold=10, score_hold=20, exposure=(0.3, 0.4), sharpness=(0.2, 0.25))


def row(
    seq: int,
    *,
    pts: int | None = None,
    black: bool = False,
    frozen: bool = False,
    exposure: float = 1.0,
    sharpness: float = 1.0,
) -> Row:
    return Row(
        seq=seq, pts=seq if pts is None else pts, black=black, frozen=frozen, exposure=exposure, sharpness=sharpness
    )


def run(rows: Iterable[Row]) -> list[tuple[str, int, list[str]]]:
    alerts = Alerts(LIMITS)
    return [told(change) for r in rows for change in alerts.on(r)]


def told(change: Change) -> tuple[str, int, list[str]]:
    return ("-" if change.degraded else "+", change.seq, sorted(change.causes))


def test_a_condition_counts_once_it_has_held_for_its_time() -> None:
    """Frozen at 5 … 15: from 5 to 15 it is 10 ticks; recovered at 16 + 10."""
    assert run(row(i, frozen=5 <= i <= 15) for i in range(40)) == [("-", 15, ["frozen"]), ("+", 26, ["frozen"])]
    assert run(row(i, frozen=5 <= i <= 14) for i in range(40)) == []


def test_time_is_that_of_pts_not_of_frames() -> None:
    assert run(row(i, pts=5 * i, frozen=True) for i in range(4)) == [("-", 2, ["frozen"])]


def test_one_good_frame_breaks_the_run() -> None:
    assert run(row(i, frozen=i != 8) for i in range(18)) == []


def test_between_the_two_levels_nothing_changes() -> None:
    """Below 0.3 from 0 on: told at 20. From 30 on 0.35, neither; from 60 on 0.4, which is recovered: told at 80."""
    levels = [0.29] * 30 + [0.35] * 30 + [0.4] * 40
    assert run(row(i, exposure=e) for i, e in enumerate(levels)) == [("-", 20, ["exposure"]), ("+", 80, ["exposure"])]


def test_while_it_is_black_nothing_else_is_judged() -> None:
    rows = [row(i, black=i < 50, frozen=i < 50, exposure=0.0, sharpness=0.0) for i in range(80)]
    assert run(rows) == [("-", 10, ["black"]), ("+", 60, ["black"]), ("-", 70, ["exposure", "sharpness"])]


def test_frames_of_which_nothing_is_known_are_as_if_they_were_not_there() -> None:
    rows = [row(i, frozen=True) if i % 2 else row(i, exposure=math.nan, sharpness=math.nan) for i in range(30)]
    assert run(rows) == [("-", 11, ["frozen"])]  # 1, 3, … 11


@pytest.mark.parametrize("at", range(0, 80, 7))
def test_the_states_survive_a_restart_at_any_frame(at: int) -> None:
    rows = [row(i, black=i < 20, frozen=30 < i < 60, exposure=0.1 if i % 40 < 25 else 0.9) for i in range(80)]
    first, second = Alerts(LIMITS), Alerts(LIMITS)
    changes = [told(c) for r in rows[:at] for c in first.on(r)]
    second.restore(json.loads(json.dumps(first.state())))
    changes += [told(c) for r in rows[at:] for c in second.on(r)]
    assert changes == run(rows)
    assert len(changes) >= 3
