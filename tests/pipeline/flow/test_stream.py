from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.pipeline.flow import toys
from tests.pipeline.flow.simulated import Simulation

Plan = Sequence[Sequence[str]]
COUNTS = st.lists(st.integers(0, 3), min_size=0, max_size=24)
PLAN = st.sampled_from(toys.PLANS)


@pytest.fixture(autouse=True)
def _nothing_written() -> Iterator[None]:
    toys.WRITTEN.clear()
    yield
    toys.WRITTEN.clear()


@pytest.mark.parametrize("plan", toys.PLANS)
@pytest.mark.parametrize("counts", [[], [0], [1], [3] * 20, [2, 0, 0, 1, 3, 0, 0, 0, 3, 1, 1, 2, 0, 1]])
def test_every_plan_writes_what_the_formula_says(plan: Plan, counts: list[int]) -> None:
    run = Simulation([toys.packets(counts)], plan)
    run.run()
    assert run.completed
    assert toys.expected(counts) == toys.WRITTEN
    assert run.payloads == {}, "payloads are left behind"


@pytest.mark.parametrize("plan", toys.PLANS)
def test_epochs_follow_each_other(plan: Plan) -> None:
    first, second, third = [3, 1, 2], [2] * 9, [1]
    run = Simulation([toys.packets(first), toys.packets(second, 1), toys.packets(third, 2)], plan)
    run.run()
    assert toys.expected(first) | toys.expected(second, 1) | toys.expected(third, 2) == toys.WRITTEN
    assert run.payloads == {}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), plan=PLAN, first=COUNTS, second=COUNTS, two=st.booleans(), queue=st.sampled_from([1, 60, 400]))
def test_nothing_is_lost_or_written_twice_whatever_dies(
    data: st.DataObject, plan: Plan, first: list[int], second: list[int], two: bool, queue: int
) -> None:
    """Random order of everything, doubled answers, and up to a dozen deaths: of hosts, workers, ingest, all at once.

    `toys.write` itself refuses a second content under one name.
    """
    toys.WRITTEN.clear()
    epochs = [toys.packets(first)] + ([toys.packets(second, 1)] if two and first else [])
    run = Simulation(epochs, plan, queue_bytes=queue)

    def choose(n: int) -> int:
        return data.draw(st.integers(0, n - 1))

    for _ in range(data.draw(st.integers(0, 12), label="deaths")):
        for _ in range(data.draw(st.integers(0, 40), label="steps before")):
            found = run.choices()
            if run.completed or not found:
                break
            found[choose(len(found))]()
        if run.completed:
            break
        match data.draw(st.sampled_from(["host", "worker", "ingest", "all", "double"]), label="what"):
            case "host":
                run.kill_host(choose)
            case "worker":
                run.kill_worker(choose)
            case "ingest":
                run.kill_ingest()
            case "all":
                run.begin(data.draw(PLAN, label="plan"))
            case "double":
                if run.inbox:
                    run.deliver(choose(len(run.inbox)), again=True)
    if not run.completed:
        run.run()
    wanted = toys.expected(first) | (toys.expected(second, 1) if len(epochs) > 1 else {})
    assert wanted == toys.WRITTEN
    assert not [e for e in run.events if e.type == "batch.set_aside"] or run.aside
    for late in (*run.inbox, *run.doubled):
        run.carry_out(run.flow.on(late))
    assert run.payloads == {}, "payloads are left behind"


@pytest.mark.parametrize("plan", toys.PLANS)
def test_shelves_keep_to_their_credit(plan: Plan) -> None:
    """A frame counts 10 bytes; a call makes at most 8 frames. What an idle sink waits for may come on top, once."""
    run = Simulation([toys.packets([1] * 200)], plan, queue_bytes=200)
    worst = 0
    for step in range(20_000):
        found = run.choices()
        if run.completed:
            break
        # Sinks only move when nothing else can: everything piles up before them.
        found[step % max(1, len(found) - 1) if len(found) > 1 else 0]()
        held = {name: n for name, n in run.flow.epoch.held_bytes().items() if name != "source"}
        worst = max([worst, *held.values()])
    assert run.completed
    assert worst <= 200 + 2 * 80, f"a shelf held {worst} bytes"


@pytest.mark.parametrize("slow", ["keep", "log", "total", "blur"])
def test_a_fast_box_beside_a_slow_one_does_not_exceed_the_credit(slow: str) -> None:
    """`keep` and `total` take what `add` makes, `blur` and `log` what `split` makes; only one of them dawdles."""
    run = Simulation([toys.packets([1] * 200)], toys.PLANS[0], queue_bytes=200)
    worst = 0
    for _ in range(20_000):
        if run.completed:
            break
        found = run.choices(but=slow)
        (found or run.choices())[0]()
        held = {name: n for name, n in run.flow.epoch.held_bytes().items() if name != "source"}
        worst = max([worst, *held.values()])
    assert run.completed
    assert worst <= 200 + 2 * 80, f"a shelf held {worst} bytes"


@pytest.mark.parametrize("plan", toys.PLANS[:1])
@pytest.mark.parametrize("harm", ["die", "raise"])
@pytest.mark.parametrize("node", ["double", "split"])
def test_a_poison_span_is_set_aside_after_three_tries(plan: Plan, harm: str, node: str) -> None:
    """Frames 8 to 11 (packets 8 and 9 for `split`) kill `node`; its bypass gives zeros (nothing), the rest is right."""
    run = Simulation([toys.packets([1] * 20)], plan)
    run.poison = lambda name, start, stop: harm if name == node and start < 10 and stop > 8 else ""
    run.run()
    assert run.completed
    kinds = [e.type for e in run.events]
    assert kinds == ["stage.failed"] * 3 + ["batch.set_aside"]
    if node == "double":
        assert run.aside == {0: [("double", 8, 12)]}
        kept = [v for name in ("keep/0/0", "keep/0/5", "keep/0/10", "keep/0/15") for v in toys.WRITTEN[name]]
        plain = [7 * i % 31 for i in range(20)]
        assert kept == [v if 8 <= i < 12 else 3 * v for i, v in enumerate(plain)]
    else:
        assert run.aside == {0: [("split", 8, 10)]}


@pytest.mark.parametrize("plan", toys.PLANS[1:])
def test_a_chain_that_dies_at_one_place_is_taken_apart(plan: Plan) -> None:
    run = Simulation([toys.packets([1] * 20)], plan)
    run.poison = lambda name, start, stop: "die" if name == "double" and start < 10 and stop > 8 else ""
    run.run()
    assert run.completed
    assert [a for a in run.aside[0] if a[0] != "double"] == []
    kept = [v for at in (0, 5, 10, 15) for v in toys.WRITTEN[f"keep/0/{at}"]]
    assert [v for i, v in enumerate(kept) if not 8 <= i < 12] == [
        3 * (7 * i % 31) for i in range(20) if not 8 <= i < 12
    ]


def test_a_stage_without_a_bypass_fails_the_stream() -> None:
    run = Simulation([toys.packets([1] * 20)], toys.PLANS[0])
    # Even when it is passed over, `add` dies: nothing can stand in for it.
    run.harm = lambda node, action: "die" if node == "add" else ""  # type: ignore[method-assign]
    run.run()
    assert run.failed is not None
    assert "add" in str(run.failed.error)
