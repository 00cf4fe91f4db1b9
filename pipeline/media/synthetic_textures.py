"""Textures of the rendered street: asphalt, pavement, facades, trees, railings; R'G'B', seeded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Random = np.random.Generator
Rgb = tuple[float, float, float]
Colour = Rgb | NDArray[np.float64]

SHOPS = (
    "BAKERY", "CAFE LUNA", "BOOKS", "PHARMACY", "HOTEL ADLER", "FLOWERS", "OPTIK WEBER", "BIKE SHOP", "SUSHI 24",
    "TAILOR", "MUSIC HALL", "BANK", "GROCERY", "PIZZA NAPOLI", "CINEMA", "BARBER", "TOYS & GAMES", "LIBRARY",
)  # fmt: skip
_WALLS: tuple[Rgb, ...] = (
    (150, 84, 66), (188, 172, 140), (172, 176, 178), (126, 70, 58), (206, 194, 172), (142, 150, 132), (176, 132, 98),
)  # fmt: skip
_AWNINGS: tuple[Rgb, ...] = ((150, 40, 40), (36, 84, 60), (40, 60, 120), (190, 140, 40), (70, 70, 74))


class Sign(NamedTuple):
    """A shop's sign on a facade: text and metres along the facade (u) and above ground (z)."""

    text: str
    u0_m: float
    u1_m: float
    z0_m: float
    z1_m: float


def clouds(rng: Random, height: int, width: int, cells: tuple[int, ...]) -> NDArray[np.float32]:
    """Return (height, width) noise of unit deviation, octaves with cells of so many pixels, equally strong."""
    total = np.zeros((height, width), np.float32)
    for cell in cells:
        grid = rng.standard_normal((height // cell + 2, width // cell + 2), np.float32)
        if cell > 1:
            big = cv2.resize(grid, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)
            grid = np.asarray(big, np.float32)
        total += grid[:height, :width]
    return total / np.float32(len(cells) ** 0.5)


def _grain(rng: Random, image: Bytes, fine: float, coarse: float) -> Bytes:
    """Return `image` with grain of the given deviations; a tile of 512 px repeats, which nobody sees in grain."""
    h, w = image.shape[:2]
    tile = clouds(rng, 512, 512, (1, 2, 4)) * np.float32(fine) + clouds(rng, 512, 512, (32, 128)) * np.float32(coarse)
    codes = np.rint(np.clip(tile, -120, 120)).astype(np.int16)
    whole = np.tile(codes, (h // 512 + 1, w // 512 + 1))[:h, :w]
    return np.asarray(cv2.add(image, cv2.merge([whole, whole, whole]), dtype=cv2.CV_8U), np.uint8)


def ground(rng: Random, ppm: float, *, y0_m: float, y1_m: float, half_road_m: float, half_m: float) -> Bytes:
    """Return the ground from above: rows from y1 (top) to y0, columns from −half to +half, ppm px a metre."""
    h, w = round((y1_m - y0_m) * ppm), round(2 * half_m * ppm)

    def px(x_m: float, y_m: float) -> tuple[int, int]:
        return round((x_m + half_m) * ppm), round((y1_m - y_m) * ppm)

    def bar(x_m: float, y_m: float, width_m: float, length_m: float, colour: Rgb) -> None:
        a, b = px(x_m - width_m / 2, y_m + length_m), px(x_m + width_m / 2, y_m)
        cv2.rectangle(base, a, (max(b[0] - 1, a[0]), max(b[1] - 1, a[1])), colour, -1)

    base = np.full((h, w, 3), (98, 98, 101), np.uint8)
    for _ in range(22):  # patches of younger and older asphalt
        x, y = rng.uniform(-half_road_m, half_road_m), rng.uniform(y0_m, y1_m)
        tone = rng.uniform(80, 112)
        bar(x, y, rng.uniform(0.6, 2.4), rng.uniform(1.0, 7.0), (tone, tone, tone + 2))
    for lane in (-2.0, 2.0):  # tyres polish and darken
        for wheel in (-0.8, 0.8):
            bar(lane + wheel, y0_m, 0.5, y1_m - y0_m, (88, 88, 90))
    base = np.asarray(cv2.GaussianBlur(base, (0, 0), max(0.08 * ppm, 0.4)), np.uint8)
    for _ in range(round((y1_m - y0_m) * 0.9)):  # cracks
        at = np.array([rng.uniform(-half_road_m, half_road_m), rng.uniform(y0_m, y1_m)])
        way = at + np.cumsum(rng.normal(0, 0.22, (14, 2)), axis=0)
        points = np.array([px(*p) for p in way], np.int32)
        cv2.polylines(base, [points], False, (62, 62, 64), max(1, round(0.02 * ppm)), cv2.LINE_AA)
    white, worn = (208, 208, 202), (186, 186, 180)
    for y in np.arange(np.floor(y0_m / 6) * 6, y1_m, 6.0):
        if not 10 < y < 24:
            bar(0, y, 0.14, 3.0, white)
        if not 9 < y < 25:
            for side in (-1, 1):
                bar(side * 4.95, y, 1.9, 0.1, worn)
    for side in (-1, 1):
        bar(side * 3.98, y0_m, 0.1, y1_m - y0_m, worn)
    for x in np.arange(-5.5, 5.6, 1.0):
        bar(x, 17.0, 0.5, 4.0, white)
    bar(2.0, 15.8, 3.6, 0.35, white)
    bar(-2.0, 21.9, 3.6, 0.35, white)
    for y in np.arange(6.0, 110.0, 13.0):
        centre = px(1.1 if round(y) % 2 else -2.9, y)
        cv2.circle(base, centre, round(0.33 * ppm), (58, 58, 60), -1, cv2.LINE_AA)
        for k in range(-2, 3):
            reach = round(0.25 * ppm)
            shift = round(k * 0.1 * ppm)
            cv2.line(
                base, (centre[0] - reach, centre[1] + shift), (centre[0] + reach, centre[1] + shift), (92, 92, 92), 1
            )
    _pave(rng, base, ppm, half_road_m)
    return _grain(rng, base, 6, 3)


def _pave(rng: Random, base: Bytes, ppm: float, half_road_m: float) -> None:
    """Lay slabs and kerbs on both pavements of `base`, in place."""
    h, w = base.shape[:2]
    slab = 0.6 * ppm
    rows, wide = int(h / slab) + 2, round((w / ppm / 2 - half_road_m) * ppm)
    columns = int(wide / slab) + 2
    tones = np.clip(rng.normal(148, 7, (rows, columns)), 118, 178).astype(np.uint8)
    r, c = (np.arange(h) / slab).astype(int), (np.arange(wide) / slab).astype(int)
    stone = tones[r[:, None], c[None, :]]
    joint = max(0.02 * ppm / slab, 0.6 / slab)
    joints = ((np.arange(h) / slab % 1) < joint)[:, None] | ((np.arange(wide) / slab % 1) < joint)[None, :]
    stone = np.where(joints, stone - 42, stone).astype(np.uint8)
    pave = cv2.merge([stone + 3, stone, stone - 6])
    base[:, :wide] = pave
    base[:, w - wide :] = pave[:, ::-1]
    kerb = max(1, round(0.22 * ppm))
    for at in (wide - kerb, w - wide):
        base[:, at : at + kerb] = (176, 174, 168)
    gutter = max(1, round(0.12 * ppm))
    for at in (wide, w - wide - gutter):
        base[:, at : at + gutter] = (70, 70, 72)
    base[(np.arange(h) / ppm % 1.0) < joint, wide - kerb : wide] = (120, 118, 114)
    base[(np.arange(h) / ppm % 1.0) < joint, w - wide : w - wide + kerb] = (120, 118, 114)


def facade(
    rng: Random, ppm: float, length_m: float, top_m: float, shops: tuple[str, ...]
) -> tuple[Bytes, Bytes, list[Sign]]:
    """Return a row of houses (H, W, 3), its opacity (H, W; 0 is sky) and the signs on it; bottom row is z = 0."""
    h, w = round(top_m * ppm), round(length_m * ppm)
    picture, opaque = np.zeros((h, w, 3), np.uint8), np.zeros((h, w), np.uint8)
    signs: list[Sign] = []
    u, number = 0.0, 0
    while u < length_m:
        width = min(float(rng.uniform(9, 15)), length_m - u)
        if length_m - u - width < 6:
            width = length_m - u
        house = _House(picture=picture, ppm=ppm, u0_m=u, width_m=width, top_m=top_m)
        roof = _build(rng, house)
        opaque[round((top_m - roof) * ppm) :, round(u * ppm) : round((u + width) * ppm)] = 255
        _shop_front(rng, house)
        signs.append(_letter(house, shops[number % len(shops)]))
        u, number = u + width, number + 1
    return _grain(rng, picture, 3.5, 3), opaque, signs


@dataclass(frozen=True, kw_only=True, slots=True)
class _House:
    """A part of a facade to draw on: metres from its left end and from the ground."""

    picture: Bytes
    ppm: float
    u0_m: float
    width_m: float
    top_m: float

    def box(self, across_m: tuple[float, float], up_m: tuple[float, float], colour: Colour, line: int = -1) -> None:
        """Draw a rectangle, at least a pixel wide and high; `line` is its border in px, −1 fills it."""
        ppm = self.ppm
        first = (round((self.u0_m + across_m[0]) * ppm), round((self.top_m - up_m[1]) * ppm))
        last = (round((self.u0_m + across_m[1]) * ppm) - 1, round((self.top_m - up_m[0]) * ppm) - 1)
        last = (max(last[0], first[0]), max(last[1], first[1]))
        cv2.rectangle(self.picture, first, last, tuple(float(c) for c in colour), line)


def _build(rng: Random, house: _House) -> float:
    """Draw wall, windows and balconies; return the height of the roof in metres."""
    box, width = house.box, house.width_m
    floors = int(rng.integers(2, 4))
    storey, parlour = 3.2, 3.9
    roof = min(parlour + floors * storey + 0.7, house.top_m)
    wall = np.array(_WALLS[int(rng.integers(len(_WALLS)))]) * rng.uniform(0.88, 1.1)
    light = np.clip(wall * 1.25 + 12, 0, 255)
    box((0, width), (0, roof), wall)
    if rng.random() < 0.6:
        _lay_bricks(rng, house, roof)
    box((0, width), (roof - 0.35, roof), light)
    box((0, width), (roof - 0.45, roof - 0.35), wall * 0.55)
    bays = max(2, int(width / 2.3))
    french = rng.random() < 0.5
    for floor in range(floors):
        z = parlour + floor * storey
        box((0, width), (z - 0.12, z + 0.04), light)
        for bay in range(bays):
            a = (bay + 0.5) * width / bays - 0.6
            low = z + (0.15 if french else 0.8)
            box((a - 0.12, a + 1.32), (low - 0.12, z + 2.62), light)
            box((a, a + 1.2), (low, z + 2.5), np.array([52, 64, 78]) * rng.uniform(0.6, 1.7))
            if rng.random() < 0.5:  # a blind
                drop = float(rng.uniform(0.3, 1.4))
                box((a, a + 1.2), (z + 2.5 - drop, z + 2.5), np.array([186, 180, 164]) * rng.uniform(0.7, 1.1))
                for k in range(1, int(drop / 0.12)):
                    box((a, a + 1.2), (z + 2.48 - k * 0.12, z + 2.5 - k * 0.12), (112, 108, 98))
            box((a + 0.57, a + 0.63), (low, z + 2.5), light)
            box((a, a + 1.2), (z + 1.85, z + 1.91), light)
            box((a - 0.2, a + 1.4), (low - 0.2, low - 0.1), wall * 0.6)
            if french:
                for k in range(13):
                    box((a - 0.15 + k * 0.125, a - 0.125 + k * 0.125), (z + 0.05, z + 1.0), (34, 34, 38))
                box((a - 0.18, a + 1.38), (z + 1.0, z + 1.06), (34, 34, 38))
    return roof


def _lay_bricks(rng: Random, house: _House, roof_m: float) -> None:
    """Draw bricks in stretcher bond, courses of 12.5 cm (chosen: large enough to be seen)."""
    ppm = house.ppm
    columns = slice(round(house.u0_m * ppm), round((house.u0_m + house.width_m) * ppm))
    part = house.picture[round((house.top_m - roof_m) * ppm) :, columns]
    y, x = np.arange(part.shape[0]) / ppm / 0.125, np.arange(part.shape[1]) / ppm / 0.3
    course = y.astype(int)
    stagger = x[None, :] + 0.5 * (course % 2)[:, None]
    tones = rng.normal(0, 11, (course.max() + 2, int(x.max()) + 3)).astype(np.int16)
    brick = tones[course[:, None], stagger.astype(np.int32)]
    part[:] = cv2.add(part, cv2.merge([brick, brick, brick]), dtype=cv2.CV_8U)
    mortar = ((y % 1) < 0.16)[:, None] | ((stagger % 1) < 0.07)
    part[mortar] = part[mortar] // 5 * 4 + 44


def _shop_front(rng: Random, house: _House) -> None:
    """Draw a shop: window panes, goods on shelves, a door, perhaps an awning, and the board of its sign."""
    box, width = house.box, house.width_m
    box((0.25, width - 0.25), (0.0, 2.75), (44, 42, 44))
    goods = rng.uniform(70, 190, 3)
    panes = max(2, int(width / 1.9))
    for k in range(panes):
        a = 0.4 + k * (width - 0.8) / panes
        b = a + (width - 0.8) / panes - 0.12
        door = k == panes // 2
        box((a, b), (0.05 if door else 0.45, 2.6), np.array([74, 82, 84]) * rng.uniform(0.6, 1.5))
        if door:
            box((a + 0.1, a + 0.16), (0.9, 1.5), (190, 186, 170))
            box((a, b), (2.1, 2.16), (30, 30, 32))
            continue
        for shelf in range(3):
            z, x = 0.5 + 0.58 * shelf, a + 0.05
            while x < b - 0.3:
                wide, high = float(rng.uniform(0.07, 0.26)), float(rng.uniform(0.12, 0.42))
                box((x, x + wide), (z, z + high), np.clip(goods * rng.uniform(0.5, 1.3), 0, 255))
                x += wide + float(rng.exponential(0.14))
            box((a, b), (z - 0.04, z), (96, 88, 78))
    if rng.random() < 0.6:
        stripes = _AWNINGS[int(rng.integers(len(_AWNINGS)))]
        for k in range(int((width - 1) / 0.4)):
            box((0.5 + k * 0.4, 0.9 + k * 0.4), (2.15, 2.72), stripes if k % 2 else (222, 218, 206))
    box((0.3, width - 0.3), (2.8, 3.62), _AWNINGS[int(rng.integers(len(_AWNINGS)))])
    box((0.3, width - 0.3), (2.8, 3.62), (214, 208, 190), max(1, round(0.05 * house.ppm)))


def _letter(house: _House, text: str) -> Sign:
    """Write `text` centred on the sign board; return where it stands."""
    ppm, font = house.ppm, cv2.FONT_HERSHEY_DUPLEX
    (w, h), _ = cv2.getTextSize(text, font, 1.0, 2)
    scale = min(0.5 * ppm / h, (house.width_m - 1.2) * ppm / w)
    thick = max(1, round(scale * 2.2))
    (w, h), _ = cv2.getTextSize(text, font, scale, thick)
    x = round((house.u0_m + house.width_m / 2) * ppm - w / 2)
    y = round((house.top_m - 3.21) * ppm + h / 2)
    cv2.putText(house.picture, text, (x, y), font, scale, (244, 238, 220), thick, cv2.LINE_AA)
    return Sign(text, x / ppm, (x + w) / ppm, house.top_m - y / ppm, house.top_m - (y - h) / ppm)


def tree(rng: Random, px: int) -> tuple[Bytes, Bytes]:
    """Return a tree (px, 0.7·px) and its opacity: trunk, and leaves lit from the upper left."""
    h, w = px, round(0.7 * px)
    picture, opaque = np.full((h, w, 3), (58, 70, 34), np.uint8), np.zeros((h, w), np.uint8)
    trunk = np.array([[0.47, 1], [0.485, 0.4], [0.515, 0.4], [0.535, 1]]) * (w, h)
    cv2.fillPoly(picture, [np.rint(trunk).astype(np.int32)], (70, 58, 46), cv2.LINE_AA)
    cv2.fillPoly(opaque, [np.rint(trunk).astype(np.int32)], 255, cv2.LINE_AA)
    for _ in range(900):
        angle, r = rng.uniform(0, 2 * np.pi), rng.uniform(0, 1) ** 0.6
        x, y = 0.5 + 0.42 * r * np.cos(angle), 0.33 + 0.29 * r * np.sin(angle)
        lit = 0.75 - 0.45 * (x - 0.5) - 0.9 * (y - 0.33) + rng.normal(0, 0.16)
        colour = tuple(float(c) for c in np.clip(np.array([92, 116, 52]) * lit, 12, 255))
        axes = (max(1, round(px * rng.uniform(0.008, 0.022))), max(1, round(px * rng.uniform(0.005, 0.012))))
        centre, turn = (round(x * w), round(y * h)), float(rng.uniform(0, 180))
        cv2.ellipse(picture, centre, axes, turn, 0, 360, colour, -1, cv2.LINE_AA)
        cv2.ellipse(opaque, centre, axes, turn, 0, 360, 255, -1, cv2.LINE_AA)
    return picture, opaque


def lamp(px: int) -> tuple[Bytes, Bytes]:
    """Return a street lamp (px, 0.3·px) and its opacity."""
    h, w = px, round(0.3 * px)
    picture, opaque = np.full((h, w, 3), (72, 76, 78), np.uint8), np.zeros((h, w), np.uint8)
    cv2.rectangle(opaque, (round(0.47 * w), round(0.02 * h)), (round(0.53 * w), h), 255, -1)
    cv2.rectangle(opaque, (round(0.43 * w), round(0.86 * h)), (round(0.57 * w), h), 255, -1)
    cv2.rectangle(opaque, (round(0.5 * w), round(0.02 * h)), (round(0.9 * w), round(0.03 * h)), 255, -1)
    cv2.rectangle(opaque, (round(0.7 * w), round(0.02 * h)), (round(0.98 * w), round(0.05 * h)), 255, -1)
    cv2.rectangle(picture, (round(0.7 * w), round(0.04 * h)), (round(0.98 * w), round(0.05 * h)), (236, 232, 210), -1)
    picture[:, : round(0.49 * w)] = np.minimum(picture[:, : round(0.49 * w)] + 40, 255)
    return picture, opaque


def railing(px: int) -> tuple[Bytes, Bytes]:
    """Return a railing 3 m long and 1 m high (px, 3·px) and its opacity: bars every 12 cm."""
    h, w = px, 3 * px
    picture, opaque = np.full((h, w, 3), (56, 62, 66), np.uint8), np.zeros((h, w), np.uint8)
    for x in np.arange(0.03, 3.0, 0.12):
        cv2.rectangle(opaque, (round(x * px), round(0.08 * h)), (round((x + 0.025) * px), round(0.92 * h)), 255, -1)
    for z in (0.06, 0.9):
        cv2.rectangle(opaque, (0, round(z * h)), (w, round((z + 0.045) * h)), 255, -1)
    for x in (0.0, 1.5, 2.94):
        cv2.rectangle(opaque, (round(x * px), 0), (round((x + 0.06) * px), h), 255, -1)
    picture[: round(0.08 * h)] = (120, 124, 126)
    return picture, opaque
