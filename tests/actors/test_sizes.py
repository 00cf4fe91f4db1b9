"""What a stream asks for, by its settings: rungs of the overload ladder, processes."""

from __future__ import annotations

from typing import Any

import pytest

from actors.sizes import lanes_of, wanted_of
from pipeline.config import Settings
from pipeline.plan.ladder import Rung


@pytest.mark.parametrize(
    ("settings", "live", "rungs"),
    [
        ({}, True, [Rung.FULL, Rung.BICUBIC, Rung.LIGHTER_ENCODE]),
        ({}, False, [Rung.FULL]),  # it waits
        ({"enhance": {"model": "bicubic"}}, True, [Rung.FULL, Rung.LIGHTER_ENCODE]),
        ({"encode": {"preset": "ultrafast"}}, True, [Rung.FULL, Rung.BICUBIC]),  # nothing is lighter than that
        ({"encode": {"preset": "slow"}, "enhance": {"enabled": False}}, True, [Rung.FULL]),
    ],
)
def test_a_stream_has_the_rungs_that_do_something_for_it(
    settings: dict[str, Any], live: bool, rungs: list[Rung]
) -> None:
    assert list(wanted_of(Settings.from_dict(settings), live=live).rungs) == rungs


def test_live_streams_get_two_processes_while_there_are_cores_for_all() -> None:
    assert [lanes_of(True, beside, 2) for beside in range(3)] == [2, 1, 1]
    assert [lanes_of(True, beside, 8) for beside in (0, 3, 4)] == [8, 8, 1]
    assert lanes_of(False, 99, 2) == 2
