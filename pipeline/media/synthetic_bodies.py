"""Bodies of the rendered vehicles: a dozen faces each, with windows, wheels, lights and plates on them."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.media.synthetic_layer import ink, premultiplied

Bytes = NDArray[np.uint8]
Array = NDArray[np.float64]
Colour = tuple[float, float, float]

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


class Solid(NamedTuple):
    """A body turned the way it drives, without its place.

    Attributes:
        points: (K, 3) metres from the point on the ground under its centre, world axes; the plates' corners last.
        starts: part k has the points starts[k] to starts[k + 1].
        parents: the face that carries part k; −1 for a face.
        colours: of all parts, lit: Y'CbCr and alpha.
        normals, middles: (F, 3) of the faces, outwards; a face of no area has a normal of zeros.
        plate: what its plates say.
    """

    points: Array
    starts: tuple[int, ...]
    parents: tuple[int, ...]
    colours: tuple[tuple[float, float, float, float], ...]
    normals: Array
    middles: Array
    front: int
    plate: str


def design(rng: np.random.Generator) -> Body:
    """Return a body of any kind, paint and plate."""
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


def solid(body: Body, way: int, shaded: bool) -> Solid:
    """Return the body heading along +y (way 1) or −y (way −1)."""
    parts = _parts(body)
    turn = np.array([way, way, 1.0])
    faces = [part.points * turn for part in parts if part.parent < 0]
    inside = np.array([0, 0, 0.45 * body.size_m[2]])
    normals, middles = np.zeros((len(faces), 3)), np.array([face.mean(axis=0) for face in faces])
    for k, face in enumerate(faces):
        normal = np.cross(face, np.roll(face, -1, axis=0)).sum(
            axis=0
        )  # Newell's: any outline, also with corners in line
        long = float(np.linalg.norm(normal))
        if long > 1e-9:
            normals[k] = normal / long * (1 if normal @ (middles[k] - inside) > 0 else -1)
    # Sun from the left and behind the camera, and the sky's light from above.
    light = 0.55 + 0.3 * np.maximum(normals[:, 2], 0) + 0.3 * np.maximum(normals @ (-0.29, -0.9, 0.3), 0)
    shade = 0.62 if shaded else 1.0
    colours = []
    number = 0
    for part in parts:
        lit = 1.0
        if part.parent < 0:
            lit, number = float(light[number]), number + 1
        colours.append(ink(*part.colour, shade=shade * lit))
    plates = [_plate_corners(body, rear) * turn for rear in (True, False)]
    return Solid(
        points=np.concatenate([*(part.points * turn for part in parts), *plates]),
        starts=tuple(np.cumsum([0, *(len(part.points) for part in parts)]).tolist()),
        parents=tuple(part.parent for part in parts),
        colours=tuple(colours),
        normals=normals,
        middles=middles,
        front=len(body.profile) - 2,
        plate=body.plate,
    )


class _Part(NamedTuple):
    points: Array  # (K, 3) metres in the vehicle's axes: across, along, up
    colour: Colour
    parent: int  # index of the face that carries it; −1 for a face itself


def _corner(body: Body, index: int, side: float) -> tuple[float, float, float]:
    s, z, wide = body.profile[index]
    length, width, height = body.size_m
    return side * wide * width / 2, (s - 0.5) * length, z * height


def _parts(body: Body) -> tuple[_Part, ...]:
    """Return the faces, then what lies on them, all in the vehicle's own axes."""
    parts: list[_Part] = []
    a, b = body.belt
    count = len(body.profile)
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
        pane = parts[k].points
        parts.append(_Part(pane.mean(axis=0) + (pane - pane.mean(axis=0)) * (0.92, 0.86, 0.86), _GLASS, k))
        # The sky on the glass: a bright stripe from its upper edge to its lower one.
        below, above = parts[-1].points[:2], parts[-1].points[:1:-1]
        stripe = [below[0] + (below[1] - below[0]) * f for f in (0.12, 0.3)]
        stripe += [above[0] + (above[1] - above[0]) * f for f in (0.48, 0.3)]
        parts.append(_Part(np.array(stripe), (96, 112, 124), k))
    for side in (-1, 1):
        parts += _flank(body, side, sides[side], parts[sides[side][1]].points)
    for face in (count - 2, 0):
        parts += _end(body, face)
    return tuple(parts)


def _rectangle(x: tuple[float, float], y: float, z: tuple[float, float]) -> Array:
    return np.array([(x[0], y, z[0]), (x[1], y, z[0]), (x[1], y, z[1]), (x[0], y, z[1])])


def _flank(body: Body, side: int, faces: tuple[int, int], cabin: Array) -> list[_Part]:
    """Return side windows, door seams and handles, and wheels; `faces` are the lower and the upper side."""
    lower, upper = faces
    length, width, height = body.size_m
    van = body.profile is _VAN
    dark = (body.paint[0] * 0.5, body.paint[1] * 0.5, body.paint[2] * 0.5)
    middle = cabin.mean(axis=0)
    inner = middle + (cabin - middle) * (1, 0.84, 0.74)
    pillar = float(inner[:, 1].mean())
    spans = ((0.18 * length, 9.0),) if van else ((-9.0, pillar - 0.05), (pillar + 0.05, 9.0))
    parts = [_Part(_between(inner, low, high), _GLASS, upper) for low, high in spans]
    x = side * width / 2
    for y in (-0.2 * length, 0.0, 0.22 * length):
        seam = [(x, y - 0.012, 0.25), (x, y + 0.012, 0.25), (x, y + 0.012, 0.6), (x, y - 0.012, 0.6)]
        parts.append(_Part(np.array(seam) * (1, 1, height), dark, lower))
        if y < 0.1:
            y0, y1, z = y + 0.08, y + 0.28, 0.52 * height
            handle = [(x, y0, z), (x, y1, z), (x, y1, z + 0.04), (x, y0, z + 0.04)]
            parts.append(_Part(np.array(handle), (30, 30, 32), lower))
    angle = np.arange(14) * (2 * np.pi / 14)
    for s in (-0.31, 0.31):
        for radius, colour in (
            (0.37, (16, 16, 18)),
            (0.32, (30, 30, 32)),
            (0.19, (150, 152, 154)),
            (0.07, (70, 70, 72)),
        ):
            ring = [np.full(14, x * 1.01), s * length + radius * np.cos(angle), 0.32 + radius * np.sin(angle)]
            parts.append(_Part(np.column_stack(ring), colour, lower))
    return parts


def _end(body: Body, face: int) -> list[_Part]:
    """Return lamps, bumper and, in front, the grille; `face` is 0 for the rear."""
    length, width, height = body.size_m
    van = body.profile is _VAN
    dark = (body.paint[0] * 0.5, body.paint[1] * 0.5, body.paint[2] * 0.5)
    y = 0.505 * length if face else -0.505 * length
    z = (0.34 if van else 0.385) * height
    low = (0.14 if van else 0.2) * height
    parts = [_Part(_rectangle((-width / 2, width / 2), y, (low, low + 0.14)), dark, face)]
    if face:
        parts.append(_Part(_rectangle((-0.25 * width, 0.25 * width), y, (z, z + 0.15)), (26, 26, 28), face))
        for k in range(3):
            bar = _rectangle((-0.24 * width, 0.24 * width), y, (z + 0.025 + 0.045 * k, z + 0.04 + 0.045 * k))
            parts.append(_Part(bar, (150, 152, 154), face))
    for side in (-1, 1):
        lamp = _rectangle((side * width * 0.46, side * width * 0.28), y, (z, z + 0.15))
        parts.append(_Part(lamp, (250, 246, 226) if face else (176, 26, 28), face))
        inner = _rectangle((side * width * 0.37, side * width * 0.29), y, (z + 0.03, z + 0.12))
        parts.append(_Part(inner, (206, 204, 196) if face else (226, 120, 50), face))
    return parts


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
def plate_picture(text: str) -> Bytes:
    """Return a number plate (32, 124, 4), Y'CbCr and alpha."""
    rgb = np.full((32, 124, 3), (236, 236, 230), np.uint8)
    cv2.rectangle(rgb, (0, 0), (123, 31), (30, 30, 30), 2)
    cv2.rectangle(rgb, (2, 2), (10, 29), (30, 60, 150), -1)
    (w, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 2)
    scale = min(0.72, 104 / w)
    cv2.putText(rgb, text, (14, 23), cv2.FONT_HERSHEY_SIMPLEX, scale, (16, 16, 18), 2, cv2.LINE_AA)
    return premultiplied(rgb, np.full((32, 124), 255, np.uint8))
