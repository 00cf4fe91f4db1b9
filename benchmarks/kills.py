"""What a kill -9 costs: each process of a run in turn, in the middle of a real clip, chained and unchained.

The output (bytes of every segment, rows of every table) is compared with that of the undisturbed run and of
`limpid replay` of the disturbed one; the gap is the longest time between two batches that reached a sink.
Targets: both equal.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from measuring.clip import rendered
from measuring.contest import load, python, run
from report import SHARED, Row, parser, print_table, write_json

from pipeline.config import Settings
from pipeline.flow.job import Job, Outcome, Progress
from pipeline.wire.ids import StreamId

CLIP = SHARED / "clips" / "train" / "tc_nasa.mp4"  # 320×180, 25 frames/s, 13 s, sound
PLANS = ("unchained", "chained", "auto")
QUICK = ("source", "encode")
SETTINGS: dict[str, Any] = {
    "enhance": {"runtime": "openvino-int8"},
    "encode": {"segment_s": 1.0},
    "record": {"part_frames": 25},
}
_REPLAY_S = 180.0


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--source", default="", help="a clip of one epoch (default: a shared one, else rendered)")
    options.add_argument("--plans", default=",".join(PLANS), help="with commas between them")
    options.add_argument("--roles", default="", help="only these, as the table names them")
    options.add_argument("--one", nargs=4, metavar=("PLAN", "SOURCE", "ROLES", "OUT"))
    chosen = options.parse_args()
    if chosen.one:
        plan, source, roles, out = chosen.one
        Path(out).write_text(json.dumps(killed_in_turn(plan, source, roles)), encoding="utf-8")
        return 0
    before, rows, body, good = load(), [], [], True
    roles = ",".join(QUICK) if chosen.quick and not chosen.roles else chosen.roles
    with tempfile.TemporaryDirectory(prefix="limpid-bench-") as scratch:
        source = chosen.source or (
            str(CLIP)
            if CLIP.is_file() and not chosen.quick
            else str(rendered(Path(scratch) / "clip.mp4", width=160, height=90, seconds=12))
        )
        for plan in ("unchained",) if chosen.quick else chosen.plans.split(","):
            ran = run(python(__file__, "--one", plan, source, roles), deadline_s=900)
            if not ran.said:
                print(f"{plan}: {ran.why}", file=sys.stderr)
                good = False
                continue
            for line in ran.said["kills"]:
                case = f"{plan}, {line['role']}"
                good = good and line["same"] and line["replayed"] and line["hit"]
                rows.append(Row(case=case, metric="gap", unit="ms", value=line["gap_ms"]))
                rows += [Row(case=case, metric=key, unit="", value=line[key]) for key in ("same", "replayed", "hit")]
                said = ["yes" if line[key] else "NO" for key in ("hit", "same", "replayed")]
                body.append([case, *said, str(line["gap_ms"]), line["restarts"]])
            body.append([f"{plan}, undisturbed", "", "", "", str(ran.said["gap_ms"]), ""])
    columns = ["plan, who was killed", "in mid-run", "as undisturbed", "as replayed", "gap, ms", "what followed"]
    print_table("kill -9 (targets: the same output)", columns, body)
    gaps = [row.value for row in rows if row.metric == "gap"]
    if gaps:
        print(f"largest gap: {max(gaps):.0f} ms")
    rows.append(Row(case="machine", metric="load_average_at_start", unit="", value=before))
    if chosen.json:
        write_json(chosen.json, rows)
    return 0 if good else 1


def killed_in_turn(plan: str, source: str, only: str) -> dict[str, Any]:
    """Run undisturbed, then once a role with that role killed; return what became of each."""
    from actors.cluster import ray_running
    from tests.actors.runs import made_by

    wanted = {role for role in only.split(",") if role}
    with tempfile.TemporaryDirectory(prefix="limpid-bench-") as scratch, ray_running():
        first = Path(scratch) / "undisturbed"
        outcome, roles = _run(source, first, plan, "")
        expected = made_by(first)
        kills = []
        for role in sorted(r for r in roles if not r.startswith("spare")):
            if wanted and role.partition(".")[0] not in wanted and role not in wanted:
                continue
            store = Path(scratch) / role
            disturbed, _ = _run(source, store, plan, role)
            again = Path(scratch) / f"{role}-replayed"
            counts = {k: v for k, v in disturbed.counts.items() if k.startswith(("restarts", "replays", "set_aside"))}
            made = made_by(store)
            kills.append(
                {
                    "role": role,
                    "hit": bool(disturbed.counts.get("bench.killed")),
                    "same": made == expected and disturbed.frames == outcome.frames,
                    "replayed": _replayed(store, again) and made_by(again) == made,
                    "gap_ms": disturbed.counts.get("gap_ms_max", 0),
                    "restarts": ", ".join(f"{k} {v}" for k, v in sorted(counts.items())),
                }
            )
        return {"frames": outcome.frames, "gap_ms": outcome.counts.get("gap_ms_max", 0), "kills": kills}


def _run(source: str, store: Path, plan: str, role: str) -> tuple[Outcome, list[str]]:
    """Run a job, kill `role` ("": nobody) as soon as frames are durable; return the outcome and who was there."""
    from actors.deploy import run_on_ray
    from tests.actors.runs import pids

    roles: list[str] = []
    hits: list[int] = []

    def at(progress: Progress) -> None:
        if not progress.frames_done or roles or progress.state != "running":
            return
        found = pids()
        roles.extend(found)
        if role in found:
            os.kill(found[role], signal.SIGKILL)
            hits.append(progress.frames_done)

    settings = Settings.from_dict({**SETTINGS, "flow": {"plan": plan, "queue_bytes": 2 << 20}})
    job = Job(stream=StreamId("bench"), source=source, store=str(store), settings=settings)
    (outcome,) = run_on_ray([job], stop=threading.Event(), progress=at)
    if outcome.state != "completed":
        raise outcome.error or AssertionError(outcome.state)
    counts = {**outcome.counts, "bench.killed": int(bool(hits) and hits[0] < outcome.frames)}
    return (
        Outcome(
            stream=outcome.stream,
            state=outcome.state,
            frames=outcome.frames,
            epochs=outcome.epochs,
            seconds=outcome.seconds,
            counts=counts,
        ),
        roles,
    )


def _replayed(store: Path, again: Path) -> bool:
    """Replay a run into another directory, in a process of its own; say whether that succeeded."""
    command = "import sys; from pipeline.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", command, "replay", store, "-o", again],
        timeout=_REPLAY_S,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
