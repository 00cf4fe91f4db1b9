"""The scaling rule: by hand, by properties, and in a simulated pool of sleeping workers."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.plan.load import StageLoad
from pipeline.plan.scale import ScaleRule, ScaleState, scale
from tests.pipeline.plan.queueing import SimulatedPool

RULE = ScaleRule(min=1, max=8)


def load(
    arrival_hz: float = 0.0, service_s: float = 0.06, queue: int = 0, queue_age_s: float = 0.0, workers: int = 1
) -> StageLoad:
    busy = min(arrival_hz * service_s, workers)
    return StageLoad(
        arrival_hz=arrival_hz, service_s=service_s, queue=queue, queue_age_s=queue_age_s, workers=workers, busy=busy
    )


def test_workers_are_arrivals_and_backlog_times_service_over_utilisation() -> None:
    """50 Hz × 0.06 s ÷ 0.7 = 4.29 → 5. With 31 waiting for one worker: + 30 ÷ 3 s × 0.06 s ÷ 0.7 = 0.86 → 6."""
    wanted, _, reason = scale(load(50), RULE, ScaleState(), 0.0)
    assert wanted == 5
    assert reason == "50.0 batches a second of 0.060 s, 0 wait, 1 workers, 1.0 busy, to be used to 70%"
    assert scale(load(50, queue=31), RULE, ScaleState(), 0.0)[0] == 6


def test_the_backlog_does_not_count_while_workers_start() -> None:
    _, state, _ = scale(load(50), RULE, ScaleState(), 0.0)
    assert scale(load(50, queue=200, workers=1), RULE, state, 1.0)[0] == 5
    assert scale(load(50, queue=40, workers=5), RULE, state, 2.0)[0] == 6


def test_a_stage_that_is_not_measured_yet_gets_one_worker() -> None:
    rule = ScaleRule(min=0, max=8)
    assert scale(load(0, service_s=0, workers=0), rule, ScaleState(), 0.0)[0] == 0
    assert scale(load(9, service_s=0, queue=20, workers=0), rule, ScaleState(), 0.0)[0] == 1
    assert scale(load(0, service_s=0.06, queue=1, workers=0), rule, ScaleState(), 0.0)[0] == 1


def test_one_worker_more_where_the_oldest_waits_too_long_for_a_second() -> None:
    """Arrivals want 0.09 of a worker, but 0.3 s of the 0.5 s pass in the queue."""
    state = ScaleState()
    wanted, state, _ = scale(load(1, queue=1, queue_age_s=0.3), RULE, state, 0.0)
    assert wanted == 1
    wanted, state, reason = scale(load(1, queue=1, queue_age_s=0.3), RULE, state, 1.0)
    assert (wanted, reason) == (2, "the oldest batch waits 0.30 of 0.50 s")
    wanted, state, _ = scale(load(1, queue=1, queue_age_s=0.3), RULE, state, 9.0)
    assert wanted == 2  # it is still starting
    _, state, _ = scale(load(1, queue=1, queue_age_s=0.3, workers=2), RULE, state, 10.0)
    assert scale(load(1, queue=1, queue_age_s=0.3, workers=2), RULE, state, 10.9)[0] == 2
    assert scale(load(1, queue=1, queue_age_s=0.3, workers=2), RULE, state, 11.0)[0] == 3


def test_workers_are_given_back_one_at_a_time_after_a_quiet_period() -> None:
    state, answers = ScaleState(), {}
    _, state, _ = scale(load(50, workers=5), RULE, state, 0.0)
    for tick in range(1, 61):
        now_s = tick / 2
        answers[now_s], state, _ = scale(load(12.5, workers=state.wanted), RULE, state, now_s)
    assert answers[10.0] == 5
    assert [answers[now] for now in (10.5, 12.5, 14.5, 30.0)] == [4, 3, 2, 2]


def test_a_lowering_that_had_to_be_taken_back_makes_the_next_one_wait_longer() -> None:
    state = ScaleState()
    _, state, _ = scale(load(20, workers=2), RULE, state, 0.0)
    now_s, changes = 0.0, []
    while now_s < 400:
        now_s += 0.5
        # The formula is content with one worker; but with one, batches wait.
        age_s = 0.4 if state.wanted == 1 else 0.0
        before = state.wanted
        _, state, _ = scale(load(9, queue=1, queue_age_s=age_s, workers=before), RULE, state, now_s)
        if state.wanted < before:
            changes.append(now_s)
    waits = [b - a for a, b in itertools.pairwise(changes)]
    assert waits[0] > 15 and waits[1] > 1.8 * waits[0] and max(waits) < 90 and len(changes) < 9


def test_limits_hold_at_once() -> None:
    assert scale(load(500), RULE, ScaleState(), 0.0)[0] == 8
    _, state, _ = scale(load(500), RULE, ScaleState(), 0.0)
    assert scale(load(500), ScaleRule(min=1, max=3), state, 0.1)[0] == 3
    assert scale(load(0), ScaleRule(min=4, max=9), ScaleState(), 0.0)[0] == 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"target_utilisation": 0.0},
        {"target_utilisation": 1.1},
        {"min": 3, "max": 2},
        {"min": -1},
        {"min": 0, "max": 0},
        {"quiet_s": 0.0},
        {"slack": 1.0},
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        ScaleRule(**wrong)  # type: ignore[arg-type]


LOADS = st.builds(
    StageLoad,
    arrival_hz=st.floats(0, 1e4),
    service_s=st.floats(0, 100),
    queue=st.integers(0, 100_000),
    queue_age_s=st.floats(0, 1e4),
    workers=st.integers(0, 50),
    busy=st.floats(0, 50),
)


@given(st.lists(st.tuples(LOADS, st.floats(0, 30)), max_size=40), st.integers(0, 5), st.integers(0, 20))
def test_never_outside_the_limits_and_never_down_by_more_than_one(
    steps: list[tuple[StageLoad, float]], low: int, more: int
) -> None:
    rule = ScaleRule(min=low, max=max(low + more, 1))
    state, now_s, before = ScaleState(), 0.0, None
    for each, wait_s in steps:
        now_s += wait_s
        wanted, state, reason = scale(each, rule, state, now_s)
        assert rule.min <= wanted <= rule.max
        assert before is None or wanted >= before - 1
        assert (reason != "") == (before is not None and wanted != before) or before is None
        before = wanted


@given(
    streams=st.floats(0.05, 9.0),
    service_s=st.floats(0.01, 0.2),
    jitter=st.floats(0, 0.9),
    start_s=st.floats(0.0, 3.0),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_nothing_goes_up_and_down_at_constant_load_once_it_has_settled(
    streams: float, service_s: float, jitter: float, start_s: float, seed: int
) -> None:
    pool = SimulatedPool(
        ScaleRule(min=1, max=64),
        streams=lambda now_s: streams,
        service_s=service_s,
        jitter=jitter,
        start_s=start_s,
        seed=seed,
    )
    pool.run(150)
    # Irregular arrivals are measured as a little more one day, and what start-up left too many may still go: but what
    # has gone up does not come down, nor the other way round.
    numbers = [pool.wanted_at(90), *(wanted for _, wanted in pool.changes(from_s=90))]
    assert numbers in (sorted(numbers), sorted(numbers, reverse=True)) and len(numbers) <= 3
    assert pool.wanted >= streams * 12.5 * service_s / 0.7 - 0.5


@pytest.mark.parametrize("start_s", [1.0, 2.0, 3.0])
def test_a_step_from_one_stream_to_four_and_back_is_followed(start_s: float) -> None:
    """A stream is 12.5 batches a second of 60 ms: one stream wants 1.07 → 2 workers, four want 4.29 → 5."""
    pool = SimulatedPool(ScaleRule(min=1, max=16), streams=lambda now_s: 4 if 30 <= now_s < 90 else 1, start_s=start_s)
    pool.run(180)
    assert pool.wanted_at(29) == 2
    assert 5 <= pool.wanted_at(30 + 5) <= 7
    assert pool.peak <= 7
    assert pool.lag_at(30 + start_s + 10) < 0.5
    assert max(p95 for when, p95 in pool.worst if 45 < when < 90) < 0.5
    assert pool.wanted_at(89) <= 6
    assert pool.wanted_at(90 + 30) == 2
    assert len(pool.history) <= 15


def test_without_arrivals_the_least_is_left() -> None:
    pool = SimulatedPool(ScaleRule(min=0, max=16), streams=lambda now_s: 4 if now_s < 30 else 0)
    pool.run(80)
    assert pool.wanted == 0 and pool.workers == 0


def test_what_the_cluster_has_no_room_for_is_asked_for_once() -> None:
    """Two workers have room, five are wanted: a pending request, and it does not grow with the queue."""
    pool = SimulatedPool(ScaleRule(min=1, max=16), streams=lambda now_s: 4, room=2)
    pool.run(60)
    assert 5 <= pool.wanted <= 7 and pool.workers == 2
    assert pool.changes(from_s=10) == []
