"""A live stream that lags is made lighter and goes back, and what was decided is repeated by a replay, bit for bit."""

from __future__ import annotations

import shutil
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
LATE_S = 0.0001  # a target that cannot be kept
GRAPH = """name: laddered
stages:
  - {stage: decode, after: source}
  - {stage: enhance, after: decode}
  - {stage: guard, after: [enhance, decode]}
  - {stage: encode, after: guard.frames}
  - {stage: packets, after: source, config: {part_packets: 25}}
  - {stage: quality, after: decode}
  - {stage: record, after: [decode, quality, guard.report]}
"""


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("plan", ["auto", "unchained"])
def test_what_lag_has_decided_is_replayed(tmp_path: Path, plan: str) -> None:
    server = LiveServer(transport_stream(tmp_path / "clip.ts", seconds=SECONDS), SECONDS)
    graph = tmp_path / "graph.yaml"
    graph.write_text(GRAPH)
    settings = {
        "graph": str(graph),
        "live": {"max_lag_s": LATE_S},
        "enhance": {"runtime": "openvino-int8"},
        "outputs": {"packets": True},
        "encode": {"segment_s": 1},
        "record": {"part_frames": 25},
        "flow": {"plan": plan},
    }
    source = f"tcp://127.0.0.1:{server.port}"
    made = tmp_path / "made"
    job = Job(stream=StreamId("s"), source=source, store=str(made), settings=Settings.from_dict(settings))
    stop, rungs, lightest_at = threading.Event(), list[int](), list[int]()

    def at(progress: Progress) -> None:
        rungs.append(progress.rung)
        if progress.rung == 5:
            lightest_at.append(progress.frames_done)
            if progress.frames_done > lightest_at[0] + 75:
                stop.set()

    (outcome,) = run_on_ray([job], stop=stop, progress=at)
    server.close()
    assert outcome.state == "stopped", outcome.error
    assert sorted(set(rungs)) == [0, 4, 5] and rungs[-1] == 5
    assert outcome.counts["made_lighter.overload"] > 0
    full, light, lightest = StampLog(open_store(str(made))).entries
    assert [e.stamp.runtime for e in (full, light, lightest)] == ["openvino-int8", "bicubic", "bicubic"]
    assert [e.stamp.lighter for e in (full, light, lightest)] == [(), (), ("encode",)]
    assert 0 < light.seq < lightest.seq < outcome.frames

    assert replay([str(made / "manifest.json"), "-o", str(tmp_path / "again")]) == 0
    for folder in (made, tmp_path / "again"):
        shutil.rmtree(folder / "packets")
    again, first = made_by(tmp_path / "again"), made_by(made)
    # The run was stopped inside parts: packets of the last second were not kept. All else is made again.
    shared = [name for name in first if name in again and name.startswith(("hls/main/0", "tables/"))]
    assert len(shared) > 10
    assert any(int(name.split("-")[2]) >= lightest.seq for name in shared if name.startswith("tables/frames"))
    for name in shared:
        assert again[name] == first[name], name
