"""Textures of the rendered street: asphalt, pavement, facades, trees, railings; R'G'B', seeded."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Random = np.random.Generator
Rgb = tuple[float, float, float]

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


def ground(rng: Random, ppm: float, y0_m: float, y1_m: float, half_road_m: float, half_m: float) -> Bytes:
    """Return the ground from above: rows from y1 (top) to y0, columns from −half to +half, ppm px a metre."""
    h, w = round((y1_m - y0_m) * ppm), round(2 * half_m * ppm)

    def px(x_m: float, y_m: float) -> tuple[int, int]:
        return round((x_m + half_m) * ppm), round((y1_m - y_m) * ppm)

    def bar(x_m: float, y_m: float, width_m: float, length_m: float, colour: Rgb, image: Bytes) -> None:
        a, b = px(x_m - width_m / 2, y_m + length_m), px(x_m + width_m / 2, y_m)
        cv2.rectangle(image, a, (max(b[0] - 1, a[0]), max(b[1] - 1, a[1])), colour, -1)

    base = np.full((h, w, 3), (98, 98, 101), np.uint8)
    for _ in range(22):  # patches of younger and older asphalt
        x, y = rng.uniform(-half_road_m, half_road_m), rng.uniform(y0_m, y1_m)
        tone = rng.uniform(80, 112)
        bar(x, y, rng.uniform(0.6, 2.4), rng.uniform(1.0, 7.0), (tone, tone, tone + 2), base)
    for lane in (-2.0, 2.0):  # tyres polish and darken
        for wheel in (-0.8, 0.8):
            bar(lane + wheel, y0_m, 0.5, y1_m - y0_m, (88, 88, 90), base)
    base = np.asarray(cv2.GaussianBlur(base, (0, 0), max(0.08 * ppm, 0.4)), np.uint8)
    for _ in range(round((y1_m - y0_m) * 0.9)):  # cracks
        at = np.array([rng.uniform(-half_road_m, half_road_m), rng.uniform(y0_m, y1_m)])
        way = at + np.cumsum(rng.normal(0, 0.22, (14, 2)), axis=0)
        points = np.array([px(*p) for p in way], np.int32)
        cv2.polylines(base, [points], False, (62, 62, 64), max(1, round(0.02 * ppm)), cv2.LINE_AA)
    white, worn = (208, 208, 202), (186, 186, 180)
    for y in np.arange(np.floor(y0_m / 6) * 6, y1_m, 6.0):
        if not 10 < y < 24:
            bar(0, y, 0.14, 3.0, white, base)
        if not 9 < y < 25:
            for side in (-1, 1):
                bar(side * 4.95, y, 1.9, 0.1, worn, base)
    for side in (-1, 1):
        bar(side * 3.98, y0_m, 0.1, y1_m - y0_m, worn, base)
    for x in np.arange(-5.5, 5.6, 1.0):
        bar(x, 17.0, 0.5, 4.0, white, base)
    bar(2.0, 15.8, 3.6, 0.35, white, base)
    bar(-2.0, 21.9, 3.6, 0.35, white, base)
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
    grain = clouds(rng, h, w, (1, 2, 5))[..., None] * 6 + clouds(rng, h, w, (24, 90))[..., None] * 3
    return np.clip(base + grain, 0, 255).astype(np.uint8)


def _pave(rng: Random, base: Bytes, ppm: float, half_road_m: float) -> None:
    """Lay slabs and kerbs on both pavements of `base`, in place."""
    h, w = base.shape[:2]
    slab = 0.6 * ppm
    rows, wide = int(h / slab) + 2, round((w / ppm / 2 - half_road_m) * ppm)
    columns = int(wide / slab) + 2
    tones = np.clip(rng.normal(148, 7, (rows, columns)), 118, 178)
    r, c = (np.arange(h) / slab).astype(int), (np.arange(wide) / slab).astype(int)
    stone = tones[r[:, None], c[None, :]]
    joint = max(0.02 * ppm / slab, 0.6 / slab)
    joints = ((np.arange(h) / slab % 1) < joint)[:, None] | ((np.arange(wide) / slab % 1) < joint)[None, :]
    stone = np.where(joints, stone - 42, stone)
    pave = np.clip(stone[..., None] + np.array([3.0, 0.0, -6.0]), 0, 255).astype(np.uint8)
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
        _house(rng, picture, opaque, ppm, (u, width), top_m, shops[number % len(shops)], signs)
        u, number = u + width, number + 1
    grain = clouds(rng, h, w, (1, 3))[..., None] * 3.5 + clouds(rng, h, w, (30, 110))[..., None] * 3
    return np.clip(picture + grain, 0, 255).astype(np.uint8), opaque, signs


def _house(
    rng: Random,
    picture: Bytes,
    opaque: Bytes,
    ppm: float,
    span_m: tuple[float, float],
    top_m: float,
    shop: str,
    signs: list[Sign],
) -> None:
    """Draw one house: wall, windows, balconies, shop front, awning, sign."""
    u0, width = span_m
    floors = int(rng.integers(2, 4))
    storey, parlour = 3.2, 3.9
    roof = min(parlour + floors * storey + 0.7, top_m)
    wall = np.array(_WALLS[int(rng.integers(len(_WALLS)))]) * rng.uniform(0.88, 1.1)

    def box(
        a_m: float, b_m: float, z0_m: float, z1_m: float, colour: Rgb | NDArray[np.float64], line: int = -1
    ) -> None:
        first = (round((u0 + a_m) * ppm), round((top_m - z1_m) * ppm))
        last = (max(round((u0 + b_m) * ppm) - 1, first[0]), max(round((top_m - z0_m) * ppm) - 1, first[1]))
        cv2.rectangle(picture, first, last, tuple(float(c) for c in colour), line)

    rows = slice(round((top_m - roof) * ppm), picture.shape[0])
    columns = slice(round(u0 * ppm), round((u0 + width) * ppm))
    opaque[rows, columns] = 255
    box(0, width, 0, roof, wall)
    if rng.random() < 0.6:  # bricks: courses of 12 cm (chosen large enough to be seen), stretcher bond
        part = picture[rows, columns]
        hh, ww = part.shape[:2]
        y, x = np.arange(hh) / ppm / 0.125, np.arange(ww) / ppm / 0.3
        course = y.astype(int)
        stagger = x[None, :] + 0.5 * (course % 2)[:, None]
        tones = rng.normal(0, 11, (course.max() + 2, int(x.max()) + 3))
        part[:] = np.clip(part + tones[course[:, None], stagger.astype(int)][..., None], 0, 255).astype(np.uint8)
        mortar = ((y % 1) < 0.16)[:, None] | ((stagger % 1) < 0.07)
        part[mortar] = np.clip(part[mortar] * 0.8 + 44, 0, 255).astype(np.uint8)
    light = np.clip(wall * 1.25 + 12, 0, 255)
    box(0, width, roof - 0.35, roof, light)
    box(0, width, roof - 0.45, roof - 0.35, wall * 0.55)
    bays = max(2, int(width / 2.3))
    step = width / bays
    french = rng.random() < 0.5
    for floor in range(floors):
        z = parlour + floor * storey
        box(0, width, z - 0.12, z + 0.04, light)
        for bay in range(bays):
            a = bay * step + step / 2 - 0.6
            glass = np.array([52, 64, 78]) * rng.uniform(0.6, 1.7)
            low = z + (0.15 if french else 0.8)
            box(a - 0.12, a + 1.32, low - 0.12, z + 2.62, light)
            box(a, a + 1.2, low, z + 2.5, glass)
            if rng.random() < 0.5:  # curtain or blind
                drop = float(rng.uniform(0.3, 1.4))
                box(a, a + 1.2, z + 2.5 - drop, z + 2.5, np.array([186, 180, 164]) * rng.uniform(0.7, 1.1))
                for k in range(1, int(drop / 0.12)):
                    box(a, a + 1.2, z + 2.5 - k * 0.12 - 0.02, z + 2.5 - k * 0.12, (112, 108, 98))
            box(a + 0.57, a + 0.63, low, z + 2.5, light)
            box(a, a + 1.2, z + 1.85, z + 1.91, light)
            box(a - 0.2, a + 1.4, low - 0.2, low - 0.1, wall * 0.6)
            if french:
                for k in range(13):
                    box(a - 0.15 + k * 0.125, a - 0.15 + k * 0.125 + 0.025, z + 0.05, z + 1.0, (34, 34, 38))
                box(a - 0.18, a + 1.38, z + 1.0, z + 1.06, (34, 34, 38))
    box(0.25, width - 0.25, 0.0, 2.75, (44, 42, 44))
    panes = max(2, int(width / 1.9))
    for k in range(panes):
        a = 0.4 + k * (width - 0.8) / panes
        b = a + (width - 0.8) / panes - 0.12
        box(a, b, 0.45 if k != panes // 2 else 0.05, 2.6, np.array([74, 82, 84]) * rng.uniform(0.6, 1.5))
        for _ in range(7):  # goods in the window
            x, y = rng.uniform(a, max(b - 0.35, a + 0.01)), rng.uniform(0.5, 1.7)
            box(x, x + rng.uniform(0.08, 0.35), y, y + rng.uniform(0.1, 0.5), rng.uniform(50, 220, 3))
    if rng.random() < 0.6:
        stripes = _AWNINGS[int(rng.integers(len(_AWNINGS)))]
        for k in range(int((width - 1) / 0.4)):
            box(0.5 + k * 0.4, 0.9 + k * 0.4, 2.15, 2.72, stripes if k % 2 else (222, 218, 206))
    paint = np.array(_AWNINGS[int(rng.integers(len(_AWNINGS)))])
    box(0.3, width - 0.3, 2.8, 3.62, paint)
    box(0.3, width - 0.3, 2.8, 3.62, light, max(1, round(0.05 * ppm)))
    signs.append(_letter(picture, ppm, top_m, u0 + 0.6, u0 + width - 0.6, shop))


def _letter(picture: Bytes, ppm: float, top_m: float, a_m: float, b_m: float, text: str) -> Sign:
    """Write `text` centred on the sign board; return where it stands."""
    (w, h), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, 1.0, 2)
    scale = min(0.5 * ppm / h, (b_m - a_m) * ppm / w)
    thick = max(1, round(scale * 2.2))
    (w, h), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, scale, thick)
    x, y = round((a_m + b_m) / 2 * ppm - w / 2), round((top_m - 3.21) * ppm + h / 2)
    cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_DUPLEX, scale, (244, 238, 220), thick, cv2.LINE_AA)
    return Sign(text, x / ppm, (x + w) / ppm, top_m - y / ppm, top_m - (y - h) / ppm)


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
