"""What TCSR adds to F-EDSR when every frame is refined, clip by clip, and at what cost; larger F-EDSRs beside it.

Protocol: each clip scaled to 360 rows, ÷ 2 by area, x264 veryfast zerolatency at 250 and 500 kb/s, decoded; frames of
the second half of the clip; PSNR of luma, 4 px of border left out. The motion of a clip is the mean length of the flow
between neighbours on the low-resolution grid; from MOVING_PX on it counts as moving. Cost: CPU ms a frame, one thread,
from uint8 luma to uint8 luma, all in turn; TCSR's with F-EDSR's own, and with the flow of both neighbours.
Targets: mean ≥ +0.25 dB, moving clips +0.35, none below −0.02.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from report import SHARED, Row, alternating, parser, print_table, write_json

from pipeline.commands.eval_sr import QUICK, Sample, clips
from pipeline.media.degrade import Encoding, Picture, degrade, pictures_of, stream_facts
from pipeline.models import model_path
from pipeline.models.load import load_model, load_tcsr
from pipeline.models.runtime import Engine, open_engine
from pipeline.models.runtime.refiner import open_refiner
from pipeline.models.tcsr import Tcsr
from pipeline.train.metrics import psnr_db
from pipeline.vision.motion import dense_flow
from pipeline.vision.stability import in_source_band
from pipeline.vision.upscale import bicubic
from pipeline.wire.frames import Size

Plane = NDArray[np.uint8]

SCALE, ROWS = 2, 360
BITRATES = (250_000, 500_000)
MOVING_PX = 0.5
BASE, OURS = "F-EDSR", "F-EDSR + TCSR"
LARGER = {"medium": "f-edsr-x2-medium", "large": "f-edsr-x2-large"}
RUNTIME = "openvino-int8"


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """A frame as decoded with the one before and the one after, (h, w) each, and the truth (2h, 2w)."""

    low: tuple[Plane, Plane, Plane]
    true: Plane


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--data", type=Path, default=SHARED / "clips" / "dev", help="clips (default: the shared ones)")
    options.add_argument("--base", default="f-edsr-x2", help="the F-EDSR that is refined")
    options.add_argument("--model", default="tcsr", help="the TCSR: a shipped model's name or a file")
    options.add_argument("--from", dest="start", type=float, default=0.5, help="share of a clip that is left out first")
    chosen = options.parse_args()
    if not chosen.data.exists():
        print(f"skipped: {chosen.data} is not on this machine", file=sys.stderr)
        return 0
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    net = load_tcsr(model_path(chosen.model))[1]
    sample = QUICK if chosen.quick else Sample(before=120)
    found = clips(chosen.data)[: 2 if chosen.quick else None]
    rows: list[Row] = []
    cases: dict[str, dict[str, float]] = {}
    motion: dict[str, float] = {}
    for i, clip in enumerate(found):
        print(f"{i + 1}/{len(found)} {clip.name}", file=sys.stderr, flush=True)
        pictures, first = pictures_around(clip, sample, chosen.start)
        for bitrate_bps in BITRATES:
            name = f"{clip.stem}@{bitrate_bps // 1000}k"
            encoding = Encoding(bitrate_bps=bitrate_bps, rate=stream_facts(clip)[0][2])
            moments = list(moments_of(pictures, first, encoding, sample.every))
            cases[name] = quality(moments, net, chosen.base)
            motion[name] = float(np.mean([motion_px(moment) for moment in moments]))
    rows += told(cases, motion)
    rows += cost(net, chosen.base, 5 if chosen.quick else 20)
    if chosen.json:
        write_json(chosen.json, rows)
    return 0


def pictures_around(clip: Path, sample: Sample, start: float) -> tuple[list[Picture], int]:
    """Return pictures of a clip at ROWS rows, and the number of the one that lies at the share `start` of the clip."""
    first = int(sum(1 for _ in pictures_of(clip)) * start)
    begin = max(0, first - sample.before)
    pictures = [
        p.resized(round(p.y.shape[1] * ROWS / p.y.shape[0] / 4) * 4, ROWS)
        for p in pictures_of(clip, start=begin, count=first - begin + sample.after + 1)
    ]
    return pictures, first - begin


def moments_of(pictures: Sequence[Picture], first: int, encoding: Encoding, every: int) -> Iterator[Moment]:
    """Yield each `every`-th picture from `first` on, the encoder warmed up by those before."""
    low = degrade(pictures, encoding, scale=SCALE)
    for i in range(max(1, first), len(pictures) - 1, every):
        yield Moment(low=(low[i - 1].y, low[i].y, low[i + 1].y), true=pictures[i].y)


def quality(moments: Sequence[Moment], net: Tcsr, base: str) -> dict[str, float]:
    """Return the mean PSNR-Y of each method over the moments of a case."""
    height, width = moments[0].low[0].shape
    size = Size(width_px=width, height_px=height)
    engines = {name: engine(model, size) for name, model in {BASE: base, **LARGER}.items()}
    refiner = open_refiner(net, size.times(SCALE))
    found: dict[str, list[float]] = {"bicubic": [], BASE: [], OURS: [], **{name: [] for name in LARGER}}
    for moment in moments:
        before, y, after = (engines[BASE].upscale(low[None])[0] for low in moment.low)
        found["bicubic"].append(psnr_db(bicubic(moment.low[1], SCALE), moment.true))
        found[BASE].append(psnr_db(y, moment.true))
        found[OURS].append(psnr_db(refiner.refine(y, (before, after)), moment.true))
        for name in LARGER:
            found[name].append(psnr_db(engines[name].upscale(moment.low[1][None])[0], moment.true))
    return {name: float(np.mean(values)) for name, values in found.items()}


def motion_px(moment: Moment) -> float:
    """Return the mean length of the flow from a frame into the one before, in pixels of the low-resolution grid."""
    return float(np.linalg.norm(dense_flow(moment.low[1], moment.low[0]), axis=-1).mean())


def told(cases: Mapping[str, Mapping[str, float]], motion: Mapping[str, float]) -> list[Row]:
    """Print the gains over F-EDSR and their means; return them as rows."""
    methods = [OURS, *LARGER]
    gains = {case: {m: row[m] - row[BASE] for m in methods} for case, row in cases.items()}
    body = [
        [case, f"{motion[case]:.2f}", f"{row[BASE]:.2f}", f"{row[BASE] - row['bicubic']:+.2f}"]
        + [f"{gains[case][m]:+.3f}" for m in methods]
        for case, row in cases.items()
    ]
    out = [
        Row(case=f"{case} {m}", metric="psnr_y", unit="dB", value=row[m], reference=BASE, reference_value=row[BASE])
        for case, row in cases.items()
        for m in methods
    ]
    out += [Row(case=case, metric="motion", unit="px", value=px) for case, px in motion.items()]
    groups: dict[str, Callable[[str], bool]] = {
        "mean": lambda case: True,
        "mean of moving": lambda case: motion[case] >= MOVING_PX,
        "mean of static": lambda case: motion[case] < MOVING_PX,
    }
    for rate in BITRATES:
        groups[f"mean at {rate // 1000}k"] = lambda case, rate=rate: case.endswith(f"@{rate // 1000}k")  # type: ignore[misc]
    for group, belongs in groups.items():
        inside = [case for case in cases if belongs(case)]
        if not inside:
            continue
        mean = {m: float(np.mean([gains[case][m] for case in inside])) for m in methods}
        body.append([f"{group} ({len(inside)})", "", "", "", *(f"{mean[m]:+.3f}" for m in methods)])
        out += [
            Row(case=f"{group} {m}", metric="gain_psnr_y", unit="dB", value=mean[m], reference=BASE) for m in methods
        ]
    worst = min(gains, key=lambda case: gains[case][OURS])
    body.append([f"worst: {worst}", "", "", "", f"{gains[worst][OURS]:+.3f}", *("" for _ in LARGER)])
    out.append(Row(case="worst clip", metric="gain_psnr_y", unit="dB", value=gains[worst][OURS], reference=BASE))
    print_table(
        f"PSNR-Y over {BASE}, dB, {ROWS} rows",
        ["clip@bitrate", "motion px", BASE, "over bicubic", *methods],
        body,
    )
    return out


def cost(net: Tcsr, base: str, repeats: int) -> list[Row]:
    """Time all methods on one frame of 320×180 in turn; print the table, return the rows."""
    size = Size(width_px=320, height_px=ROWS // 2)
    low = scene(size)
    engines: dict[str, Engine] = {
        f"{name} {runtime}": engine(model, size, runtime)
        for name, model in {BASE: base, **LARGER}.items()
        for runtime in (RUNTIME, "openvino-fp32")
    }
    first = engines[f"{BASE} {RUNTIME}"]
    before, y, after = (first.upscale(plane[None])[0] for plane in low)
    refiner = open_refiner(net, size.times(SCALE))
    down = [in_source_band(plane, SCALE) for plane in (y, before, after)]

    def both(plane: Plane) -> object:
        return refiner.refine(first.upscale(plane[None])[0], (before, after))

    calls: dict[str, Callable[[], object]] = {
        OURS: lambda: both(low[1]),
        "of it the flow of both neighbours": lambda: [dense_flow(down[0], other) for other in down[1:]],
    }
    calls |= {name: (lambda e=e: e.upscale(low[1][None])) for name, e in engines.items()}
    times = alternating(calls, repeats)
    print_table(
        f"{size} to {size.times(SCALE)}, one thread, CPU ms a frame",
        ["method", "least", "median", "ninth decile"],
        [[name, f"{t.least:.2f}", f"{t.median:.2f}", f"{t.spread[1]:.2f}"] for name, t in times.items()],
    )
    return [
        Row(case=f"{size} {name}", metric="cpu_time", unit="ms", value=t.median, spread=t.spread)
        for name, t in times.items()
    ]


def scene(size: Size) -> tuple[Plane, Plane, Plane]:
    """Return three frames of the rendered street, one after the other."""
    from pipeline.media.synthetic import Scene, SceneConfig

    shown = Scene(SceneConfig(width=size.width_px, height=size.height_px, audio=False))
    planes = [shown.frame(i).i420[: size.width_px * size.height_px] for i in range(3)]
    before, y, after = (np.ascontiguousarray(plane.reshape(size.height_px, size.width_px)) for plane in planes)
    return before, y, after


def engine(model: str, size: Size, runtime: str = RUNTIME) -> Engine:
    """Return a shipped F-EDSR ready for frames of a size, one thread."""
    header, net = load_model(model_path(model))
    return open_engine(runtime, net.fold(), size, threads=1, ranges=header.ranges)


if __name__ == "__main__":
    sys.exit(main())
