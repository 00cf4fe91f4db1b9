"""kill -9 of every role in the middle of a run: what comes out is what an undisturbed run makes, bit for bit."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from pipeline.flow.job import Outcome, Progress
from tests.actors.runs import FRAMES, Made, job_of, made_by, pids, run

pytestmark = pytest.mark.usefixtures("ray_session")

CHAINED = "decode+twice+guard+encode+audio+quality+record"
GATE_FRAME = 96  # frames behind it wait until the kill has been done


def pids_with_spare() -> dict[str, int]:
    """Return who is who, once a spare is there: what a gap costs in a run that has been under way for a while."""
    until = time.monotonic() + 60
    while "spare.0" not in (found := pids()):
        assert time.monotonic() < until, "no spare"
        threading.Event().wait(0.1)
    return found


def run_and_kill(roles: list[str], clip: Path, work: Path, *, plan: str) -> Outcome:
    """Run; when the first frames are durable, kill the processes of `roles`, then let the rest pass the gate."""
    gate = work / "gate"
    killed: list[int] = []
    times_s: list[float] = []  # of the kill, and when frames behind the gate were durable

    def at(progress: Progress) -> None:
        if progress.frames_done and not killed:
            found = pids_with_spare()
            for role in roles:
                os.kill(found[role], signal.SIGKILL)
                killed.append(found[role])
            times_s.append(time.monotonic())
            gate.touch()
        elif progress.frames_done > GATE_FRAME and len(times_s) == 1:
            times_s.append(time.monotonic())

    outcome = run(job_of(clip, work / "out", work, plan=plan, gate=str(gate), gate_frame=GATE_FRAME), at=at)
    assert len(killed) == len(roles)
    assert len(times_s) == 2
    print(f"{plan}, kill -9 of {', '.join(roles)}: frames behind it durable after {times_s[1] - times_s[0]:.2f} s")
    return outcome


@pytest.mark.parametrize(
    "role", ["source", "decode", "twice.0", "guard.0", "encode", "audio", "quality.0", "record", "supervisor"]
)
def test_killed_role_unchained_changes_nothing(role: str, clip: Path, reference: Made, tmp_path: Path) -> None:
    outcome = run_and_kill([role], clip, tmp_path, plan="unchained")
    assert (outcome.state, outcome.frames, outcome.error) == ("completed", FRAMES, None)
    assert made_by(tmp_path / "out") == reference


@pytest.mark.parametrize("role", ["source", CHAINED, "supervisor"])
def test_killed_role_chained_changes_nothing(role: str, clip: Path, reference: Made, tmp_path: Path) -> None:
    outcome = run_and_kill([role], clip, tmp_path, plan="chained")
    assert (outcome.state, outcome.frames, outcome.error) == ("completed", FRAMES, None)
    assert made_by(tmp_path / "out") == reference


def test_everything_killed_at_once_changes_nothing(clip: Path, reference: Made, tmp_path: Path) -> None:
    everyone = ["source", "decode", "twice.0", "guard.0", "encode", "audio", "quality.0", "record", "supervisor"]
    outcome = run_and_kill(everyone, clip, tmp_path, plan="unchained")
    assert (outcome.state, outcome.frames, outcome.error) == ("completed", FRAMES, None)
    assert made_by(tmp_path / "out") == reference
