"""A hundred swaps of weights in a minute of a live stream: is a frame lost or late, and how soon does a swap show?

The whole service, a live source at its own speed, and a publisher that pushes a slightly better model every 0.6 s over
HTTP: the shipped network with its last convolution scaled, from far off towards itself, each better than the one before
by more than the margin. Latency: from the first byte of the upload until the first frame made with it is in the output
(when that frame arrived, as its row says, and what the stream's frames then took to the output). The same stream runs
without swaps first. Targets: no frame lost, every swap taken, p95 below 1 s, lag as without swaps.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from measuring.contest import ROOT, load
from report import Row, parser, print_table, write_json

sys.path.insert(0, str(ROOT))  # the tests' own service and camera
from pipeline.media.synthetic import Scene, SceneConfig
from pipeline.store.keyframes import KeyFrame, dumps
from tests import pushed
from tests.service.live_peer import LiveServer, transport_stream
from tests.service.serving import Served, check_whole, frames_of, serving

TICKS = 3600  # a frame, at 25 a second
TARGET_S = 1.0
FAR, NEAR = 20.0, 2.5  # from the shipped weights, in units of their residual; nearer, a hundredth is too little a gain
CROPS, SIDE = 16, 64  # of a key frame, low resolution


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--swaps", type=int, default=100)
    options.add_argument("--seconds", type=float, default=60.0, help="in which they are made")
    options.add_argument("--size", default="640x360", help="of the stream")
    chosen = options.parse_args()
    count, seconds = (5, 3.0) if chosen.quick else (chosen.swaps, chosen.seconds)
    width, height = map(int, ("128x64" if chosen.quick else chosen.size).split("x"))
    before = load()
    factors = [1 - FAR * (NEAR / FAR) ** (n / count) for n in range(count + 1)]
    models = [pushed.model(factor, version) for version, factor in enumerate(factors, 2)]
    with tempfile.TemporaryDirectory(prefix="limpid-bench-") as scratch:
        folder = Path(scratch)
        (folder / "far.safetensors").write_bytes(models[0])
        plain_s = 1.0 if chosen.quick else 20.0
        whole_s = plain_s + 1.5 * seconds + 45  # the stream's start and what is slow included: its end would be a gap
        camera = LiveServer(transport_stream(folder / "clip.ts", seconds=whole_s, width=width, height=height), whole_s)
        env = {"LIMPID_ENHANCE__MODEL": str(folder / "far.safetensors"), "LIMPID_ENHANCE__RUNTIME": "openvino-int8"}
        with serving(folder / "data", env=env) as served:
            begin(served, camera.port)
            plain = watched(served, plain_s)
            lags, over = Lags(served), threading.Event()
            watching = threading.Thread(target=lags.watch, args=(over,))
            watching.start()
            try:
                swaps = pushed_in_turn(served, models[1:], seconds)
                last = swaps[-1]["seq"]
                served.wait("gate", lambda s: s["seq"] > last + 25)
            finally:
                over.set()
                watching.join()
            status = served.stream("gate")
            served.ask("DELETE", "/v1/streams/gate")
        camera.close()
        store = folder / "data" / "streams" / "gate"
        if check_whole(store, ticks_a_frame=TICKS) != 1:
            raise AssertionError("frames are missing: the stream has a gap")
        latencies = latencies_of(store, swaps, lags.p50_s)
    rows = table(
        latencies, swaps, plain, lags, f"{count} swaps in {seconds:g} s, {width}×{height}", int(status["rung"])
    )
    rows.append(Row(case="machine", metric="load_average_at_start", unit="", value=before))
    if chosen.json:
        write_json(chosen.json, rows)
    return 0


class Lags:
    """What a stream's lag is while something goes on."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self.p50_s = 0.0
        self.p95_s: list[float] = []
        self.rungs: list[int] = []

    def watch(self, over: threading.Event) -> None:
        """Ask four times a second until it is over."""
        while not over.wait(0.25):
            status = self._served.stream("gate")
            self.p50_s = status["lag_s"]["p50"]
            self.p95_s.append(status["lag_s"]["p95"])
            self.rungs.append(status["rung"])


def begin(served: Served, port: int) -> None:
    """Begin a stream with a publisher and key frames; return when it keeps up."""
    request: dict[str, Any] = {"id": "gate", "source": f"tcp://127.0.0.1:{port}", "outputs": {"hls": {"segment_s": 1}}}
    served.ask("POST", "/v1/streams", request)
    served.ask("POST", "/v1/publishers", {"id": "cam", "stream": "gate", "public_key": pushed.PUBLIC})
    for number in range(4):
        status, problem = served.ask("PUT", "/v1/streams/gate/key-frames", key_frame(number))
        assert status == 204, problem
    served.wait("gate", lambda s: s["fps_out"] > 20 and 0 < s["lag_s"]["p95"] < TARGET_S and not s["rung"], 90)


def watched(served: Served, seconds: float) -> Lags:
    """Return the stream's lags while nothing is swapped."""
    lags, over = Lags(served), threading.Event()
    threading.Timer(seconds, over.set).start()
    lags.watch(over)
    return lags


def pushed_in_turn(served: Served, models: list[bytes], seconds: float) -> list[dict[str, Any]]:
    """Push models at an even pace; return the answers, each with when its upload began and ended (Unix seconds)."""
    swaps: list[dict[str, Any]] = []
    began = time.monotonic()
    pause = threading.Event()
    for number, model in enumerate(models):
        pause.wait(max(0.0, began + number * seconds / len(models) - time.monotonic()))
        asked_s = time.time()
        status, answer = served.ask("PUT", "/v1/streams/gate/models/f-edsr", model)
        if status != 200:
            raise AssertionError(f"model {number} was not taken: {answer}")
        swaps.append({**answer, "asked_s": asked_s, "answered_s": time.time()})
    return swaps


def latencies_of(store: Path, swaps: list[dict[str, Any]], lag_s: float) -> list[float]:
    """Return for each swap the seconds from its upload's first byte until its first frame is out; check the rows."""
    rows = frames_of(store)
    borders = [*(swap["seq"] for swap in swaps), len(rows)]
    for swap, stop in zip(swaps, borders[1:], strict=True):
        found = {row["model_version"] for row in rows[swap["seq"] : stop] if row["enhanced"]}
        if not found <= {swap["model"]}:
            raise AssertionError(f"frames [{swap['seq']}, {stop}) were made with {found}, not with {swap['model']}")
    return [rows[swap["seq"]]["captured_at"].timestamp() + lag_s - swap["asked_s"] for swap in swaps]


def key_frame(number: int) -> bytes:
    """Return the body of a key frame: crops of a rendered picture and of what is left of it at half the size."""
    scene = SceneConfig(width=1280, height=720, seconds=8, seed=5, noise=0)
    high_HW = Scene(scene).frame(40 * number).i420[: 1280 * 720].reshape(720, 1280)
    low_HW = cv2.resize(high_HW, (640, 360), interpolation=cv2.INTER_AREA)
    places = np.random.default_rng(number).integers(0, (360 - SIDE, 640 - SIDE), (CROPS, 2))
    low = np.stack([low_HW[y : y + SIDE, x : x + SIDE] for y, x in places])
    high = np.stack([high_HW[2 * y : 2 * (y + SIDE), 2 * x : 2 * (x + SIDE)] for y, x in places])
    return dumps(KeyFrame(captured_ns=pushed.CAPTURED_NS + number * 10**9, low=low, high=high))


def table(
    latencies: list[float], swaps: list[dict[str, Any]], plain: Lags, busy: Lags, case: str, rung: int
) -> list[Row]:
    """Print what was measured; return it as rows."""
    p50, p95 = (float(q) for q in np.quantile(latencies, (0.5, 0.95)))
    answers = [swap["answered_s"] - swap["asked_s"] for swap in swaps]
    lag, lag_plain = (statistics.median(lags.p95_s) for lags in (busy, plain))
    most = max(busy.rungs, default=rung)
    body = [
        ["swaps taken", f"{len(swaps)}", "all"],
        ["frames lost or doubled", "0", "0"],
        ["first byte → first frame out, p50, s", f"{p50:.2f}", ""],
        ["first byte → first frame out, p95, s", f"{p95:.2f}", f"< {TARGET_S:g}"],
        ["first byte → answer, median, s", f"{statistics.median(answers):.2f}", ""],
        ["lag p95 with swaps (without), s", f"{lag:.3f} ({lag_plain:.3f})", "the same"],
        ["highest p95 in 5 s with swaps (without), s", f"{max(busy.p95_s):.3f} ({max(plain.p95_s):.3f})", "< 1"],
        ["highest rung of the overload ladder", f"{most}", "0"],
    ]
    print_table(f"Swaps: {case}", ["figure", "measured", "target"], body)

    def row(metric: str, unit: str, value: float, **more: Any) -> Row:
        return Row(case=case, metric=metric, unit=unit, value=value, **more)

    limit = {"reference": "target", "reference_value": TARGET_S}
    without = {"reference": "without swaps"}
    return [
        row("swaps_taken", "", len(swaps)),
        row("latency_p50", "s", p50),
        row("latency_p95", "s", p95, spread=(min(latencies), max(latencies)), **limit),
        row("answer", "s", statistics.median(answers), spread=(min(answers), max(answers))),
        row("lag_p95", "s", lag, reference_value=lag_plain, **without),
        row("lag_p95_max", "s", max(busy.p95_s), reference_value=max(plain.p95_s), **without),
        row("highest_rung", "", most),
    ]


if __name__ == "__main__":
    sys.exit(main())
