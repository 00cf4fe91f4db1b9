"""Runs of the test graph, and what they made as values that can be compared."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import ray
import yaml

from actors.deploy import run_on_ray
from pipeline.config import Settings
from pipeline.flow.job import Job, Outcome, Progress
from pipeline.store.parquet import WALL_CLOCK_COLUMNS
from pipeline.wire.events import OPERATIONAL
from pipeline.wire.ids import StreamId

FRAMES = 200
KEEPS = {"stability": 0.0, "tolerance": 255.0, "detail": 1e9, "frame_share": 1.0, "frame_detail": 1e9}
"""Of guard: what "twice" makes is seen as it is."""

Made = dict[str, object]


def job_of(
    clip: Path,
    store: Path,
    work: Path,
    *,
    plan: str = "unchained",
    name: str = "s",
    stage: str = "Twice",
    **twice: object,
) -> Job:
    """Return a job of decode → twice → guard → encode beside audio, quality and record.

    `stage`: the class of "twice"; `twice`: its config.
    """
    graph = work / f"graph-{name}.yaml"
    stages = [
        {"stage": "decode", "after": "source"},
        {"stage": f"tests.actors.stages:{stage}", "name": "twice", "after": "decode", "config": twice},
        {"stage": "guard", "after": ["twice", "decode"], "config": KEEPS},
        {"stage": "encode", "after": "guard.frames"},
        {"stage": "audio", "after": "source"},
        {"stage": "quality", "after": "decode"},
        {"stage": "record", "after": ["decode", "quality", "guard.report"]},
    ]
    graph.write_text(yaml.safe_dump({"name": "test", "stages": stages}))
    settings = Settings.from_dict(
        {
            "graph": str(graph),
            "stage_modules": ["tests.actors.stages"],
            "flow": {"plan": plan, "queue_bytes": 1 << 20},
            "encode": {"segment_s": 1.0, "preset": "ultrafast"},
            "record": {"part_frames": 32},
        }
    )
    return Job(stream=StreamId(name), source=str(clip), store=str(store), settings=settings)


def run(
    job: Job, *, at: Callable[[Progress], None] | None = None, stop: threading.Event | None = None, slabs: bool = True
) -> Outcome:
    """Run a job on Ray; `at` is called with every progress."""
    (outcome,) = run_on_ray([job], stop=stop or threading.Event(), progress=at or (lambda _: None), slabs=slabs)
    return outcome


def made_by(store: Path) -> Made:
    """Return what a run left: bytes of media, rows of tables, playlists; without what only the clock decides."""
    made: Made = {}
    for path in sorted(p for p in store.rglob("*") if p.is_file()):
        name = str(path.relative_to(store))
        if path.suffix == ".parquet" and "/events/" not in name:
            made[name] = pq.read_table(path).drop_columns(list(WALL_CLOCK_COLUMNS)).to_pylist()
        elif path.suffix == ".m3u8":
            made[name] = re.sub(r"#EXT-X-PROGRAM-DATE-TIME:.*\n", "", path.read_text())
        elif name.startswith("hls/"):
            made[name] = path.read_bytes()
    made["events"] = events_of(store)
    return made


def events_of(store: Path) -> list[dict[str, Any]]:
    """Return the events of the content, by frame; those of the run are left out."""
    rows = [
        {k: v for k, v in row.items() if k not in WALL_CLOCK_COLUMNS}
        for path in sorted((store / "tables" / "events").glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]
    return sorted((r for r in rows if r["type"] not in OPERATIONAL), key=lambda r: (r["epoch"], r["seq"], r["type"]))


def pids() -> dict[str, int]:
    """Return role → pid of the run that is under way."""
    for entry in ray.util.list_named_actors(all_namespaces=True):
        if "-supervisor-" in entry["name"]:
            supervisor = ray.get_actor(entry["name"], namespace=entry["namespace"])
            roles: dict[str, int] = ray.get(supervisor.pids.remote(), timeout=20)
            return roles
    raise AssertionError("no supervisor")
