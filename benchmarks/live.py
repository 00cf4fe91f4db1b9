"""The live service: how soon a stream starts, whether pools follow their load, whether it lasts and nothing grows.

Cases: `start`, from POST to the first segment on a warm service, and streams created and deleted in a loop; `follow`,
1 → 4 → 1 live streams through a pooled stage that waits 60 ms a batch, with a plot; `soak`, four 360p streams at the
bicubic rung and one 180p stream with F-EDSR, while the supervisor, what reads a source, and the service are killed.
Targets: < 6 s to the first segment; lag p95 back under its target within 15 s of the load's step, workers given back;
no frame lost or doubled outside the flagged gaps, memory's slope < 1 MB a minute.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from measuring.contest import ROOT, load
from report import SHARED, Row, parser, print_table, write_json

sys.path.insert(0, str(ROOT))  # the tests' own service and camera
from pipeline.plan.ladder import Rung
from tests.service.live_peer import LiveServer, transport_stream
from tests.service.serving import Served, check_whole, serving

TICKS = 3600  # a frame, at 25 a second
SETTLED = 0.2  # of the soak that does not count: start-up, caches that fill
SETTLING_S = 120.0  # nor does this behind a kill: processes begin, backlogs are worked off
LAG_S = 1.0
FOLLOW_S = {"one": 20.0, "four": 45.0, "again": 50.0}
FOLLOWED = """name: followed
stages:
  - {stage: decode, after: source}
  - {stage: 'tests.actors.stages:Slow', name: slow, after: decode}
  - {stage: guard, after: [slow, decode]}
  - {stage: encode, after: guard.frames}
  - {stage: quality, after: decode}
  - {stage: record, after: [decode, quality, guard.report]}
"""
HELD = (("memory", "MB/min"), ("fds", "1/min"), ("threads", "1/min"), ("processes", "1/min"), ("objects", "1/min"))
CLIPS = ("skv_bikes", "tc_nasa", "intel_people", "intel_bottle", "skv_bikes")


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--cases", default="start,follow,soak", help="of start, follow, soak")
    options.add_argument("--minutes", type=float, default=30.0, help="of the soak")
    chosen = options.parse_args()
    before, rows = load(), []
    with tempfile.TemporaryDirectory(prefix="limpid-bench-") as scratch:
        for case in chosen.cases.split(","):
            folder = Path(scratch) / case
            folder.mkdir()
            if case == "start":
                rows += start(folder, 5 if chosen.quick else 100)
            elif case == "follow":
                rows += follow(folder, 0.3 if chosen.quick else 1.0)
            else:
                rows += soak(folder, 60.0 if chosen.quick else 60 * chosen.minutes)
    rows.append(Row(case="machine", metric="load_average_at_start", unit="", value=before))
    if chosen.json:
        write_json(chosen.json, rows)
    return 0


# --- start -------------------------------------------------------------------------------------------------------


def start(folder: Path, times: int) -> list[Row]:
    """Time the first segment, three times; create and delete streams in a loop and look what stays."""
    clip = transport_stream(folder / "clip.ts", seconds=60, width=320, height=180)
    camera = LiveServer(clip, 60)
    firsts = []
    with serving(folder / "data") as served:
        settle(15)
        for number in range(3):
            name = f"first-{number}"
            asked_s = time.monotonic()
            served.ask("POST", "/v1/streams", body(name, camera.port))
            segments = folder / "data" / "streams" / name / "hls" / "main"
            until(lambda at=segments: any(at.glob("*.m4s")), 30)
            firsts.append(time.monotonic() - asked_s)
            served.ask("DELETE", f"/v1/streams/{name}?data=true")
        before = held(served.process)
        for number in range(times):
            served.ask("POST", "/v1/streams", body(f"loop-{number}", camera.port))
            served.ask("DELETE", f"/v1/streams/loop-{number}?data=true")
        settle(10)
        after = held(served.process)
        left = [p for p in (folder / "data" / "streams").rglob("*") if p.is_file()]
        streams = served.ask("GET", "/v1/streams")[1]["items"]
    camera.close()
    body_ = [["POST to first segment, s", f"{np.median(firsts):.1f}", "< 6", met(max(firsts) < 6)]]
    names = ("memory, MB", "file descriptors", "threads", "processes", "objects")
    body_ += [[f"{n}, after − before", f"{b - a:+.0f}", "", ""] for n, a, b in zip(names, before, after, strict=True)]
    body_.append([f"files and streams left of {times}", f"{len(left)} + {len(streams)}", "0", met(not left + streams)])
    print_table("Start, and streams created and deleted", ["figure", "measured", "target", ""], body_)
    rows = [row("start", "first_segment", "s", float(np.median(firsts)), (min(firsts), max(firsts)))]
    rows += [
        row(
            f"{times} created and deleted",
            f"{name.split(',')[0].replace(' ', '_')}_after",
            "",
            float(b),
            None,
            float(a),
        )
        for name, a, b in zip(names, before, after, strict=True)
    ]
    return [*rows, row(f"{times} created and deleted", "files_left", "", float(len(left)))]


# --- follow ------------------------------------------------------------------------------------------------------


def follow(folder: Path, share: float) -> list[Row]:
    """Have the load step from one stream to four and back; print what the pool did."""
    graph = folder / "graph.yaml"
    graph.write_text(FOLLOWED, encoding="utf-8")
    config = folder / "limpid.yaml"
    flow = {"plan": "unchained", "hosts": 1, "max_hosts": 5}  # what four streams need; a fifth would want more
    settings = {"graph": str(graph), "stage_modules": ["tests.actors.stages"], "flow": flow}
    config.write_text(yaml.safe_dump({**settings, "encode": {"preset": "ultrafast"}}), encoding="utf-8")
    total_s = sum(FOLLOW_S.values()) * share + 60
    clip = transport_stream(folder / "clip.ts", seconds=total_s)
    camera = LiveServer(clip, total_s)
    seen: list[tuple[float, int, int, float]] = []  # (s, streams, workers, worst lag p95)
    with serving(folder / "data", arguments=("--config", str(config)), env={"PYTHONPATH": str(ROOT)}) as served:
        began_s = time.monotonic()

        def watch(seconds: float) -> None:
            end_s = time.monotonic() + seconds
            while time.monotonic() < end_s:
                streams = served.ask("GET", "/v1/streams")[1]["items"]
                stages = {s["name"]: s for s in served.ask("GET", "/v1/stages")[1]["items"]}
                workers = stages["slow"]["workers"] if "slow" in stages else 0
                lag_s = max((s["lag_s"]["p95"] for s in streams), default=0.0)
                seen.append((time.monotonic() - began_s, len(streams), workers, lag_s))
                settle(0.5)

        served.ask("POST", "/v1/streams", body("f-0", camera.port))
        watch(FOLLOW_S["one"] * share)
        step_s = time.monotonic() - began_s
        for number in range(1, 4):
            # What the first ones take has to be measured before the last fits beside them: asked again, as a client is.
            request = body(f"f-{number}", camera.port)
            until(lambda: served.ask("POST", "/v1/streams", request)[0] in (200, 201), 60)  # noqa: B023  # used at once
        watch(FOLLOW_S["four"] * share)
        four = served.ask("GET", "/v1/streams")[1]["items"]
        refused, problem = served.ask("POST", "/v1/streams", {**body("fifth", camera.port), "id": "fifth"})
        for number in range(1, 4):
            served.ask("DELETE", f"/v1/streams/f-{number}")
        back_s = time.monotonic() - began_s
        watch(FOLLOW_S["again"] * share)
    camera.close()
    plot(seen)
    late = [at for at, streams, _, lag in seen if streams == 4 and lag > LAG_S]
    recovered_s = max(late) - step_s if late else 0.0
    most = max(w for at, _, w, _ in seen if step_s < at < back_s)
    first, least = [w for at, _, w, _ in seen if at <= step_s][-1], seen[-1][2]
    lost = sum(len(s["gaps"]) for s in four)
    table = [
        ["lag p95 above its target until, s after the step", f"{recovered_s:.1f}", "≤ 15", met(recovered_s <= 15)],
        ["workers at one stream, at four, at one again", f"{first}, {most}, {least}", "", met(least < most)],
        ["a fifth stream is refused", f"{refused}", "503", met(refused == 503)],
        ["gaps of the four", str(lost), "0", met(not lost)],
    ]
    print(problem.get("detail", ""))
    print_table("Load 1 → 4 → 1", ["figure", "measured", "target", ""], table)
    return [
        row("load 1 to 4", "lag_above_target_for", "s", recovered_s),
        row("load 1 to 4", "workers", "", float(most)),
        row("load 4 to 1", "workers", "", float(least)),
    ]


def plot(seen: Sequence[tuple[float, int, int, float]]) -> None:
    """Print what was seen as lines of text: a row every two seconds."""
    print("    s  streams  workers  lag p95")
    last = -9.0
    for at, streams, workers, lag in seen:
        if at - last >= 2:
            print(f"{at:5.0f}  {'▒' * streams:<7}  {'█' * workers:<8} {lag:6.2f} s")
            last = at


# --- soak --------------------------------------------------------------------------------------------------------


def soak(folder: Path, seconds: float) -> list[Row]:
    """Run five streams for long, with kills; return slopes and what is missing."""
    names = [f"s{n}" for n in range(5)]
    taken: list[tuple[float, tuple[int, ...]]] = []
    by_kind: list[tuple[float, Counter[str]]] = []
    sharpened: list[bool] = []  # at each look: whether the network ran for the stream that has one
    with contextlib.ExitStack() as stack:
        ports = []
        for number, name in enumerate(names):
            size = (320, 180) if number == 4 else (640, 360)
            ports.append(stack.enter_context(camera_of(folder / f"{name}.ts", CLIPS[number], size)))
        kills = {0.3: "ray::Supervisor", 0.5: "ingest", 0.7: "service"}
        data = folder / "data"
        began_s = time.monotonic()
        for part, stop in ((0, 0.7), (1, 1.0)):
            with serving(data) as served:
                if part == 0:
                    settle(15)
                    for number, name in enumerate(names):
                        served.ask("POST", "/v1/streams", body(name, ports[number], bicubic=number < 4))
                        settle(2)
                while time.monotonic() - began_s < stop * seconds:
                    kinds = Counter[str]()
                    taken.append((time.monotonic() - began_s, held(served.process, kinds)))
                    by_kind.append((time.monotonic() - began_s, kinds))
                    sharpened.append(served.stream(names[4])["rung"] < Rung.BICUBIC)
                    for when in [w for w in kills if (time.monotonic() - began_s) / seconds > w and w < stop]:
                        kill(served, kills.pop(when), ports[0])
                    settle(min(10.0, seconds / 20))
                final = [served.stream(name) for name in names]
    epochs = {name: check_whole(data / "streams" / name, ticks_a_frame=TICKS) for name in names}
    gaps = {name: epochs[name] - 1 for name in names}
    table = [
        [s["id"], s["state"], f"{s['fps_out']:.1f}", f"{s['lag_s']['p95']:.2f}", str(s["rung"]), str(gaps[s["id"]])]
        for s in final
    ]
    print_table(
        f"{seconds / 60:g} minutes, no frame lost or doubled between gaps",
        ["stream", "state", "fps", "lag p95", "rung", "gaps"],
        table,
    )
    rows = [row("soak", "network_share", "", sum(sharpened) / len(sharpened))]
    print(f"F-EDSR ran in {sum(sharpened)} of {len(sharpened)} looks")
    stretches = [(SETTLED, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 1.0)]  # between the kills: what begins anew is a step
    between = [(from_ * seconds + min(SETTLING_S, (to - from_) * seconds / 2), to * seconds) for from_, to in stretches]
    for index, (what, unit) in enumerate(HELD):
        points = [(at, float(found[index])) for at, found in taken]
        slope = 60 * common_slope(points, between)
        print(f"{what}: {slope:+.2f} {unit} (from {points[0][1]:.0f} to {points[-1][1]:.0f})")
        rows.append(row("soak", f"{what}_slope", unit, slope))
    for kind in sorted({kind for _, found in by_kind for kind in found}):
        points = [(at, found[kind] / 2**20) for at, found in by_kind if kind in found]
        slope = 60 * common_slope(points, between)
        print(f"  {kind}: {slope:+.3f} MB/min (from {points[0][1]:.0f} to {points[-1][1]:.0f} MB)")
    for stream in final:
        rows.append(row(f"soak {stream['id']}", "lag_p95", "s", stream["lag_s"]["p95"]))
    return rows


@contextmanager
def camera_of(path: Path, clip: str, size: tuple[int, int]) -> Iterator[int]:
    """Encode a real clip (or a drawn one) at 25 frames/s, GOP 2 s; serve it again and again; give the port."""
    source = next((SHARED / "clips").glob(f"*/{clip}.mp4"), None)
    if source is not None:
        scale = f"scale={size[0]}:{size[1]},fps=25"
        made = ["ffmpeg", "-v", "error", "-y", "-i", source, "-vf", scale, "-c:v", "libx264", "-preset", "fast"]
        made += ["-b:v", "500k", "-g", "50", "-keyint_min", "50", "-sc_threshold", "0", "-bf", "0", "-an", path]
        subprocess.run(list(map(str, made)), check=True)
    else:
        transport_stream(path, seconds=10, width=size[0], height=size[1])
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port: int = probe.getsockname()[1]
    over = threading.Event()
    command = ["ffmpeg", "-v", "error", "-re", "-stream_loop", "-1", "-i", path, "-c", "copy", "-f", "mpegts"]
    command += [f"tcp://127.0.0.1:{port}?listen=1"]
    running: list[subprocess.Popen[bytes]] = []

    def serve() -> None:
        while not over.is_set():  # it ends with its client
            running[:] = [subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL)]
            running[0].wait()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield port
    finally:
        over.set()
        for process in running:
            process.kill()


def kill(served: Served, what: str, port: int) -> None:
    """Kill the supervisor, or whoever reads the source at a port; the service is ended by its context."""
    if what == "ingest":
        (reader,) = [p for p in served.process.children(recursive=True) if _reads(p, port)]
        reader.kill()
    elif what != "service":
        served.kill(what)


def _reads(process: psutil.Process, port: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(c.raddr and c.raddr.port == port for c in process.net_connections("tcp"))
    return False


# --- small things ------------------------------------------------------------------------------------------------


def body(name: str, port: int, *, bicubic: bool = False) -> dict[str, Any]:
    """Return a request for a stream."""
    enhance = {"enhance": {"network": False}} if bicubic else {}
    return {"id": name, "source": f"tcp://127.0.0.1:{port}", "outputs": {"hls": {"segment_s": 1}}, **enhance}


def held(process: psutil.Process, kinds: Counter[str] | None = None) -> tuple[int, ...]:
    """Return MB (proportional), file descriptors, threads, number of all processes of a tree; objects in /dev/shm.

    `kinds` is given the bytes of the processes of each kind: hosts, supervisor, Ray's own.
    """
    total = [0, 0, 0, 0]
    for each in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            pss = each.memory_full_info().pss
            if kinds is not None:
                title = (each.cmdline() or ["?"])[0]
                kinds[title.split(".")[0] if title.startswith("ray::") else each.name()] += pss
            total[0] += pss
            total[1] += each.num_fds()
            total[2] += each.num_threads()
            total[3] += 1
    return total[0] >> 20, total[1], total[2], total[3], sum(1 for _ in Path("/dev/shm").rglob("*"))


def common_slope(points: Sequence[tuple[float, float]], stretches: Sequence[tuple[float, float]]) -> float:
    """Return the slope a second that fits all stretches best, each with a level of its own (least squares)."""
    over, under = 0.0, 0.0
    for from_s, to_s in stretches:
        inside = np.array([p for p in points if from_s <= p[0] < to_s], np.float64).reshape(-1, 2)
        if len(inside) > 1:
            centred = inside - inside.mean(axis=0)
            over += float((centred[:, 0] * centred[:, 1]).sum())
            under += float((centred[:, 0] ** 2).sum())
    return over / under if under else 0.0


def until(done: Callable[[], bool], within_s: float) -> None:
    """Wait for something."""
    end_s = time.monotonic() + within_s
    while not done():
        if time.monotonic() > end_s:
            raise TimeoutError(f"it did not happen within {within_s:g} s")
        settle(0.2)


def settle(seconds: float) -> None:
    """Let time pass."""
    threading.Event().wait(seconds)


def row(
    case: str,
    metric: str,
    unit: str,
    value: float,
    spread: tuple[float, float] | None = None,
    before: float | None = None,
) -> Row:
    """Return a figure."""
    return Row(
        case=case,
        metric=metric,
        unit=unit,
        value=value,
        spread=spread,
        reference="before" if before is not None else "",
        reference_value=before,
    )


def met(holds: bool) -> str:
    """Return the verdict on a target."""
    return "met" if holds else "MISSED"


if __name__ == "__main__":
    sys.exit(main())
