"""Measurements over sliding windows: right, forgetting, and bounded."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.plan.load import LoadMeter, Rate, Window
from pipeline.wire.status import Quantiles


def test_a_rate_is_what_came_in_the_last_seconds() -> None:
    rate = Rate(5.0)
    for tick in range(250):
        rate.add(1, tick / 25)
    assert rate.per_s(9.99) == pytest.approx(25, rel=0.02)
    assert rate.per_s(12.4) == pytest.approx(25 / 2, rel=0.1)
    assert rate.per_s(16) == 0


def test_a_rate_right_after_the_start_is_taken_over_a_second() -> None:
    rate = Rate()
    rate.add(1, 100.0)
    assert rate.per_s(100.001) == 1
    rate.add(2.5, 100.5)
    assert rate.per_s(102.0) == pytest.approx(3.5 / 2)


def test_a_clock_that_goes_back_stands_still() -> None:
    rate = Rate()
    rate.add(1, 10.0)
    rate.add(1, 3.0)
    assert rate.per_s(2.0) == 2


def test_nothing_measured_is_zero() -> None:
    assert Rate().per_s(7.0) == 0
    assert Window().quantiles(7.0) == Quantiles()
    load = LoadMeter().load(7.0, 3)
    assert (load.arrival_hz, load.service_s, load.queue, load.queue_age_s, load.busy) == (0, 0, 0, 0, 0)


def test_quantiles_of_the_last_minute() -> None:
    """1 to 100 ms, each once: nearest rank gives 50, 95 and 99 ms."""
    window = Window(60.0)
    for n in range(1, 101):
        window.add(n / 1000, n / 10)
    found = window.quantiles(10.0)
    assert (found.p50, found.p95, found.p99) == pytest.approx((0.050, 0.095, 0.099), rel=0.02)
    assert window.quantiles(80.0) == Quantiles()


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=200))
def test_quantiles_are_right_to_two_percent(values: list[float]) -> None:
    window = Window()
    for value in values:
        window.add(value, 1.0)
    ranked = sorted(values)
    found = window.quantiles(1.0)
    for share, quantile in ((0.5, found.p50), (0.95, found.p95), (0.99, found.p99)):
        exact = ranked[-int(-share * len(ranked) // 1) - 1]
        assert quantile == pytest.approx(exact, rel=0.021, abs=1.1e-4)


def test_memory_does_not_grow_with_what_is_measured() -> None:
    window, rate = Window(), Rate()
    for n in range(200_000):
        window.add(1e-5 * 1.0001**n, n / 100)
        rate.add(1, n / 100)
    assert sum(sys.getsizeof(each) for _, each in window._window._kept) < 1 << 20
    assert len(window._window._kept) <= 12 and len(rate._window._kept) <= 20


def test_a_meter_tells_what_a_stage_is_asked_for_and_has() -> None:
    """10 batches a second of 60 ms, begun 20 ms after they came: 0.6 of a worker is busy, nothing waits in the end."""
    meter = LoadMeter(5.0)
    for n in range(100):
        at_s = n / 10
        meter.arrived(at_s)
        meter.began(at_s + 0.02)
        meter.ended(at_s + 0.08, service_s=0.06, latency_s=0.08)
    load = meter.load(10.0, workers=2)
    assert load.arrival_hz == pytest.approx(10, rel=0.05)
    assert load.service_s == pytest.approx(0.06)
    assert load.busy == pytest.approx(0.6, rel=0.05)
    assert (load.queue, load.queue_age_s, load.workers) == (0, 0, 2)
    assert meter.latency(10.0).p95 == pytest.approx(0.08, rel=0.02)


def test_a_service_time_is_remembered_while_nothing_ends() -> None:
    meter = LoadMeter(5.0)
    meter.arrived(0.0)
    meter.began(0.0)
    meter.ended(1.0, service_s=1.0, latency_s=1.0)
    load = meter.load(60.0, workers=1)
    assert (load.service_s, load.busy, load.arrival_hz) == (1.0, 0, 0)


def test_what_waits_has_the_age_of_the_oldest() -> None:
    meter = LoadMeter()
    for at_s in (1.0, 2.0, 3.0):
        meter.arrived(at_s)
    meter.began(4.0)
    assert (meter.load(5.0, 1).queue, meter.load(5.0, 1).queue_age_s) == (2, 3.0)
    meter.returned(5.0)
    assert (meter.load(6.0, 1).queue, meter.load(6.0, 1).queue_age_s) == (3, 4.0)
    for _ in range(5):
        meter.withdrawn()
    assert (meter.load(6.0, 1).queue, meter.load(6.0, 1).queue_age_s) == (0, 0)
    meter.began(7.0)  # told of a batch that was withdrawn
    assert meter.load(7.0, 1).queue == 0
