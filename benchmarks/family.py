"""The F-EDSR family beside its peers: dB over bicubic against milliseconds of one core, and who stands on the front.

Quality by the protocol of `limpid eval sr` on clips that nobody was trained on; cost as CPU ms a 320×180 and a 640×360
frame, uint8 luma in and out, one thread, all in turn. Peers run in the same runtime: as shipped, and tuned further on
our own pairs (peers/tuned.py) where `--tuned` names such files. `--more` adds model files, seeds of a size say.
Target: the family is a Pareto front, no peer gains more at its cost, tuned ones included.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from peers.tuned import TunedNetwork
from report import SHARED, Row, Times, alternating, parser, print_table, write_json

from pipeline.commands import eval_sr
from pipeline.models import model_path
from pipeline.models.load import load_model
from pipeline.models.runtime.choose import pattern
from pipeline.wire.frames import Size

FAMILY = ("f-edsr-x2-nano", "f-edsr-x2-small", "f-edsr-x2", "f-edsr-x2-medium", "f-edsr-x2-large")
RUNTIMES = ("openvino-int8", "openvino-fp32")
SIZES = (Size(width_px=320, height_px=180), Size(width_px=640, height_px=360))
BICUBIC = "bicubic"
WIDTH_PX, HEIGHT_PX = 900, 560
LEFT, RIGHT, TOP, BOTTOM = 60, 30, 30, 50
OURS_BGR, PEERS_BGR, INK_BGR = (180, 120, 40), (60, 60, 200), (60, 60, 60)


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One method: its gain over bicubic, dB, by half of the protocol, and its cost, ms, by size."""

    name: str
    ours: bool
    native_db: float
    small_db: float
    times: tuple[Times, ...]

    @property
    def gain_db(self) -> float:
        return (self.native_db + self.small_db) / 2

    @property
    def ms(self) -> float:
        """Median at the first size."""
        return self.times[0].median


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--data", type=Path, default=SHARED / "clips" / "dev", help="clips (default: the shared ones)")
    options.add_argument("--peers", type=Path, default=SHARED / "peers", help="frozen graphs of the peers")
    options.add_argument("--tuned", type=Path, nargs="*", default=[], help="files of peers/tuned.py")
    options.add_argument("--more", type=Path, nargs="*", default=[], help="further model files of ours")
    options.add_argument("--plot", type=Path, metavar="PNG", help="draw dB against ms there")
    chosen = options.parse_args()
    if not chosen.data.is_dir() or not chosen.peers.is_dir():
        print(f"skipped: {chosen.data} or {chosen.peers} is not on this machine", file=sys.stderr)
        return 0
    cv2.setNumThreads(1)
    peers = eval_sr.peers(chosen.peers, 1) | {path.stem: tuned(path) for path in chosen.tuned}
    ours = family(chosen.more, quick=chosen.quick)
    methods = {BICUBIC: eval_sr.conventional()[BICUBIC]} | peers | ours
    taken = [speed(methods, size, 10 if chosen.quick else 30) for size in (SIZES[:1] if chosen.quick else SIZES)]
    clips = eval_sr.clips(chosen.data)
    sample = eval_sr.QUICK if chosen.quick else eval_sr.Sample()
    scores = eval_sr.evaluate(clips[:2] if chosen.quick else clips, methods, sample)
    points = [
        Point(
            name=name,
            ours=name in ours,
            native_db=gain(scores, name, small=False),
            small_db=gain(scores, name, small=True),
            times=tuple(times[name] for times in taken),
        )
        for name in methods
    ]
    body = [
        [p.name, f"{p.native_db:+.2f}", f"{p.small_db:+.2f}", *(f"{t.median:.2f}" for t in p.times), above(p, points)]
        for p in sorted(points, key=lambda p: p.ms)
    ]
    sizes = [f"ms {size}" for size in SIZES[: len(taken)]]
    print_table("dB over bicubic (PSNR-Y), CPU ms a frame", ["method", "native 500k", "360p 250k", *sizes, ""], body)
    if chosen.plot:
        draw(points, chosen.plot)
    if chosen.json:
        write_json(chosen.json, [row for p in points for row in rows(p)])
    return 0


def family(more: list[Path], *, quick: bool) -> dict[str, eval_sr.Method]:
    """Return the shipped networks and further ones, each in our runtimes."""
    out: dict[str, eval_sr.Method] = {}
    for name in [*(FAMILY[:2] if quick else FAMILY), *map(str, more)]:
        header, net = load_model(model_path(name))
        for runtime, method in eval_sr.ours(net.fold(), header.ranges, RUNTIMES, 1).items():
            out[f"{Path(name).stem} {runtime.removeprefix('F-EDSR openvino-')}"] = method
    return out


def tuned(path: Path) -> eval_sr.Method:
    """Return a tuned peer."""

    def ready(size: Size) -> eval_sr.Upscale:
        network = TunedNetwork(path, size, threads=1)
        return lambda y_HW: network.upscale(y_HW[None])[0]

    return ready


def speed(methods: Mapping[str, eval_sr.Method], size: Size, repeats: int) -> dict[str, Times]:
    """Return the time of each method on one frame size."""
    y_HW = pattern(size)
    ready = {name: method(size) for name, method in methods.items()}
    return alternating({name: lambda up=up: up(y_HW) for name, up in ready.items()}, repeats)


def gain(scores: Mapping[str, Mapping[str, eval_sr.Score]], name: str, *, small: bool) -> float:
    """Return the mean gain over bicubic of a method in one half of the protocol."""
    chosen = [by_name for case, by_name in scores.items() if case.endswith("360@250k") == small]
    return float(np.mean([by_name[name].psnr_db - by_name[BICUBIC].psnr_db for by_name in chosen]))


def above(point: Point, points: list[Point]) -> str:
    """Return who of the other camp is as cheap and as good, or cheaper and better; "" where nobody is."""
    others = [p.name for p in points if p.ours != point.ours and p.ms <= point.ms and p.gain_db >= point.gain_db]
    if point.name == BICUBIC:
        return ""
    if point.ours:
        return f"MISSED: {others[0]} is above it" if others else "on the front"
    return f"below {others[-1]}" if others else "MISSED: none of ours is above it"


def rows(point: Point) -> list[Row]:
    """Return a method's figures."""
    out = [
        Row(case=f"{point.name} native@500k", metric="gain", unit="dB", value=point.native_db, reference=BICUBIC),
        Row(case=f"{point.name} 360@250k", metric="gain", unit="dB", value=point.small_db, reference=BICUBIC),
    ]
    for size, times in zip(SIZES, point.times, strict=False):
        out.append(
            Row(case=f"{point.name} {size}", metric="cpu_time", unit="ms", value=times.median, spread=times.spread)
        )
    return out


def draw(points: list[Point], path: Path) -> None:
    """Write a PNG: gain (mean of both halves) against ms on a logarithmic axis."""
    image = np.full((HEIGHT_PX, WIDTH_PX, 3), 255, np.uint8)
    shown = [p for p in points if p.name != BICUBIC]
    low, high = np.log10([min(p.ms for p in shown) / 1.3, max(p.ms for p in shown) * 2])
    top = max(p.gain_db for p in shown) * 1.15
    for db in np.arange(0, top, 0.25):
        y = round(HEIGHT_PX - BOTTOM - db / top * (HEIGHT_PX - TOP - BOTTOM))
        cv2.line(image, (LEFT, y), (WIDTH_PX - RIGHT, y), (225, 225, 225), 1)
        text(image, f"{db:.2f}", (8, y + 5), INK_BGR)
    for ms in (0.5, 1, 2, 5, 10, 20, 50, 100, 200):
        if low <= np.log10(ms) <= high:
            x = round(LEFT + (np.log10(ms) - low) / (high - low) * (WIDTH_PX - LEFT - RIGHT))
            cv2.line(image, (x, TOP), (x, HEIGHT_PX - BOTTOM), (225, 225, 225), 1)
            text(image, f"{ms:g}", (x - 8, HEIGHT_PX - BOTTOM + 18), INK_BGR)
    for p in shown:
        x = round(LEFT + (np.log10(p.ms) - low) / (high - low) * (WIDTH_PX - LEFT - RIGHT))
        y = round(HEIGHT_PX - BOTTOM - max(p.gain_db, 0) / top * (HEIGHT_PX - TOP - BOTTOM))
        color = OURS_BGR if p.ours else PEERS_BGR
        cv2.circle(image, (x, y), 5, color, -1, cv2.LINE_AA)
        text(image, p.name.removeprefix("f-edsr-"), (x + 8, y + 4), color)
    text(image, "dB over bicubic, mean of both protocols", (LEFT, 18), INK_BGR)
    text(image, f"CPU ms a {SIZES[0]} frame, one core", (WIDTH_PX - 330, HEIGHT_PX - 10), INK_BGR)
    done, data = cv2.imencode(".png", image)
    assert done
    path.write_bytes(data.tobytes())


def text(image: np.ndarray, words: str, place: tuple[int, int], color: tuple[int, ...]) -> None:
    """Write words on a picture."""
    cv2.putText(image, words, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, color, 1, cv2.LINE_AA)


if __name__ == "__main__":
    sys.exit(main())
