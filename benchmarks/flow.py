"""What the dataflow costs: ours beside the same stages in a plain loop, on Ray Data and on cosmos-xenna, in one run.

Source, a stage that makes 1.4 MB frames, four stages that work, a sink that counts. Cases: no-op stages; 5 ms of CPU
time a frame and stage; the real ones (decode, enhance, guard, encode of a clip). Contestants run in turn, each in a
process of its own; frames a second of the steady part, which leaves start-up out for all alike.
Targets: chained ≥ 95 % of the plain loop with real stages; unchained ≥ 1.5 × cosmos-xenna and ≥ 2 × Ray Data at 5 ms.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import endtoend
from flow_peers import load
from flow_peers.stages import graph
from measuring.clip import rendered, tiny
from measuring.contest import ROOT, Ran, middle, python, run
from measuring.contest import load as load_average
from measuring.plain import PlainLoop
from report import SHARED, Row, parser, print_table, write_json

from pipeline.config import Settings
from pipeline.flow.job import Job
from pipeline.wire.ids import StreamId

CLIP = SHARED / "clips" / "dev" / "skv_bikes.mp4"  # 640×272, 25 frames/s, 10 s, cuts
PEERS = ROOT / "bench-out" / "venv-xenna" / "bin" / "python"
NO_PEERS = f"""Ray Data and cosmos-xenna are left out: there is no {PEERS}. To make it:
  python3 -m venv bench-out/venv-xenna && bench-out/venv-xenna/bin/pip install cosmos-xenna tqdm 'ray[data]==2.60.0'"""
SPIN_MS = {"noop": 0.0, "5ms": 5.0}
WARM = 0.25  # the part of the frames that is not counted: start-up, first allocations
QUEUE_BYTES = 64 << 20  # of each of our edges, about what the peers hold; more does not help
REAL_GRAPH = """name: real
stages:
  - {stage: decode, after: source}
  - {stage: enhance, after: decode}
  - {stage: guard, after: [enhance, decode]}
  - {stage: encode, after: guard.frames}
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contestant:
    """Who runs, with so many frames a batch."""

    who: str  # plain, local, chained, unchained, ray_data, xenna
    batch: int = 8

    def __str__(self) -> str:
        return f"{self.who}-{self.batch}"

    @property
    def peer(self) -> bool:
        """Whether it is not ours."""
        return self.who in ("ray_data", "xenna")


MADE = tuple(
    Contestant(who=who, batch=batch)
    for who, batch in (
        ("plain", 8),
        ("chained", 8),
        ("unchained", 1),
        ("unchained", 4),
        ("unchained", 8),
        ("ray_data", 1),
        ("ray_data", 4),
        ("ray_data", 8),
        ("xenna", 1),
        ("xenna", 4),
        ("xenna", 8),
    )
)
REAL = tuple(Contestant(who=who) for who in ("plain", "chained", "unchained", "local"))


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--cases", default="noop,5ms,real", help="of noop, 5ms, real, with commas between them")
    options.add_argument("--only", default="", help="contestants, as the table names them (default: all)")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--frames", type=int, default=0, help="a run (default: 480)")
    options.add_argument("--one", nargs=5, metavar=("CONTESTANT", "CASE", "SOURCE", "FOLDER", "OUT"))
    chosen = options.parse_args()
    if chosen.one:
        said = contestant(*chosen.one[:4])
        Path(chosen.one[4]).write_text(json.dumps(said), encoding="utf-8")
        return 0
    before, rows = load_average(), []
    if not PEERS.is_file():
        print(NO_PEERS, file=sys.stderr)
    only = {name for name in chosen.only.split(",") if name}
    for case in chosen.cases.split(","):
        field = REAL if case == "real" else MADE
        field = tuple(c for c in field if (not only or str(c) in only) and (PEERS.is_file() or not c.peer))
        frames = chosen.frames or (48 if chosen.quick else 480)
        rounds = 1 if chosen.quick else chosen.rounds
        runs: dict[Contestant, list[dict[str, float]]] = {c: [] for c in field}
        with tempfile.TemporaryDirectory(prefix="limpid-bench-") as scratch:
            source = _source(case, Path(scratch), frames, quick=chosen.quick)
            for number in range(rounds):
                for one in field:
                    found = _run(one, case, source, frames, Path(scratch) / f"{one}-{number}")
                    if found:
                        runs[one].append(found)
        rows += report(case, runs)
    rows.append(Row(case="machine", metric="load_average_at_start", unit="", value=before))
    if chosen.json:
        write_json(chosen.json, rows)
    return 0


def contestant(who: str, case: str, source: str, folder: str) -> dict[str, Any]:
    """Run one of ours, or the plain loop, in this process."""
    name, _, batch = who.partition("-")
    plan = name if name in ("chained", "unchained") else "unchained"
    if case == "real":
        settings = {**endtoend.SETTINGS, "graph": REAL_GRAPH, "flow": {"plan": plan}}
    else:
        yaml = graph(batch=int(batch), spin_ms=SPIN_MS[case], folder=folder)
        settings = {"graph": yaml, "stage_modules": ["flow_peers"], "flow": {"plan": plan, "queue_bytes": QUEUE_BYTES}}
    with tempfile.TemporaryDirectory(prefix="limpid-bench-") as store:
        job = Job(
            stream=StreamId("bench"), source=source, store=store, settings=Settings.from_dict(settings), overwrite=True
        )
        if name == "plain":
            passed = PlainLoop(job).run()
            return endtoend.said(passed.marks) | {"frames": passed.frames}
        return endtoend.run_product(job, [(time.monotonic(), 0)], local=name == "local")


def report(case: str, runs: Mapping[Contestant, list[dict[str, float]]]) -> list[Row]:
    """Print a case's table and how it stands to the targets; return its rows."""
    rows, body = [], []
    fps = {c: middle([r["fps"] for r in found]) for c, found in runs.items() if found}
    plain = next((fps[c][0] for c in fps if c.who == "plain"), 0.0)
    for one, found in runs.items():
        if one not in fps:
            body.append([str(one), "failed", "", "", "", "", ""])
            continue
        value, spread = fps[one]
        cpu, _ = middle([r["cpu_ms"] for r in found])
        peak, _ = middle([r["peak_mib"] for r in found])
        body.append(
            [
                str(one),
                f"{value:.1f}",
                f"{spread[0]:.1f}–{spread[1]:.1f}",
                f"{1000 / value:.2f}",
                f"{value / plain:.2f}" if plain else "",
                f"{cpu:.1f}",
                f"{peak:.0f}",
            ]
        )
        beside = plain if one.who != "plain" else 0.0
        rows.append(
            Row(
                case=f"{case} {one}",
                metric="throughput",
                unit="frames/s",
                value=value,
                spread=spread,
                reference="plain-8" if beside else "",
                reference_value=beside or None,
            )
        )
        rows.append(Row(case=f"{case} {one}", metric="cpu_time", unit="ms/frame", value=cpu))
        rows.append(Row(case=f"{case} {one}", metric="peak_pss", unit="MiB", value=peak))
    print_table(
        {
            "noop": "No-op stages, 1.4 MB frames",
            "5ms": "5 ms of CPU a frame and stage, 1.4 MB frames",
            "real": "Decode, enhance, guard, encode",
        }[case],
        ["contestant", "frames/s", "spread", "ms/frame", "/ plain", "CPU ms/frame", "peak MiB"],
        body,
    )
    rows += _verdicts(case, {str(c): value for c, (value, _) in fps.items()})
    return rows


def _verdicts(case: str, fps: Mapping[str, float]) -> list[Row]:
    wanted = {
        "5ms": [
            ("unchained-1", "xenna-1", 1.5),
            ("unchained-1", "ray_data-1", 2.0),
            ("unchained-4", "xenna-4", 1.5),
            ("unchained-4", "ray_data-4", 2.0),
            ("unchained-8", "xenna-8", 1.5),
            ("unchained-8", "ray_data-8", 2.0),
        ],
        "real": [("chained-8", "plain-8", 0.95)],
    }.get(case, [])
    rows, body = [], []
    for ours, other, target in wanted:
        if ours in fps and other in fps:
            ratio = fps[ours] / fps[other]
            met = "met" if ratio >= target else "MISSED"
            body.append([f"{ours} / {other}", f"{ratio:.2f}", f"≥ {target:.2f}", met])
            rows.append(
                Row(
                    case=f"{case} {ours}, target ≥ {target:g}",
                    metric="throughput",
                    unit="frames/s",
                    value=fps[ours],
                    reference=other,
                    reference_value=fps[other],
                )
            )
    if body:
        print_table("Targets", ["figure", "measured", "target", ""], body)
    return rows


def _source(case: str, scratch: Path, frames: int, *, quick: bool) -> Path:
    if case != "real":
        return tiny(scratch / "tiny.mp4", frames)
    return CLIP if CLIP.is_file() and not quick else rendered(scratch / "s.mp4", width=320, height=180, seconds=4)


def _run(one: Contestant, case: str, source: Path, frames: int, folder: Path) -> dict[str, float]:
    """Run a contestant; return its figures, nothing if it failed (which is told)."""
    folder.mkdir()
    if one.peer:
        script = ROOT / "benchmarks" / "flow_peers" / f"{one.who}.py"
        command: list[str | Path] = [PEERS, script, str(frames), str(one.batch), str(SPIN_MS[case]), folder]
    else:
        command = [*python(__file__, "--one", str(one), case, source, folder)]
    ran = run(command, deadline_s=180, every_s=0.5, env={"RAY_DEDUP_LOGS": "0"})
    if not ran.said:
        print(f"{case} {one}: {ran.why}", file=sys.stderr)
        return {}
    if case == "real":
        return _figures(ran, ran.said["start_s"], ran.said["stop_s"], ran.said["steady_frames"])
    found = load.steady(folder, frames, WARM)
    if not found.ordered and not one.peer:
        print(f"{case} {one}: frames came out of order", file=sys.stderr)
    return _figures(ran, found.start_s, found.stop_s, found.frames)


def _figures(ran: Ran, start_s: float, stop_s: float, counted: float) -> dict[str, float]:
    return {
        "fps": counted / (stop_s - start_s),
        "cpu_ms": 1000 * ran.cpu_between(start_s, stop_s) / counted,
        "peak_mib": ran.peak_pss_bytes / 2**20,
    }


if __name__ == "__main__":
    sys.exit(main())
