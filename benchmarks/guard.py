"""Does the guard catch bad weights, and what does it cost good ones: pictures beside bicubic, block by block.

On real clips, a second each behind the encoder's protocol of `limpid eval sr`: shipped weights of several sizes; and
random, damaged and badly over-fitted ones. Reported: gain over bicubic before and behind the guard, the share of blocks
that went back, and the worst 64×64 block of a second beside bicubic.
Targets: behind the guard no block of bad weights more than 0.1 dB below bicubic; good weights lose < 0.02 dB by it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from report import SHARED, Row, parser, print_table, write_json
from torch.nn import functional

from pipeline.commands import eval_sr
from pipeline.media.degrade import Picture
from pipeline.media.synthetic import Scene, SceneConfig
from pipeline.models import model_path
from pipeline.models.fedsr import FEdsr, FEdsrConfig
from pipeline.models.load import load_model
from pipeline.models.runtime import open_engine
from pipeline.stage import StageEnv, Work
from pipeline.stages.guard import Guard, GuardConfig
from pipeline.train.metrics import psnr_db
from pipeline.wire.acks import Stamp
from pipeline.wire.frames import ColorSpec, FrameBatch, Size
from pipeline.wire.ids import Span, stream_id

GOOD = ("f-edsr-x2-nano", "f-edsr-x2-small", "f-edsr-x2", "f-edsr-x2-medium", "f-edsr-x2-large")
SIDE_PX = 64  # of a block of the output
SECOND = eval_sr.Sample(before=60, after=24, every=2)
QUICK = eval_sr.Sample(before=12, after=8, every=1)
SHIPPED = "f-edsr-x2"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What one model gave on one clip.

    Attributes:
        raw_db, guarded_db: gain over bicubic before and behind the guard.
        restored: share of blocks that went back.
        raw_worst_db, worst_db: PSNR beside bicubic's of the worst block, before and behind the guard; ≤ 0 is below it.
    """

    raw_db: float
    guarded_db: float
    restored: float
    raw_worst_db: float
    worst_db: float


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--data", type=Path, default=SHARED / "clips" / "dev", help="clips (default: the shared ones)")
    chosen = options.parse_args()
    if not chosen.data.is_dir():
        print(f"skipped: {chosen.data} is not on this machine", file=sys.stderr)
        return 0
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    guard = Guard(GuardConfig())
    guard.open(StageEnv())
    models = dict(bad()) | {name: load_model(model_path(name))[1].fold() for name in GOOD}
    if chosen.quick:
        models = {name: net for name, net in models.items() if name in (SHIPPED, "random 0", "noise 0.3")}
    found: dict[str, list[Outcome]] = {name: [] for name in models}
    clips = eval_sr.clips(chosen.data)
    for number, clip in enumerate(clips[:2] if chosen.quick else clips):
        print(f"{number + 1} {clip.name}", file=sys.stderr, flush=True)
        for case in eval_sr.cases(clip, QUICK if chosen.quick else SECOND):
            for name, net in models.items():
                found[name].append(outcome(guard, net, case))
    table, rows = [], []
    for name, outcomes in found.items():
        raw, guarded = (float(np.mean([getattr(o, what) for o in outcomes])) for what in ("raw_db", "guarded_db"))
        worst = min(o.worst_db for o in outcomes)
        back = float(np.mean([o.restored for o in outcomes]))
        verdict = met(raw - guarded < 0.02) if name in GOOD else met(worst >= -0.1)
        before = min(o.raw_worst_db for o in outcomes)
        table.append(
            [name, f"{raw:+.2f}", f"{guarded:+.3f}", f"{back:.3f}", f"{before:+.2f}", f"{worst:+.3f}", verdict]
        )
        rows += [
            Row(case=name, metric="gain", unit="dB", value=guarded, reference="unguarded", reference_value=raw),
            Row(case=name, metric="worst_block", unit="dB", value=worst, reference="unguarded", reference_value=before),
            Row(case=name, metric="restored", unit="", value=back),
        ]
    print_table(
        "dB over bicubic (PSNR-Y), before and behind the guard",
        ["weights", "before", "behind", "blocks back", "worst block before", "behind", "target"],
        table,
    )
    if chosen.json:
        write_json(chosen.json, rows)
    return 0


def outcome(guard: Guard, net: FEdsr, case: eval_sr.Case) -> Outcome:
    """Return what `net` gives on a case, before and behind the guard."""
    source = batch_of(np.stack([low_HW for low_HW, _ in case.pairs]))
    true_NHW = np.stack([true_HW for _, true_HW in case.pairs])
    raw_NHW = open_engine("openvino-fp32", net, case.size, threads=1, ranges={}).upscale(source.planes().y)
    enhanced = batch_of(raw_NHW)
    stamp = Stamp(model="bad@1", runtime="openvino-fp32")
    result = guard.process(Work(item=enhanced, span=enhanced.span, side=(source,), stamp=stamp))
    plain_NHW = guard.bypass(Work(item=enhanced, span=enhanced.span, side=(source,), stamp=stamp)).frames.planes().y
    kept_NHW = result.frames.planes().y
    plain_db, raw_db, kept_db = (mean_db(x_NHW, true_NHW) for x_NHW in (plain_NHW, raw_NHW, kept_NHW))
    plain_BC = block_errors(plain_NHW, true_NHW)
    blocks = len(true_NHW) * -(-case.size.height_px // 16) * -(-case.size.width_px // 16)
    return Outcome(
        raw_db=raw_db - plain_db,
        guarded_db=kept_db - plain_db,
        restored=float(result.report.restored_blocks.sum()) / blocks,
        raw_worst_db=float((10 * np.log10(plain_BC / block_errors(raw_NHW, true_NHW))).min()),
        worst_db=float((10 * np.log10(plain_BC / block_errors(kept_NHW, true_NHW))).min()),
    )


def bad() -> Iterator[tuple[str, FEdsr]]:
    """Yield weights that nobody should see."""
    for seed in range(3):
        torch.manual_seed(seed)
        yield f"random {seed}", FEdsr(FEdsrConfig()).eval().requires_grad_(False)
    for share in (0.1, 0.3, 1.0):
        yield f"noise {share}", changed(noisy(share))
    yield "tail shuffled", changed(lambda name, x: x.flip(0) if name.startswith("tail") else x)
    yield "head negated", changed(lambda name, x: -x if name == "head.weight" else x)
    yield "close zero", changed(lambda name, x: x * 0 if name.startswith("close") else x)
    yield "one weight × 1000", changed(one_large)
    yield "tail's bias at one place", changed(one_bias)
    yield "over-fitted", overfitted()


def noisy(share: float) -> Callable[[str, torch.Tensor], torch.Tensor]:
    """Return a change that adds Gaussian noise of `share` times each tensor's own spread."""
    rng = torch.Generator().manual_seed(1)
    return lambda _name, x: x + share * x.std() * torch.randn(x.shape, generator=rng)


def one_large(name: str, x: torch.Tensor) -> torch.Tensor:
    """Make one weight a thousand times as large: a flipped bit of an exponent."""
    out = x.clone()
    if name == "close.weight":
        out.view(-1)[out.numel() // 2] *= 1000
    return out


def one_bias(name: str, x: torch.Tensor) -> torch.Tensor:
    """Move one of the tail's outputs: a checkerboard that the mean of each cell hardly shows."""
    out = x.clone()
    if name == "tail.bias":
        out[::2] += 6 / 255
        out[1::2] -= 6 / 255
    return out


def changed(change: Callable[[str, torch.Tensor], torch.Tensor]) -> FEdsr:
    """Return the shipped network with each tensor changed."""
    net = load_model(model_path(SHIPPED))[1].fold()
    with torch.no_grad():
        net.load_state_dict({name: change(name, x) for name, x in net.state_dict().items()})
    return net.eval().requires_grad_(False)


def overfitted() -> FEdsr:
    """Return the shipped network trained on one crop of a drawn street until it knows nothing else."""
    scene = Scene(SceneConfig(width=640, height=360, seed=3, audio=False))
    y_HW = Picture.from_i420(scene.frame(0).i420, width_px=640, height_px=360).y
    true_HW = np.ascontiguousarray(y_HW[100:228, 200:328])
    low_HW = cv2.resize(true_HW, (64, 64), interpolation=cv2.INTER_AREA)
    base_HW = cv2.resize(low_HW, (128, 128), interpolation=cv2.INTER_CUBIC)
    low, base, true = (torch.from_numpy(x)[None, None].float() / 255 for x in (low_HW, base_HW, true_HW))
    net = load_model(model_path(SHIPPED))[1].fold().train().requires_grad_(True)
    steps = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(400):
        steps.zero_grad()
        functional.mse_loss(base + net(low), true).backward()  # type: ignore[no-untyped-call]
        steps.step()
    return net.eval().requires_grad_(False)


def batch_of(y_NHW: NDArray[np.uint8]) -> FrameBatch:
    """Return frames without colour."""
    n, height, width = y_NHW.shape
    size = Size(width_px=width, height_px=height)
    data = np.full((n, size.frame_bytes), 128, np.uint8)
    data[:, : height * width] = y_NHW.reshape(n, -1)
    return FrameBatch(
        span=Span(stream=stream_id("bench"), epoch=0, start=0, stop=n),
        size=size,
        color=ColorSpec(),
        time_base=Fraction(1, 25),
        pts=np.arange(n, dtype=np.int64),
        duration=np.ones(n, np.int64),
        captured_ns=np.zeros(n, np.int64),
        keyframe=np.zeros(n, np.bool_),
        data=data,
    )


def mean_db(out_NHW: NDArray[np.uint8], true_NHW: NDArray[np.uint8]) -> float:
    """Return the mean PSNR-Y over frames."""
    return float(np.mean([psnr_db(*pair) for pair in zip(out_NHW, true_NHW, strict=True)]))


def block_errors(out_NHW: NDArray[np.uint8], true_NHW: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the mean squared error of each whole block over all frames, with the floor of 8-bit rounding."""
    square_HW = np.mean(np.square(out_NHW.astype(np.float32) - true_NHW), axis=0)
    height, width = (side // SIDE_PX for side in square_HW.shape)
    blocks = square_HW[: height * SIDE_PX, : width * SIDE_PX].reshape(height, SIDE_PX, width, SIDE_PX)
    out: NDArray[np.float64] = blocks.mean(axis=(1, 3), dtype=np.float64) + 1 / 12
    return out


def met(holds: bool) -> str:
    """Return the verdict on a target."""
    return "met" if holds else "MISSED"


if __name__ == "__main__":
    sys.exit(main())
