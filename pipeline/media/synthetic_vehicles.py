"""Vehicles of the rendered scene: solids of a dozen faces with windows, wheels, lights and plates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.media.synthetic_camera import View
from pipeline.media.synthetic_layer import VEHICLE, Face, Layer, Words, ink, inverse_depth, premultiplied
from pipeline.media.synthetic_people import CYCLE_S, GO_S
from pipeline.media.synthetic_street import SHADE_M, SUN, order

Bytes = NDArray[np.uint8]
Array = NDArray[np.float64]
Colour = tuple[float, float, float]

_LAST_M, _FADE_M = 104.0, 8.0
_GAP_M = 13.0  # least distance of two vehicles of a lane
_PAINT: tuple[Colour, ...] = (
    (196, 198, 200), (46, 48, 52), (150, 30, 34), (34, 62, 118), (228, 228, 224), (112, 116, 122), (72, 96, 84),
    (206, 164, 60),
)  # fmt: skip
_GLASS: Colour = (42, 52, 60)
_LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"


class Body(NamedTuple):
    """Shape and look: length, width, height, side profile (s along 0..1, z 0..1, width factor), paint, plate."""

    size_m: tuple[float, float, float]
    profile: tuple[tuple[float, float, float], ...]
    glass: tuple[int, ...]  # profile edges that are windows
    belt: tuple[int, int]  # profile points where the cabin starts and ends
    paint: Colour
    plate: str


_SEDAN = (
    (0, 0.2, 1),
    (0, 0.6, 1),
    (0.15, 0.65, 1),
    (0.29, 1, 0.8),
    (0.62, 1, 0.8),
    (0.78, 0.64, 1),
    (1, 0.5, 1),
    (1, 0.2, 1),
)
_HATCH = (
    (0, 0.2, 1),
    (0, 0.55, 1),
    (0.01, 0.62, 1),
    (0.1, 1, 0.82),
    (0.58, 1, 0.82),
    (0.77, 0.62, 1),
    (1, 0.5, 1),
    (1, 0.2, 1),
)
_VAN = (
    (0, 0.14, 1),
    (0, 0.5, 1),
    (0.0, 0.52, 1),
    (0.02, 1, 0.92),
    (0.72, 1, 0.92),
    (0.88, 0.55, 1),
    (1, 0.44, 1),
    (1, 0.14, 1),
)


class Ride(NamedTuple):
    """Where a vehicle is: centre in metres, direction along y (±1), passage, opacity."""

    x_m: float
    y_m: float
    way: int
    lap: int
    fade: float


class Vehicles:
    """All vehicles of a scene; every method is a pure function of its arguments and the seed."""

    def __init__(self, seed: int, count: int, first_id: int, id_step: int, clock_s: float) -> None:
        self._seed, self._count, self._first_id, self._id_step, self._clock = seed, count, first_id, id_step, clock_s
        rng = np.random.default_rng((seed, 21))
        numbers = np.arange(count)
        self._parked = numbers % 3 == 2
        self._place = np.where(self._parked, numbers // 3, numbers - numbers // 3)
        # Parked at both kerbs, 6.5 m apart, where neither the crossing nor the camera is.
        slots = [(side, y) for y in (28.0, 34.5, 41.0, 47.5, 8.5, 54.0, 60.5, 67.0, 73.5, 80.0) for side in (1, -1)]
        self._slots = [slots[int(k) % len(slots)] for k in rng.permutation(len(slots))]
        moving = int((~self._parked).sum())
        self._per_lane = max(1, (moving + 1) // 2)
        self._track = max(124.0, _GAP_M * self._per_lane)
        gap = self._track / self._per_lane
        # A whole number of gaps a cycle: whoever stands at the red light leaves the crossing free.
        self._cycle_m = gap * max(1, round(95 / gap))
        self._body = lru_cache(maxsize=512)(self._build)

    @staticmethod
    def most() -> int:
        """How many a scene may hold: all parking slots taken."""
        return 60

    def ride(self, number: int, t: float) -> Ride:
        """Return where vehicle `number` is at t seconds."""
        place = int(self._place[number])
        if self._parked[number]:
            side, y = self._slots[place]
            return Ride(side * 5.0, y, side, 0, 1.0)
        way = 1 if place % 2 == 0 else -1
        cycle, now = divmod(t + self._clock, CYCLE_S)
        part = min(now / GO_S, 1.0)
        eased = part - math.sin(2 * math.pi * part) / (2 * math.pi)
        gap = self._track / self._per_lane
        # At rest the fronts stand 0.5 m before the stop line (15.8 or 22.2 m) or whole gaps away from there.
        stop = 15.3 - 2.6 if way > 0 else 22.9 + 2.6
        start = stop - (_LAST_M - self._track) if way > 0 else _LAST_M - stop
        travelled = start + (place // 2) * gap + (cycle + eased) * self._cycle_m
        lap = math.floor(travelled / self._track)
        along = travelled - lap * self._track
        y = _LAST_M - self._track + along if way > 0 else _LAST_M - along
        return Ride(2.0 * way, y, way, lap, min(1.0, max(0.0, (_LAST_M - 4 - y) / _FADE_M)))

    def layers(self, t: float, view: View) -> Iterator[tuple[Layer, Array]]:
        """Yield all vehicles in the picture as (vehicle, outline of its shadow (K, 2) px)."""
        for number in range(self._count):
            ride = self.ride(number, t)
            if ride.fade <= 0.02:
                continue
            body = self._body(number, ride.lap)
            layer = _draw(body, ride, view, self._first_id + number + self._id_step * ride.lap)
            if layer is not None:
                yield layer, _shadow(body, ride, view)

    def _build(self, number: int, lap: int) -> Body:
        rng = np.random.default_rng((self._seed, 22, number, lap & 0xFFFF))
        kind = int(rng.choice(3, p=[0.4, 0.38, 0.22]))
        paint = _PAINT[int(rng.integers(len(_PAINT)))]
        letters = "".join(_LETTERS[int(k)] for k in rng.integers(len(_LETTERS), size=4))
        plate = f"{letters[:2]} {letters[2:]} {int(rng.integers(100, 10000))}"
        stretch = float(rng.uniform(0.95, 1.05))
        if kind == 0:
            return Body((4.5 * stretch, 1.8, 1.45), _SEDAN, (2, 4), (2, 5), paint, plate)
        if kind == 1:
            return Body((3.9 * stretch, 1.74, 1.52), _HATCH, (2, 4), (2, 5), paint, plate)
        return Body((4.95 * stretch, 1.95, 2.25), _VAN, (4,), (2, 5), paint, plate)


class _Part(NamedTuple):
    points: Array  # (K, 3) metres in the vehicle's axes: across, along, up
    colour: Colour
    parent: int  # index of the face that carries it; −1 for a face itself


def _corner(body: Body, index: int, side: float) -> tuple[float, float, float]:
    s, z, wide = body.profile[index]
    length, width, height = body.size_m
    return side * wide * width / 2, (s - 0.5) * length, z * height


@lru_cache(maxsize=512)
def _parts(body: Body) -> tuple[_Part, ...]:
    """Return the faces, then what lies on them, all in the vehicle's own axes."""
    parts: list[_Part] = []
    length, width, height = body.size_m
    a, b = body.belt
    count = len(body.profile)
    bottom = tuple(c * 0.5 for c in body.paint)
    for k in range(count - 1):  # strips across: rear, boot, windows, roof, bonnet, front
        quad = [_corner(body, k, -1), _corner(body, k, 1), _corner(body, k + 1, 1), _corner(body, k + 1, -1)]
        parts.append(_Part(np.array(quad), body.paint, -1))
    sides: dict[int, tuple[int, int]] = {}
    for side in (-1, 1):
        low = [_corner(body, k, side) for k in (*range(a + 1), *range(b, count))]
        high = [_corner(body, k, side) for k in range(a, b + 1)]
        sides[side] = (len(parts), len(parts) + 1)
        parts += [_Part(np.array(low), body.paint, -1), _Part(np.array(high), body.paint, -1)]
    for k in body.glass:
        quad = parts[k].points
        parts.append(_Part(quad.mean(axis=0) + (quad - quad.mean(axis=0)) * (0.92, 0.86, 0.86), _GLASS, k))
    for side in (-1, 1):
        lower, upper = sides[side]
        cabin = parts[upper].points
        middle = cabin.mean(axis=0)
        inner = middle + (cabin - middle) * (1, 0.84, 0.74)
        if body.profile is not _VAN:
            pillar = inner[:, 1].mean()
            for lo, hi in ((-9.0, pillar - 0.05), (pillar + 0.05, 9.0)):
                parts.append(_Part(_between(inner, lo, hi), _GLASS, upper))
        else:
            parts.append(_Part(_between(inner, 0.18 * length, 9.0), _GLASS, upper))
        x = side * width / 2
        seam = [(x, -0.02, 0.25 * height), (x, 0.0, 0.25 * height), (x, 0.0, 0.6 * height), (x, -0.02, 0.6 * height)]
        parts.append(_Part(np.array(seam), bottom, lower))
        for s in (-0.31, 0.31):
            for radius, colour in (
                (0.37, (16, 16, 18)),
                (0.32, (30, 30, 32)),
                (0.19, (150, 152, 154)),
                (0.07, (70, 70, 72)),
            ):
                angle = np.arange(14) * (2 * np.pi / 14)
                ring = np.column_stack(
                    [np.full(14, x * 1.01), s * length + radius * np.cos(angle), 0.32 + radius * np.sin(angle)]
                )
                parts.append(_Part(ring, colour, lower))
    front, rear = count - 2, 0
    for face, colour in ((front, (250, 246, 226)), (rear, (176, 26, 28))):
        y = (0.505 if face == front else -0.505) * length
        z = 0.4 * height if body.profile is not _VAN else 0.34 * height
        for side in (-1, 1):
            lamp = [
                (side * width * 0.46, y, z),
                (side * width * 0.27, y, z),
                (side * width * 0.27, y, z + 0.16),
                (side * width * 0.46, y, z + 0.16),
            ]
            parts.append(_Part(np.array(lamp), colour, face))
        low = 0.2 * height if body.profile is not _VAN else 0.14 * height
        bumper = [(-width / 2, y, low), (width / 2, y, low), (width / 2, y, low + 0.14), (-width / 2, y, low + 0.14)]
        parts.append(_Part(np.array(bumper), bottom, face))
    return tuple(parts)


def _between(outline: Array, low: float, high: float) -> Array:
    """Clip a planar outline to low ≤ along ≤ high (Sutherland and Hodgman 1974)."""
    for sign, limit in ((1.0, low), (-1.0, -high)):
        kept: list[Array] = []
        for p, q in zip(outline, np.roll(outline, -1, axis=0), strict=True):
            inside_p, inside_q = sign * p[1] >= limit, sign * q[1] >= limit
            if inside_p:
                kept.append(p)
            if inside_p != inside_q:
                kept.append(p + (q - p) * (limit / sign - p[1]) / (q[1] - p[1]))
        outline = np.array(kept)
    return outline


def _world(points: Array, ride: Ride) -> Array:
    """Vehicle axes to world: forward is ±y; facing the other way turns by half a circle."""
    return np.column_stack([ride.x_m + ride.way * points[:, 0], ride.y_m + ride.way * points[:, 1], points[:, 2]])


def _plate_corners(body: Body, rear: bool) -> Array:
    """Return the plate's (4, 3) corners in vehicle axes, from the top left as one reads it."""
    length, _, height = body.size_m
    y, side = (-0.508 * length, -1.0) if rear else (0.508 * length, 1.0)
    z = 0.36 * height if rear else 0.24 * height
    return np.array(
        [
            (side * 0.29, y, z + 0.075),
            (-side * 0.29, y, z + 0.075),
            (-side * 0.29, y, z - 0.075),
            (side * 0.29, y, z - 0.075),
        ]
    )


@lru_cache(maxsize=256)
def _plate_picture(text: str) -> Bytes:
    """Return a number plate (32, 124, 4), Y'CbCr and alpha."""
    rgb = np.full((32, 124, 3), (236, 236, 230), np.uint8)
    cv2.rectangle(rgb, (0, 0), (123, 31), (30, 30, 30), 2)
    cv2.rectangle(rgb, (2, 2), (10, 29), (30, 60, 150), -1)
    (w, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 2)
    scale = min(0.72, 104 / w)
    cv2.putText(rgb, text, (14, 23), cv2.FONT_HERSHEY_SIMPLEX, scale, (16, 16, 18), 2, cv2.LINE_AA)
    return premultiplied(rgb, np.full((32, 124), 255, np.uint8))


def _draw(body: Body, ride: Ride, view: View, identity: int) -> Layer | None:
    parts = _parts(body)
    counts = [len(p.points) for p in parts]
    world = _world(np.concatenate([p.points for p in parts]), ride)
    pixels, depth = view.project(world)
    if depth.min() < 1.5:
        return None
    low, high = np.floor(pixels.min(axis=0)).astype(int) - 1, np.ceil(pixels.max(axis=0)).astype(int) + 2
    if (high <= 0).any() or low[0] >= view.width_px or low[1] >= view.height_px:
        return None
    starts = np.cumsum([0, *counts])
    inside = np.array([ride.x_m, ride.y_m, 0.45 * body.size_m[2]])
    shade = 0.62 if ride.x_m < SHADE_M else 1.0
    patch = np.zeros((int(high[1] - low[1]), int(high[0] - low[0]), 4), np.uint8)
    visible: dict[int, float] = {}
    colours: dict[int, tuple[float, float, float, float]] = {}
    for k, part in enumerate(parts):
        points = world[starts[k] : starts[k + 1]]
        if part.parent < 0:
            normal = np.cross(points[1] - points[0], points[2] - points[0])
            long = float(np.linalg.norm(normal))
            if long < 1e-9:
                continue
            middle = points.mean(axis=0)
            normal = normal / long * (1 if normal @ (middle - inside) > 0 else -1)
            if normal @ (view.centre - middle) <= 0:
                continue
            visible[k] = float(np.linalg.norm(view.centre - middle))
            # Sun from the left and behind the camera, and the sky's light from above.
            light = 0.55 + 0.3 * max(0.0, float(normal[2])) + 0.3 * max(0.0, float(normal @ (-0.29, -0.9, 0.3)))
            colours[k] = ink(*part.colour, shade=shade * light)
    outlines = {k: pixels[starts[k] : starts[k + 1]] - low for k in range(len(parts))}
    faces = []
    for k in visible:  # a dark line around each face closes the seams that smooth edges leave between two
        _fill(patch, outlines[k], ink(20, 20, 22))
        cv2.polylines(patch, [np.rint(outlines[k] * 16).astype(np.int32)], True, ink(20, 20, 22), 1, cv2.LINE_AA, 4)
    for k in sorted(visible, key=lambda k: -visible[k]):
        _fill(patch, outlines[k], colours[k])
        faces.append(_face(view, world[starts[k] : starts[k + 1]], outlines[k]))
    for k, part in enumerate(parts):
        if part.parent in visible:
            _fill(patch, outlines[k], ink(*part.colour, shade=shade))
    words = []
    for rear, face in ((True, 0), (False, len(body.profile) - 2)):
        if face in visible:
            corners = view.project(_world(_plate_corners(body, rear), ride))[0]
            _stick(patch, _plate_picture(body.plate), corners - low)
            words.append(Words(text=body.plate, kind="plate", outline=corners))
    if ride.fade < 1:
        patch = (patch * ride.fade).astype(np.uint8)
    return Layer(
        kind=VEHICLE,
        key=order(view, ride.x_m, float(view.project(np.array([[ride.x_m, ride.y_m, 0.5]]))[1][0])),
        id=identity,
        left=int(low[0]),
        top=int(low[1]),
        patch=patch,
        inverse_depth=faces[0].inverse_depth,
        faces=tuple(faces[1:]),
        words=tuple(words),
    )


def _face(view: View, points: Array, outline: Array) -> Face:
    return Face(outline=outline, inverse_depth=inverse_depth(view, points))


def _fill(patch: Bytes, outline: Array, colour: tuple[float, float, float, float]) -> None:
    cv2.fillConvexPoly(patch, np.rint(outline * 16).astype(np.int32), colour, cv2.LINE_AA, 4)


def _stick(patch: Bytes, picture: Bytes, corners: Array) -> None:
    """Draw a plate on the patch, from a picture first made about as small as it will be."""
    wide = float(np.hypot(*(corners[1] - corners[0])))
    if wide < 4:
        return
    if wide < 62:
        picture = np.asarray(
            cv2.resize(picture, (max(4, round(wide)), max(2, round(wide / 3.9))), interpolation=cv2.INTER_AREA),
            np.uint8,
        )
    h, w = picture.shape[:2]
    low = np.maximum(np.floor(corners.min(axis=0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 2, patch.shape[1::-1])
    if (high <= low).any():
        return
    edge = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32) - np.float32(0.5)
    warp = cv2.getPerspectiveTransform(edge, (corners - low).astype(np.float32))
    over = cv2.warpPerspective(picture, warp, (int(high[0] - low[0]), int(high[1] - low[1])), flags=cv2.INTER_LINEAR)
    under = patch[low[1] : high[1], low[0] : high[0]]
    left = 1 - over[..., 3:].astype(np.float32) / 255
    under[:] = np.clip(over + under * left, 0, 255).astype(np.uint8)


def _shadow(body: Body, ride: Ride, view: View) -> Array:
    """Return the outline on the ground of what the vehicle keeps the sun from, as (K, 2) px."""
    length, width, height = body.size_m
    base = np.array([(sx * width / 2, sy * length / 2, 0.0) for sx in (-1, 1) for sy in (-1, 1)])
    foot = _world(base, ride)
    tip = foot + np.array([SUN[0], SUN[1], 0.0]) * (0.6 * height)
    pixels, depth = view.project(np.concatenate([foot, tip]))
    if depth.min() < 1.0:
        return np.zeros((0, 2))
    return np.asarray(cv2.convexHull(pixels.astype(np.float32))[:, 0], np.float64)
