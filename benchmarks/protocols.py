"""Real peers through the whole service: RTMP (ffmpeg, nginx-rtmp), RTSP (GStreamer), HLS (ffmpeg), lossy TS over UDP.

All four at once at live speed, 2 % of the UDP datagrams lost. Then to all of them at the same time one interruption
after the other: the server killed and back 4 s later, the publisher killed and started again at once, 10 s of silence
(the server is stopped and goes on; over UDP nothing passes), the publisher started again with a larger picture. UDP has
no server: a relay is killed there. An RTSP server is its own publisher, as a camera is. Before the next one all have to
be well for 8 s: at 30 frames a second, lag p95 below 1 s.

Targets: each comes back by itself with exactly one gap told (none where a server was away or silent and no frame is
missing: segments of HLS can be had later); what the service holds stays; in each epoch all frames that came were read,
and came out. Over TCP those came that were read (their packets are kept) or are missing in between by the time stamps.
Over UDP the relay looks into what it passes on: a frame came if the beginning of its PES packet did (the rest of one
without it cannot be told from the frame before). Out came the rows of the table `frames`. Needs the Debian packages
that .ci/run names.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from live import held, met, row, settle, until
from measuring.contest import ROOT, load
from report import Row, parser, print_table, write_json

sys.path.insert(0, str(ROOT))  # the tests' own service and peers
from tests.live_peers import Process, free_port, listens, program
from tests.service.serving import Served, frames_of, serving
from tests.service.test_live_sources import Nginx, pushing

LAG_S, FPS = 1.0, 30
SMALL, LARGE = "320x180", "480x270"
LOST = 0.02  # of the datagrams
WRAP = 1 << 33  # ticks of MPEG-TS's clock
CALM_S, LIMIT_S = 8.0, 90.0  # that all have to be well; behind an interruption until that counts as never
KILLED, SILENT = "server killed", "network silent"
INTERRUPTIONS = {  # methods of Peer by which it begins, and ends; seconds between
    KILLED: ("down", "up", 4.0),
    "publisher restarted": ("publish", "", 0.0),
    SILENT: ("stop", "go_on", 10.0),
    "size change": ("resize", "", 0.0),
}


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, help="at live speed before the interruptions (60; quick: 10)")
    options.add_argument("--rounds", type=int, default=1, help="times that all interruptions come")
    options.add_argument("--cases", default=",".join(INTERRUPTIONS), help="interruptions, in this order")
    options.add_argument("--read-timeout-s", type=float, default=3.0, help="source.read_timeout_s")
    chosen = options.parse_args()
    share = 0.5 if chosen.quick else 1.0
    seconds = chosen.seconds or (10.0 if chosen.quick else 60.0)
    before, meetings, holds = load(), list[Meeting](), dict[str, Any]()
    with tempfile.TemporaryDirectory(prefix="limpid-bench-") as scratch, contextlib.ExitStack() as stack:
        folder = Path(scratch)
        clips = {size: made(folder, size) for size in (SMALL, LARGE)}
        peers: dict[str, Peer] = {kind.__name__.lower(): kind(folder, clips) for kind in (Rtmp, Rtsp, Hls, Udp)}
        for peer in peers.values():
            stack.callback(peer.end)
        timeout = {"LIMPID_SOURCE__READ_TIMEOUT_S": str(chosen.read_timeout_s)}
        with serving(folder / "data", env=timeout) as served:
            for name, peer in peers.items():
                source = {"uri": peer.uri, "mode": "live", "reconnect": {"initial_s": 0.2, "max_s": 1}}
                request = {"id": name, "source": source, "outputs": {"hls": {"segment_s": 1}, "packets": True}}
                # Until the first ones are measured, the last may not fit beside what they are taken for.
                until(lambda asked=request: served.ask("POST", "/v1/streams", asked)[0] in (200, 201), 60)
            calm(served, peers, CALM_S * share, time.monotonic())
            holds["at first"] = held(served.process)
            lags_s = watch(served, peers, seconds)
            holds[f"{seconds:g} s later"] = held(served.process)
            for what in chosen.cases.split(",") * chosen.rounds:
                meetings += meet(what, served, peers, share)
                holds[what] = held(served.process)
        streams = folder / "data" / "streams"
        frames = {name: counted(streams / name, getattr(peer, "passed", None)) for name, peer in peers.items()}
    rows = told(lags_s, frames, meetings, holds)
    if chosen.json:
        write_json(chosen.json, [*rows, Row(case="machine", metric="load_average_at_start", unit="", value=before)])
    return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Meeting:
    """How a stream met an interruption; `well_s` behind its end, LIMIT_S if never."""

    name: str
    what: str
    gaps: int
    well_s: float


def watch(served: Served, peers: Mapping[str, Peer], seconds: float) -> dict[str, float]:
    """Return the worst lag p95 of each stream."""
    worst = dict.fromkeys(peers, 0.0)
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        for name in peers:
            worst[name] = max(worst[name], served.stream(name)["lag_s"]["p95"])
        settle(0.5)
    return worst


def calm(served: Served, peers: Mapping[str, Peer], calm_s: float, from_s: float) -> dict[str, float]:
    """Wait until every stream has been well for a while; return since when each is, in seconds behind `from_s`."""
    ill_s = dict.fromkeys(peers, from_s)
    while (now_s := time.monotonic()) < from_s + LIMIT_S and now_s - max(ill_s.values()) < calm_s:
        for name in peers:
            status = served.stream(name)
            well = status["state"] in ("running", "degraded") and status["lag_s"]["p95"] < LAG_S
            # Segments of HLS come by the second: of five seconds' frames one second's may be missing.
            if not well or status["fps_out"] < 0.75 * FPS:
                ill_s[name] = time.monotonic()
        settle(0.2)
    return {name: ill_s[name] - from_s if now_s - ill_s[name] >= calm_s else LIMIT_S for name in peers}


def meet(what: str, served: Served, peers: Mapping[str, Peer], share: float) -> list[Meeting]:
    """Have the same happen to all peers, wait until all streams are well again, and return how they met it."""
    epochs = {name: max((gap["epoch"] for gap in served.stream(name)["gaps"]), default=0) for name in peers}
    begins, ends, lasts_s = INTERRUPTIONS[what]
    for peer in peers.values():
        getattr(peer, begins)()
    if ends:
        settle(max(3.0, lasts_s * share))
        for peer in peers.values():
            getattr(peer, ends)()
    well_s = calm(served, peers, CALM_S * share, time.monotonic())
    meetings = []
    for name in peers:
        status = served.stream(name)
        gaps = [gap for gap in status["gaps"] if gap["epoch"] > epochs[name]]
        meetings.append(Meeting(name=name, what=what, gaps=len(gaps), well_s=well_s[name]))
        told = ", ".join(f"{gap['reason']} ({gap['seconds']:.1f} s)" for gap in gaps)
        print(f"{what}: {name} {status['state']}, rung {status['rung']}, well after {well_s[name]:.1f} s: {told}")
    return meetings


def counted(folder: Path, passed: Sequence[set[int]] | None) -> Counter[str]:
    """Count a stream's frames, see the module: came, read, out; strange: out, and never read. `passed`: see Udp."""
    shown: dict[int, set[int]] = {}  # pts by epoch
    for each in frames_of(folder):
        shown.setdefault(each["epoch"], set()).add(each["pts"])
    kept: dict[int, list[int | None]] = {epoch: [] for epoch in shown}
    for path in (folder / "packets").glob("*.parquet"):
        packets = pq.read_table(path, columns=["track", "pts", "discard"]).to_pylist()
        kept[int(path.name.split("-")[0])] += [p["pts"] for p in packets if p["track"] == 0 and not p["discard"]]
    total = Counter[str]()
    for epoch, times in shown.items():
        named = sorted({pts for pts in kept[epoch] if pts is not None})
        if not named:
            continue  # it had just begun when the service was stopped
        last = min(max(times), named[-1])  # of the last epoch: frames and packets were not stopped at the same place
        out, read = {pts for pts in times if pts <= last}, [pts for pts in named if pts <= last]
        nameless = kept[epoch].count(None)  # decode gives these a place
        steps = [b - a for a, b in itertools.pairwise(read)]
        came = len(read) + sum(round(step / sorted(steps)[len(steps) // 2]) - 1 for step in steps)
        if passed is not None:
            # All publishers begin alike, but lose others. FFmpeg adds a turn of the clock where one begins anew.
            turn = read[0] - read[0] % WRAP
            sent = max(passed, key=lambda one: len(one.intersection(pts - turn for pts in named)))
            came = sum(read[0] <= pts + turn <= last for pts in sent)
        strange = max(0, len(out.difference(read)) - nameless)
        total.update(came=came + nameless, read=len(read) + nameless, out=len(out), strange=strange)
    return total


def told(
    lags_s: Mapping[str, float],
    frames: Mapping[str, Counter[str]],
    meetings: Sequence[Meeting],
    holds: Mapping[str, Any],
) -> list[Row]:
    """Print the tables and return their figures."""
    rows, table = [], []
    for name, found in frames.items():
        whole = found["came"] == found["read"] == found["out"] and not found["strange"]
        good, cells = whole and lags_s[name] < LAG_S, []
        for what in INTERRUPTIONS:
            mine = [m for m in meetings if (m.name, m.what) == (name, what)]
            least = 0 if what in (KILLED, SILENT) and whole else 1
            good = good and all(least <= m.gaps <= 1 and m.well_s < LIMIT_S for m in mine)
            cells.append("; ".join(f"{m.gaps}, {m.well_s:.1f} s" for m in mine))
            rows += [row(f"{name}, {what}", "gaps", "", float(m.gaps)) for m in mine]
            rows += [row(f"{name}, {what}", "well_after", "s", m.well_s) for m in mine]
        counts = [str(found[what]) for what in ("came", "read", "out")]
        table.append([name, f"{lags_s[name]:.2f}", *counts, *cells, met(good)])
        rows.append(row(f"{name}, live", "lag_p95", "s", lags_s[name]))
        rows += [row(name, f"frames_{what}", "", float(found[what])) for what in ("came", "read", "out", "strange")]
    columns = ["peer", "lag p95, s", "frames came", "read", "out", *INTERRUPTIONS, ""]
    print_table("Live; frames of the whole run; of each interruption gaps told, and well again after", columns, table)
    figures = (("memory", "MB"), ("file_descriptors", ""), ("threads", ""), ("processes", ""))
    table = [[when, *map(str, found[: len(figures)])] for when, found in holds.items()]
    print_table("The service holds", ["", *(name for name, _ in figures)], table)
    first, *_, last = holds.values()
    for (name, unit), then, now in zip(figures, first, last, strict=False):
        rows.append(row("service", name, unit, float(now), before=float(then)))
    return rows


# --- peers -------------------------------------------------------------------------------------------------------


def made(folder: Path, size: str) -> Path:
    clip = folder / f"{size}.ts"
    coded = ["-c:v", "libx264", "-preset", "fast", "-b:v", "400k", "-g", str(FPS), "-bf", "0", "-pix_fmt", "yuv420p"]
    command = [program("ffmpeg", "ffmpeg"), "-v", "error", "-f", "lavfi", "-i", f"testsrc2=s={size}:r={FPS}:d=20"]
    subprocess.run([*command, *coded, str(clip)], check=True, timeout=120)
    return clip


class Peer:
    """A server, and a publisher that sends it a clip again and again: two processes."""

    uri: str
    to: tuple[str, ...]  # ffmpeg's options of where it goes
    server: Process

    def __init__(self, folder: Path, clips: Mapping[str, Path]) -> None:
        self.folder, self.clips, self.size = folder, clips, SMALL
        self.publisher: Process | None = None
        self.up()
        self.publish()

    def up(self) -> None:
        """Start the server."""

    def down(self) -> None:
        """Kill the server."""
        self.server.end()

    def stop(self) -> None:
        """Have the server stand still."""
        self.server.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.server.process.send_signal(signal.SIGCONT)

    def publish(self) -> None:
        """Kill the publisher, if there is one, and start it at once."""
        if self.publisher is not None:
            self.publisher.end()
        log = self.folder / f"{type(self).__name__}.log"
        self.publisher = pushing(program("ffmpeg", "ffmpeg"), self.clips[self.size], *self.to, log=log)

    def resize(self) -> None:
        """Start the publisher again with a picture of another size."""
        self.size = LARGE if self.size == SMALL else SMALL
        self.publish()

    def end(self) -> None:
        self.down()
        if self.publisher is not None:
            self.publisher.end()


class Rtmp(Peer):
    def __init__(self, folder: Path, clips: Mapping[str, Path]) -> None:
        self._nginx, self._running = Nginx(folder), contextlib.ExitStack()
        self.uri = self._nginx.uri
        self.to = ("-f", "flv", self.uri)
        super().__init__(folder, clips)

    def up(self) -> None:
        self.server = self._running.enter_context(self._nginx.running())
        if self.publisher is not None:
            self.publish()  # it has ended with the server

    def down(self) -> None:
        self._running.close()


class Rtsp(Peer):
    def __init__(self, folder: Path, clips: Mapping[str, Path]) -> None:
        self._port = free_port()
        self.uri = f"rtsp://127.0.0.1:{self._port}/a"
        super().__init__(folder, clips)

    def up(self) -> None:
        width, height = self.size.split("x")
        line = f"( videotestsrc is-live=true ! video/x-raw,width={width},height={height},framerate={FPS}/1 ! x264enc "
        line += f"tune=zerolatency speed-preset=ultrafast key-int-max={FPS} ! rtph264pay name=pay0 pt=96 )"
        script = str(ROOT / "tests" / "service" / "rtsp_server.py")
        self.server = Process("/usr/bin/python3", script, str(self._port), line, log=self.folder / "rtsp.log")
        until(lambda: listens(self._port), 10)

    def publish(self) -> None:
        self.down()
        self.up()


class Hls(Peer):
    def __init__(self, folder: Path, clips: Mapping[str, Path]) -> None:
        self._root, self._port = folder / "hls", free_port()
        self._root.mkdir()
        self.uri = f"http://127.0.0.1:{self._port}/a.m3u8"
        kept = ("-hls_time", "1", "-hls_list_size", "6", "-hls_flags", "delete_segments+omit_endlist")
        self.to = ("-f", "hls", *kept, "-hls_start_number_source", "epoch", str(self._root / "a.m3u8"))
        super().__init__(folder, clips)
        until((self._root / "a.m3u8").exists, 20)

    def up(self) -> None:
        command = (sys.executable, "-m", "http.server", str(self._port), "--bind", "127.0.0.1")
        self.server = Process(*command, "--directory", str(self._root), log=self.folder / "http.log")
        until(lambda: listens(self._port), 10)


class Udp(Peer):
    """The server is a relay, in a thread, that loses 2 % of the datagrams.

    `passed`: for each publisher one after the other, the pts of the frames whose beginnings the relay has passed on.
    """

    def __init__(self, folder: Path, clips: Mapping[str, Path]) -> None:
        inward, outward = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_DGRAM)
        self.uri, self._from, self._to = f"udp://127.0.0.1:{outward}", ("127.0.0.1", inward), ("127.0.0.1", outward)
        self.to = ("-f", "mpegts", f"udp://127.0.0.1:{inward}?pkt_size=1316")
        self.passed: list[set[int]] = []
        self._last = math.inf  # pts passed on
        self._dice, self._silent, self._over = random.Random(1), threading.Event(), threading.Event()
        self.stop, self.go_on = self._silent.set, self._silent.clear
        super().__init__(folder, clips)

    def up(self) -> None:
        self._over.clear()
        self._relay = threading.Thread(target=self._forward, daemon=True)
        self._relay.start()

    def down(self) -> None:
        self._over.set()
        self._relay.join(5)

    def _forward(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as relay:
            relay.bind(self._from)
            relay.settimeout(0.2)
            while not self._over.is_set():
                with contextlib.suppress(TimeoutError):
                    data = relay.recv(2048)
                    if self._silent.is_set() or self._dice.random() < LOST:
                        continue
                    relay.sendto(data, self._to)
                    for pts in beginnings(data):
                        if pts < self._last - 90_000:  # another publisher's
                            self.passed.append(set())
                        self.passed[-1].add(pts)
                        self._last = pts


def beginnings(data: bytes) -> list[int]:
    """Return the pts of the video frames that begin in TS packets (ISO/IEC 13818-1 2.4.3; ffmpeg's video: PID 256)."""
    found = []
    for at in range(0, len(data), 188):
        packet = data[at : at + 188]
        if packet[1] & 0x5F == 0x41 and packet[2] == 0:  # a PES packet begins in this one; PID 256
            pes = packet[4 + (1 + packet[4] if packet[3] & 0x20 else 0) :]
            if pes[7] & 0x80:
                found.append((pes[9] >> 1 & 7) << 30 | pes[10] << 22 | pes[11] >> 1 << 15 | pes[12] << 7 | pes[13] >> 1)
    return found


if __name__ == "__main__":
    sys.exit(main())
