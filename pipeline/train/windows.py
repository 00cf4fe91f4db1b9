"""Windows to learn TCSR from: what F-EDSR made of a frame and of its neighbours, and what the frame was.

Material is that of F-EDSR (`data.py`), encoded as a live encoder does: windows of clips, the rendered scene, and stills
that move by fractions of a pixel, since a few clips alone teach a network those clips. F-EDSR runs over each sequence
once, neighbours are carried to the target's place, and crops of all that are kept; training only reads them. What is
held out: the last fifth of each clip and scene, each tenth still.

Shapes: M windows, K = 2k neighbours, P side of a crop at full size.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.media.degrade import Picture, degrade
from pipeline.train.data import (
    PairsConfig,
    Progress,
    Shot,
    cached_arrays,
    clip_shots,
    draw_encoding,
    files_of,
    scene_shots,
    training_files,
)
from pipeline.vision.motion import aligned_plane

VERSION = 1  # raise it when other windows are made of the same configuration: it is part of the cache's key

Plane = NDArray[np.uint8]

Enhance = Callable[[Plane], Plane]
"""Luma as decoded (h, w) in, F-EDSR's (s·h, s·w) out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows:
    """Crops: near (M, 1 + K, P, P), F-EDSR's target and then its neighbours in order of time; true (M, P, P); uint8."""

    near: NDArray[np.uint8]
    true: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.near)


def make_windows(
    data: Path | None, config: PairsConfig, enhance: Enhance, progress: Progress, *, k: int, aligned: bool
) -> tuple[Windows, Windows]:
    """Return the windows to train on and those held out, made of the folder `data` and of the rendered scene.

    Deterministic in `config.seed`, the files and `enhance`.

    Args:
        data: as `data.make_pairs`; None: the rendered scene is all there is.
        config: what is made; `patch_px` is a crop's side on the low-resolution grid. Sheets play no part.
        enhance: F-EDSR.
        progress: is told what is being made.
        k: neighbours on each side.
        aligned: carry them to the target's place; else they stay as they are, for a network that does it itself.

    Raises:
        ConfigError: the folder holds no material, or a file in it cannot be read.
    """
    sources: list[tuple[str, Callable[[Generator], Iterator[Shot]]]] = []
    files = training_files(data) if data is not None else []
    if data is not None and not files:
        raise ConfigError("no training material here", where=str(data), hint="it should hold clips/train/*.mp4")
    for number, path in enumerate(files):
        kind = partial(clip_shots, path, config)
        if path.suffix != ".mp4":
            kind = partial(_wandering, path, number % 10 == 9, config)
        sources.append((path.name, kind))
    sources += [(f"scene {i}", partial(scene_shots, i, config)) for i in range(config.scenes)]
    kept: tuple[list[Windows], list[Windows]] = ([], [])
    for i, (name, shots) in enumerate(sources):
        progress(name, i / len(sources))
        rng = np.random.default_rng([config.seed, zlib.crc32(name.encode())])
        for shot in shots(rng):
            for parts, part in zip(kept, _cut(shot, config, enhance, rng, k=k, aligned=aligned), strict=True):
                parts.extend(part)
    progress("done", 1.0)
    return _joined(kept[0], config, k), _joined(kept[1], config, k)


def cached_windows(
    data: Path | None,
    config: PairsConfig,
    enhance: Enhance,
    cache: Path,
    progress: Progress,
    *,
    enhanced_by: str,
    k: int,
    aligned: bool,
) -> tuple[Windows, Windows]:
    """Return `make_windows`, made once for its arguments and `enhanced_by` (what `enhance` is), then read from `cache`.

    Raises:
        ConfigError: as `make_windows`.
        StorageError: the cache cannot be written.
    """
    key = ["windows", VERSION, asdict(config), files_of(data), enhanced_by, k, aligned]

    def made() -> tuple[NDArray[np.uint8], ...]:
        train, held = make_windows(data, config, enhance, progress, k=k, aligned=aligned)
        return train.near, train.true, held.near, held.true

    names = ("train.near", "train.true", "held.near", "held.true")
    arrays = cached_arrays("windows", cache, key, names, made)
    return Windows(near=arrays[0], true=arrays[1]), Windows(near=arrays[2], true=arrays[3])


def _cut(
    shot: Shot, config: PairsConfig, enhance: Enhance, rng: Generator, *, k: int, aligned: bool
) -> tuple[list[Windows], list[Windows]]:
    """Return the windows of one encoded sequence: those to train on, those held out."""
    kept: tuple[list[Windows], list[Windows]] = ([], [])
    low = [
        p.y for p in degrade(shot.pictures, draw_encoding(shot.pictures[0], shot.rate, config, rng), scale=config.scale)
    ]
    if min(low[0].shape) < config.patch_px:
        return kept
    enhanced: dict[int, Plane] = {}
    first = max(k, min(shot.warm, len(low) - 1))
    for i in range(first + int(rng.integers(0, shot.every)), len(low) - k, shot.every):
        near = [i, *range(i - k, i), *range(i + 1, i + k + 1)]
        held = i >= shot.held_from
        if not held and near[-1] >= shot.held_from:
            continue  # its last neighbour is held out
        for n in near:
            if n not in enhanced:
                enhanced[n] = enhance(low[n])
        planes = [enhanced[n] for n in near]
        if aligned:
            planes[1:] = [aligned_plane(planes[0], plane, config.scale) for plane in planes[1:]]
        kept[held].append(_crops(planes, low[i], shot.pictures[i].y, config, rng))
    return kept


def _crops(planes: Sequence[Plane], low: Plane, true: Plane, config: PairsConfig, rng: Generator) -> Windows:
    """Cut crops at random places; of two candidates the one with more texture mostly wins.

    Places lie on even pixels of the low grid: F-EDSR computes on cells of 2 × 2 there, with which a frame begins.
    """
    size, s = config.patch_px, config.scale
    near, truth = [], []
    for _ in range(config.patches):
        places = [tuple(2 * int(rng.integers(0, (side - size) // 2 + 1)) for side in low.shape) for _ in range(2)]
        if rng.random() < 0.7:
            places.sort(key=lambda place: -float(low[place[0] :, place[1] :][:size, :size].std()))
        rows, columns = (slice(s * start, s * (start + size)) for start in places[0])
        near.append(np.stack([plane[rows, columns] for plane in planes]))
        truth.append(true[rows, columns])
    return Windows(near=np.stack(near), true=np.stack(truth))


def _wandering(path: Path, held: bool, config: PairsConfig, rng: Generator) -> Iterator[Shot]:
    """Let a camera wander over a still: it pans by fractions of a pixel, turns and zooms; something passes in front."""
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise ConfigError("cannot be read as a picture", where=str(path), hint="remove it or fetch it again")
    still = np.asarray(image, np.float32)
    step = 2 * config.scale
    # A little smaller than the still: a warp blurs, and being scaled down takes that away again.
    height, width = (int(side * 0.8) // step * step for side in still.shape)
    count = config.still_frames
    for _ in range(config.still_variants):
        ground, thing = _Path.drawn(rng, config.static_share), _Path.drawn(rng, 0.0)
        shows = rng.random() < 0.5
        mask = np.zeros_like(still)
        centre = (rng.uniform(0.3, 0.7, 2) * still.shape[::-1]).astype(int).tolist()
        axes = (rng.uniform(0.1, 0.25, 2) * min(still.shape)).astype(int).tolist()
        cv2.ellipse(mask, centre, axes, 0, 0, 360, 1.0, -1, cv2.LINE_AA)
        turned = np.ascontiguousarray(still[::-1])  # what passes is cut out of the same still, upside down
        pictures = []
        for i in range(count):
            y = ground.seen(still, i, width, height)
            if shows:
                weight = thing.seen(mask, i, width, height)
                y += weight * (thing.seen(turned, i, width, height) - y)
            pictures.append(Picture.grey(np.rint(y).clip(0, 255).astype(np.uint8)))
        yield Shot(
            name=path.name,
            pictures=pictures,
            rate=Fraction(25),
            held_from=0 if held else count,
            warm=count // 3,
            every=max(1, count // 4),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Path:
    """How a camera moves over a still, from the middle on: a frame's shift, turn and zoom."""

    shift_px: tuple[float, float]
    turn_deg: float
    zoom: float

    @classmethod
    def drawn(cls, rng: Generator, static_share: float) -> _Path:
        if rng.random() < static_share:
            return cls(shift_px=(0.0, 0.0), turn_deg=0.0, zoom=0.0)
        angle, speed_px = rng.uniform(0, 2 * np.pi), float(np.exp(rng.uniform(np.log(0.2), np.log(6.0))))
        turns = rng.random() < 0.4
        return cls(
            shift_px=(speed_px * float(np.cos(angle)), speed_px * float(np.sin(angle))),
            turn_deg=float(rng.normal(0, 0.4)) if turns else 0.0,
            zoom=float(rng.normal(0, 0.006)) if turns else 0.0,
        )

    def seen(self, still: NDArray[np.float32], i: int, width: int, height: int) -> NDArray[np.float32]:
        """Return frame `i` (H, W) of the path over a still."""
        rows, columns = still.shape
        matrix = cv2.getRotationMatrix2D(
            (columns / 2, rows / 2), self.turn_deg * i, width / columns * (1 + self.zoom * i)
        )
        matrix[:, 2] += ((width - columns) / 2 + self.shift_px[0] * i, (height - rows) / 2 + self.shift_px[1] * i)
        out: NDArray[np.float32] = cv2.warpAffine(  # type: ignore[assignment]
            still, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
        )
        return out


def _joined(parts: list[Windows], config: PairsConfig, k: int) -> Windows:
    if not parts:
        side = config.patch_px * config.scale
        return Windows(near=np.zeros((0, 1 + 2 * k, side, side), np.uint8), true=np.zeros((0, side, side), np.uint8))
    return Windows(near=np.concatenate([p.near for p in parts]), true=np.concatenate([p.true for p in parts]))
