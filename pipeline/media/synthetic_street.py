"""The static half of the rendered scene: a street as a panorama per camera, its depth, signs and furniture.

The street is made of five planes: ground, the facades left and right, the house at the end, and the sky. Every
pixel's ray meets the nearest of them, which gives colour and depth from one computation.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.media import synthetic_textures as textures
from pipeline.media.synthetic_camera import View
from pipeline.media.synthetic_layer import STATIC, Layer, Words, premultiplied, yuv

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Array = NDArray[np.float64]

ROAD_M, FACADE_M, END_M, TOP_M = 6.0, 10.5, 110.0, 16.0
SHADE_M = -6.3  # the houses on the left shade the ground up to here
SUN = (0.3, 0.95)  # a shadow's tip lies this far (x, y) from its foot, per metre of height
_BANDS_M = (-6.7, -6.0, -4.0, 0.0, 4.0, 6.0, 6.7)
_GROUND, _LEFT, _RIGHT, _END, _SKY = range(5)
_NEAR_M = 34.0  # the ground nearer than this has a finer texture
_FIRST_M = -4.0
_BAND_PX = 64


def order(view: View, x_m: float, depth_m: float) -> tuple[float, float]:
    """Return the drawing key of a thing at x: far strips of the street first, in a strip the far things first.

    Strips run along the street and are split by vertical planes, so what stands in a strip farther from the
    camera's own can never hide what stands in a nearer one, however long the things are.
    """
    own, strip = bisect_left(_BANDS_M, float(view.centre[0])), bisect_left(_BANDS_M, x_m)
    return -float(abs(strip - own)), -depth_m


class Surfaces(NamedTuple):
    """Which plane each pixel sees (H, W), how deep it lies in metres, and the world point's x, y, z."""

    plane: Bytes
    depth_m: Floats
    x_m: Floats
    y_m: Floats
    z_m: Floats


def surfaces(view: View) -> Surfaces:
    """Intersect all rays of a view with the planes of the street; the sky lies at infinity."""
    rays = view.rays()
    cx, cy, cz = (np.float32(c) for c in view.centre)
    dx, dy, dz = rays[..., 0], rays[..., 1], rays[..., 2]
    depth = np.full(dx.shape, np.inf, np.float32)
    plane = np.full(dx.shape, _SKY, np.uint8)
    for number, reach_m, along in (
        (_GROUND, -cz, dz),
        (_LEFT, -FACADE_M - cx, dx),
        (_RIGHT, FACADE_M - cx, dx),
        (_END, END_M - cy, dy),
    ):
        with np.errstate(divide="ignore", invalid="ignore"):
            candidate = np.float32(reach_m) / along
        nearer = (candidate > 0) & (candidate < depth)
        np.copyto(depth, candidate, where=nearer)
        np.copyto(plane, np.uint8(number), where=nearer)
    reach = np.where(np.isfinite(depth), depth, np.float32(1e4))
    x, y, z = cx + reach * dx, cy + reach * dy, cz + reach * dz
    sky = ~np.isfinite(depth) | (z > TOP_M)
    plane[sky], depth[sky] = _SKY, np.inf
    return Surfaces(plane, depth, x, y, z)


class Board(NamedTuple):
    """A sign in the world: its text and four corners (4, 3), from the top left clockwise as one reads it."""

    text: str
    corners: Array


class Wall(NamedTuple):
    """A facade: pyramids of its colour and of its opacity, and its signs."""

    rgb: list[Bytes]
    opaque: list[Bytes]
    boards: list[Board]


@dataclass(frozen=True, kw_only=True, slots=True)
class Furniture:
    """A flat static thing that can stand before a person: its Y'CbCr with alpha and its four world corners."""

    x_m: float
    patch: Bytes
    corners: Array


@dataclass(frozen=True, kw_only=True, slots=True)
class Static:
    """What one camera mount sees when nobody is there.

    Attributes:
        view: of the panorama.
        panorama: (H, W, 3) uint8 Y'CbCr, furniture drawn in.
        open_sky: (H, W) uint8, 255 where a plane of the street is cut away and the sky shows.
        furniture: what may have to be drawn again, over persons behind it.
    """

    view: View
    panorama: Bytes
    open_sky: Bytes
    furniture: tuple[Layer, ...]


class Street:
    """The street of one seed, textured for pictures about `width_px` wide."""

    def __init__(self, seed: int, width_px: int) -> None:
        self._seed = seed
        self.ppm = float(np.clip(width_px / 640 * 48, 12, 110))
        ppm = self.ppm
        self._near = _pyramid(
            textures.ground(self._random(1), ppm, y0_m=_FIRST_M, y1_m=_NEAR_M, half_road_m=ROAD_M, half_m=FACADE_M)
        )
        self._far = _pyramid(
            textures.ground(self._random(2), ppm / 3, y0_m=_NEAR_M, y1_m=END_M, half_road_m=ROAD_M, half_m=FACADE_M)
        )
        names = [textures.SHOPS[k] for k in self._random(3).permutation(len(textures.SHOPS))]
        half = len(names) // 2
        self._walls = {
            _LEFT: self._wall(_LEFT, 4, END_M - _FIRST_M, tuple(names[:half])),
            _RIGHT: self._wall(_RIGHT, 5, END_M - _FIRST_M, tuple(names[half:])),
            _END: self._wall(_END, 6, 2 * FACADE_M, ("CITY MUSEUM",)),
        }
        px = int(np.clip(width_px / 640 * 440, 96, 900))
        self._trees = [premultiplied(*textures.tree(self._random(10, k), px)) for k in range(3)]
        self._lamp = premultiplied(*textures.lamp(px))
        self._fence = premultiplied(*textures.railing(max(px // 5, 24)))
        self.boards = [board for wall in self._walls.values() for board in wall.boards]

    def static(self, view: View) -> Static:
        """Render the panorama of a mount, in bands of rows: all of it at once would take ten times the memory."""
        fine = 2 if view.width_px * view.height_px < 2_600_000 else 1
        panorama = np.empty((view.height_px, view.width_px, 3), np.uint8)
        open_sky = np.empty((view.height_px, view.width_px), np.uint8)
        sky = self._sky(view)
        for top in range(0, view.height_px, _BAND_PX):
            rows = slice(top, min(top + _BAND_PX, view.height_px))
            band = replace(
                view,
                focal_px=view.focal_px * fine,
                u0=view.u0 * fine + (fine - 1) / 2,
                v0=(view.v0 - top) * fine + (fine - 1) / 2,
                width_px=view.width_px * fine,
                height_px=(rows.stop - top) * fine,
            )
            rgb, hole = self._paint(band, sky[rows])
            size = (view.width_px, rows.stop - top)
            panorama[rows] = yuv(np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8))
            open_sky[rows] = cv2.resize(hole, size, interpolation=cv2.INTER_NEAREST)
        layers = sorted(self._furniture(view), key=lambda layer: layer.key)
        for layer in layers:
            layer.blend(panorama)
        return Static(view=view, panorama=panorama, open_sky=open_sky, furniture=tuple(layers))

    def _paint(self, view: View, sky: Bytes) -> tuple[Bytes, Bytes]:
        """Return (H, W, 3) R'G'B' of the street, and 255 where the sky shows though a wall's plane is there."""
        seen = surfaces(view)
        rgb = np.asarray(cv2.resize(sky, (view.width_px, view.height_px), interpolation=cv2.INTER_LINEAR), np.uint8)
        hole = np.full(seen.plane.shape, 255, np.uint8)
        self._paint_ground(view, seen, rgb, hole)
        for plane in (_LEFT, _RIGHT, _END):
            self._paint_wall(view, seen, plane, rgb, hole)
        hole[seen.plane == _SKY] = 0
        return rgb, hole

    def _random(self, *what: int) -> np.random.Generator:
        return np.random.default_rng((self._seed, 7, *what))

    def _wall(self, plane: int, stream: int, length_m: float, shops: tuple[str, ...]) -> Wall:
        rgb, opaque, signs = textures.facade(self._random(stream), self.ppm * 0.8, length_m, TOP_M, shops)
        if plane == _LEFT:
            rgb = _tinted(rgb, (0.70, 0.73, 0.80))  # in the shade, lit by the blue sky
        if plane == _END:
            rgb = _tinted(rgb, (0.86, 0.86, 0.86))
        boards = []
        for sign in signs:
            ends = [(sign.u0_m, sign.z1_m), (sign.u1_m, sign.z1_m), (sign.u1_m, sign.z0_m), (sign.u0_m, sign.z0_m)]
            boards.append(Board(sign.text, np.array([_at(plane, u, z) for u, z in ends])))
        return Wall(_pyramid(rgb), [opaque], boards)

    def _sky(self, view: View) -> Bytes:
        """Return (H, W, 3) blue with clouds; made at a quarter of the size, since nothing in it is sharp."""
        h, w = view.height_px, view.width_px
        rays = view.rays()[::4, ::4]
        up = np.clip(rays[..., 2] / np.hypot(rays[..., 0], rays[..., 1]), 0, 0.6)[..., None] / 0.6
        cell = max(4, up.shape[1] // 14)
        puff = textures.clouds(self._random(8), up.shape[0], up.shape[1], (cell, max(cell // 2, 1), max(cell // 4, 1)))
        blue = np.array([206, 216, 226]) * (1 - up) + np.array([112, 152, 204]) * up
        small = np.clip(blue + np.clip(puff, 0, 1.6)[..., None] * 26, 0, 255).astype(np.uint8)
        return np.asarray(cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR), np.uint8)

    def _paint_ground(self, view: View, seen: Surfaces, rgb: Bytes, hole: Bytes) -> None:
        height = float(view.centre[2])
        for texture, ppm, y1, near in ((self._near, self.ppm, _NEAR_M, True), (self._far, self.ppm / 3, END_M, False)):
            here = (seen.plane == _GROUND) & ((seen.y_m < _NEAR_M) == near)
            # A pixel covers depth/f metres across and depth²/(f·h) along: their mean picks the level.
            foot = ppm * seen.depth_m / view.focal_px * np.sqrt(seen.depth_m / height)
            _remap(texture, (seen.x_m + FACADE_M) * ppm, (y1 - seen.y_m) * ppm, foot=foot, here=here, out=rgb)
        ground = seen.plane == _GROUND
        shade = np.clip((seen.x_m - SHADE_M) / 0.35, 0, 1)
        dark = ground & (shade < 1)
        tint = np.array([0.56, 0.60, 0.68])
        rgb[dark] = (rgb[dark] * (tint + (1 - tint) * shade[dark][:, None])).astype(np.uint8)
        hole[ground] = 0

    def _paint_wall(self, view: View, seen: Surfaces, plane: int, rgb: Bytes, hole: Bytes) -> None:
        here = seen.plane == plane
        if not here.any():
            return
        ppm = self.ppm * 0.8
        along = {_LEFT: seen.y_m - _FIRST_M, _RIGHT: END_M - seen.y_m, _END: seen.x_m + FACADE_M}[plane]
        reach = abs(float(view.centre[0]) - (FACADE_M if plane == _RIGHT else -FACADE_M)) if plane != _END else 50.0
        foot = ppm * seen.depth_m / view.focal_px * np.sqrt(np.clip(seen.depth_m / max(reach, 1), 1, 9))
        wall = self._walls[plane]
        cover = np.zeros(hole.shape, np.uint8)
        _remap(wall.opaque, along * ppm, (TOP_M - seen.z_m) * ppm, foot=np.ones_like(foot), here=here, out=cover)
        solid = here & (cover >= 128)
        _remap(wall.rgb, along * ppm, (TOP_M - seen.z_m) * ppm, foot=foot, here=solid, out=rgb)
        hole[solid] = 0

    def _furniture(self, view: View) -> list[Layer]:
        rng = self._random(9)
        things: list[Furniture] = []
        right = view.rotation[0]
        for side in (-1, 1):
            for number, y in enumerate(np.arange(11.0, 100.0, 9.0)):
                if 15 < y < 24:
                    continue  # the crossing stays free
                x = side * 6.4
                if number > 0 and number % 2 == (side > 0):
                    tall = float(rng.uniform(5.2, 6.8))
                    things.append(
                        _billboard(self._trees[int(rng.integers(3))], right, x, float(y), tall_m=tall, aspect=0.7)
                    )
                else:
                    things.append(_billboard(self._lamp, right, x, float(y), tall_m=6.5, aspect=0.3))
        for side in (-1, 1):
            for y in (11.2, 23.4, 26.5, 29.6):
                ends = np.array(
                    [[side * 6.35, y, 1], [side * 6.35, y + 3, 1], [side * 6.35, y + 3, 0], [side * 6.35, y, 0]]
                )
                things.append(Furniture(x_m=side * 6.35, patch=self._fence, corners=ends))
        layers = (_project(view, thing) for thing in things)
        return [layer for layer in layers if layer is not None]


def _tinted(rgb: Bytes, gain: tuple[float, float, float]) -> Bytes:
    return np.asarray(cv2.transform(rgb, np.diag(gain)), np.uint8)


def _at(plane: int, u_m: float, z_m: float) -> tuple[float, float, float]:
    """Return the world point of facade coordinates; u runs to the right of one who faces the wall."""
    if plane == _LEFT:
        return -FACADE_M, _FIRST_M + u_m, z_m
    if plane == _RIGHT:
        return FACADE_M, END_M - u_m, z_m
    return u_m - FACADE_M, END_M, z_m


def _pyramid(texture: Bytes) -> list[Bytes]:
    """Return the texture and up to five halvings of it, none narrower than 4 px."""
    levels = [texture]
    while len(levels) < 6 and min(levels[-1].shape[:2]) >= 8:
        levels.append(np.asarray(cv2.pyrDown(levels[-1]), np.uint8))
    return levels


def _remap(pyramid: list[Bytes], u: Floats, v: Floats, *, foot: Floats, here: NDArray[np.bool_], out: Bytes) -> None:
    """Sample a texture at (u, v) where `here`, from the pyramid level whose pixel is as large as `foot`."""
    level_of = np.clip(np.rint(np.log2(np.maximum(foot, 1e-3))), 0, len(pyramid) - 1)
    for number, level in enumerate(pyramid):
        part = here & (level_of == number)
        rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
        if rows.size:
            box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
            scale = np.float32(0.5**number)
            map_u = (u[box] * scale - np.float32(0.5)).astype(np.float32)
            map_v = (v[box] * scale - np.float32(0.5)).astype(np.float32)
            got = cv2.remap(level, map_u, map_v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            out[box][part[box]] = got[part[box]]


def _billboard(patch: Bytes, right: Array, x: float, y: float, *, tall_m: float, aspect: float) -> Furniture:
    half = right * (tall_m * aspect / 2)
    foot, head = np.array([x, y, 0.0]), np.array([x, y, tall_m])
    return Furniture(x_m=x, patch=patch, corners=np.stack([head - half, head + half, foot + half, foot - half]))


def _project(view: View, thing: Furniture) -> Layer | None:
    """Return the layer of a static thing in the panorama; None when it is behind or outside."""
    corners, depth = view.project(thing.corners)
    if depth.min() < 1.5:
        return None
    low, high = np.floor(corners.min(axis=0)).astype(int) - 1, np.ceil(corners.max(axis=0)).astype(int) + 2
    if (high <= 0).any() or low[0] >= view.width_px or low[1] >= view.height_px or (high - low).max() > 6000:
        return None
    h, w = thing.patch.shape[:2]
    shrink = min(1.0, 1.2 * float((high - low).max()) / max(h, w))
    source = cv2.resize(
        thing.patch, (max(2, round(w * shrink)), max(2, round(h * shrink))), interpolation=cv2.INTER_AREA
    )
    h, w = source.shape[:2]
    edge = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32) - np.float32(0.5)
    warp = cv2.getPerspectiveTransform(edge, (corners - low).astype(np.float32))
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    return Layer(
        kind=STATIC,
        key=order(view, thing.x_m, float(depth.mean())),
        id=0,
        left=int(low[0]),
        top=int(low[1]),
        patch=np.asarray(cv2.warpPerspective(source, warp, size, flags=cv2.INTER_LINEAR), np.uint8),
        points=thing.corners,
    )


class Placed(NamedTuple):
    """Where a panorama's layer lies in a picture: xyxy px, cut at the picture's edge."""

    layer: Layer
    box: tuple[int, int, int, int]


def placed(static: Static, view: View, warp: Array) -> list[Placed]:
    """Return the furniture that lies in the picture `view`, which `warp` makes of the panorama."""
    if not static.furniture:
        return []
    ends = np.array([(x.left, x.top, *x.patch.shape[1::-1]) for x in static.furniture], np.float64)
    low, high = ends[:, :2] - 0.5, ends[:, :2] + ends[:, 2:] - 0.5
    corners = np.stack([low, np.stack([high[:, 0], low[:, 1]], 1), high, np.stack([low[:, 0], high[:, 1]], 1)], 1)
    seen = cv2.perspectiveTransform(corners, warp)
    first = np.maximum(np.floor(seen.min(axis=1)).astype(int), 0)
    last = np.minimum(np.ceil(seen.max(axis=1)).astype(int) + 1, (view.width_px, view.height_px))
    boxes = np.concatenate([first, last], axis=1).tolist()
    found = zip(static.furniture, boxes, strict=True)
    return [Placed(x, (a, b, c, d)) for x, (a, b, c, d) in found if a < c and b < d]


def moved(thing: Placed, warp: Array) -> Layer:
    """Return a panorama's layer as the picture shows it."""
    layer, (x0, y0, x1, y1) = thing
    shift = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1.0]])
    origin = np.array([[1, 0, layer.left], [0, 1, layer.top], [0, 0, 1.0]])
    patch = cv2.warpPerspective(layer.patch, shift @ warp @ origin, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    return Layer(
        kind=STATIC, key=layer.key, id=0, left=x0, top=y0, patch=np.asarray(patch, np.uint8), points=layer.points
    )


def words(boards: list[Board], view: View) -> list[Words]:
    """Return the signs that face the camera and lie before it, as seen."""
    found = []
    for board in boards:
        outline, depth = view.project(board.corners)
        if depth.min() > 1.0:
            found.append(Words(text=board.text, kind="sign", outline=outline))
    return found
