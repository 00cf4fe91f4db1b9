"""`limpid eval sr`: how much sharper luma gets, clip by clip.

Protocol: the true frames (native size, and scaled to 360 rows) are scaled down by 2 (area), encoded by x264 veryfast
zerolatency at 500 and 250 kb/s, decoded and scaled up; PSNR and SSIM of luma, 4 px of border left out, on frames from
the second half of the clip.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.commands.eval_page import Chapter, Score, place_of, write_page
from pipeline.commands.report import Row, print_table, write_json
from pipeline.errors import ConfigError, UnsupportedMedia
from pipeline.media.degrade import Encoding, Picture, degrade, pictures_of, stream_facts
from pipeline.models import model_path
from pipeline.models.fedsr import FEdsr
from pipeline.models.load import load_model
from pipeline.models.runtime import RUNTIMES, Ranges, check_name, open_engine
from pipeline.models.runtime.frozen import FrozenNetwork
from pipeline.train.metrics import psnr_db, ssim
from pipeline.vision.upscale import bicubic
from pipeline.wire.frames import Size

Upscale = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""Luma (H, W) in, (2H, 2W) out."""

Method = Callable[[Size], Upscale]
"""Makes a method ready for frames of a size."""

SCALE = 2
VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".mov", ".avi", ".ts", ".webm", ".m4v"})
PEERS = ("FSRCNN_x2", "FSRCNN-small_x2", "ESPCN_x2")
DEFAULT_RUNTIMES = ("openvino-int8", "openvino-fp32")
NATIVE_BPS, SMALL_BPS, SMALL_ROWS = 500_000, 250_000, 360


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """How much of a clip is measured."""

    before: int = 240  # frames encoded before the middle of the clip, so that the encoder's rate has settled
    after: int = 120  # frames from the middle on
    every: int = 8  # of which one in so many is measured


QUICK = Sample(before=40, after=24)


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A clip at one size and bitrate: the luma that came in, and the truth; (H, W) and (2H, 2W) each.

    `times_s`: of the frames, from the clip's start.
    """

    name: str
    pairs: tuple[tuple[NDArray[np.uint8], NDArray[np.uint8]], ...]
    times_s: tuple[float, ...]

    @property
    def size(self) -> Size:
        """The size of what comes in."""
        height, width = self.pairs[0][0].shape
        return Size(width_px=width, height_px=height)


def clips(folder: Path) -> list[Path]:
    """Return the video files of a folder by name (or the one file that `folder` is).

    Raises:
        ConfigError: there are none.
    """
    found = [folder] if folder.is_file() else sorted(p for p in folder.glob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    if not found:
        raise ConfigError("no video file there", where=f"--data {folder}", hint="give a folder of clips")
    return found


def cases(clip: Path, sample: Sample) -> Iterator[Case]:
    """Yield the two cases of a clip: native size at 500 kb/s, 360 rows at 250 kb/s.

    Raises:
        UnsupportedMedia: it has no frame.
        Unreachable, CorruptMedia: it cannot be read.
    """
    facts = stream_facts(clip)
    if not facts:
        raise UnsupportedMedia("it has no video stream", where=str(clip))
    middle = sum(1 for _ in pictures_of(clip)) // 2
    start = max(0, middle - sample.before)
    native = _Case(clip=clip, bitrate_bps=NATIVE_BPS)
    small = _Case(clip=clip, bitrate_bps=SMALL_BPS)
    for i, picture in enumerate(pictures_of(clip, start=start, count=middle - start + sample.after), start):
        measured = i >= middle and (i - middle) % sample.every == 0
        height, width = picture.y.shape
        native.add(picture, measured)
        small.add(picture.resized(round(width * SMALL_ROWS / height / 4) * 4, SMALL_ROWS), measured)
    if not native.true:
        raise UnsupportedMedia("it has no frame", where=str(clip))
    yield native.done(facts[0][2], start)
    yield small.done(facts[0][2], start)


def conventional() -> dict[str, Method]:
    """Return bicubic and Lanczos."""

    def lanczos(y_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        size = (y_HW.shape[1] * SCALE, y_HW.shape[0] * SCALE)
        out: NDArray[np.uint8] = cv2.resize(y_HW, size, interpolation=cv2.INTER_LANCZOS4)  # type: ignore[assignment]
        return out

    return {"bicubic": lambda _size: lambda y_HW: bicubic(y_HW, SCALE), "Lanczos": lambda _size: lanczos}


def ours(net: FEdsr, ranges: Ranges, runtimes: Sequence[str], threads: int) -> dict[str, Method]:
    """Return F-EDSR in each of the runtimes."""

    def method(runtime: str) -> Method:
        def ready(size: Size) -> Upscale:
            engine = open_engine(runtime, net, size, threads=threads, ranges=ranges)
            return lambda y_HW: engine.upscale(y_HW[None])[0]

        return ready

    return {f"F-EDSR {runtime}": method(runtime) for runtime in runtimes}


def peers(folder: Path, threads: int, precision: str = "f32") -> dict[str, Method]:
    """Return the peers whose frozen graphs lie in `folder`, in the same runtime as ours.

    Raises:
        ConfigError: there are none.
    """
    found = [name for name in PEERS if (folder / f"{name}.pb").is_file()]
    if not found:
        raise ConfigError("no peers there", where=f"--peers {folder}", hint=f"known are {', '.join(PEERS)} (.pb)")

    def method(name: str) -> Method:
        def ready(size: Size) -> Upscale:
            network = FrozenNetwork(folder / f"{name}.pb", size, threads=threads, precision=precision)
            return lambda y_HW: network.upscale(y_HW[None])[0]

        return ready

    return {name.removesuffix("_x2"): method(name) for name in found}


def score(case: Case, upscale: Upscale) -> Score:
    """Return what a method reaches on a case."""
    outs = [(upscale(low_HW), true_HW) for low_HW, true_HW in case.pairs]
    first_HW, true_HW = outs[0]
    return Score(
        psnrs_db=tuple(psnr_db(out_HW, true_HW) for out_HW, true_HW in outs),
        ssims=tuple(ssim(out_HW, true_HW) for out_HW, true_HW in outs),
        crop=first_HW[place_of(bicubic(case.pairs[0][0], SCALE), true_HW)].copy(),
    )


def evaluate(
    found: Sequence[Path],
    methods: Mapping[str, Method],
    sample: Sample,
    told: Callable[[Case, Mapping[str, Score]], None] = lambda _case, _scores: None,
) -> dict[str, dict[str, Score]]:
    """Return case -> method -> score; says on stderr where it is, since it takes minutes.

    `told` is given each case with its scores as soon as they are there: its pictures are not kept.
    """
    scores: dict[str, dict[str, Score]] = {}
    for i, clip in enumerate(found):
        print(f"{i + 1}/{len(found)} {clip.name}", file=sys.stderr, flush=True)
        for case in cases(clip, sample):
            scores[case.name] = {name: score(case, method(case.size)) for name, method in methods.items()}
            told(case, scores[case.name])
    return scores


def means(scores: Mapping[str, Mapping[str, Score]]) -> dict[str, tuple[float, float]]:
    """Return method -> mean PSNR (dB) and mean SSIM over all cases."""
    methods = next(iter(scores.values()))
    return {
        name: (
            float(np.mean([case[name].psnr_db for case in scores.values()])),
            float(np.mean([case[name].ssim for case in scores.values()])),
        )
        for name in methods
    }


def print_scores(scores: Mapping[str, Mapping[str, Score]], title: str) -> None:
    """Print the table: a row a case, PSNR dB / SSIM of each method, means and gain over bicubic below."""
    methods = list(next(iter(scores.values())))
    body = [[case, *(f"{s.psnr_db:.2f}/{s.ssim:.3f}" for s in row.values())] for case, row in scores.items()]
    mean = means(scores)
    body.append(["mean", *(f"{psnr:.2f}/{similar:.3f}" for psnr, similar in mean.values())])
    base = mean["bicubic"]
    gains = [f"{psnr - base[0]:+.2f}/{similar - base[1]:+.3f}" for psnr, similar in mean.values()]
    body.append(["over bicubic", *gains])
    print_table(title, ["clip rows@bitrate", *methods], body)


def rows(scores: Mapping[str, Mapping[str, Score]]) -> list[Row]:
    """Return the scores as rows of the JSON document; the reference is bicubic on the same case."""
    mean = means(scores)
    out = [
        row
        for case, by_method in scores.items()
        for name, s in by_method.items()
        for row in _pair(
            f"{case} {name}", (s.psnr_db, s.ssim), (by_method["bicubic"].psnr_db, by_method["bicubic"].ssim), s
        )
    ]
    return out + [row for name in mean for row in _pair(f"mean {name}", mean[name], mean["bicubic"], None)]


def main(argv: Sequence[str]) -> int:
    """Measure and print; return the exit code."""
    options = _parser().parse_args(argv)
    cv2.setNumThreads(options.threads)
    found = clips(options.data)
    path = model_path(options.model)
    header, net = load_model(path)
    if net.config.scale != SCALE:
        raise ConfigError(f"the model up-scales by {net.config.scale}", where=str(path), hint="this protocol is ×2")
    methods = conventional()
    if options.peers:
        methods |= peers(options.peers, options.threads)
    methods |= ours(
        net.fold(), header.ranges, [check_name(name) for name in options.runtime or DEFAULT_RUNTIMES], options.threads
    )
    chapters: list[Chapter] = []
    sample = QUICK if options.quick else Sample()
    scores = evaluate(found, methods, sample, lambda case, scored: chapters.append(_chapter(case, scored)))
    title = f"{header.name}@{header.version}: PSNR-Y dB / SSIM, ×{SCALE}, x264 at the bitrate given"
    print_scores(scores, title)
    if options.json:
        write_json(options.json, rows(scores), ["limpid", "eval", "sr", *argv])
    if options.html:
        write_page(options.html, title, " ".join((__doc__ or "").split("\n\n")[-1].split()), chapters)
    return 0


def _chapter(case: Case, scores: Mapping[str, Score]) -> Chapter:
    low_HW, true_HW = case.pairs[0]
    true_crop = true_HW[place_of(bicubic(low_HW, SCALE), true_HW)].copy()
    return Chapter(name=case.name, times_s=case.times_s, true_crop=true_crop, scores=scores)


def _pair(case: str, value: tuple[float, float], base: tuple[float, float], score: Score | None) -> tuple[Row, Row]:
    return (
        Row(
            case=case,
            metric="psnr_y",
            unit="dB",
            value=value[0],
            reference="bicubic",
            reference_value=base[0],
            spread=score.psnr_range if score else None,
        ),
        Row(
            case=case,
            metric="ssim_y",
            unit="",
            value=value[1],
            reference="bicubic",
            reference_value=base[1],
            spread=score.ssim_range if score else None,
        ),
    )


class _Case:
    """A case that is being collected: what the encoder gets, and the truth of the frames that are measured."""

    def __init__(self, *, clip: Path, bitrate_bps: int) -> None:
        self.clip, self.bitrate_bps = clip, bitrate_bps
        self.low: list[Picture] = []
        self.true: dict[int, NDArray[np.uint8]] = {}  # by its place in `low`

    def add(self, picture: Picture, measured: bool) -> None:
        if measured:
            self.true[len(self.low)] = picture.y
        height, width = picture.y.shape
        self.low.append(picture.resized(width // SCALE, height // SCALE))

    def done(self, rate: Fraction, start: int) -> Case:
        decoded = degrade(self.low, Encoding(bitrate_bps=self.bitrate_bps, rate=rate), scale=1)
        rows = next(iter(self.true.values())).shape[0]
        return Case(
            name=f"{self.clip.stem} {rows}@{self.bitrate_bps // 1000}k",
            pairs=tuple((decoded[i].y, true_HW) for i, true_HW in self.true.items()),
            times_s=tuple(float((start + i) / rate) for i in self.true),
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="limpid eval sr", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="folder of clips, or one clip")
    parser.add_argument(
        "--peers", type=Path, help=f"folder of frozen peers to measure beside: {', '.join(PEERS)} (.pb)"
    )
    parser.add_argument(
        "--model", default="f-edsr-x2", help="a shipped model's name or a model file (default f-edsr-x2)"
    )
    parser.add_argument(
        "--runtime",
        action="append",
        metavar="NAME",
        help=f"runtime of ours, may be repeated: {', '.join(RUNTIMES)} (default {' and '.join(DEFAULT_RUNTIMES)})",
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of each network (default 1)")
    parser.add_argument("--quick", action="store_true", help="a few frames of each clip only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a report with charts and pictures there")
    return parser
