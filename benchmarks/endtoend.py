"""How many frames a second pass from one video to another: 360p to 720p, whole, on this machine's cores.

Decode, F-EDSR, guard, encode, HLS, quality and tables, as `limpid run` has them: in a plain loop, in one process
(local), and on Ray chained, unchained and as the planner chooses, in turn. The limit beside it is what the cores could
do at best: the sum of all stages' CPU time, spread evenly. Steady state: from the first durable frames to the last.
Target: ≥ 25 frames/s on 2 cores.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measuring.clip import rendered
from measuring.contest import Ran, load, middle, python, run
from measuring.plain import PlainLoop, Spent, steady
from report import SHARED, Row, parser, print_table, write_json

from pipeline.config import Settings
from pipeline.flow.job import Job, Progress
from pipeline.wire.ids import StreamId

CLIP = SHARED / "clips" / "train" / "intel_bottle.mp4"  # 640×360, 30 frames/s, 40 s
CONTESTANTS = ("plain", "local", "chained", "auto", "unchained")
TARGET_FPS = 25.0
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
SETTINGS: Mapping[str, Any] = {
    "enhance": {"runtime": "openvino-int8"},  # pinned: contestants are not to choose differently
    "encode": {"segment_s": 1.0},
    "record": {"part_frames": 30},  # durable in small steps, so that the steady part is most of the run
}


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--source", default="", help="a 360p video (default: a shared clip, else the rendered scene)")
    options.add_argument("--only", default=",".join(CONTESTANTS), help="contestants, with commas between them")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--stage-times", type=Path, help="write the table of the stages' times there as well")
    options.add_argument("--one", nargs=2, metavar=("CONTESTANT", "OUT"), help="run one contestant in this process")
    chosen = options.parse_args()
    if chosen.one:
        name, out = chosen.one
        Path(out).write_text(json.dumps(contestant(name, chosen.source)), encoding="utf-8")
        return 0
    before = load()
    with tempfile.TemporaryDirectory(prefix="limpid-bench-") as scratch:
        source = chosen.source or str(source_of(Path(scratch), seconds=3 if chosen.quick else 40, quick=chosen.quick))
        names = [n for n in chosen.only.split(",") if n]
        unknown = set(names) - set(CONTESTANTS)
        if unknown:
            options.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(CONTESTANTS)}")
        runs: dict[str, list[Ran]] = {name: [] for name in names}
        for _ in range(1 if chosen.quick else chosen.rounds):
            for name in names:
                command = python(__file__, "--source", source, "--one", name)
                runs[name].append(run(command, deadline_s=300, every_s=0.5))
    rows = report(runs, chosen.stage_times)
    rows.append(Row(case="machine", metric="load_average_at_start", unit="", value=before))
    if chosen.json:
        write_json(chosen.json, rows)
    return 0 if all(r.said for found in runs.values() for r in found) else 1


def source_of(scratch: Path, *, seconds: int, quick: bool) -> Path:
    """Return a 360p clip: a shared one, else (and for --quick) the rendered scene, encoded before anything is timed."""
    if CLIP.is_file() and not quick:
        return CLIP
    return rendered(scratch / "scene.mp4", width=640, height=360, seconds=seconds)


def contestant(name: str, source: str) -> dict[str, Any]:
    """Run one contestant here; return what it did, as JSON-able values."""
    plan = "unchained" if name in ("plain", "local") else name
    settings = Settings.from_dict({**SETTINGS, "flow": {"plan": plan}})
    with tempfile.TemporaryDirectory(prefix="limpid-bench-") as store:
        job = Job(stream=StreamId("bench"), source=source, store=store, settings=settings, overwrite=True)
        if name == "plain":
            passed = PlainLoop(job).run()
            spent = {n: [s.wall_s, s.cpu_s, s.calls] for n, s in passed.spent.items()}
            return said(passed.marks) | {"frames": passed.frames, "spent": spent}
        marks = [(time.monotonic(), 0)]
        return run_product(job, marks, local=name == "local")


def run_product(job: Job, marks: list[tuple[float, int]], *, local: bool) -> dict[str, Any]:
    """Run a job by the product's own path; return its marks, frames and counts. Raises what it failed with."""

    def told(progress: Progress) -> None:
        if progress.frames_done > marks[-1][1]:
            marks.append((time.monotonic(), progress.frames_done))

    if local:
        from pipeline.flow.local import run_local

        outcome = run_local(job, progress=told)
    else:
        from actors.deploy import run_on_ray

        outcome = run_on_ray([job], stop=threading.Event(), progress=told)[0]
    if outcome.state != "completed":
        raise outcome.error or AssertionError(outcome.state)
    return said(marks) | {"frames": outcome.frames, "counts": dict(outcome.counts)}


def said(marks: list[tuple[float, int]]) -> dict[str, Any]:
    """Return the steady part of a run, as contestants write it."""
    start, stop, frames = steady(marks)
    return {"start_s": start, "stop_s": stop, "steady_frames": frames}


def report(runs: Mapping[str, list[Ran]], stage_times: Path | None) -> list[Row]:
    """Print the tables; return the rows."""
    rows: list[Row] = []
    spent = _stage_times(runs.get("plain", []))
    limit = 0.0
    if spent:
        cpu_ms = sum(s.cpu_s for s in spent.values())
        limit = 1000 * CORES / cpu_ms
        rows += [Row(case=f"stage {n}", metric="cpu_time", unit="ms/frame", value=s.cpu_s) for n, s in spent.items()]
        body = [
            [n, f"{s.wall_s:.2f}", f"{s.cpu_s:.2f}", f"{100 * s.cpu_s / cpu_ms:.0f} %"]
            for n, s in sorted(spent.items(), key=lambda item: -item[1].cpu_s)
        ]
        body.append(["sum", f"{sum(s.wall_s for s in spent.values()):.2f}", f"{cpu_ms:.2f}", ""])
        print_table("Stages in the plain loop, ms a frame", ["stage", "wall", "CPU", "share"], body)
        if stage_times:
            stage_times.parent.mkdir(parents=True, exist_ok=True)
            lines = ["stage        wall    CPU ms/frame", *(f"{b[0]:<12} {b[1]:>6} {b[2]:>6} {b[3]:>5}" for b in body)]
            stage_times.write_text("\n".join(lines) + "\n", encoding="utf-8")
    body = []
    for name, found in runs.items():
        good = [r for r in found if r.said]
        for bad in (r for r in found if not r.said):
            print(f"{name}: {bad.why}", file=sys.stderr)
        if not good:
            body.append([name, "failed", "", "", "", ""])
            continue
        fps, spread = middle([r.said["steady_frames"] / (r.said["stop_s"] - r.said["start_s"]) for r in good])
        cpu, _ = middle(
            [1000 * r.cpu_between(r.said["start_s"], r.said["stop_s"]) / r.said["steady_frames"] for r in good]
        )
        peak, _ = middle([r.peak_pss_bytes / 2**20 for r in good])
        body.append(
            [
                name,
                f"{fps:.1f}",
                f"{spread[0]:.1f}–{spread[1]:.1f}",
                f"{fps / limit:.2f}" if limit else "",
                f"{cpu:.1f}",
                f"{peak:.0f}",
            ]
        )
        rows.append(
            Row(
                case=name,
                metric="throughput",
                unit="frames/s",
                value=fps,
                spread=spread,
                reference=f"limit of {CORES} cores" if limit else "",
                reference_value=limit or None,
            )
        )
        rows.append(Row(case=name, metric="cpu_time", unit="ms/frame", value=cpu))
        rows.append(Row(case=name, metric="peak_pss", unit="MiB", value=peak))
        if name != "plain":
            rows.append(
                Row(
                    case=f"{name}, target",
                    metric="throughput",
                    unit="frames/s",
                    value=fps,
                    reference="target",
                    reference_value=TARGET_FPS,
                )
            )
    told = f"limit of {CORES} cores: {limit:.1f}; " if limit else ""
    print_table(
        f"360p to 720p, end to end ({told}target ≥ {TARGET_FPS:.0f})",
        ["contestant", "frames/s", "spread", "of the limit", "CPU ms/frame", "peak MiB"],
        body,
    )
    return rows


def _stage_times(found: list[Ran]) -> dict[str, Spent]:
    """Return the median time of each stage over the rounds, as ms a frame (in the fields named s)."""
    good = [r for r in found if r.said]
    if not good:
        return {}
    out: dict[str, Spent] = {}
    for name in good[0].said["spent"]:
        per_frame = [[1000 * x / r.said["frames"] for x in r.said["spent"][name][:2]] for r in good]
        wall, cpu = (middle(column)[0] for column in zip(*per_frame, strict=True))
        out[name] = Spent(wall_s=wall, cpu_s=cpu)
    return out


if __name__ == "__main__":
    sys.exit(main())
