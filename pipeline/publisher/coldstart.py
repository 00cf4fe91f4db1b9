"""Cold-start data of the gain predictor: how much long trainings brought, on scenes of every difficulty.

    python -m pipeline.publisher.coldstart [--data DIR] -o pipeline/models/gain.json

is the recipe of the shipped file. Each scene (a clip of DIR/clips/train, or a rendered street) is encoded at several
bitrates as `limpid publish` does it; the generic network is trained on it without a stop; kept are its PSNR on the
first second and the largest gain that any later, future second showed.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import torch

from pipeline.media.degrade import Picture, pictures_of, stream_facts
from pipeline.media.live_encode import LiveDecoder, LiveEncoder
from pipeline.media.synthetic import Scene, SceneConfig
from pipeline.models import SHIPPED
from pipeline.models.load import load_model
from pipeline.publisher.learner import LearnConfig, Learner
from pipeline.publisher.pairs import Pair
from pipeline.publisher.policy import PolicyConfig
from pipeline.wire.frames import ColorSpec, Size

EVERY_S = 0.5  # between two pairs
UNSTOPPED = PolicyConfig(fixed_gain_db=math.inf, patience_s=math.inf, max_steps=1 << 40)
"""A training that goes on as long as the stream does."""

_SECONDS = 8.0  # of each scene
_STEPS = 30  # between two pairs
_BITS_A_PIXEL = (0.07, 0.3)  # 500 kb/s and 2 Mb/s at 640×360, 30 Hz
_STREETS = 4
_STREET_RATE = Fraction(10)


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Pictures that follow each other at `rate` a second."""

    name: str
    pictures: Sequence[Picture]
    rate: Fraction


def pairs_of(parts: Sequence[Part], *, bits_a_second: int) -> Iterator[Pair]:
    """Encode the parts as one stream, at half the first one's size, and yield the pairs of its key frames."""
    height, width = parts[0].pictures[0].y.shape
    low = Size(width_px=width // 4 * 2, height_px=height // 4 * 2)
    encoder = LiveEncoder(size=low, rate=parts[0].rate, bitrate_bps=bits_a_second, color=ColorSpec())
    decoder = LiveDecoder()
    at_s = due_s = 0.0
    for part in parts:
        for picture in part.pictures:
            true = picture.resized(low.width_px * 2, low.height_px * 2)
            luma = decoder.decode(encoder.encode(true.resized(low.width_px, low.height_px), round(at_s * 1000)))
            if at_s >= due_s:
                yield Pair(at_s=at_s, captured_ns=round(at_s * 1e9), low=luma, high=true.y.copy())
                due_s += EVERY_S
            at_s += float(1 / part.rate)


def street(seed: int, seconds: float, *, width: int = 480, height: int = 272) -> Part:
    """Return a rendered street, at 10 pictures a second."""
    scene = Scene(SceneConfig(width=width, height=height, fps=_STREET_RATE, seed=seed, noise=1.0, audio=False))
    frames = (scene.frame(i).i420 for i in range(round(seconds * _STREET_RATE)))
    pictures = [Picture.from_i420(i420, width_px=width, height_px=height) for i420 in frames]
    return Part(name=f"street {seed}", pictures=pictures, rate=_STREET_RATE)


def measure(part: Part, bits_a_pixel: float, config: LearnConfig, steps: int = _STEPS) -> tuple[float, float]:
    """Return the generic network's PSNR before training and the largest gain that it reached, in dB."""
    header, net = load_model(SHIPPED / "f-edsr-x2.safetensors")
    learner = Learner(header, net.fold(), config, lambda _: math.inf)
    pixels = part.pictures[0].y.size // 4
    before: list[float] = []
    largest_db = 0.0
    for pair in pairs_of([part], bits_a_second=round(bits_a_pixel * pixels * part.rate)):
        if pair.at_s < 1:
            before.append(learner.deployed_db(pair))
        learner.look(pair)  # nothing is ever uploaded: the generic network stays what gains are counted from
        for _ in range(steps):
            learner.step()
        largest_db = max(largest_db, learner.standing().gain_db or 0.0)
    return sum(before) / len(before), largest_db


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all scenes and write the file."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.publisher.coldstart", description=__doc__)
    parser.add_argument("--data", type=Path, metavar="DIR", help="training data; without: rendered streets only")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="F")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    points = []
    for part in _parts(args.data):
        for bits_a_pixel in _BITS_A_PIXEL:
            psnr_db, gain_db = measure(part, bits_a_pixel, LearnConfig(policy=UNSTOPPED))
            point = {"scene": part.name, "bits_a_pixel": bits_a_pixel, "psnr_db": psnr_db, "gain_db": gain_db}
            points.append({k: round(v, 3) if isinstance(v, float) else v for k, v in point.items()})
            print(points[-1], file=sys.stderr, flush=True)
    made_by = "python -m pipeline.publisher.coldstart" + (" --data DIR" if args.data else "")
    args.output.write_text(json.dumps({"made_by": made_by, "points": points}, indent=1) + "\n", encoding="utf-8")
    return 0


def _parts(data: Path | None) -> Iterator[Part]:
    for seed in range(_STREETS):
        yield street(2000 + seed, _SECONDS)  # none that the generic network has seen
    for path in sorted((data / "clips" / "train").glob("*.mp4")) if data is not None else []:
        rate = stream_facts(path)[0][2]
        pictures = list(pictures_of(path, count=round(_SECONDS * rate)))
        if len(pictures) >= 3 * rate:
            yield Part(name=path.stem, pictures=pictures, rate=rate)


if __name__ == "__main__":
    sys.exit(main())
