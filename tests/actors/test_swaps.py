"""Weights are swapped under a live stream on Ray: which frames get which, whatever dies; and the replay of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayError

from pipeline.commands.replay import main as replay
from pipeline.config import Settings
from pipeline.errors import ModelRejected
from pipeline.flow.job import Job, Outcome, Progress
from pipeline.store import keyframes
from pipeline.store.modelhistory import load_history, version_of
from pipeline.store.objects import open_store
from pipeline.store.stamps import StampLog
from pipeline.wire.ids import StreamId
from pipeline.wire.trials import Swap
from tests import pushed
from tests.actors.runs import pids, run
from tests.service.live_peer import LiveServer, transport_stream
from tests.service.serving import frames_of

pytestmark = pytest.mark.usefixtures("ray_session")
SECONDS = 60.0
DEADLINE_S = 60.0
GRAPH = """name: swapped
stages:
  - {stage: decode, after: source}
  - {stage: enhance, after: decode}
  - {stage: guard, after: [enhance, decode]}
  - {stage: encode, after: guard.frames}
  - {stage: packets, after: source, config: {part_packets: 25}}
  - {stage: record, after: [decode, guard.report]}
"""


class Scene:
    """A live stream whose generic weights are poor, and what is done to it while it runs."""

    def __init__(self, folder: Path, plan: str) -> None:
        self.store = folder / "made"
        self.camera = LiveServer(transport_stream(folder / "clip.ts", seconds=SECONDS), SECONDS)
        (folder / "graph.yaml").write_text(GRAPH)
        settings = {
            "graph": str(folder / "graph.yaml"),
            "live": {"max_lag_s": 60},
            "enhance": {"runtime": "openvino-int8", "model": str(pushed.write(folder / "poor.safetensors", 0.2, 2))},
            "outputs": {"packets": True},
            "encode": {"segment_s": 0.4, "preset": "ultrafast"},
            "record": {"part_frames": 10},
            "flow": {"plan": plan},
        }
        source = f"tcp://127.0.0.1:{self.camera.port}"
        self.job = Job(
            stream=StreamId("s"), source=source, store=str(self.store), settings=Settings.from_dict(settings)
        )
        self.frames = 0
        for number in range(2):
            keyframes.keep(open_store(str(self.store)), pushed.body(number), now_ns=time.time_ns())

    def play(self, act: Callable[[], None]) -> Outcome:
        """Run the stream while `act` goes on beside it, then stop it."""
        stop, problems = threading.Event(), list[BaseException]()

        def acting() -> None:
            try:
                act()
            except BaseException as problem:  # noqa: BLE001  # told below
                problems.append(problem)
            finally:
                stop.set()

        def at(progress: Progress) -> None:
            self.frames = progress.frames_done

        threading.Thread(target=acting, daemon=True).start()
        outcome = run(self.job, at=at, stop=stop)
        self.camera.close()
        if problems:
            raise problems[0]
        assert outcome.state == "stopped", outcome.error
        return outcome

    def until_frame(self, number: int) -> None:
        until = time.monotonic() + DEADLINE_S
        while self.frames < number:
            assert time.monotonic() < until, f"frame {number} is not made: {self.frames}"
            threading.Event().wait(0.05)

    def ask(self, method: str, *args: Any) -> Any:
        """Ask the supervisor, as soon as there is one that runs the stream."""
        until = time.monotonic() + DEADLINE_S
        while True:
            try:
                answer = ray.get(getattr(_supervisor(), method).remote("0", *args), timeout=30)
            except (RayError, LookupError) as error:
                answer = error
            if isinstance(answer, Swap) or (isinstance(answer, ModelRejected) and "not run" not in str(answer)):
                return answer
            assert time.monotonic() < until, answer
            threading.Event().wait(0.1)

    def push(self, factor: float, version: int) -> Any:
        return self.ask("push", [ray.put(pushed.model(factor, version))], {"cam": pushed.PUBLIC})

    def spoil(self) -> Swap:
        """Send key frames on which the weights in use lose; return what the stream goes back to by itself."""
        store = open_store(str(self.store))
        before = len(StampLog(store).entries)
        for number in (2, 3):
            keyframes.keep(store, pushed.body(number, upside_down=True), now_ns=time.time_ns())
            ray.get(_supervisor().key_frame.remote("0"), timeout=20)
        until = time.monotonic() + DEADLINE_S
        while len(entries := StampLog(store).entries) == before:
            assert time.monotonic() < until, "it was not taken back"
            threading.Event().wait(0.1)
        assert "dB against the generic model on the last 2 key frames" in load_history(store)[-1].reason
        model = entries[-1].stamp.model
        return Swap(model=model, version=version_of(model), epoch=entries[-1].epoch, seq=entries[-1].seq)

    def kill(self, role: str) -> None:
        found = pids()
        os.kill(next(pid for name, pid in found.items() if role in name), signal.SIGKILL)


def _supervisor() -> Any:
    for entry in ray.util.list_named_actors(all_namespaces=True):
        if "-supervisor-" in entry["name"]:
            return ray.get_actor(entry["name"], namespace=entry["namespace"])
    raise LookupError("no supervisor")


@pytest.mark.parametrize(
    ("plan", "victim", "back"), [("auto", "supervisor", "by request"), ("unchained", "enhance", "by itself")]
)
def test_each_frame_gets_the_weights_of_its_stamp_whatever_dies(
    tmp_path: Path, plan: str, victim: str, back: str
) -> None:
    """One way back is asked for and leads to the model before, the other is measured and leads to the generic one."""
    scene = Scene(tmp_path, plan)
    swaps: list[Swap] = []

    def act() -> None:
        scene.until_frame(10)
        swaps.append(scene.push(0.6, 3))
        refused = scene.push(0.5, 4)
        assert isinstance(refused, ModelRejected) and refused.figures["psnr_after"] < refused.figures["psnr_before"]
        scene.until_frame(swaps[-1].seq + 10)
        scene.kill(victim)
        swaps.append(scene.push(1.0, 4))
        scene.until_frame(swaps[-1].seq + 20)
        swaps.append(scene.ask("roll_back") if back == "by request" else scene.spoil())
        scene.until_frame(swaps[-1].seq + 20)

    outcome = scene.play(act)
    last = 3 if back == "by request" else 2
    assert [swap.version for swap in swaps] == [3, 4, last]
    store = open_store(str(scene.store))
    entries = StampLog(store).entries
    assert [(e.seq, e.stamp.model) for e in entries] == [
        (0, "f-edsr-x2@2"),
        *((swap.seq, f"f-edsr-x2@{swap.version}") for swap in swaps),
    ]
    assert [(e.version, e.state) for e in load_history(store)] == [
        (2, "current" if last == 2 else "superseded"),
        (3, "current" if last == 3 else "superseded"),
        (4, "rejected"),
        (4, "rolled-back"),
    ]
    rows = frames_of(scene.store)
    assert [row["seq"] for row in rows] == list(range(len(rows))) and len(rows) >= outcome.frames
    for row in rows:
        held = [e.stamp.model for e in entries if e.seq <= row["seq"]][-1]
        assert row["model_version"] == held or not row["enhanced"], row

    assert replay([str(scene.store), "-o", str(tmp_path / "again")]) == 0
    made, again = media(scene.store), media(tmp_path / "again")
    shared = [name for name in made if name in again]
    assert len(shared) >= 5 and all(made[name] == again[name] for name in shared)
    # And each stretch is what its weights alone make of the same packets.
    borders = [0, *(swap.seq for swap in swaps), outcome.frames]
    compared = 0
    for model in dict.fromkeys(e.stamp.model for e in entries):
        # The last segment of a run that was stopped ends where it was; a replay of its packets goes a little further.
        alone = {n: d for n, d in media(alone_with(model, scene.store, tmp_path / model)).items() if n in made}
        for entry, stop in zip(entries, borders[1:], strict=True):
            if entry.stamp.model == model:
                for name in segments(alone, entry.seq, stop):
                    assert made[name] == alone[name], (name, model)
                    compared += 1
        others = [
            n
            for e, stop in zip(entries, borders[1:], strict=True)
            if e.stamp.model != model
            for n in segments(alone, e.seq, stop)
        ]
        assert any(made[name] != alone[name] for name in others), f"{model} cannot be told from the others"
    assert compared >= 4


def media(folder: Path) -> dict[str, bytes]:
    """The segments of what was made."""
    return {f"hls/main/{path.name}": path.read_bytes() for path in (folder / "hls" / "main").glob("000000-*.m4s")}


def segments(made: dict[str, bytes], start: int, stop: int) -> list[str]:
    """Names of the segments that lie in [start, stop)."""
    spans = {name: tuple(map(int, Path(name).stem.split("-")[1:])) for name in made}
    return [name for name, (first, end) in spans.items() if start <= first and end <= stop]


def alone_with(model: str, recorded: Path, folder: Path) -> Path:
    """Replay what was recorded as if one model had been used from the first frame on; return where."""
    shutil.copytree(recorded, folder / "recorded")
    stamps = sorted((folder / "recorded" / "stamps").iterdir())
    (first,) = json.loads(stamps[0].read_text())
    for part in stamps[1:]:
        part.unlink()
    stamps[0].write_text(json.dumps([{**first, "model": model}]))
    assert replay([str(folder / "recorded"), "-o", str(folder / "alone")]) == 0
    return folder / "alone"
