"""A live stream that lags is made lighter and goes back, and what was decided is repeated by a replay, bit for bit."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from actors.deploy import run_on_ray
from pipeline.commands.replay import main as replay
from pipeline.config import Settings
from pipeline.flow.job import Job, Progress
from pipeline.store.objects import open_store
from pipeline.store.stamps import StampLog
from pipeline.wire.ids import StreamId
from tests.actors.runs import made_by
from tests.service.live_peer import LiveServer, transport_stream

SECONDS = 60.0
LATE_S, EASY_S = 0.0001, 5.0  # targets that cannot be kept, and that are


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("plan", ["auto", "unchained"])
def test_what_lag_has_decided_is_replayed(tmp_path: Path, plan: str) -> None:
    server = LiveServer(transport_stream(tmp_path / "clip.ts", seconds=SECONDS), SECONDS)
    settings = {
        "live": {"max_lag_s": LATE_S},
        "enhance": {"runtime": "openvino-int8"},
        "outputs": {"packets": True},
        "encode": {"segment_s": 1, "preset": "ultrafast"},
        "record": {"part_frames": 25},
        "flow": {"plan": plan},
    }
    source = f"tcp://127.0.0.1:{server.port}"
    made = tmp_path / "made"
    job = Job(stream=StreamId("s"), source=source, store=str(made), settings=Settings.from_dict(settings))
    stop, rungs = threading.Event(), list[int]()

    def at(progress: Progress) -> None:
        rungs.append(progress.rung)
        if progress.rung and progress.frames_done > 150:
            stop.set()

    (outcome,) = run_on_ray([job], stop=stop, progress=at)
    server.close()
    assert outcome.state == "stopped", outcome.error
    assert (rungs[0], rungs[-1]) == (0, 4)
    assert outcome.counts["made_lighter.overload"] > 0
    full, light = StampLog(open_store(str(made))).entries
    assert (full.stamp.runtime, light.stamp.runtime) == ("openvino-int8", "bicubic")
    assert 0 < light.seq < outcome.frames

    assert replay([str(made / "manifest.json"), "-o", str(tmp_path / "again")]) == 0
    again, first = made_by(tmp_path / "again"), made_by(made)
    # The run was stopped inside a segment and a part; the replay makes what of them was kept.
    shared = [name for name in first if name in again and name.startswith(("hls/main/0", "tables/"))]
    assert len(shared) > 10
    for name in shared:
        assert again[name] == first[name], name
