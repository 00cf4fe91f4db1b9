"""Real peers through the whole service: RTMP (ffmpeg, nginx-rtmp), RTSP (GStreamer), HLS (ffmpeg), lossy TS over UDP.

All four at once at live speed, then each publisher is silent for 10 s and comes back; 2 % of the UDP datagrams are
lost. Of each: lag p95 before and after, gaps, and whether every frame that came in came out, within each epoch. Needs
the Debian packages that .ci/run names. Target: lag p95 below 1 s, one gap for the silence, no frame lost or doubled
between gaps (UDP: but for what was lost).
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from live import held, until
from measuring.contest import ROOT, load
from report import Row, parser, print_table, write_json

sys.path.insert(0, str(ROOT))  # the tests' own service and peers
import itertools

from tests.live_peers import Process, free_port, program
from tests.service.serving import Served, frames_of, serving
from tests.service.test_live_sources import Nginx, pushing

LAG_S = 1.0
SILENT_S = 10.0
RTSP = "( videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=30/1 ! x264enc tune=zerolatency "
RTSP += "speed-preset=ultrafast key-int-max=30 ! rtph264pay name=pay0 pt=96 )"


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=60.0, help="at live speed before the silence")
    chosen = options.parse_args()
    seconds = 10.0 if chosen.quick else chosen.seconds
    before, rows, body = load(), [], []
    with tempfile.TemporaryDirectory(prefix="limpid-bench-") as scratch, contextlib.ExitStack() as stack:
        folder = Path(scratch)
        clip = _clip(folder)
        peers = {
            "rtmp": stack.enter_context(rtmp(folder, clip)),
            "rtsp": stack.enter_context(rtsp(folder)),
            "hls": stack.enter_context(hls(folder, clip)),
            "udp": stack.enter_context(udp(folder, clip)),
        }
        with serving(folder / "data", env={"LIMPID_SOURCE__READ_TIMEOUT_S": "3"}) as served:
            for name, (uri, _) in peers.items():
                source = {"uri": uri, "mode": "live", "reconnect": {"initial_s": 0.2, "max_s": 1}}
                request = {"id": name, "source": source, "outputs": {"hls": {"segment_s": 1}}}
                # Until the first ones are measured, the last may not fit beside what they are taken for.
                until(functools.partial(_begun, served, request), 60)
            for name in peers:
                served.wait(name, lambda s: s["fps_out"] > 20 and s["lag_s"]["p95"] < LAG_S, 60)
            first = watch(served, peers, seconds)
            at_first = held(served.process)
            for _, speaks in peers.values():
                speaks(False)
            threading.Event().wait(SILENT_S)
            away = {name: served.stream(name)["state"] for name in peers}
            for _, speaks in peers.values():
                speaks(True)
            for name in peers:
                served.wait(name, lambda s: s["epoch"] > 0 and s["fps_out"] > 20 and s["lag_s"]["p95"] < LAG_S, 60)
            second = watch(served, peers, seconds / 3)
            at_last = held(served.process)
            gaps = {name: len(served.stream(name)["gaps"]) for name in peers}
        for name in peers:
            lost = holes(folder / "data" / "streams" / name)
            good = first[name] < LAG_S and second[name] < LAG_S and gaps[name] == 1 and (not lost or name == "udp")
            body.append(
                [
                    name,
                    f"{first[name]:.2f}",
                    away[name],
                    str(gaps[name]),
                    f"{second[name]:.2f}",
                    str(lost),
                    "met" if good else "MISSED",
                ]
            )
            rows.append(Row(case=name, metric="lag_p95", unit="s", value=max(first[name], second[name])))
            rows.append(Row(case=name, metric="gaps", unit="", value=float(gaps[name])))
            rows.append(Row(case=name, metric="frames_missing_in_epochs", unit="", value=float(lost)))
    print_table(
        f"{seconds:g} s at live speed, {SILENT_S:g} s of silence, and on",
        ["peer", "lag p95, s", "in the silence", "gaps", "lag p95 after", "frames missing", ""],
        body,
    )
    names = ("MB", "file descriptors", "threads", "processes")
    print(", ".join(f"{n} {a} → {b}" for n, a, b in zip(names, at_first, at_last, strict=True)))
    rows.append(Row(case="machine", metric="load_average_at_start", unit="", value=before))
    if chosen.json:
        write_json(chosen.json, rows)
    return 0


def _begun(served: Served, request: dict[str, Any]) -> bool:
    return served.ask("POST", "/v1/streams", request)[0] in (200, 201)


def watch(served: Served, peers: dict[str, Any], seconds: float) -> dict[str, float]:
    """Return the worst lag p95 of each stream."""
    worst = dict.fromkeys(peers, 0.0)
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        for name in peers:
            worst[name] = max(worst[name], served.stream(name)["lag_s"]["p95"])
        threading.Event().wait(0.5)
    return worst


def holes(folder: Path) -> int:
    """Return the frames that are missing between two of one epoch, by their times."""
    missing = 0
    rows = frames_of(folder)
    for epoch in {row["epoch"] for row in rows}:
        pts = [row["pts"] for row in rows if row["epoch"] == epoch]
        steps = sorted(b - a for a, b in itertools.pairwise(pts))
        usual = steps[len(steps) // 2] if steps else 1
        missing += sum(round(step / usual) - 1 for step in steps)
    return missing


# --- peers -------------------------------------------------------------------------------------------------------

Peer = tuple[str, Callable[[bool], None]]  # its address; whether it speaks


def _clip(folder: Path) -> Path:
    clip = folder / "clip.ts"
    coded = ["-c:v", "libx264", "-preset", "fast", "-b:v", "400k", "-g", "30", "-bf", "0", "-pix_fmt", "yuv420p"]
    made = [program("ffmpeg", "ffmpeg"), "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=320x180:r=30:d=40"]
    subprocess.run([*made, *coded, str(clip)], check=True, timeout=120)
    return clip


@contextmanager
def pushed(folder: Path, name: str, clip: Path, *target: str) -> Iterator[Callable[[bool], None]]:
    """Have ffmpeg send the clip again and again while it is to speak."""
    running: list[Process] = []

    def speaks(on: bool) -> None:
        while running:
            running.pop().end()
        if on:
            running.append(pushing(program("ffmpeg", "ffmpeg"), clip, *target, log=folder / f"{name}.log"))

    speaks(True)
    try:
        yield speaks
    finally:
        speaks(False)


@contextmanager
def rtmp(folder: Path, clip: Path) -> Iterator[Peer]:
    nginx = Nginx(folder)
    with nginx.running(), pushed(folder, "rtmp", clip, "-f", "flv", nginx.uri) as speaks:
        yield nginx.uri, speaks


@contextmanager
def rtsp(folder: Path) -> Iterator[Peer]:
    port, running = free_port(), list[Process]()
    server = str(ROOT / "tests" / "service" / "rtsp_server.py")

    def speaks(on: bool) -> None:
        while running:
            running.pop().end()
        if on:
            running.append(Process("/usr/bin/python3", server, str(port), RTSP, log=folder / "rtsp.log"))

    speaks(True)
    try:
        yield f"rtsp://127.0.0.1:{port}/a", speaks
    finally:
        speaks(False)


@contextmanager
def hls(folder: Path, clip: Path) -> Iterator[Peer]:
    root = folder / "hls-peer"
    root.mkdir()
    handler = functools.partial(_Quiet, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        made = ["-f", "hls", "-hls_time", "1", "-hls_list_size", "6", "-hls_flags", "delete_segments+omit_endlist"]
        made += ["-hls_start_number_source", "epoch", str(root / "a.m3u8")]
        with pushed(folder, "hls", clip, *made) as speaks:
            end_s = time.monotonic() + 20
            while not (root / "a.m3u8").exists() and time.monotonic() < end_s:
                threading.Event().wait(0.1)
            yield f"http://127.0.0.1:{server.server_address[1]}/a.m3u8", speaks
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def udp(folder: Path, clip: Path) -> Iterator[Peer]:
    """Through a relay that loses 2 % of the datagrams."""
    inward, outward = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_DGRAM)
    dice, over = random.Random(1), threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as relay:
        relay.bind(("127.0.0.1", inward))
        relay.settimeout(0.2)

        def forward() -> None:
            while not over.is_set():
                with contextlib.suppress(OSError):
                    data = relay.recv(2048)
                    if dice.random() >= 0.02:
                        relay.sendto(data, ("127.0.0.1", outward))

        thread = threading.Thread(target=forward, daemon=True)
        thread.start()
        with pushed(folder, "udp", clip, "-f", "mpegts", f"udp://127.0.0.1:{inward}?pkt_size=1316") as speaks:
            yield f"udp://127.0.0.1:{outward}", speaks
        over.set()
        thread.join(5)


if __name__ == "__main__":
    sys.exit(main())
