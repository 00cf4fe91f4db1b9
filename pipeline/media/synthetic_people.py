"""People of the rendered scene: where each walks at a time, and how each looks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.media.synthetic_camera import View
from pipeline.media.synthetic_layer import PERSON, Layer, premultiplied
from pipeline.media.synthetic_street import FACADE_M, SHADE_M, order

Bytes = NDArray[np.uint8]
Array = NDArray[np.float64]
Colour = tuple[float, float, float]

FIRST_M, LAST_M = 1.0, 74.0  # people walk between these distances along the street and then come back as others
CYCLE_S, GO_S = 25.0, 14.0  # of the traffic light: vehicles go, then people cross
_PHASES = 12  # pictures of one double step
_STEP_M = 1.45  # length of a double step
_LOOKS = 64  # different persons; a passage takes one of them
_AHEAD, _SIDE, _BACK = range(3)  # seen from the front, from the side walking to the right, from behind
_SPAN = (0.72, 1.08)  # width and height of a sprite in body heights; feet stand 0.04 above its lower edge
_SKIN: tuple[Colour, ...] = ((232, 190, 160), (214, 164, 130), (168, 116, 84), (112, 76, 56))
_HAIR: tuple[Colour, ...] = ((40, 32, 28), (92, 62, 40), (176, 140, 86), (150, 146, 142), (120, 58, 36))
_TOPS: tuple[Colour, ...] = (
    (176, 44, 44), (44, 78, 140), (224, 222, 216), (46, 46, 52), (72, 116, 76), (222, 178, 62), (120, 84, 132),
    (206, 118, 70), (92, 146, 166), (140, 124, 104), (212, 140, 160),
)  # fmt: skip
_LEGS: tuple[Colour, ...] = ((48, 56, 82), (40, 40, 44), (112, 100, 82), (90, 96, 104), (66, 86, 120))


class Walk(NamedTuple):
    """Where a person is: position in metres, gait phase in [0, 1), side of it that one sees, mirrored, passage."""

    x_m: float
    y_m: float
    phase: float
    heading: tuple[float, float]
    lap: int
    fade: float


class Sprite(NamedTuple):
    """A drawn person: halving pyramid of (h, w, 4) premultiplied patches; head as fractions of the patch."""

    levels: tuple[Bytes, ...]
    head: tuple[float, float, float, float]


class People:
    """All persons of a scene; every method is a pure function of its arguments and the seed."""

    def __init__(self, seed: int, count: int, first_id: int, id_step: int, sprite_px: int) -> None:
        self._seed, self._count, self._first_id, self._id_step = seed, count, first_id, id_step
        self._sprite_px = sprite_px
        rng = np.random.default_rng((seed, 11))
        self._side = rng.permutation(np.arange(count) % 2) * 2 - 1
        self._lane = rng.uniform(7.05, 9.9, count)
        self._start = (np.arange(count) + rng.uniform(0, 1, count)) * (LAST_M - FIRST_M) / max(count, 1)
        rng.shuffle(self._start)
        self._speed = rng.uniform(0.9, 1.7, count) * rng.choice([-1, 1], count)
        self._gait = rng.uniform(0, 1, count)
        self._stands = rng.random(count) < 0.16
        self._crosses = (np.arange(count) % 6) == 5
        self._tall = np.where(rng.random(count) < 0.1, rng.uniform(1.1, 1.4, count), rng.uniform(1.56, 1.94, count))
        self._cross_y = rng.uniform(17.3, 20.7, count)
        self._clock = float(rng.uniform(0, GO_S * 0.6))
        self._sprite = lru_cache(maxsize=_LOOKS * _PHASES * 3)(self._draw)

    @property
    def clock_s(self) -> float:
        """Seconds that the traffic light is ahead of the scene's time."""
        return self._clock

    def walk(self, number: int, t: float) -> Walk:
        """Return where person `number` is at t seconds."""
        if self._crosses[number]:
            return self._crossing(number, t)
        side, speed = float(self._side[number]), float(self._speed[number])
        span = LAST_M - FIRST_M
        if self._stands[number]:
            y = FIRST_M + float(self._start[number])
            return Walk(side * float(self._lane[number]), y, 0.0, (-side, 0.0), 0, 1.0)
        way = float(self._start[number]) + speed * t
        lap = math.floor(way / span)
        y = FIRST_M + way - lap * span
        weave = 0.25 * math.sin(0.21 * way + 6.3 * float(self._gait[number]))
        phase = (abs(speed) * t / _STEP_M + float(self._gait[number])) % 1
        fade = min(1.0, (LAST_M - y) / 3)
        return Walk(side * float(self._lane[number]) + weave, y, phase, (0.0, math.copysign(1, speed)), lap, fade)

    def _crossing(self, number: int, t: float) -> Walk:
        """Wait at the kerb while vehicles go, cross while they stand; the other way in the next cycle."""
        cycle, now = divmod(t + self._clock, CYCLE_S)
        rest = 7.0 + 0.4 * float(self._gait[number])
        late = 0.3 + 1.0 * float(self._gait[number])
        done = min(max((now - GO_S - late) / (CYCLE_S - GO_S - 1.6), 0.0), 1.0)
        start = float(self._side[number]) * (1 if int(cycle) % 2 == 0 else -1)
        x = start * rest * (1 - 2 * done)
        phase = (2 * rest * done / _STEP_M) % 1
        return Walk(x, float(self._cross_y[number]), phase, (-start, 0.0), 0, 1.0)

    def layers(self, t: float, view: View) -> Iterator[tuple[Layer, Layer | None]]:
        """Yield everybody in the picture as (person, shadow); a shadow is a patch whose alpha darkens."""
        if not self._count:
            return
        walks = [self.walk(number, t) for number in range(self._count)]
        heights = self._tall.tolist()
        ground = [(walk.x_m, walk.y_m, 0.0) for walk in walks]
        heads = [(walk.x_m, walk.y_m, tall) for walk, tall in zip(walks, heights, strict=True)]
        pixels, depths = view.project(np.array([ground, heads]).reshape(-1, 3))
        both, deep = pixels.reshape(2, -1, 2).swapaxes(0, 1), depths.reshape(2, -1).T
        for number, (walk, tall, ends, depth) in enumerate(zip(walks, heights, both, deep, strict=True)):
            if depth.min() < 1.5 or walk.fade <= 0.02:
                continue
            reach = 0.6 * view.focal_px * tall / float(depth[0])
            if not (-reach < ends[0, 0] < view.width_px + reach and -2 * reach < ends[1, 1] < view.height_px + reach):
                continue
            yield self._place(number, walk, view, ends=ends, depth=depth)

    def _place(self, number: int, walk: Walk, view: View, *, ends: Array, depth: Array) -> tuple[Layer, Layer | None]:
        tall = float(self._tall[number])
        seen_right = float(view.rotation[0, 0] * walk.heading[0] + view.rotation[0, 1] * walk.heading[1])
        seen_away = float(view.rotation[2, 0] * walk.heading[0] + view.rotation[2, 1] * walk.heading[1])
        facing = _SIDE if abs(seen_right) > 0.6 else (_BACK if seen_away > 0 else _AHEAD)
        mirror = facing == _SIDE and seen_right < 0
        identity = self._first_id + number + self._id_step * walk.lap
        look = (number * 7 + walk.lap * 5) % _LOOKS
        sprite = self._sprite(look, int(walk.phase * _PHASES) % _PHASES, facing)
        foot, head = ends
        long_px = float(np.hypot(*(head - foot)))
        wide_px = view.focal_px * tall / float(depth.mean()) * _SPAN[0]
        up = (head - foot) / max(long_px, 1e-6)
        # Sprite edges in the picture: origin at the upper left, x to the right, y down.
        down = -up * long_px * _SPAN[1]
        across = np.array([-up[1], up[0]]) * wide_px
        origin = foot + up * (1.04 * long_px) - across / 2
        if mirror:
            origin, across = origin + across, -across
        corners = np.stack([origin, origin + across, origin + down, origin + across + down])
        low = np.floor(corners.min(axis=0)).astype(int)
        high = np.ceil(corners.max(axis=0)).astype(int) + 1
        level = sprite.levels[0]
        for smaller in sprite.levels:
            if smaller.shape[0] < long_px * _SPAN[1]:
                break
            level = smaller
        h, w = level.shape[:2]
        axes = np.column_stack([across / w, down / h])
        affine = np.column_stack([axes, origin - low + axes @ (0.5, 0.5) - 0.5])
        size = (int(high[0] - low[0]), int(high[1] - low[1]))
        patch = np.asarray(cv2.warpAffine(level, affine, size, flags=cv2.INTER_LINEAR), np.uint8)
        shade = 0.78 if walk.x_m < SHADE_M else 1.0
        if walk.fade < 1 or shade < 1:
            patch = (patch * np.array([shade * walk.fade, walk.fade, walk.fade, walk.fade])).astype(np.uint8)
        x0, y0, x1, y1 = sprite.head
        box = np.array([origin + across * a + down * b for a in (x0, x1) for b in (y0, y1)])
        base = np.array([walk.x_m, walk.y_m, 0.0])
        plane = base + np.stack([np.zeros(3), np.array([0, 0, tall]), view.rotation[0]])
        layer = Layer(
            kind=PERSON,
            key=order(view, walk.x_m, float(depth[0])),
            id=identity,
            left=int(low[0]),
            top=int(low[1]),
            patch=patch,
            points=plane,
            head=(*box.min(axis=0).tolist(), *box.max(axis=0).tolist()),
        )
        shadow = _shadow(walk, view, level, tall) if walk.x_m > SHADE_M and long_px > 12 else None
        return layer, shadow

    def _draw(self, look: int, phase: int, facing: int) -> Sprite:
        rng = np.random.default_rng((self._seed, 12, look))
        rgb, alpha, head = draw_person(rng, self._sprite_px, phase / _PHASES, facing)
        levels = [premultiplied(rgb, alpha)]
        while levels[-1].shape[0] > 24:
            h, w = levels[-1].shape[:2]
            half = cv2.resize(levels[-1], (max(2, w // 2), max(2, h // 2)), interpolation=cv2.INTER_AREA)
            levels.append(np.asarray(half, np.uint8))
        return Sprite(tuple(levels), head)


def _shadow(walk: Walk, view: View, level: Bytes, tall: float) -> Layer | None:
    """Return the silhouette laid on the ground: a patch whose alpha says how much is darkened."""
    base = np.array([walk.x_m, walk.y_m, 0.0])
    reach = min(0.3 * tall, FACADE_M - walk.x_m)
    tip, side = np.array([reach, 0.95 * tall, 0.0]) * _SPAN[1], np.array([0.5 * tall * _SPAN[0], 0.0, 0.0])
    base = base - tip * 0.037
    ground = np.stack([base + tip - side, base + tip + side, base + side, base - side])
    corners, depth = view.project(ground)
    if depth.min() < 1.5:
        return None
    low, high = np.floor(corners.min(axis=0)).astype(int), np.ceil(corners.max(axis=0)).astype(int) + 1
    h, w = level.shape[:2]
    edge = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32) - np.float32(0.5)
    warp = cv2.getPerspectiveTransform(edge, (corners - low).astype(np.float32))
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    alpha = cv2.warpPerspective(np.ascontiguousarray(level[..., 3]), warp, size, flags=cv2.INTER_LINEAR)
    zero = np.zeros((size[1], size[0]), np.uint8)
    patch = np.dstack([zero, zero, zero, (alpha * (0.5 * walk.fade)).astype(np.uint8)])
    return Layer(kind=PERSON, key=(0, 0), id=0, left=int(low[0]), top=int(low[1]), patch=patch, points=ground)


def draw_person(
    rng: np.random.Generator, px: int, phase: float, facing: int
) -> tuple[Bytes, Bytes, tuple[float, float, float, float]]:
    """Return R'G'B' (px, ⅔·px, 3), opacity, and the head's box as fractions of the picture."""
    skin, hair = _SKIN[int(rng.integers(len(_SKIN)))], _HAIR[int(rng.integers(len(_HAIR)))]
    top, legs = _TOPS[int(rng.integers(len(_TOPS)))], _LEGS[int(rng.integers(len(_LEGS)))]
    shoe: Colour = (36, 32, 30) if rng.random() < 0.6 else (210, 206, 200)
    skirt, coat, striped = rng.random() < 0.2, rng.random() < 0.25, rng.random() < 0.25
    pack, bag, hat, long_hair = rng.random() < 0.25, rng.random() < 0.3, rng.random() < 0.18, rng.random() < 0.35
    accent = _TOPS[int(rng.integers(len(_TOPS)))]
    scale = 2 * px / _SPAN[1]
    h, w = 2 * px, round(scale * _SPAN[0])
    rgb, alpha = np.full((h, w, 3), top, np.uint8), np.zeros((h, w), np.uint8)

    def at(x: float, z: float) -> tuple[int, int]:
        return round(w / 2 + x * scale), round((1.04 - z) * scale)

    def limb(points: list[tuple[float, float]], thick: float, colour: Colour) -> None:
        for a, b in pairwise(points):
            for image, ink in ((rgb, colour), (alpha, 255.0)):
                cv2.line(image, at(*a), at(*b), ink, max(1, round(thick * scale)))

    def area(points: list[tuple[float, float]], colour: Colour) -> None:
        outline = np.array([at(*p) for p in points], np.int32)
        cv2.fillPoly(rgb, [outline], colour)
        cv2.fillPoly(alpha, [outline], 255)

    def oval(x: float, z: float, rx: float, rz: float, colour: Colour, *, arc: tuple[int, int] = (0, 360)) -> None:
        axes = (max(1, round(rx * scale)), max(1, round(rz * scale)))
        for image, ink in ((rgb, colour), (alpha, 255.0)):
            cv2.ellipse(image, at(x, z), axes, 0, *arc, ink, -1)

    def dim(colour: Colour, by: float) -> Colour:
        return colour[0] * by, colour[1] * by, colour[2] * by

    swing = math.sin(2 * math.pi * phase)
    sleeve = top if rng.random() < 0.7 else skin
    if facing == _SIDE:
        for way, shade in ((-swing, 0.72), (swing, 1.0)):
            lift = 0.05 * max(0.0, math.cos(2 * math.pi * phase) * (1 if shade == 1 else -1))
            hip, foot = (0.0, 0.51), (0.19 * way, 0.03 + lift)
            knee = (0.1 * way + 0.035 + 0.5 * lift, 0.27 + 0.4 * lift)
            limb([hip, knee], 0.1, dim(legs, shade))
            limb([knee, foot], 0.072, dim(skin if skirt else legs, shade))
            limb([(foot[0] - 0.02, foot[1] - 0.012), (foot[0] + 0.06, foot[1] - 0.015)], 0.042, dim(shoe, shade))
        limb([(0.0, 0.79), (0.11 * swing, 0.64), (0.18 * swing + 0.05, 0.5)], 0.05, dim(sleeve, 0.7))
        if pack:
            area([(-0.19, 0.8), (-0.05, 0.84), (-0.05, 0.56), (-0.17, 0.56)], accent)
        low = 0.36 if coat else 0.49
        area([(-0.07, 0.84), (0.05, 0.85), (0.085, 0.7), (0.075, low), (-0.075, low), (-0.085, 0.7)], top)
        if skirt:
            area([(-0.075, 0.54), (0.075, 0.54), (0.14, 0.3), (-0.13, 0.3)], legs)
        limb([(-0.005, 0.79), (-0.11 * swing, 0.64)], 0.06, dim(top, 0.88))
        limb([(-0.11 * swing, 0.64), (-0.18 * swing + 0.05, 0.5)], 0.048, dim(sleeve, 0.92))
        oval(-0.18 * swing + 0.055, 0.485, 0.026, 0.03, skin)
        limb([(0.0, 0.82), (0.01, 0.88)], 0.06, dim(skin, 0.9))
        oval(0.014, 0.925, 0.058, 0.073, skin)
        oval(0.074, 0.915, 0.013, 0.016, skin)
        oval(-0.008, 0.945, 0.06, 0.058, hair, arc=(120, 330))
        if long_hair:
            area([(-0.066, 0.95), (-0.01, 0.95), (-0.03, 0.8), (-0.075, 0.8)], hair)
        head = (-0.075, 0.85, 0.087, 1.003)
    else:
        away = facing == _BACK
        for side, way in ((-1, swing), (1, -swing)):
            lift = 0.055 * max(0.0, way)
            hip, knee, foot = (0.05 * side, 0.5), (0.052 * side, 0.27 + 0.5 * lift), (0.055 * side, 0.03 + lift)
            limb([hip, knee], 0.105, dim(legs, 1 - 0.2 * (way < 0)))
            limb([knee, foot], 0.078, dim(skin if skirt else legs, 0.95 - 0.2 * (way < 0)))
            limb([(foot[0], foot[1] + 0.01), (foot[0] + 0.01 * side, foot[1] - 0.018)], 0.066, shoe)
        for side, way in ((-1, -swing), (1, swing)):
            hand = (0.155 * side, 0.49 + 0.05 * max(0.0, way))
            limb([(0.118 * side, 0.79), (0.15 * side, 0.65)], 0.06, dim(top, 0.85))
            limb([(0.15 * side, 0.65), hand], 0.048, dim(sleeve, 0.85))
            oval(hand[0], hand[1] - 0.015, 0.026, 0.03, skin)
            if bag and side == 1:
                limb([hand, (hand[0] + 0.01, hand[1] - 0.08)], 0.012, dim(accent, 0.6))
                area(
                    [(hand[0] - 0.05, 0.42), (hand[0] + 0.07, 0.42), (hand[0] + 0.08, 0.27), (hand[0] - 0.06, 0.27)],
                    accent,
                )
        low = 0.34 if coat else 0.48
        area(
            [
                (-0.06, 0.85),
                (0.06, 0.85),
                (0.135, 0.81),
                (0.105, 0.64),
                (0.11, low),
                (-0.11, low),
                (-0.105, 0.64),
                (-0.135, 0.81),
            ],
            top,
        )
        if striped:
            for z in np.arange(low + 0.02, 0.8, 0.05):
                limb([(-0.1, float(z)), (0.1, float(z))], 0.016, accent)
        if skirt:
            area([(-0.1, 0.54), (0.1, 0.54), (0.145, 0.3), (-0.145, 0.3)], legs)
        if coat and not away:
            limb([(0.0, 0.83), (0.0, low + 0.01)], 0.008, dim(top, 0.5))
        if pack and away:
            area([(-0.085, 0.82), (0.085, 0.82), (0.095, 0.57), (-0.095, 0.57)], accent)
            area([(-0.06, 0.69), (0.06, 0.69), (0.06, 0.6), (-0.06, 0.6)], dim(accent, 0.75))
        limb([(0.0, 0.83), (0.0, 0.88)], 0.062, dim(skin, 0.82))
        if long_hair and not away:
            area([(-0.068, 0.96), (0.068, 0.96), (0.072, 0.81), (-0.072, 0.81)], hair)
        oval(0.0, 0.925, 0.056, 0.074, skin)
        if away:
            oval(0.0, 0.935, 0.06, 0.066, hair)
            if long_hair:
                area([(-0.06, 0.94), (0.06, 0.94), (0.066, 0.79), (-0.066, 0.79)], hair)
        else:
            oval(0.0, 0.95, 0.062, 0.053, hair, arc=(175, 365))
            for side in (-1, 1):
                oval(0.022 * side, 0.925, 0.008, 0.006, (40, 30, 28))
            limb([(-0.014, 0.885), (0.014, 0.885)], 0.008, dim(skin, 0.6))
            limb([(0.0, 0.918), (0.0, 0.903)], 0.008, dim(skin, 0.8))
        head = (-0.066, 0.848, 0.066, 1.003)
    if hat:
        oval(0.0, 0.965, 0.064, 0.046, accent, arc=(180, 360))
        limb([(-0.062, 0.962), (0.085 if facing == _SIDE else 0.062, 0.962)], 0.014, dim(accent, 0.7))
    # Light from the left, folds, weave.
    glow = 1.14 - 0.42 * np.clip(np.arange(w) / w * 3 - 1, 0, 1)[None, :]
    folds = cv2.resize(rng.normal(0, 1, (26, 12)).astype(np.float32), (w, h), interpolation=cv2.INTER_CUBIC)
    weave = cv2.resize(rng.normal(0, 1, (h // 4, w // 4)).astype(np.float32), (w, h))
    lit = rgb * (glow * (1 + 0.07 * folds + 0.05 * weave))[..., None]
    small = (round(w / 2), px)
    size = cv2.INTER_AREA
    weight = (alpha / 255.0).astype(np.float32)
    cover = cv2.resize(weight, small, interpolation=size)
    mean = cv2.resize((np.clip(lit, 0, 255) * weight[..., None]).astype(np.float32), small, interpolation=size)
    colour = np.clip(mean / np.maximum(cover, 1e-3)[..., None], 0, 255).astype(np.uint8)
    x0, z0, x1, z1 = head
    box = (0.5 + x0 / _SPAN[0], (1.04 - z1) / _SPAN[1], 0.5 + x1 / _SPAN[0], (1.04 - z0) / _SPAN[1])
    return colour, np.rint(cover * 255).astype(np.uint8), box
