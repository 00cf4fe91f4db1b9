"""Whether memory stays: minutes of a run, all processes together, and the queues' bound when the encoder is slow.

Cases: 180p to 360p with F-EDSR, 720p to 1440p bicubic, on Ray and in one process; memory is the proportional set size
of all processes each second, in which shared memory that is mapped counts once. Targets: over the last 80 % of the run
it grows by less than 1 MB a minute; with the encoder slowed ten times no queue holds more than `flow.queue_bytes` and
the calls in flight.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flow_peers.slow import slow_graph
from measuring.clip import looped, rendered
from measuring.contest import Ran, load, python, run
from report import Row, parser, print_table, write_json

from pipeline.config import Settings
from pipeline.flow.job import Job, OnProgress, Outcome, Progress
from pipeline.flow.ledger import Ledger
from pipeline.flow.local import LocalRun, run_local
from pipeline.wire.ids import StreamId

CASES = {
    "180p F-EDSR": (320, 180, {"enhance": {"runtime": "openvino-int8"}}),
    "720p bicubic": (1280, 720, {"enhance": {"model": "bicubic"}}),
}
PLANS = ("auto", "local")  # also chained, unchained
SETTLED = 0.2  # of the run that does not count: start-up, caches that fill
MAX_SLOPE = 1.0  # MB a minute
SLOWER = 10  # times: the encoder, for the queues' bound
QUEUE_BYTES = 32 << 20  # there: small, so that the queues are full at once
TIMES = 2000  # repetitions of a 4 s clip: more than any machine passes in the time


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--minutes", type=float, default=10.0, help="of wall time, a case and plan")
    options.add_argument("--plans", default=",".join(PLANS), help="of local, auto, chained, unchained")
    options.add_argument("--cases", default=",".join(CASES), help="with commas between them")
    options.add_argument("--one", nargs=5, metavar=("CASE", "PLAN", "SOURCE", "SECONDS", "OUT"))
    chosen = options.parse_args()
    if chosen.one:
        case, plan, source, seconds, out = chosen.one
        said = slowed(source, float(seconds)) if case == "slow" else passed(case, plan, source, float(seconds))
        Path(out).write_text(json.dumps(said), encoding="utf-8")
        return 0
    before, rows, body = load(), [], []
    seconds = 30.0 if chosen.quick else 60 * chosen.minutes
    with tempfile.TemporaryDirectory(prefix="limpid-bench-") as scratch:
        for case in chosen.cases.split(","):
            width, height, _ = CASES[case]
            once = rendered(Path(scratch) / "once.mp4", width=width, height=height, seconds=4)
            times = 20 if chosen.quick else TIMES // max(1, height // 180)
            source = looped(once, Path(scratch) / f"{height}.mp4", times)
            for plan in chosen.plans.split(","):
                ran = _child(case, plan, source, seconds)
                if not ran.said:
                    print(f"{case}, {plan}: {ran.why}", file=sys.stderr)
                    body.append([f"{case}, {plan}", "failed", "", "", "", "", ""])
                    continue
                found = _rows(f"{case}, {plan}", ran)
                rows += found[0]
                body.append(found[1])
            source.unlink()
        print_table(
            f"{seconds / 60:g} minutes, all processes (target: slope below {MAX_SLOPE:g} MB/min)",
            ["case, plan", "frames", "MB at 20 %", "MB at the end", "peak", "/dev/shm", "MB/min"],
            body,
        )
        source = looped(
            rendered(Path(scratch) / "s.mp4", width=320, height=180, seconds=4), Path(scratch) / "slow.mp4", 3
        )
        rows += _slow(_child("slow", "local", source, 60.0))
    rows.append(Row(case="machine", metric="load_average_at_start", unit="", value=before))
    if chosen.json:
        write_json(chosen.json, rows)
    return 0


def passed(case: str, plan: str, source: str, seconds: float) -> dict[str, Any]:
    """Run for so many seconds from the first durable frames on, then stop as Ctrl-C does; return what came."""
    values = {**CASES[case][2], "flow": {"plan": "auto" if plan == "local" else plan}, "encode": {"segment_s": 1.0}}
    settings = Settings.from_dict({**values, "record": {"part_frames": 50}})
    stop = threading.Event()
    timer = threading.Timer(seconds, stop.set)
    timer.daemon = True
    began: list[float] = []

    def told(progress: Progress) -> None:
        if progress.frames_done and not began:
            began.append(time.monotonic())
            timer.start()

    with tempfile.TemporaryDirectory(prefix="limpid-bench-") as store:
        job = Job(stream=StreamId("bench"), source=source, store=store, settings=settings, overwrite=True)
        outcome = _run(job, plan, stop, told)
        if outcome.error is not None:
            raise outcome.error
        stopped = min(time.monotonic(), began[0] + seconds)
        return {"frames": outcome.frames, "state": outcome.state, "start_s": began[0], "stop_s": stopped}


def slowed(source: str, seconds: float) -> dict[str, Any]:
    """Run with the encoder slowed; return the most bytes that each queue held."""
    stop = threading.Event()
    timer = threading.Timer(seconds, stop.set)
    timer.daemon = True
    with tempfile.TemporaryDirectory(prefix="limpid-bench-") as store:
        values = {
            "graph": slow_graph(SLOWER),
            "stage_modules": ["flow_peers"],
            "enhance": {"model": "bicubic"},
            "flow": {"plan": "unchained", "queue_bytes": QUEUE_BYTES},
        }
        job = Job(stream=StreamId("bench"), source=source, store=store, settings=Settings.from_dict(values))
        local = LocalRun(Ledger(job))
        most: dict[str, int] = {}

        def look(_: object = None) -> None:
            for name, held in dict(local.flow.epoch.held_bytes()).items():
                most[name] = max(most.get(name, 0), held)

        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.02):
                look()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        timer.start()
        outcome = local.run(stop, look)
        ended.set()
        watcher.join()
        if outcome.error is not None:
            raise outcome.error
        return {"frames": outcome.frames, "most": most, "batch_bytes": 8 * 640 * 360 * 3 // 2}


def _run(job: Job, plan: str, stop: threading.Event, told: OnProgress) -> Outcome:
    if plan == "local":
        return run_local(job, stop=stop, progress=told)
    from actors.deploy import run_on_ray

    return run_on_ray([job], stop=stop, progress=told)[0]


def _child(case: str, plan: str, source: Path, seconds: float) -> Ran:
    command = python(__file__, "--one", case, plan, source, str(seconds))
    return run(command, deadline_s=seconds + 240, every_s=1.0)


def _rows(name: str, ran: Ran) -> tuple[list[Row], list[str]]:
    """Return a run's rows, and its line of the table."""
    start_s, stop_s = ran.said["start_s"], ran.said["stop_s"]
    begin_s = start_s + SETTLED * (stop_s - start_s)
    inside = [s for s in ran.samples if begin_s <= s.at_s <= stop_s]
    mb = [s.pss_bytes / 1e6 for s in inside]
    slope = _slope([s.at_s / 60 for s in inside], mb)
    shm = max(s.shm_bytes for s in inside) / 1e6
    rows = [
        Row(case=name, metric="slope", unit="MB/min", value=slope, reference="target", reference_value=MAX_SLOPE),
        Row(case=name, metric="peak_pss", unit="MB", value=ran.peak_pss_bytes / 1e6, spread=(min(mb), max(mb))),
        Row(case=name, metric="peak_shm", unit="MB", value=shm),
        Row(case=name, metric="frames", unit="", value=ran.said["frames"]),
    ]
    line = [
        name,
        str(ran.said["frames"]),
        f"{np.mean(mb[: max(1, len(mb) // 10)]):.0f}",
        f"{np.mean(mb[-max(1, len(mb) // 10) :]):.0f}",
        f"{ran.peak_pss_bytes / 1e6:.0f}",
        f"{shm:.0f}",
        f"{slope:+.2f} {_verdict(slope, stop_s - start_s)}",
    ]
    return rows, line


def _verdict(slope: float, seconds: float) -> str:
    if seconds < 120:
        return "(too short to judge)"
    return "met" if slope < MAX_SLOPE else "MISSED"


def _slope(at: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of the line through the points with the least squares."""
    return float(np.polyfit(np.asarray(at) - at[0], values, 1)[0])


def _slow(ran: Ran) -> list[Row]:
    """Print and return how full the queues were with a slow encoder."""
    if not ran.said:
        print(f"slow encoder: {ran.why}", file=sys.stderr)
        return []
    # A box may have two calls in flight when its credit runs out.
    bound = QUEUE_BYTES + 2 * ran.said["batch_bytes"]
    rows, body = [], []
    for name, held in sorted(ran.said["most"].items(), key=lambda item: -item[1]):
        rows.append(
            Row(
                case=f"slow encoder, {name}",
                metric="queue",
                unit="MB",
                value=held / 1e6,
                reference="bound",
                reference_value=bound / 1e6,
            )
        )
        body.append([name, f"{held / 1e6:.1f}", f"{bound / 1e6:.1f}", "met" if held <= bound else "MISSED"])
    print_table(
        f"Encoder {SLOWER} times slower, flow.queue_bytes {QUEUE_BYTES >> 20} MiB, {ran.said['frames']} frames",
        ["queue behind", "most, MB", "bound", ""],
        body,
    )
    return rows


if __name__ == "__main__":
    sys.exit(main())
