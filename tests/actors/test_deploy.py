"""Streams on Ray give what they give in one process, and leave nothing behind."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from actors.cluster import slab_directories
from actors.deploy import run_on_ray
from actors.slab import PREFIX, files_of
from pipeline.errors import ConfigError, Unreachable
from pipeline.flow.job import Progress
from pipeline.store.objects import open_store
from pipeline.store.stamps import StampLog
from tests.actors.runs import FRAMES, Made, job_of, made_by, pids, run

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.mark.parametrize("plan", ["chained", "auto", "unchained"])
def test_every_plan_gives_the_bytes_of_one_process(plan: str, clip: Path, reference: Made, tmp_path: Path) -> None:
    outcome = run(job_of(clip, tmp_path / "out", tmp_path, plan=plan))
    assert (outcome.state, outcome.frames, outcome.error) == ("completed", FRAMES, None)
    assert made_by(tmp_path / "out") == reference


def test_the_object_store_gives_the_same_bytes(clip: Path, reference: Made, tmp_path: Path) -> None:
    outcome = run(job_of(clip, tmp_path / "out", tmp_path), slabs=False)
    assert (outcome.state, outcome.frames, outcome.error) == ("completed", FRAMES, None)
    assert made_by(tmp_path / "out") == reference


def test_a_stopped_run_is_taken_up_and_leaves_nothing_behind(clip: Path, reference: Made, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job = job_of(clip, tmp_path / "out", tmp_path, gate=str(gate), gate_frame=96)
    stop = threading.Event()
    seen: dict[str, int] = {}

    def at(progress: Progress) -> None:
        if progress.frames_done and not seen:
            seen.update(pids())
            gate.touch()
            stop.set()

    outcome = run(job, at=at, stop=stop)
    assert outcome.state == "stopped"
    assert 0 < outcome.frames < FRAMES
    assert "#EXT-X-ENDLIST" in (tmp_path / "out" / "hls" / "main" / "index.m3u8").read_text()
    assert not [role for role, pid in seen.items() if psutil.pid_exists(pid)]
    assert files_of(f"{PREFIX}{os.getpid()}-", slab_directories()) == []
    outcome = run(job)
    assert (outcome.state, outcome.frames) == ("completed", FRAMES)
    assert made_by(tmp_path / "out") == reference


def test_streams_that_run_at_once_do_not_mix(clip: Path, reference: Made, tmp_path: Path) -> None:
    """Three chains on one machine; the one without a source fails alone, with its own error."""
    jobs = [job_of(clip, tmp_path / name, tmp_path, plan="auto", name=name) for name in ("s", "t")]
    jobs.append(job_of(tmp_path / "absent.mp4", tmp_path / "u", tmp_path, plan="auto", name="u"))
    s, t, u = run_on_ray(jobs, stop=threading.Event(), progress=lambda _: None)
    assert [o.state for o in (s, t, u)] == ["completed", "completed", "failed"]
    assert isinstance(u.error, Unreachable)
    assert made_by(tmp_path / "s") == reference
    assert made_by(tmp_path / "t").keys() == reference.keys()
    assert made_by(tmp_path / "t")["hls/main/index.m3u8"] == reference["hls/main/index.m3u8"]


def test_a_graph_that_cannot_be_built_is_an_outcome(clip: Path, tmp_path: Path) -> None:
    job = job_of(clip, tmp_path / "out", tmp_path)
    job = replace(job, settings=job.settings.model_copy(update={"graph": str(tmp_path / "absent.yaml")}))
    outcome = run(job)
    assert outcome.state == "failed"
    assert isinstance(outcome.error, ConfigError)


@pytest.mark.parametrize("deaths", [1, 3])
def test_a_host_chooses_the_runtime_and_may_die_of_it(deaths: int, clip: Path, tmp_path: Path) -> None:
    """The supervisor lives on: it asks another one, and after three it says what to do."""
    folder = tmp_path / "deaths"
    folder.mkdir()
    for n in range(deaths):
        (folder / str(n)).touch()
    outcome = run(job_of(clip, tmp_path / "out", tmp_path, stage="Measuring", deaths=str(folder)))
    assert list(folder.iterdir()) == []
    if deaths < 3:
        assert (outcome.state, outcome.frames, outcome.error) == ("completed", FRAMES, None)
        (entry,) = StampLog(open_store(str(tmp_path / "out"))).entries
        assert entry.stamp.runtime == "measured"
    else:
        assert outcome.state == "failed"
        assert "enhance.runtime" in str(outcome.error)
        assert not (tmp_path / "out" / "manifest.json").exists()


def test_fewer_frames_at_a_time_give_the_same_bytes(
    clip: Path, reference: Made, tmp_path: Path, ray_session: None
) -> None:
    job = job_of(clip, tmp_path / "out", tmp_path)
    graph = Path(job.settings.graph)
    graph.write_text(f"batch_frames: 2\n{graph.read_text()}")
    outcome = run(job)
    assert (outcome.state, outcome.frames, outcome.error) == ("completed", FRAMES, None)
    assert made_by(tmp_path / "out") == reference
