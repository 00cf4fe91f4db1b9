"""What online training brings over the converged generic model, and what it costs: clip by clip, and over cuts.

Every clip is encoded as `limpid publish` does it (area ÷ 2, x264 veryfast zerolatency, capped bitrate), pairs of key
frames are taken twice a second, and the publisher's own Learner gets them in the order of time with a fixed number of
steps between two. Each pair is scored with what the service has at its moment, *before* anything was trained on it: all
figures are on the future. An upload arrives `--upload-s` after it was decided (142 kB of model and 82 kB of key frames
at 1.2 Mb/s are 1.5 s).

adaptive is what ships: the Monitor asks, the rule stops. continuous never stops, everything else equal. Targets: mean
gain ≥ 0.5 dB on clips of at least 9 s (blocks shown apart); adaptive ≥ 97 % of continuous's gain with ≤ 25 % of its
steps; no second behind a cut more than 0.05 dB below the generic model.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from report import SHARED, Row, parser, print_table, write_json

from pipeline.media.degrade import pictures_of, stream_facts
from pipeline.models import SHIPPED, gain
from pipeline.models.load import load_model
from pipeline.publisher.coldstart import EVERY_S, UNSTOPPED, Part, pairs_of, street
from pipeline.publisher.learner import LearnConfig, Learner
from pipeline.publisher.pairs import Pair
from pipeline.publisher.policy import PolicyConfig

OUTLIER = "sam2_03_blocks"  # a static grid: shown apart
AFTER_CUT_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """A stream's pairs, in order, and the moments at which another clip begins."""

    name: str
    pairs: tuple[Pair, ...]
    cuts_s: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """What a policy gave: PSNR in dB of each pair, steps, CPU seconds of all that it did, trainings, uploads."""

    psnr_db: tuple[float, ...]
    steps: int
    cpu_s: float
    trainings: int
    uploads: int


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--data", type=Path, default=SHARED / "clips" / "dev", help="clips (default: the shared ones)")
    options.add_argument("--seconds", type=float, default=20.0, help="of each clip at most")
    options.add_argument("--steps", type=int, default=40, help="training steps a second of video")
    options.add_argument("--upload-s", type=float, default=1.5, help="from deciding on an upload to its arrival")
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--cases", default="clips,joined", help="clips, joined, or both")
    chosen = options.parse_args()
    before = os.getloadavg()[0]
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    cases = chosen.cases.split(",")
    seconds = min(chosen.seconds, 4.0) if chosen.quick else chosen.seconds
    rows: list[Row] = []
    lines: list[list[str]] = []
    joined: list[Part] = []
    gains: dict[str, list[float]] = {"adaptive": [], "continuous": []}
    shares: list[tuple[float, float]] = []
    for part in _clips(chosen.data, seconds, quick=chosen.quick):
        long = len(part.pictures) >= 9 * part.rate and part.name != OUTLIER
        if long or chosen.quick:
            pictures = [p.resized(640, 360) for p in part.pictures[: round(10 * part.rate)]]
            joined.append(replace(part, pictures=pictures))
        if "clips" in cases:
            material = _material(part.name, [part], bitrate_bps=500_000)
            found = _compare(material, chosen.steps, chosen.upload_s, chosen.seeds, rows, lines)
            print(*lines[-2:], sep="\n", file=sys.stderr, flush=True)
            if chosen.json:
                write_json(chosen.json, rows)  # it takes minutes a clip: what is there is kept
            if long or chosen.quick:
                for policy, each in gains.items():
                    each.append(found[policy][0])
                shares.append((found["adaptive"][1], found["continuous"][1]))
    if "joined" in cases:
        parts = joined[:6]
        material = _material(f"joined, {len(parts)} clips", parts, bitrate_bps=250_000)
        _compare(material, chosen.steps, chosen.upload_s, chosen.seeds, rows, lines)
    columns = ["stream", "policy", "PSNR-Y", "gain, dB", "worst second", "behind a cut", "steps", "CPU s", "uploads"]
    print_table("Online training, gain over the generic model", columns, lines)
    if shares:
        adaptive, continuous = (float(np.mean(each)) for each in gains.values())
        steps = sum(a for a, _ in shares) / max(1.0, sum(c for _, c in shares))
        print(f"clips of 9 s and more, without {OUTLIER}: adaptive {adaptive:+.2f} dB, continuous {continuous:+.2f} dB")
        print(f"adaptive keeps {adaptive / (continuous or 1):.0%} of the gain with {steps:.0%} of the steps")
        rows += [
            Row(case="mean of clips", metric="gain", unit="dB", value=adaptive, reference="continuous",
                reference_value=continuous),
            Row(case="mean of clips", metric="steps", unit="", value=steps, reference="continuous",
                reference_value=1.0),
        ]  # fmt: skip
    rows.append(Row(case="machine", metric="load_average_at_start", unit="", value=before))
    if chosen.json:
        write_json(chosen.json, rows)
    return 0


def _clips(data: Path, seconds: float, *, quick: bool) -> Iterator[Part]:
    """Yield the clips, or rendered streets where there are none."""
    files = sorted(data.glob("*.mp4")) if data.is_dir() else []
    if quick or not files:
        if not files:
            print(f"no clips in {data}: the rendered scene stands in", file=sys.stderr)
        for seed in (1, 2):
            yield street(seed, seconds, width=320, height=192)
        return
    for path in files:
        rate = stream_facts(path)[0][2]
        yield Part(name=path.stem, pictures=list(pictures_of(path, count=round(seconds * rate))), rate=rate)


def _material(name: str, parts: Sequence[Part], *, bitrate_bps: int) -> Material:
    lengths_s = [len(part.pictures) / float(part.rate) for part in parts]
    return Material(
        name=name,
        pairs=tuple(pairs_of(parts, bits_a_second=bitrate_bps)),
        cuts_s=tuple(itertools.accumulate(lengths_s[:-1])),
    )


def _run(material: Material, config: LearnConfig, steps_a_second: int, upload_s: float) -> Ran:
    """Have a Learner follow the stream; each pair is scored with what the service has by then."""
    header, net = load_model(SHIPPED / "f-edsr-x2.safetensors")
    predict = gain.fit(gain.load_points()) if config.policy != UNSTOPPED else lambda _: math.inf
    learner = Learner(header, net.fold(), config, predict)
    begun_s = time.process_time()
    scores: list[float] = []
    arrives_s: float | None = None
    uploads = 0
    for pair in material.pairs:
        if arrives_s is not None and pair.at_s >= arrives_s:
            arrives_s = pair.at_s + upload_s if learner.sent(accepted=True, final=True) else None
            uploads += 1
        scores.append(learner.deployed_db(pair))
        if learner.look(pair):
            arrives_s = pair.at_s + upload_s
        for _ in range(round(steps_a_second * EVERY_S)):
            if learner.training:
                learner.step()
    standing = learner.standing()
    return Ran(
        psnr_db=tuple(scores),
        steps=standing.total_steps,
        cpu_s=time.process_time() - begun_s,
        trainings=standing.trainings,
        uploads=uploads,
    )


def _compare(
    material: Material, steps: int, upload_s: float, seeds: int, rows: list[Row], lines: list[list[str]]
) -> dict[str, tuple[float, float]]:
    """Run the policies on a stream; return of each the mean gain and the mean steps."""
    header, net = load_model(SHIPPED / "f-edsr-x2.safetensors")
    plain = Learner(header, net.fold(), LearnConfig(), lambda _: 0.0)
    generic = np.array([plain.deployed_db(pair) for pair in material.pairs])
    lines.append([material.name, "generic", f"{generic.mean():.2f}", "", "", "", "", "", ""])
    found: dict[str, tuple[float, float]] = {}
    for policy, rule in (("adaptive", PolicyConfig()), ("continuous", UNSTOPPED)):
        runs = [
            _run(material, replace(LearnConfig(seed=seed), policy=rule), steps, upload_s)
            for seed in range(1, seeds + 1)
        ]
        means = [float(np.mean(ran.psnr_db)) - float(generic.mean()) for ran in runs]
        seconds = [_worst(material, np.array(ran.psnr_db) - generic) for ran in runs]
        anywhere, behind_cut = min(s[0] for s in seconds), min(s[1] for s in seconds)
        value, num_steps = float(np.mean(means)), float(np.mean([ran.steps for ran in runs]))
        cpu_s = float(np.mean([ran.cpu_s for ran in runs]))
        found[policy] = value, num_steps
        case = f"{material.name}, {policy}"
        rows += [
            Row(case=case, metric="psnr_y", unit="dB", value=value + float(generic.mean()), reference="generic",
                reference_value=float(generic.mean())),
            Row(case=case, metric="gain", unit="dB", value=value, spread=(min(means), max(means))),
            Row(case=case, metric="worst_second", unit="dB", value=anywhere),
            Row(case=case, metric="steps", unit="", value=num_steps),
            Row(case=case, metric="cpu_time", unit="s", value=cpu_s),
        ]  # fmt: skip
        cut = ""
        if material.cuts_s:
            rows.append(Row(case=case, metric="worst_second_behind_a_cut", unit="dB", value=behind_cut))
            cut = f"{behind_cut:+.2f}"
        lines.append(
            ["", policy, f"{value + generic.mean():.2f}", f"{value:+.2f}", f"{anywhere:+.2f}", cut]
            + [f"{figure:.0f}" for figure in (num_steps, cpu_s, np.mean([ran.uploads for ran in runs]))]
        )
    return found


def _worst(material: Material, gains: np.ndarray) -> tuple[float, float]:
    """Return the least mean gain over any second, and over the second behind a cut (inf without one)."""
    at_s = np.array([pair.at_s for pair in material.pairs])
    anywhere = min(float(gains[(at_s >= t) & (at_s < t + 1)].mean()) for t in at_s)
    behind = [float(gains[(at_s >= t) & (at_s < t + AFTER_CUT_S)].mean()) for t in material.cuts_s]
    return anywhere, min(behind, default=math.inf)


if __name__ == "__main__":
    sys.exit(main())
