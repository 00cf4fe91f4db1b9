"""Monitor: curves, and scene changes by f(t − w) − f(t) ≥ δ."""

from __future__ import annotations

import pytest

from pipeline.errors import ConfigError
from pipeline.publisher.monitor import Monitor, MonitorConfig


def told(monitor: Monitor, values: list[float], start_s: float = 0.0) -> list[float]:
    """The moments at which a change is told, pairs coming twice a second."""
    return [start_s + i / 2 for i, db in enumerate(values) if monitor.score(start_s + i / 2, db, None)]


def test_a_fall_of_a_db_over_a_second_is_a_change() -> None:
    """k = 4: behind a fall of 2 dB the second pair's value is (0.5·2 + 0.444·2 …): f falls by 36/23·… ≥ 1 there.

    Weights at distances 0, 0.5, 1, 1.5: 1, 8/9, 5/9, 0. First pair behind: f falls by 2·9/22 = 0.82 dB; second:
    2·17/22 = 1.55 dB.
    """
    assert told(Monitor(MonitorConfig()), [30, 30, 30, 30, 28, 28]) == [2.5]


def test_a_smaller_fall_and_a_rise_are_none() -> None:
    assert told(Monitor(MonitorConfig()), [30] * 4 + [29.1] * 6) == []
    assert told(Monitor(MonitorConfig()), [30] * 4 + [36] * 6) == []


def test_a_slow_fall_is_none() -> None:
    assert told(Monitor(MonitorConfig()), [30 - i / 4 for i in range(12)]) == []


def test_it_knows_where_the_scene_begins() -> None:
    monitor = Monitor(MonitorConfig())
    told(monitor, [30, 30.2, 30, 30, 27, 27.1])
    assert monitor.cut_s() == 2.0
    monitor.begin(2.0)
    assert told(monitor, [27, 27, 27, 27], start_s=3.0) == []


def test_curves_are_kept_for_a_while() -> None:
    monitor = Monitor(MonitorConfig(kept_s=3.0))
    for i in range(20):
        monitor.score(i / 2, 30.0, 31.0 if i >= 10 else None)
    assert [point.at_s for point in monitor.curve] == [6.5 + i / 2 for i in range(7)]
    assert monitor.curve[-1].best_db == 31.0 and monitor.curve[-1].deployed_db == 30.0


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError):
        MonitorConfig(span_s=0)
