"""Among streams that share cores: who gives a rung for whom, and who goes back first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.plan.ladder import Ladder, LadderRule, Rung
from pipeline.plan.turns import Standing, giver, returning

LATE = Standing(key="late", priority=5, rung=Rung.LIGHTER_ENCODE, late=True)
FULL = Standing(key="full", priority=5, rung=Rung.FULL, can_give=True)
BICUBIC = Standing(key="bicubic", priority=5, rung=Rung.BICUBIC, can_give=True)


def test_the_stream_with_most_work_gives_for_one_that_has_nothing_left() -> None:
    heavy = replace(FULL, network=False)
    assert giver([LATE, BICUBIC, heavy], idle_cpus=0.05, cluster_cpus=2.0) == "full"
    assert giver([LATE, BICUBIC], idle_cpus=0.05, cluster_cpus=2.0) == "bicubic"


def test_bits_are_given_before_sharpness() -> None:
    assert giver([LATE, FULL, BICUBIC], idle_cpus=0.0, cluster_cpus=2.0) == "bicubic"
    assert giver([LATE, FULL], idle_cpus=0.0, cluster_cpus=2.0) == "full"


def test_low_priority_gives_first() -> None:
    assert giver([LATE, replace(BICUBIC, priority=4), FULL], idle_cpus=0.0, cluster_cpus=2.0) == "bicubic"


def test_nobody_gives_without_need() -> None:
    assert giver([BICUBIC, FULL], idle_cpus=0.0, cluster_cpus=2.0) is None
    assert giver([LATE, replace(FULL, can_give=False)], idle_cpus=0.0, cluster_cpus=2.0) is None
    assert giver([], idle_cpus=0.0, cluster_cpus=2.0) is None


@pytest.mark.parametrize("idle", [0.1, 1.5, None])
def test_nobody_gives_while_cores_idle_or_that_is_not_known(idle: float | None) -> None:
    """A twentieth of the cores is kept idle; a playlist of long segments is late by itself."""
    assert giver([LATE, FULL], idle_cpus=idle, cluster_cpus=2.0) is None


def test_of_those_that_are_well_high_priority_and_the_lightest_go_back_first() -> None:
    """And whoever has lost its network before those that have none."""
    well = [
        Standing(key="0", priority=5, rung=Rung.LIGHTER_ENCODE, network=False, well=True),
        Standing(key="a", priority=5, rung=Rung.BICUBIC, well=True),
        Standing(key="b", priority=5, rung=Rung.LIGHTER_ENCODE, well=True),
        Standing(key="c", priority=9, rung=Rung.BICUBIC, well=True),
        Standing(key="d", priority=9, rung=Rung.LIGHTER_ENCODE),
    ]
    assert list(returning(well)) == ["c", "b", "a", "0"]


def test_a_ladder_says_when_it_is_late_and_when_it_can_give() -> None:
    """Late for 1 s at its last rung, 3 s behind the climb; what another one asks for is given at once."""
    ladder = Ladder(LadderRule(rungs=(Rung.FULL, Rung.BICUBIC)))
    assert ladder.can_give(0.0) and not ladder.is_late(0.0)
    assert ladder.step(0.1, 0, 0.0, give=True) == Rung.BICUBIC
    assert not ladder.can_give(9.0)
    for now in (1.0, 2.0, 2.9):
        ladder.step(1.5, 0, now)
        assert not ladder.is_late(now)
    ladder.step(1.5, 0, 3.0)
    assert ladder.is_late(3.0)


def test_what_was_given_for_another_is_a_try_that_failed() -> None:
    """Back after 5 s and given again: the next time it takes 10 s."""
    ladder = Ladder(LadderRule(), Rung.BICUBIC)
    assert [ladder.step(0.1, 0, now) for now in (0.0, 5.0)] == [4, 0]
    assert ladder.step(0.1, 0, 9.0, give=True) == Rung.BICUBIC
    assert ladder.hold_s == 10.0
