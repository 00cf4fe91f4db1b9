"""What happens to the process that runs a job: asked to stop or killed, it leaves no process and no memory behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from actors.cluster import SHM, slab_directories
from actors.slab import PREFIX, files_of, sweep
from tests.actors.runs import FRAMES, Made, job_of, made_by, run

_PATIENCE_S = 60.0


@contextmanager
def running(clip: Path, work: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """Have a driver run the clip up to the gate; give it and its descendants."""
    command = [sys.executable, "-m", "tests.faults.driver", str(clip), str(work / "out"), str(work)]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True, cwd=root) as process:
        try:
            assert process.stdout is not None
            found = []
            for pid in json.loads(process.stdout.readline()):
                try:
                    found.append(psutil.Process(pid))
                except psutil.NoSuchProcess:
                    continue
            assert len(found) > 3  # Ray's own, and ours
            yield process, found
        finally:
            process.kill()


def gone(processes: list[psutil.Process]) -> bool:
    """Say whether all end in time."""
    _, alive = psutil.wait_procs(processes, timeout=_PATIENCE_S)
    return not alive


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_leaves_nothing_and_is_taken_up(
    number: signal.Signals, clip: Path, reference: Made, tmp_path: Path, ray_session: None
) -> None:
    """SIGINT goes to the whole group, as Ctrl-C does."""
    with running(clip, tmp_path) as (process, children):
        (tmp_path / "gate").touch()
        if number is signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        assert process.wait(_PATIENCE_S) == 0
        assert process.stdout is not None
        assert process.stdout.read().split() in (["stopped"], ["completed"])
        assert gone(children)
        assert files_of(f"{PREFIX}{process.pid}-", [SHM]) == []
    outcome = run(job_of(clip, tmp_path / "out", tmp_path, gate=str(tmp_path / "gate"), gate_frame=96, plan="chained"))
    assert (outcome.state, outcome.frames) == ("completed", FRAMES)
    assert made_by(tmp_path / "out") == reference


def test_killed_it_leaves_no_process_and_the_next_run_removes_its_memory(
    clip: Path, reference: Made, tmp_path: Path, ray_session: None
) -> None:
    with running(clip, tmp_path) as (process, children):
        mine = f"{PREFIX}{process.pid}-"
        assert files_of(mine, [SHM])
        # Two of Ray's own processes wait a minute for a server that is dead too before they end.
        workers = [p for p in children if not p.name().endswith("Agent")]
        process.kill()
        process.wait(_PATIENCE_S)
        assert gone(workers)
    sweep(slab_directories())
    assert files_of(mine, [SHM]) == []
    (tmp_path / "gate").touch()
    outcome = run(job_of(clip, tmp_path / "out", tmp_path, gate=str(tmp_path / "gate"), gate_frame=96, plan="chained"))
    assert (outcome.state, outcome.frames) == ("completed", FRAMES)
    assert made_by(tmp_path / "out") == reference
