"""One Ray for all tests here, one clip, and what an undisturbed run in one process makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.cluster import ray_running
from tests.actors.runs import Made, job_of, made_by
from tests.media_files import encode


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Ray, started as a run starts it."""
    with ray_running():
        yield


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 frames of 128×64 with sound; a random-access point every 20."""
    return encode(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=200, width=128, height=64, gop=20, audio=True)


@pytest.fixture(scope="session")
def reference(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """What run_local makes of the clip."""
    from pipeline.flow.local import run_local

    store = tmp_path_factory.mktemp("reference")
    outcome = run_local(job_of(clip, store / "out", store))
    assert (outcome.state, outcome.frames) == ("completed", 200)
    return made_by(store / "out")
