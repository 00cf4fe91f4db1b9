"""The ladder: by hand, and on simulated live streams that are too much for their machine."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.plan.ladder import Ladder, LadderRule, Rung
from pipeline.plan.load import Window

ALL = tuple(Rung)


class SimulatedStream:
    """A live stream of two-frame batches through one worker, in steps of time; the ladder is asked every 0.2 s.

    Args:
        rule: of the ladder.
        frame_s: (seconds, rung) → seconds of work a frame.
        stamped_early: work gets its rung when it arrives, not when it begins: the queue is worked off at the old one.
    """

    FPS = 25

    def __init__(
        self, rule: LadderRule, frame_s: Callable[[float, Rung], float], *, stamped_early: bool = False
    ) -> None:
        self.ladder, self.frame_s, self.early = Ladder(rule), frame_s, stamped_early
        self.lags: list[tuple[float, float]] = []
        self.rungs: list[tuple[float, Rung]] = [(0.0, Rung.FULL)]

    def run(self, until_s: float) -> None:
        waiting: deque[tuple[float, Rung]] = deque()
        window, free_s, asked_s = Window(2.0), 0.0, 0.0
        done: deque[tuple[float, float]] = deque()  # (when, arrived)
        for batch in range(int(until_s * self.FPS / 2)):
            now_s = batch * 2 / self.FPS
            waiting.append((now_s, self.ladder.rung))
            while waiting and free_s <= now_s:
                arrived_s, rung = waiting.popleft()
                begin_s = max(free_s, arrived_s)
                free_s = begin_s + 2 * self.frame_s(begin_s, rung if self.early else self.ladder.rung)
                done.append((free_s, arrived_s))
            while done and done[0][0] <= now_s:
                ended_s, arrived_s = done.popleft()
                window.add(ended_s - arrived_s, ended_s)
                self.lags.append((ended_s, ended_s - arrived_s))
            if now_s >= asked_s + 0.2:
                asked_s = now_s
                backlog = 2 * (len(waiting) + len(done))
                rung = self.ladder.step(window.quantiles(now_s).p95, backlog, now_s, fps=self.FPS)
                if rung != self.rungs[-1][1]:
                    self.rungs.append((now_s, rung))

    def worst(self, from_s: float = 0.0) -> float:
        return max(lag for when, lag in self.lags if when >= from_s)

    def rung_at(self, at_s: float) -> Rung:
        return next(rung for when, rung in reversed(self.rungs) if when <= at_s)


RULE = LadderRule(target_s=1.0)


def test_a_lag_above_the_target_for_a_second_takes_a_rung() -> None:
    ladder = Ladder(RULE)
    assert ladder.step(1.1, 0, 0.0) == Rung.FULL
    assert ladder.step(1.1, 0, 0.9) == Rung.FULL
    assert ladder.step(1.1, 0, 1.0) == Rung.BICUBIC
    assert ladder.step(9.9, 0, 9.0) == Rung.BICUBIC


def test_a_lag_above_twice_the_target_takes_a_rung_at_once_and_the_next_when_that_has_shown_its_worth() -> None:
    ladder = Ladder(LadderRule(target_s=1.0, rungs=ALL))
    assert [ladder.step(2.1, 0, now) for now in (0.0, 0.5, 2.9, 3.0, 6.0, 9.0, 12.0, 15.0)] == [1, 1, 1, 2, 3, 4, 5, 5]


def test_a_backlog_counts_as_the_lag_that_it_will_be() -> None:
    """40 frames at 25 a second are 1.6 s; a burst that is worked off within the second is none."""
    ladder = Ladder(RULE)
    assert [ladder.step(0.1, 40, now, fps=25) for now in (0.0, 0.5)] == [0, 0]
    assert ladder.step(0.1, 10, 0.9, fps=25) == Rung.FULL
    assert [ladder.step(0.0, 400, now, fps=25) for now in (1.0, 1.5, 2.0)] == [0, 0, 4]
    assert Ladder(RULE).step(0.1, 400, 9.0) == Rung.FULL  # without a rate it says nothing


def test_a_rung_is_given_back_after_the_hold_time_one_at_a_time() -> None:
    ladder = Ladder(LadderRule(target_s=1.0, rungs=ALL, hold_s=5.0), Rung.BICUBIC)
    rungs = {now: ladder.step(0.4, 3, float(now), fps=25) for now in range(26)}
    assert [rungs[now] for now in (0, 4, 5, 9, 11, 17, 23, 25)] == [4, 4, 3, 3, 2, 1, 0, 0]


def test_a_rung_is_kept_while_there_is_no_room_to_give_it_back() -> None:
    ladder = Ladder(RULE, Rung.BICUBIC)
    assert {ladder.step(0.1, 0, float(now), may_return=False) for now in range(100)} == {Rung.BICUBIC}
    assert ladder.is_well(99.0)
    assert ladder.step(0.1, 0, 100.0) == Rung.FULL
    assert not ladder.is_well(100.0)


def test_a_try_ends_before_the_lag_reaches_its_target() -> None:
    """Well for 5 s, back; 0.81 of the target ends the try at once, within 60 s; later on it takes a second above 1."""
    ladder = Ladder(RULE, Rung.BICUBIC)
    assert [ladder.step(0.1, 0, now) for now in (0.0, 5.0, 6.0)] == [4, 0, 0]
    assert [ladder.step(lag, 0, 7.0) for lag in (0.79, 0.81)] == [0, 4]
    assert [ladder.step(0.1, 0, now) for now in (8.0, 17.9, 18.0, 77.9)] == [4, 4, 0, 0]
    assert [ladder.step(lag, 0, 78.0) for lag in (0.1, 0.81)] == [0, 0]
    assert [ladder.step(1.1, 0, now) for now in (79.0, 79.9, 80.0)] == [0, 0, 4]


def test_between_half_of_the_target_and_the_target_nothing_changes() -> None:
    ladder = Ladder(RULE, Rung.BICUBIC)
    assert {ladder.step(0.5 + 0.01 * (n % 50), 0, n / 5) for n in range(1000)} == {Rung.BICUBIC}
    ladder = Ladder(RULE)
    assert {ladder.step(0.5 + 0.01 * (n % 50), 0, n / 5) for n in range(1000)} == {Rung.FULL}


def test_a_ladder_begins_at_the_rung_that_the_graph_has_below_the_one_asked_for() -> None:
    assert Ladder(RULE, Rung.LIGHTER_MODEL).rung == Rung.FULL
    assert Ladder(LadderRule(rungs=(Rung.FULL,)), Rung.BICUBIC).rung == Rung.FULL


def test_a_graph_without_a_ladder_stays_as_it_is() -> None:
    ladder = Ladder(LadderRule(rungs=(Rung.FULL,)))
    assert {ladder.step(50.0, 9999, float(n), fps=25) for n in range(50)} == {Rung.FULL}


@pytest.mark.parametrize(
    "wrong",
    [
        {"rungs": ()},
        {"rungs": (Rung.BICUBIC,)},
        {"rungs": (Rung.FULL, Rung.FULL)},
        {"under": 1.0},
        {"at_once": 1.0},
        {"at_once_on_trial": 0.5},
        {"at_once_on_trial": 2.0},
        {"hold_s": 9.0, "hold_max_s": 8.0},
        {"target_s": 0.0},
    ],
)
def test_a_rule_that_contradicts_itself_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        LadderRule(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("early", [False, True])
def test_a_stream_that_is_too_much_stays_bounded_and_tries_more_and_more_seldom(early: bool) -> None:
    """60 ms of work a frame where 40 arrive, 8 ms without the network; an hour."""
    stream = SimulatedStream(RULE, lambda now_s, rung: 0.008 if rung else 0.060, stamped_early=early)
    stream.run(3600)
    assert stream.worst() < 3.0
    # Coming back fails after about 3 s, with holds of 5, 10, 20 … 320 s: 7 tries in 650 s, then one in 325 s.
    assert 16 <= len(stream.rungs) - 1 <= 2 * (7 + 3600 / 320) + 1
    assert stream.ladder.hold_s == 320
    late = [lag for when, lag in stream.lags if lag > 1]
    assert len(late) < 0.03 * len(stream.lags)


def test_a_stream_that_is_a_little_too_much_does_not_flap() -> None:
    """2.5 % too slow: the lag takes 40 s to build up after each return, and still counts as a failure."""
    stream = SimulatedStream(RULE, lambda now_s, rung: 0.008 if rung else 0.041)
    stream.run(3600)
    assert stream.worst() < 3.0
    assert len(stream.rungs) - 1 <= 30


def test_a_passing_overload_is_answered_at_once_and_forgotten() -> None:
    """Twenty seconds at three times the work, then as before; the first return holds, and the next overload is new."""
    stream = SimulatedStream(RULE, lambda now_s, rung: 0.008 if rung else (0.090 if 60 <= now_s % 300 < 80 else 0.030))
    stream.run(1200)
    assert stream.rung_at(59) == Rung.FULL
    assert stream.rung_at(64) == Rung.BICUBIC
    assert stream.worst() < 3.0
    for overload in range(4):
        assert stream.rung_at(overload * 300 + 120) == Rung.FULL
        assert stream.rung_at(overload * 300 + 299) == Rung.FULL
    assert len(stream.rungs) - 1 <= 4 * 6
    assert stream.ladder.hold_s == RULE.hold_s


def test_a_stream_within_its_means_never_changes() -> None:
    stream = SimulatedStream(RULE, lambda now_s, rung: 0.038)
    stream.run(600)
    assert stream.ladder.changes == 0


THREE = LadderRule(target_s=1.0, rungs=(Rung.FULL, Rung.BICUBIC, Rung.LIGHTER_ENCODE))


@pytest.mark.parametrize(("bicubic_s", "kept"), [(0.030, Rung.BICUBIC), (0.050, Rung.LIGHTER_ENCODE)])
def test_of_three_rungs_the_one_that_does_is_found_and_the_others_are_tried_ever_more_seldom(
    bicubic_s: float, kept: Rung
) -> None:
    """Each rung has a hold time of its own: that the last one can be given back says nothing of the first."""
    costs = {Rung.FULL: 0.070, Rung.BICUBIC: bicubic_s, Rung.LIGHTER_ENCODE: 0.020}
    stream = SimulatedStream(THREE, lambda now_s, rung: costs[rung])
    stream.run(3600)
    assert stream.worst() < 4.0
    at = [stream.rung_at(when) for when in range(600, 3600)]
    assert at.count(kept) > 0.9 * len(at)
    assert len([when for when, _ in stream.rungs if when > 600]) <= 4 * 3000 / 320


@given(
    full=st.floats(0.001, 0.2),
    light=st.floats(0.001, 0.035),
    target=st.floats(0.5, 3.0),
    early=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_whatever_the_work_costs_the_lag_stays_bounded_and_changes_are_few(
    full: float, light: float, target: float, early: bool
) -> None:
    light = min(light, full)
    stream = SimulatedStream(
        LadderRule(target_s=target), lambda now_s, rung: light if rung else full, stamped_early=early
    )
    stream.run(600)
    # Within a climb's second the lag grows by what the work is too slow, early stamps have the queue at the old rung.
    assert stream.worst() < 4 * target + 2 + (25 * full * 2 * target if early else 0)
    assert len(stream.rungs) - 1 <= 24
