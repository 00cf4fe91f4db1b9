"""Pairs to learn super-resolution from: patches of pictures, and of what a live encoder makes of them.

Material is short sequences, so that x264's P-frames look as they do in a stream: windows of video clips, stills that
pan and zoom, drawn sheets, and the rendered scene. Each is encoded at a bitrate drawn from what live streams use,
decoded, and cut into patches. The whole set is made once (minutes), then training only reads it. Each source has its
own seed, so several processes make the same pairs as one.

A folder of training data holds any of  clips/train/*.mp4  and  stills/{train,val,test,Set5}/*.{jpg,png}.
What is held out for judging: the last fifth of each clip, each tenth still or sheet.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import zlib
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Generator as Yielding
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pipeline.errors import CapacityError, ConfigError, StorageError
from pipeline.media.degrade import Encoding, Picture, degrade, pictures_of, stream_facts
from pipeline.media.synthetic import Scene, SceneConfig
from pipeline.train.drawn import marked, sheet

VERSION = 1  # raise it when other pairs are made of the same configuration: it is part of the cache's key

Progress = Callable[[str, float], None]  # (what is being made, share done in 0..1)

_PRESETS = ("ultrafast", "superfast", "veryfast", "veryfast", "veryfast", "veryfast", "faster", "medium")
_SCALERS = ("area", "area", "area", "area", "area", "area", "bicubic", "bilinear")


@dataclass(frozen=True, kw_only=True, slots=True)
class PairsConfig:
    """How much is made of each kind of material."""

    scale: int = 2
    patch_px: int = 80  # side of a low-resolution patch
    clip_variants: int = 20  # encodings of each clip, each at its own size, place and bitrate
    window_frames: int = 72  # of a clip, encoded as one stream
    every_frames: int = 4  # patches are cut from each fourth picture
    warm_frames: int = 8  # left out: the encoder's rate control has not settled
    patches: int = 6  # cut from one picture
    still_variants: int = 2  # encodings of each still
    still_frames: int = 12
    sheets: int = 120  # wholly drawn stills
    scenes: int = 6  # rendered sequences
    scene_variants: int = 3  # encodings of each
    least_bpp: float = 0.045  # bits a pixel of the low-resolution stream: 0.07 is 500 kb/s at 640×360, 30 fps
    most_bpp: float = 0.6
    quality_share: float = 1 / 6  # of the sequences are encoded by constant quality instead
    least_crf: float = 18.0
    most_crf: float = 31.0
    static_share: float = 0.25  # of the stills do not pan
    seed: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """Aligned patches: low (N, P, P) as decoded, high (N, s·P, s·P) as it was; uint8 luma."""

    low: NDArray[np.uint8]
    high: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.low)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shot:
    """Pictures that are encoded as one stream; `held_from` is the first one that is held out."""

    name: str
    pictures: list[Picture]
    rate: Fraction
    held_from: int
    warm: int
    every: int


def make_pairs(
    data: Path | None, config: PairsConfig, progress: Progress, *, workers: int | None = None
) -> tuple[Pairs, Pairs]:
    """Return the pairs to train on and those held out, made of the folder `data` and of rendered material.

    Without a folder the rendered scene and drawn sheets are all there is. Deterministic in `config.seed` and the files,
    whatever the number of processes `workers` (1: this one; default: one for each core that it may use). Each holds the
    pictures of a whole clip.

    Raises:
        ConfigError: the folder is missing or holds no material.
        CapacityError: a process died, most likely for want of memory.
    """
    sources = _sources(data, config)
    workers = min(workers or _num_cores(), len(sources))
    kept: tuple[list[Pairs], list[Pairs]] = ([], [])
    made = _made_by_processes(sources, config, workers) if workers > 1 else (_made(one, config) for one in sources)
    with closing(made):
        for i, (name, _) in enumerate(sources):
            progress(name, i / len(sources))
            for parts, part in zip(kept, next(made), strict=True):
                parts.append(part)
    progress("done", 1.0)
    return _joined(kept[0], config), _joined(kept[1], config)


def cached_pairs(
    data: Path | None, config: PairsConfig, cache: Path, progress: Progress, *, workers: int | None = None
) -> tuple[Pairs, Pairs]:
    """Return `make_pairs`, made once for a configuration and a list of files, then read from the folder `cache`.

    Raises:
        ConfigError, CapacityError: as `make_pairs`.
        StorageError: the cache cannot be written.
    """
    key = [VERSION, asdict(config), files_of(data)]
    names = ("train.low", "train.high", "held.low", "held.high")

    def made() -> tuple[NDArray[np.uint8], ...]:
        train, held = make_pairs(data, config, progress, workers=workers)
        return train.low, train.high, held.low, held.high

    arrays = cached_arrays("pairs", cache, key, names, made)
    return Pairs(low=arrays[0], high=arrays[1]), Pairs(low=arrays[2], high=arrays[3])


def cached_arrays(
    what: str, cache: Path, key: object, names: Sequence[str], made: Callable[[], Sequence[NDArray[np.uint8]]]
) -> list[NDArray[np.uint8]]:
    """Return the arrays that `made` gives, made once for a `key` (JSON), then mapped from files in the folder `cache`.

    `what` names them in errors.

    Raises:
        StorageError: the cache cannot be written.
    """
    folder = cache / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    if not all((folder / f"{name}.npy").is_file() for name in names):
        arrays = made()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, array in zip(names, arrays, strict=True):
                unfinished = folder / f".{name}.{os.getpid()}.npy"
                np.save(unfinished, array)
                unfinished.rename(folder / f"{name}.npy")
        except OSError as error:
            raise StorageError(
                f"{what} cannot be kept: {error.strerror}", where=str(folder), hint="choose another --cache"
            ) from error
    return [np.load(folder / f"{name}.npy", mmap_mode="r") for name in names]


def files_of(data: Path | None) -> list[tuple[str, int]]:
    """Return name and size of each file of a folder of training data: what a cache of it is known by."""
    if data is None:
        return []
    return [(str(path.relative_to(data)), path.stat().st_size) for path in training_files(data)]


def training_files(data: Path) -> list[Path]:
    """Return the clips and stills under `data` that may be trained on, in the order in which they are used."""
    clips = sorted((data / "clips" / "train").glob("*.mp4"))
    stills = [
        path
        for part in ("train", "val", "test", "Set5")
        for path in sorted((data / "stills" / part).glob("*"))
        if path.suffix in (".jpg", ".png")
    ]
    return clips + stills


_Source = tuple[str, partial[Iterator[Shot]]]  # (name, what makes its sequences of a random generator)


def _sources(data: Path | None, config: PairsConfig) -> list[_Source]:
    sources: list[_Source] = []
    if data is not None:
        files = training_files(data)
        if not files:
            raise ConfigError(
                "no training material here",
                where=str(data),
                hint="it should hold clips/train/*.mp4 or stills/{train,val,test,Set5}/*.jpg",
            )
        for number, path in enumerate(files):
            if path.suffix == ".mp4":
                sources.append((path.name, partial(clip_shots, path, config)))
            else:
                sources.append((path.name, partial(_still, path, number % 10 == 9, config)))
    sources += [(f"sheet {i}", partial(_sheet, i % 10 == 9, config)) for i in range(config.sheets)]
    sources += [(f"scene {i}", partial(scene_shots, i, config)) for i in range(config.scenes)]
    return sources


def _made(source: _Source, config: PairsConfig) -> tuple[Pairs, Pairs]:
    """Return the patches of one source: those to train on, those held out."""
    name, sequences = source
    rng = np.random.default_rng([config.seed, zlib.crc32(name.encode())])
    kept: tuple[list[Pairs], list[Pairs]] = ([], [])
    for sequence in sequences(rng):
        for parts, part in zip(kept, _patches(sequence, config, rng), strict=True):
            parts.append(part)
    return _joined(kept[0], config), _joined(kept[1], config)


def _made_by_processes(sources: list[_Source], config: PairsConfig, workers: int) -> Yielding[tuple[Pairs, Pairs]]:
    """Yield what `_made` gives of each source, in order.

    The processes are spawned: a fork of a process in which PyTorch has run threads can hang. Clips and scenes take a
    hundred times as long as a still, so they come first: one that came last would be waited for.
    """
    order = sorted(range(len(sources)), key=lambda i: sources[i][1].func in (_still, _sheet))
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_worker)
    try:
        futures = {i: pool.submit(_made, sources[i], config) for i in order}
        for i in range(len(sources)):
            yield futures.pop(i).result()
    except BrokenProcessPool as error:
        # Spawned processes import the main program, so one without `if __name__ == "__main__"` ends here too.
        hint = "where memory is short take fewer --workers; a script of your own needs a main guard, or workers=1"
        raise CapacityError("a process that makes pairs has died", where="pairs", hint=hint) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once and without a traceback
    cv2.setNumThreads(1)


def clip_shots(path: Path, config: PairsConfig, rng: Generator) -> Iterator[Shot]:
    """Yield windows of a clip's video streams at drawn places and sizes, some with drawn marks on them."""
    for stream, (_, _, rate) in enumerate(stream_facts(path)):
        pictures = list(pictures_of(path, stream=stream))
        held_from = len(pictures) * 4 // 5
        for variant in range(config.clip_variants):
            count = min(config.window_frames, len(pictures))
            # The last window ends with the clip, so that something is held out of it.
            last = variant == config.clip_variants - 1
            start = len(pictures) - count if last else int(rng.integers(0, len(pictures) - count + 1))
            chosen = _sized(pictures[start : start + count], variant, config, rng)
            if rng.random() < 0.25:
                seed = int(rng.integers(1 << 30))
                chosen = [marked(p, np.random.default_rng(seed)) for p in chosen]
            yield Shot(
                name=path.name,
                pictures=chosen,
                rate=rate,
                held_from=held_from - start,
                warm=config.warm_frames,
                every=config.every_frames,
            )


def _sized(pictures: list[Picture], variant: int, config: PairsConfig, rng: Generator) -> list[Picture]:
    """Leave each second variant as it is, and scale the others down to 240 to 480 lines."""
    height, width = pictures[0].y.shape
    target = int(rng.choice([240, 270, 360, 360, 480]))
    step = 2 * config.scale
    if variant % 2 == 0 or target >= height:
        return [p.cropped(step) for p in pictures]
    new_width = round(width * target / height / step) * step
    return [p.resized(new_width, target // step * step) for p in pictures]


def _still(path: Path, held: bool, config: PairsConfig, rng: Generator) -> Iterator[Shot]:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ConfigError("cannot be read as a picture", where=str(path), hint="remove it or fetch it again")
    height, width = (side // 4 * 4 for side in image.shape[:2])
    i420 = cv2.cvtColor(np.ascontiguousarray(image[:height, :width]), cv2.COLOR_BGR2YUV_I420)
    picture = Picture.from_i420(np.asarray(i420, np.uint8), width_px=width, height_px=height)
    for _ in range(config.still_variants):
        chosen = marked(picture, rng) if rng.random() < 0.25 else picture
        yield _moving(path.name, chosen, held, config, rng)


def _sheet(held: bool, config: PairsConfig, rng: Generator) -> Iterator[Shot]:
    yield _moving("sheet", sheet(480, 320, rng), held, config, rng)


def scene_shots(number: int, config: PairsConfig, rng: Generator) -> Iterator[Shot]:
    """Yield one rendered street for each number, `scene_variants` times; the last fifth of its time is held out."""
    width, height = ((640, 360), (854, 480), (480, 272))[number % 3]
    noise = float(rng.choice([0.0, 0.5, 1.5]))
    scene = Scene(SceneConfig(width=width, height=height, seed=1000 + number, noise=noise, audio=False))
    count, gap = config.window_frames, 3  # a rendered second changes little: each third picture, at a third of the rate
    pictures = [
        Picture.from_i420(scene.frame(gap * i).i420, width_px=width, height_px=height).cropped(2 * config.scale)
        for i in range(count)
    ]
    for _ in range(config.scene_variants):
        yield Shot(
            name="scene",
            pictures=pictures,
            rate=Fraction(25, gap),
            held_from=count * 4 // 5,
            warm=config.warm_frames,
            every=config.every_frames,
        )


def _moving(name: str, picture: Picture, held: bool, config: PairsConfig, rng: Generator) -> Shot:
    """Make a still move: it stays, pans by whole pixels, or zooms."""
    count = config.still_frames
    height, width = picture.y.shape
    room = 2 * count  # a pan of at most 2 pixels of luma a frame
    step = 2 * config.scale
    if min(height, width) < room + config.patch_px * config.scale:
        room = 0
    inner_h, inner_w = (height - room) // step * step, (width - room) // step * step
    kind = rng.random()
    speed_x, speed_y = (
        (int(rng.integers(-1, 2)) * 2 for _ in range(2)) if kind > config.static_share and room else (0, 0)
    )
    zoom = float(rng.uniform(-0.006, 0.006)) if kind > 0.75 else 0.0
    pictures = []
    for i in range(count):
        x, y = (i * v if v >= 0 else room + i * v for v in (speed_x, speed_y))
        part = Picture(
            y=picture.y[y : y + inner_h, x : x + inner_w],
            u=picture.u[y // 2 : (y + inner_h) // 2, x // 2 : (x + inner_w) // 2],
            v=picture.v[y // 2 : (y + inner_h) // 2, x // 2 : (x + inner_w) // 2],
        )
        if zoom:
            part = Picture(y=_zoomed(part.y, 1 + zoom * (i + 1)), u=part.u, v=part.v)
        pictures.append(part)
    return Shot(
        name=name,
        pictures=pictures,
        rate=Fraction(25),
        held_from=0 if held else count,
        warm=count // 2,
        every=max(1, count // 4),
    )


def _zoomed(plane: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    height, width = plane.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), 0.0, factor)
    out = cv2.warpAffine(plane, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(out, np.uint8)


def draw_encoding(picture: Picture, rate: Fraction, config: PairsConfig, rng: Generator) -> Encoding:
    """Draw an encoder's settings; bits a pixel are log-uniform, crf is uniform."""
    pixels = picture.y.size / config.scale**2
    bpp = float(np.exp(rng.uniform(np.log(config.least_bpp), np.log(config.most_bpp))))
    by_quality = rng.random() < config.quality_share
    return Encoding(
        bitrate_bps=None if by_quality else max(20_000, int(bpp * pixels * float(rate))),
        crf=float(rng.uniform(config.least_crf, config.most_crf)) if by_quality else None,
        preset=_PRESETS[int(rng.integers(len(_PRESETS)))],
        tune="zerolatency" if rng.random() < 0.85 else "",
        gop_frames=int(rng.choice([25, 50, 60, 250, 250])),
        scaler=_SCALERS[int(rng.integers(len(_SCALERS)))],
        rate=rate,
    )


def _patches(sequence: Shot, config: PairsConfig, rng: Generator) -> tuple[Pairs, Pairs]:
    """Return the patches of one encoded sequence: those to train on, those held out."""
    pictures = sequence.pictures
    encoding = draw_encoding(pictures[0], sequence.rate, config, rng)
    decoded = degrade(pictures, encoding, scale=config.scale)
    kept: tuple[list[Pairs], list[Pairs]] = ([], [])
    first = min(sequence.warm, len(pictures) - 1)
    for i in range(first + int(rng.integers(0, sequence.every)), len(pictures), sequence.every):
        kept[i >= sequence.held_from].append(_cut(decoded[i].y, pictures[i].y, config, rng))
    return _joined(kept[0], config), _joined(kept[1], config)


def _cut(low: NDArray[np.uint8], high: NDArray[np.uint8], config: PairsConfig, rng: Generator) -> Pairs:
    """Cut patches at random places; of two candidates the one with more texture mostly wins."""
    size, s = config.patch_px, config.scale
    lows, highs = [], []
    if min(low.shape) < size:
        return _joined([], config)
    for _ in range(config.patches):
        places = [tuple(int(rng.integers(0, side - size + 1)) for side in low.shape) for _ in range(2)]
        if rng.random() < 0.7:
            places.sort(key=lambda place: -float(low[place[0] :, place[1] :][:size, :size].std()))
        y, x = places[0]
        lows.append(low[y : y + size, x : x + size])
        highs.append(high[s * y : s * (y + size), s * x : s * (x + size)])
    return Pairs(low=np.stack(lows), high=np.stack(highs))


def _joined(parts: list[Pairs], config: PairsConfig) -> Pairs:
    if not parts:
        low, high = config.patch_px, config.patch_px * config.scale
        return Pairs(low=np.zeros((0, low, low), np.uint8), high=np.zeros((0, high, high), np.uint8))
    return Pairs(low=np.concatenate([part.low for part in parts]), high=np.concatenate([part.high for part in parts]))
