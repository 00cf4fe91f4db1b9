"""How much sharper, and at what cost: F-EDSR beside FSRCNN and ESPCN on real clips, in one run.

Quality: the table of `limpid eval sr`. Cost: CPU ms a frame from uint8 luma to uint8 luma (F-EDSR with its bicubic
base), one thread, in turn; the peers in the same runtime (float32, and bfloat16 where this CPU has it) and in OpenCV 4
where the environment that peers/opencv4.py names is there.
Targets: mean PSNR-Y ≥ FSRCNN + 0.25 dB; ≤ 1/3 of its CPU time in the same runtime; ≤ 1/10 of its time in OpenCV.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
from peers.opencv4 import PYTHON, OpenCvPeers
from report import SHARED, Row, Times, alternating, parser, print_table, write_json

from pipeline.commands import eval_sr
from pipeline.models import model_path
from pipeline.models.load import load_model
from pipeline.models.runtime import RUNTIMES
from pipeline.models.runtime.choose import pattern
from pipeline.models.runtime.openvino_ import core
from pipeline.wire.frames import Size

OURS = "F-EDSR openvino-int8"
PEER = "FSRCNN"
SIZES = (Size(width_px=320, height_px=180), Size(width_px=640, height_px=360))


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--data", type=Path, default=SHARED / "clips" / "dev", help="clips (default: the shared ones)")
    options.add_argument("--peers", type=Path, default=SHARED / "peers", help="frozen graphs of the peers")
    options.add_argument("--model", default="f-edsr-x2")
    chosen = options.parse_args()
    if not chosen.data.is_dir() or not chosen.peers.is_dir():
        print(f"skipped: {chosen.data} or {chosen.peers} is not on this machine", file=sys.stderr)
        return 0
    cv2.setNumThreads(1)
    header, net = load_model(model_path(chosen.model))
    net = net.fold()
    repeats = 10 if chosen.quick else 40
    sizes = SIZES[:1] if chosen.quick else SIZES
    ours = eval_sr.ours(net, header.ranges, tuple(RUNTIMES), 1)
    methods = eval_sr.conventional() | eval_sr.peers(chosen.peers, 1) | ours
    rows = [row for size in sizes for row in speed(methods, chosen.peers, size, repeats)]
    clips = eval_sr.clips(chosen.data)
    quality = {name: method for name, method in methods.items() if name not in ("F-EDSR onnx", "F-EDSR pytorch")}
    scores = eval_sr.evaluate(
        clips[:3] if chosen.quick else clips, quality, eval_sr.QUICK if chosen.quick else eval_sr.Sample()
    )
    eval_sr.print_scores(scores, f"{header.name}@{header.version}: PSNR-Y dB / SSIM")
    mean = eval_sr.means(scores)
    rows += eval_sr.rows(scores)
    rows.append(
        Row(
            case=f"mean {OURS}",
            metric="psnr_y",
            unit="dB",
            value=mean[OURS][0],
            reference=PEER,
            reference_value=mean[PEER][0],
        )
    )
    verdicts(rows, mean)
    if chosen.json:
        write_json(chosen.json, rows)
    return 0


def speed(methods: Mapping[str, eval_sr.Method], folder: Path, size: Size, repeats: int) -> list[Row]:
    """Time all methods on one frame size in turn; print the table, return the rows."""
    y_HW = pattern(size)
    calls: dict[str, Callable[[], object]] = {}
    for name, method in methods.items():
        calls[name] = _call(method(size), y_HW)
    if "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        for name, method in eval_sr.peers(folder, 1, "bf16").items():
            calls[f"{name} bf16"] = _call(method(size), y_HW)
    if not OpenCvPeers.available():
        print(f"skipped: OpenCV 4's own time, there is no {PYTHON}", file=sys.stderr)
        return _times(size, alternating(calls, repeats))
    with OpenCvPeers() as opencv:
        for name in eval_sr.PEERS:
            path = folder / f"{name}.pb"
            if path.is_file():
                calls[f"{name.removesuffix('_x2')} OpenCV"] = lambda path=path: opencv.ms(
                    path, size.width_px, size.height_px
                )
        return _times(size, alternating(calls, repeats))


def verdicts(rows: list[Row], mean: Mapping[str, tuple[float, float]]) -> None:
    """Print how the figures stand to the targets."""
    gain = mean[OURS][0] - mean[PEER][0]
    body = [["PSNR-Y over FSRCNN, dB", f"{gain:+.2f}", "≥ +0.25", _met(gain >= 0.25)]]
    for row in rows:
        limit = {PEER: 1 / 3, f"{PEER} OpenCV": 1 / 10}.get(row.reference)
        if limit and row.ratio is not None and row.case.endswith(OURS):
            body.append(
                [f"{row.case} / {row.reference}", f"{row.ratio:.3f}", f"≤ {limit:.3f}", _met(row.ratio <= limit)]
            )
    print_table("Targets", ["figure", "measured", "target", ""], body)


def _call(upscale: eval_sr.Upscale, y_HW: object) -> Callable[[], object]:
    return lambda: upscale(y_HW)  # type: ignore[arg-type]


def _times(size: Size, times: Mapping[str, Times]) -> list[Row]:
    ours = times[OURS]
    print_table(
        f"{size}, one thread, CPU ms a frame",
        ["method", "least", "median", "ninth decile", f"{OURS} / it"],
        [
            [name, f"{t.least:.2f}", f"{t.median:.2f}", f"{t.spread[1]:.2f}", f"{ours.median / t.median:.3f}"]
            for name, t in times.items()
        ],
    )
    rows = [
        Row(case=f"{size} {name}", metric="cpu_time", unit="ms", value=t.median, spread=t.spread)
        for name, t in times.items()
    ]
    for name in (PEER, f"{PEER} bf16", f"{PEER} OpenCV"):
        if name in times:
            rows.append(
                Row(
                    case=f"{size} {OURS}",
                    metric="cpu_time",
                    unit="ms",
                    value=ours.median,
                    reference=name,
                    reference_value=times[name].median,
                    spread=ours.spread,
                )
            )
    return rows


def _met(yes: bool) -> str:
    return "met" if yes else "MISSED"


if __name__ == "__main__":
    sys.exit(main())
