"""Pools follow their load, and processes with networks go where their device is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors import deploy
from actors.crew import Crew
from actors.supervisor import News
from pipeline.config import Settings
from pipeline.flow.job import Job, Outcome
from tests.actors.runs import FRAMES, job_of


def with_flow(job: Job, **flow: Any) -> Job:
    values = job.settings.to_dict()
    values["flow"] |= flow
    return replace(job, settings=Settings.from_dict(values))


@pytest.mark.usefixtures("ray_session")
def test_a_pool_grows_with_its_backlog_and_gives_workers_back(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 ms a batch are in the way of everything else; what the pools had is heard with the news."""
    heard: list[dict[str, int]] = []
    take = Crew._take

    def listening(crew: Crew, news: News) -> None:
        if news.stages is not None:
            heard.append({stage.name: stage.workers for stage in news.stages})
        take(crew, news)

    monkeypatch.setattr(Crew, "_take", listening)
    jobs = [
        with_flow(job_of(clip, tmp_path / name, tmp_path, name=name, stage="Slow"), max_hosts=3, queue_bytes=8 << 20)
        for name in "abcdef"
    ]
    # All "twice" have the same configuration, so the streams share one pool.
    outcomes: list[Outcome] = deploy.run_on_ray(jobs, stop=threading.Event(), progress=lambda _: None)
    assert [(outcome.state, outcome.frames) for outcome in outcomes] == [("completed", FRAMES)] * len(jobs)
    workers = [stages["twice"] for stages in heard if "twice" in stages]
    assert workers[0] <= 1
    assert 2 <= max(workers) <= 3


PINNED = """
import sys, json, threading
from pathlib import Path
import ray
from actors.crew import Crew
from actors.deploy import run_on_ray
from tests.actors.runs import job_of
from tests.actors.test_scaling import with_flow

clip, work = map(Path, sys.argv[1:3])
heard = []
take = Crew._take
def listening(crew, news):
    if news.stages is not None:
        heard.extend((s.workers, s.pending) for s in news.stages if s.name == "twice")
        if (2, 1) in heard:
            (work / "gate").touch()
    take(crew, news)
Crew._take = listening
ray.init(num_cpus=2, resources={"ACCEL": 1}, include_dashboard=False, namespace="limpid", log_to_driver=False)
job = job_of(clip, work / "out", work, stage="Measuring", deaths=str(work / "deaths"), gate=str(work / "gate"))
job = with_flow(job, hosts=3, device="ACCEL", device_share=0.5)
opener = threading.Timer(60, (work / "gate").touch)  # it did not happen: then it is told
opener.daemon = True
opener.start()
(outcome,) = run_on_ray([job], stop=threading.Event(), progress=lambda _: None)
most = max(heard, default=None)
print(json.dumps([outcome.state, outcome.frames, most, ray.available_resources()["ACCEL"]]))
"""


def test_processes_with_networks_share_a_device_and_those_without_room_wait(clip: Path, tmp_path: Path) -> None:
    """A resource of Ray's stands for the device: half of it each, so two of three workers fit, one is waited for."""
    (tmp_path / "deaths").mkdir()
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", PINNED, str(clip), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    state, frames, most, left = json.loads(done.stdout.splitlines()[-1])
    assert (state, frames) == ("completed", FRAMES), done.stderr
    assert most == [2, 1]
    assert left == 1  # all of it was given back
