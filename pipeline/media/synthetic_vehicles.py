"""Vehicles of the rendered scene: where each drives at a time, and how it is drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.media.synthetic_bodies import Solid, design, plate_picture, solid
from pipeline.media.synthetic_camera import View
from pipeline.media.synthetic_layer import VEHICLE, Face, Layer, Words, ink
from pipeline.media.synthetic_people import CYCLE_S, GO_S
from pipeline.media.synthetic_street import SHADE_M, SUN, order

Bytes = NDArray[np.uint8]
Array = NDArray[np.float64]
_DARK = ink(20, 20, 22)

_LAST_M, _FADE_M = 104.0, 8.0
_GAP_M = 13.0  # least distance of two vehicles of a lane


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
        self._solid = lru_cache(maxsize=512)(self._build)

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
            shape = self._solid(number, ride.lap & 0xFFFF, ride.way, ride.x_m < SHADE_M)
            layer = _draw(shape, ride, view, self._first_id + number + self._id_step * ride.lap)
            if layer is not None:
                yield layer, _shadow(shape, ride, view)

    def _build(self, number: int, lap: int, way: int, shaded: bool) -> Solid:
        return solid(design(np.random.default_rng((self._seed, 22, number, lap))), way, shaded)


def _draw(shape: Solid, ride: Ride, view: View, identity: int) -> Layer | None:
    centre = np.array([ride.x_m, ride.y_m, 0.0])
    world = shape.points + centre
    pixels, depth = view.project(world)
    if depth.min() < 1.5:
        return None
    low, high = np.floor(pixels.min(axis=0)).astype(int) - 1, np.ceil(pixels.max(axis=0)).astype(int) + 2
    if (high <= 0).any() or low[0] >= view.width_px or low[1] >= view.height_px:
        return None
    patch = np.zeros((int(high[1] - low[1]), int(high[0] - low[0]), 4), np.uint8)
    local = pixels - low
    fixed = np.rint(local * 16).astype(np.int32)
    part = [slice(a, b) for a, b in zip(shape.starts, shape.starts[1:], strict=False)]
    away = view.centre - centre - shape.middles
    facing = np.flatnonzero((shape.normals * away).sum(axis=1) > 0)
    far_first = facing[np.argsort(-(away[facing] ** 2).sum(axis=1), kind="stable")].tolist()
    for k in far_first:  # a dark line around each face closes the seams that smooth edges leave between two
        cv2.fillConvexPoly(patch, fixed[part[k]], _DARK, cv2.LINE_AA, 4)
        cv2.polylines(patch, [fixed[part[k]]], True, _DARK, 1, cv2.LINE_AA, 4)
    for k in far_first:
        cv2.fillConvexPoly(patch, fixed[part[k]], shape.colours[k], cv2.LINE_AA, 4)
    shown = set(far_first)
    if patch.shape[1] > 10:
        for k, parent in enumerate(shape.parents):
            if parent in shown:
                cv2.fillConvexPoly(patch, fixed[part[k]], shape.colours[k], cv2.LINE_AA, 4)
    words = []
    for face, corners in ((0, slice(-8, -4)), (shape.front, slice(-4, None))):
        if face in shown:
            if np.hypot(*(local[corners][1] - local[corners][0])) < 4:
                continue
            _stick(patch, plate_picture(shape.plate), local[corners])
            words.append(Words(text=shape.plate, kind="plate", outline=pixels[corners]))
    if ride.fade < 1:
        patch = (patch * ride.fade).astype(np.uint8)
    middle = float((centre - view.centre) @ view.rotation[2])
    return Layer(
        kind=VEHICLE,
        key=order(view, ride.x_m, middle),
        id=identity,
        left=int(low[0]),
        top=int(low[1]),
        patch=patch,
        points=world[part[far_first[-1]]],  # of what hangs out of the faces: the lower half of the wheels
        faces=tuple(Face(outline=local[part[k]], points=world[part[k]]) for k in far_first),
        words=tuple(words),
    )


def _stick(patch: Bytes, picture: Bytes, corners: Array) -> None:
    """Draw a plate on the patch, from a picture first made about as small as it will be."""
    wide = float(np.hypot(*(corners[1] - corners[0])))
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


def _shadow(shape: Solid, ride: Ride, view: View) -> Array:
    """Return the outline on the ground of what the vehicle keeps the sun from, as (K, 2) px."""
    half, height = np.abs(shape.points[:, :2]).max(axis=0), float(shape.points[:, 2].max())
    corners = [(ride.x_m + a * half[0], ride.y_m + b * half[1], 0.0) for a in (-1, 1) for b in (-1, 1)]
    foot = np.array(corners)
    tip = foot + np.array([SUN[0], SUN[1], 0.0]) * (0.6 * height)
    pixels, depth = view.project(np.concatenate([foot, tip]))
    if depth.min() < 1.0:
        return np.zeros((0, 2))
    return np.asarray(cv2.convexHull(pixels.astype(np.float32))[:, 0], np.float64)
