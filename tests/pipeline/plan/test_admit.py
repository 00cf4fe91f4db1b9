"""Admission: the cost by hand, the room, words with figures, and what running streams teach."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.models.runtime import RUNTIMES as KNOWN
from pipeline.plan.admit import (
    COSTS,
    FILE_CPUS,
    RETRY_S,
    RUNTIMES,
    Running,
    Wanted,
    admit,
    capacity_of,
    correction,
    cost_ms,
    cpus,
    may_return,
    starting_rung,
)
from pipeline.plan.ladder import Rung
from pipeline.wire.status import Quantiles, StageStatus

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"
LIVE_360 = Wanted(width=640, height=360, fps=25)


def test_the_cost_of_a_frame_is_the_sum_of_its_parts() -> None:
    """640×360 = 0.2304 Mpx, output 0.9216 Mpx.

    decode 0.25 + 0.599, enhance 0.5 + 13.133, guard 2.673, encode 5.530, quality 0.714, record 0.2, moving 4.977:
    28.576 ms. Without the network bicubic's 0.1 + 1.014 in place of enhance and guard: 13.384 ms.
    """
    assert cost_ms(LIVE_360, Rung.FULL) == pytest.approx(28.576, abs=0.01)
    assert cost_ms(LIVE_360, Rung.BICUBIC) == pytest.approx(13.384, abs=0.01)
    refined = replace(LIVE_360, refined=0.25)
    added_ms = 0.25 * COSTS["refine"].ms_per_mpx * 0.9216
    assert cost_ms(refined, Rung.FULL) == pytest.approx(28.576 + added_ms, abs=0.01)
    assert cost_ms(refined, Rung.BICUBIC) == cost_ms(LIVE_360, Rung.BICUBIC)
    assert cpus(LIVE_360, Rung.FULL) == pytest.approx(0.714, abs=0.001)
    assert cpus(replace(LIVE_360, fps=50), Rung.FULL) == pytest.approx(1.429, abs=0.001)


def test_the_predicted_parts_are_those_that_were_measured() -> None:
    """The table agrees with the result file that it names, for 640×360, to a fifth."""
    path = RESULTS / "endtoend_2core-x86_2026-11-26.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    measured = {row["case"].removeprefix("stage "): row["value"] for row in rows if row["case"].startswith("stage ")}
    for name in ("enhance", "guard", "encode", "quality", "record"):
        cost = COSTS[name]
        mpx = 0.2304 if cost.of == "source" else 0.9216
        assert cost.fixed_ms + cost.ms_per_mpx * mpx == pytest.approx(measured[name], rel=0.2, abs=0.1), name


def test_every_runtime_has_a_cost() -> None:
    assert set(RUNTIMES) == {*KNOWN, "auto"}


def test_what_is_not_enhanced_is_cheaper_and_what_is_analysed_is_dearer() -> None:
    plain = replace(LIVE_360, scale=1, network=False)
    assert cost_ms(plain, Rung.FULL) < cost_ms(replace(LIVE_360, network=False), Rung.FULL)
    assert cost_ms(replace(LIVE_360, network=False), Rung.FULL) == cost_ms(LIVE_360, Rung.BICUBIC)
    assert cost_ms(replace(LIVE_360, analyse=False), Rung.FULL) < cost_ms(LIVE_360, Rung.FULL)
    assert cost_ms(replace(LIVE_360, runtime="pytorch"), Rung.FULL) > 2 * cost_ms(LIVE_360, Rung.FULL)


def test_a_stream_fits_by_what_it_needs_at_its_lightest_rung() -> None:
    """0.335 cores of the 0.9 × 2 that streams may take."""
    verdict = admit(LIVE_360, capacity_of(2, 0, []), [])
    assert verdict.fits and verdict.retry_after_s == 0
    assert (verdict.wanted_cpus, verdict.room_cpus) == (pytest.approx(0.335, abs=0.001), 1.8)
    assert verdict.reason == (
        "640×360 at 25 frames a second needs 0.34 cores without the network, "
        "1.80 of 2.0 are free beside 0 running streams"
    )


def test_four_streams_at_the_lightest_rung_and_a_small_one_fit_on_two_cores_and_a_fifth_does_not() -> None:
    """4 × 0.335 = 1.34; 320×180 wants 7.2 ms × 25 = 0.19 at full effort; then 0.27 is left, and 0.335 is not."""
    running: list[Running] = []
    for _ in range(4):
        assert admit(LIVE_360, capacity_of(2, 0, running), running).fits
        running.append(Running(wanted=LIVE_360, rung=Rung.BICUBIC))
    small = Wanted(width=320, height=180, fps=25)
    assert admit(small, capacity_of(2, 0, running), running).fits
    assert starting_rung(small, capacity_of(2, 0, running), running) == Rung.FULL
    running.append(Running(wanted=small))
    verdict = admit(LIVE_360, capacity_of(2, 0, running), running)
    assert not verdict.fits and verdict.retry_after_s == RETRY_S
    assert verdict.wanted_cpus > verdict.room_cpus
    assert verdict.reason.startswith("640×360 at 25 frames a second needs 0.34 cores without the network, 0.27 of 2.0")


def test_a_stream_begins_at_the_first_rung_that_fits() -> None:
    alone = capacity_of(2, 0, [])
    assert starting_rung(LIVE_360, alone, []) == Rung.FULL
    beside = [Running(wanted=LIVE_360, measured_cpus=1.3)]
    assert starting_rung(LIVE_360, capacity_of(2, 0, beside), beside) == Rung.BICUBIC
    assert starting_rung(replace(LIVE_360, network=False), alone, []) == Rung.FULL


def test_a_stream_may_go_back_a_rung_if_what_it_would_take_more_is_there() -> None:
    """360p takes 0.35 cores more with the network: of 1.8, 1.3 are used; then 1.6."""
    for used, may in ((1.3, True), (1.6, False)):
        running = [Running(wanted=LIVE_360, rung=Rung.BICUBIC, measured_cpus=cpus(LIVE_360, Rung.BICUBIC))]
        running.append(replace(running[0], measured_cpus=used - cpus(LIVE_360, Rung.BICUBIC)))
        capacity = capacity_of(2, 0, running)
        assert capacity.room_cpus == pytest.approx(1.8 - used, abs=0.001)
        assert may_return(LIVE_360, Rung.BICUBIC, capacity, running[:1]) == may
    assert may_return(LIVE_360, Rung.FULL, capacity_of(2, 0, []), [])


def test_what_else_uses_the_cores_is_no_room() -> None:
    """Of 2 cores streams may take 1.8, and one takes 0.5. 0.4 idle: 0.3 beside what is kept idle. A file gives way."""
    running = [Running(wanted=LIVE_360, measured_cpus=0.5)]
    assert capacity_of(2, 0, running).room_cpus == pytest.approx(1.3)
    assert capacity_of(2, 0, running, idle_cpus=1.9).room_cpus == pytest.approx(1.3)
    assert capacity_of(2, 0, running, idle_cpus=0.4).room_cpus == pytest.approx(0.3)
    assert capacity_of(2, 0, running, idle_cpus=0.1).room_cpus == 0
    running.append(Running(wanted=replace(LIVE_360, live=False), measured_cpus=0.7))
    assert capacity_of(2, 0, running, idle_cpus=0.1).room_cpus == pytest.approx(0.7)


def test_what_the_whole_cluster_cannot_do_is_told_as_such() -> None:
    large = Wanted(width=3840, height=2160, fps=60)
    verdict = admit(large, capacity_of(2, 0, []), [])
    assert not verdict.fits
    assert "the whole cluster has 2.0, of which streams may take 1.80" in verdict.reason


def test_a_stream_that_has_not_been_looked_at_counts_as_the_assumed_one() -> None:
    verdict = admit(Wanted(), capacity_of(2, 0, []), [])
    assert verdict.wanted_cpus == admit(LIVE_360, capacity_of(2, 0, []), []).wanted_cpus
    assert "640×360 at 25 frames a second (assumed)" in verdict.reason


def test_measured_use_counts_instead_of_the_prediction() -> None:
    assert capacity_of(2, 1, [Running(wanted=LIVE_360, measured_cpus=0.5)]).room_cpus == pytest.approx(1.3)
    assert capacity_of(2, 1, [Running(wanted=LIVE_360)]).room_cpus == pytest.approx(1.8 - 0.714, abs=0.001)
    capacity = capacity_of(2, 1, [Running(wanted=LIVE_360, measured_cpus=5.0)])
    assert (capacity.room_cpus, capacity.used_cpus, capacity.streams, capacity.gpus) == (0, 5.0, 1, 1)


def test_running_streams_correct_the_prediction_of_the_next() -> None:
    """Two streams use twice what was predicted: so will the third."""
    running = [Running(wanted=LIVE_360, measured_cpus=2 * cpus(LIVE_360, Rung.FULL)) for _ in range(2)]
    assert correction(running) == pytest.approx(2)
    verdict = admit(LIVE_360, capacity_of(8, 0, running), running)
    assert verdict.wanted_cpus == pytest.approx(2 * cpus(LIVE_360, Rung.BICUBIC), abs=0.001)
    assert correction([Running(wanted=LIVE_360, measured_cpus=99.0)]) == 4
    assert correction([Running(wanted=replace(LIVE_360, live=False), measured_cpus=9.0)]) == 1


def test_a_file_waits_and_leaves_room_to_live_streams() -> None:
    file = replace(LIVE_360, live=False)
    running = [Running(wanted=file, measured_cpus=1.9)]
    assert capacity_of(2, 0, running).room_cpus == pytest.approx(1.8 - FILE_CPUS)
    assert admit(file, capacity_of(2, 0, running), running).fits
    full = [Running(wanted=LIVE_360, measured_cpus=1.7)]
    assert not admit(file, capacity_of(2, 0, full), full).fits


def test_no_more_streams_than_are_allowed() -> None:
    running = [Running(wanted=LIVE_360, measured_cpus=0.01)] * 3
    verdict = admit(LIVE_360, capacity_of(64, 0, running), running, max_streams=3)
    assert (verdict.fits, verdict.reason) == (False, "3 streams run, and 3 may")


@given(
    st.builds(
        Wanted,
        width=st.integers(0, 4096),
        height=st.integers(0, 4096),
        fps=st.floats(0, 240),
        live=st.booleans(),
        scale=st.integers(1, 4),
        network=st.booleans(),
        analyse=st.booleans(),
    ),
    st.lists(st.floats(0, 8), max_size=5),
    st.floats(0.5, 512),
)
def test_a_verdict_never_takes_more_than_the_room(wanted: Wanted, used: list[float], cluster: float) -> None:
    running = [Running(wanted=LIVE_360, measured_cpus=each) for each in used]
    capacity = capacity_of(cluster, 0, running)
    verdict = admit(wanted, capacity, running)
    assert verdict.fits == (verdict.wanted_cpus <= capacity.room_cpus)
    assert 0 <= capacity.room_cpus <= 0.9 * cluster + 0.001
    assert (verdict.retry_after_s > 0) == (not verdict.fits)
    assert cost_ms(wanted, Rung.BICUBIC) <= cost_ms(wanted, Rung.FULL) + 1e-9


def test_a_pool_at_its_limit_takes_no_stream_more_and_says_why() -> None:
    stage = StageStatus(
        name="slow",
        streams=4,
        workers=5,
        min=1,
        max=5,
        pending=0,
        queue=0,
        arrival_hz=50.0,
        service_s=0.06,
        utilisation=0.6,
        target_utilisation=0.7,
        latency_s=Quantiles(),
    )
    capacity = capacity_of(16.0, 0.0, [])
    found = admit(Wanted(), capacity, [], stages=[stage])
    assert not found.fits
    assert (
        "4 streams ask for 4.3 workers of the stage 'slow', one more would make it 5.4, and it may have 5"
        in found.reason
    )
    assert admit(Wanted(), capacity, [], stages=[replace(stage, max=6)]).fits
    assert admit(Wanted(live=False), capacity, [], stages=[stage]).fits
