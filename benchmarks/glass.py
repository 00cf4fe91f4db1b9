"""Glass to glass: from a publisher's clock, drawn into its pictures, to the same pictures on a canvas in Chromium.

A publisher encodes 640×360 at 25 frames a second (x264, zerolatency, 600 kbit/s, GOP 2 s) with the time in each picture
as 24 black or white blocks, and sends it as MPEG-TS; the real service enhances it to 720p; the page plays it, and each
frame that is shown is read back. Publisher, service and browser share the machine, and its clock.
Targets: live view p95 < 0.6 s with enhancement; HLS with segments of 1 s < 5 s.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from measuring.contest import ROOT, load
from report import Row, parser, print_table, write_json

sys.path.insert(0, str(ROOT))  # the tests' own service and browser
from tests.media_files import picture
from tests.service.page import Seen, chromium
from tests.service.serving import serving

WIDTH, HEIGHT, RATE, SIDE, BITS = 640, 360, 25, 16, 24
TARGETS_S = {"live": 0.6, "segments": 5.0}

READ = """([side, bits, width]) => {
  const video = document.getElementById("output");
  const canvas = document.createElement("canvas");
  canvas.width = side * bits;
  canvas.height = side;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  window.seen = [];
  const look = () => {
    const scale = video.videoWidth / width;
    context.drawImage(video, 0, 0, side * bits * scale, side * scale, 0, 0, side * bits, side);
    const { data } = context.getImageData(0, side / 2, side * bits, 1);
    let sent = 0;
    for (let bit = 0; bit < bits; bit++) sent = 2 * sent + (data[4 * (bit * side + side / 2) + 1] > 128 ? 1 : 0);
    const now = Date.now() % 2 ** bits;
    window.seen.push((now - sent + 2 ** bits) % 2 ** bits);
    video.requestVideoFrameCallback(look);
  };
  video.requestVideoFrameCallback(look);
}"""


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=30.0, help="that are looked at, a way of watching")
    chosen = options.parse_args()
    seconds = 5.0 if chosen.quick else chosen.seconds
    before, rows, body = load(), [], []
    with tempfile.TemporaryDirectory(prefix="limpid-bench-") as scratch, publisher() as port:
        store = Path(scratch) / "data"
        with serving(store) as served, chromium() as browser:
            request = {"id": "glass", "source": f"tcp://127.0.0.1:{port}", "outputs": {"hls": {"segment_s": 1}}}
            served.ask("POST", "/v1/streams", request)
            served.wait("glass", lambda s: s["fps_out"] > 20 and s["lag_s"]["p95"] < 1 and not s["rung"], 90)
            for way, target_s in TARGETS_S.items():
                seen = Seen(browser, served.url)
                page = seen.open("/#/s/glass")
                page.locator(f"input[name=mode][value={way}]").check()
                page.wait_for_function("() => document.getElementById('output').currentTime > 0")
                page.wait_for_timeout(3000)
                page.evaluate(READ, [SIDE, BITS, WIDTH])
                page.wait_for_timeout(1000 * seconds)
                found = np.array(page.evaluate("() => window.seen"), np.float64) / 1000
                seen.close()
                status = served.stream("glass")
                found = found[found < 60]  # a picture of which the blocks could not be read
                p50, p95 = np.percentile(found, [50, 95])
                lag = status["lag_s"]["p95"]
                verdict = "met" if p95 < target_s else "MISSED"
                body.append(
                    [
                        way,
                        f"{p50:.2f}",
                        f"{p95:.2f}",
                        f"< {target_s:g}",
                        verdict,
                        str(len(found)),
                        f"{lag:.2f}",
                        str(status["rung"]),
                    ]
                )
                rows.append(
                    Row(
                        case=f"glass to glass, {way}, rung {status['rung']}",
                        metric="latency_p95",
                        unit="s",
                        value=float(p95),
                        spread=(float(p50), float(found.max())),
                    )
                )
                rows.append(Row(case=f"service, {way}", metric="lag_p95", unit="s", value=lag))
    print_table(
        "Glass to glass, 360p to 720p, seconds",
        ["watched", "p50", "p95", "target", "", "frames", "of it the service", "rung"],
        body,
    )
    rows.append(Row(case="machine", metric="load_average_at_start", unit="", value=before))
    if chosen.json:
        write_json(chosen.json, rows)
    return 0


@contextmanager
def publisher() -> Iterator[int]:
    """Publish to whoever connects; give the port."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)

        def serve() -> None:
            while not over.is_set():
                with contextlib.suppress(OSError):
                    client, _ = server.accept()
                    with client:
                        publish(client, over)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield int(server.getsockname()[1])
        finally:
            over.set()
            thread.join(5)


def publish(client: socket.socket, over: threading.Event) -> None:
    """Send pictures that carry the time, until the client goes. Raises OSError then."""
    client.setblocking(True)
    base = [
        av.VideoFrame.from_ndarray(picture(i, WIDTH, HEIGHT), format="rgb24").reformat(format="yuv420p").to_ndarray()
        for i in range(0, 50)
    ]
    options = {"flush_packets": "1"}
    out = av.open(client.makefile("wb", buffering=0), "w", format="mpegts", options=options)
    stream: Any = out.add_stream("libx264", rate=RATE)
    stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    stream.codec_context.gop_size = 2 * RATE
    stream.codec_context.options = {"preset": "ultrafast", "tune": "zerolatency", "b": "600k", "threads": "1"}
    began_s = time.monotonic()
    for number in range(1 << 30):
        over.wait(max(0.0, began_s + number / RATE - time.monotonic()))
        if over.is_set():
            return
        yuv = base[number % len(base)].copy()
        sent = int(time.time() * 1000) % (1 << BITS)
        for bit in range(BITS):
            white = sent >> (BITS - 1 - bit) & 1
            yuv[:SIDE, bit * SIDE : (bit + 1) * SIDE] = 235 if white else 16
        frame = av.VideoFrame.from_ndarray(yuv, format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, RATE)
        for packet in stream.encode(frame):
            out.mux(packet)


if __name__ == "__main__":
    sys.exit(main())
