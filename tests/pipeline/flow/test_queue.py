"""Tickets of a pool: fair, oldest first, none lost when a worker dies."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.flow.queue import PoolQueue
from pipeline.wire.ids import StreamId

A, B = StreamId("a"), StreamId("b")


def drain(queue: PoolQueue[str]) -> list[tuple[str, str]]:
    out = []
    while (assigned := queue.assign()) is not None:
        out.append(assigned)
    return out


def test_streams_take_turns_and_the_oldest_of_each_goes_first() -> None:
    queue: PoolQueue[str] = PoolQueue(depth=4)
    for ticket in ("a1", "a2", "a3"):
        queue.put(A, ticket)
    queue.put(B, "b1")
    queue.add_worker("w")
    assert [t for _, t in drain(queue)] == ["a1", "b1", "a2", "a3"]


def test_a_worker_gets_two_and_the_least_busy_one_is_next() -> None:
    queue: PoolQueue[str] = PoolQueue()
    for number in range(5):
        queue.put(A, str(number))
    queue.add_worker("v")
    queue.add_worker("w")
    assert drain(queue) == [("v", "0"), ("w", "1"), ("v", "2"), ("w", "3")]
    queue.done("w", "1")
    assert queue.assign() == ("w", "4")


def test_only_the_ticket_at_work_is_blamed_for_a_death() -> None:
    queue: PoolQueue[str] = PoolQueue()
    for number in range(3):
        queue.put(A, str(number))
    queue.add_worker("w")
    drain(queue)
    left = queue.remove_worker("w")
    assert (left.blamed, left.put_back) == ("0", ("1",))
    queue.add_worker("x")
    assert drain(queue) == [("x", "1"), ("x", "2")]


def test_a_stream_that_is_over_waits_for_nothing() -> None:
    queue: PoolQueue[str] = PoolQueue()
    queue.put(A, "a1")
    queue.put(B, "b1")
    assert queue.forget(A) == ("a1",)
    queue.add_worker("w")
    assert drain(queue) == [("w", "b1")]


def test_answers_of_workers_that_are_gone_change_nothing() -> None:
    queue: PoolQueue[str] = PoolQueue()
    queue.put(A, "a1")
    queue.add_worker("w")
    drain(queue)
    queue.remove_worker("w")
    queue.done("w", "a1")
    assert queue.remove_worker("w").blamed is None
    assert len(queue) == 0


@given(st.lists(st.sampled_from(["put", "assign", "done", "die", "join"]), max_size=60))
def test_every_ticket_is_waiting_at_work_blamed_or_done(steps: list[str]) -> None:
    queue: PoolQueue[int] = PoolQueue()
    made, at_work, over = 0, {}, 0  # type: ignore[var-annotated]
    for number, step in enumerate(steps):
        if step == "put":
            queue.put(A if number % 2 else B, made)
            made += 1
        elif step == "join":
            queue.add_worker(f"w{number}")
        elif step == "assign" and (assigned := queue.assign()) is not None:
            name, ticket = assigned
            assert ticket not in at_work
            at_work[ticket] = name
        elif step == "done" and at_work:
            ticket = next(iter(at_work))
            queue.done(at_work.pop(ticket), ticket)
            over += 1
        elif step == "die" and queue.workers:
            name = queue.workers[0]
            left = queue.remove_worker(name)
            over += left.blamed is not None
            at_work = {t: w for t, w in at_work.items() if w != name}
        assert made == len(queue) + len(at_work) + over
