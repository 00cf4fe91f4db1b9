"""What each exception of Ray means."""

from __future__ import annotations

import pytest
import ray.exceptions as rx

from actors.faults import TABLE, Verdict, verdict_of


def test_a_dead_actor_is_replaced() -> None:
    assert verdict_of(rx.ActorDiedError())[0] is Verdict.DIED


def test_a_lost_input_takes_the_stream_up_anew_also_as_the_cause_of_a_failed_call() -> None:
    lost = rx.ObjectLostError("00" * 28, None, "")
    assert verdict_of(lost)[0] is Verdict.REPLAY
    assert verdict_of(rx.RayTaskError("f", "trace", lost))[0] is Verdict.REPLAY


def test_a_host_that_raises_is_a_bug() -> None:
    assert verdict_of(rx.RayTaskError("f", "trace", ValueError("x")))[0] is Verdict.FAIL


def test_what_is_not_of_ray_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        verdict_of(ZeroDivisionError())


def test_no_entry_hides_behind_an_earlier_one() -> None:
    for number, (kind, _, _) in enumerate(TABLE):
        assert not any(issubclass(kind, earlier) for earlier, _, _ in TABLE[:number]), kind
