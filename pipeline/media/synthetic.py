"""The rendered scene `synthetic://street?…`: moving people and vehicles in a street, with exact truth.

`Scene(config).frame(i)` gives frame i, which is shown i / fps seconds after the start: `.i420` is (frame_bytes,)
uint8 without padding (layout of `pipeline.wire.frames`), `.truth` is what is true of it. `Scene(config).audio(start,
n)` gives n samples from sample `start`, int16 mono 48 kHz. Both are pure functions of the config and the number: the
same bytes in any order and in any process with the same OpenCV. Colours are BT.709, limited range; chroma is the mean
of 2×2 luma positions (sited in the middle). A scene is for one thread at a time.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.media.synthetic_camera import Camera, Pose
from pipeline.media.synthetic_layer import Layer
from pipeline.media.synthetic_people import People
from pipeline.media.synthetic_street import Placed, Static, Street, moved, placed
from pipeline.media.synthetic_truth import Text, Truth
from pipeline.media.synthetic_vehicles import Vehicles
from pipeline.wire.frames import ColorSpec, Size

SAMPLE_RATE_HZ = 48_000
COLOR = ColorSpec(matrix=1, primaries=1, transfer=1, full_range=False)
START = datetime(2026, 3, 14, 8, 30, tzinfo=UTC)  # what the burnt-in clock says at frame 0
_NOISE_SLACK = 1 << 16
Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneConfig:
    """What to render; each field is also a key of the address. Raises ConfigError naming all that is wrong.

    Attributes:
        width, height: px, 16 to 8192; odd is legal.
        fps: frames a second, above 0 to 240.
        seconds: length; inf never ends.
        seed: everything random comes from it, 0 to 2³² − 1.
        persons: how many are in the street, 0 to 400, seen or not.
        vehicles: how many are in the street, 0 to 60; every third is parked.
        cuts: seconds between cuts of the camera; 0 never cuts.
        shake_px: largest displacement by the camera's shake, 0 to 64.
        noise: deviation of the sensor's noise in code values of luma, 0 to 32; chroma has half of it.
        audio: whether there is sound.
    """

    width: int = 640
    height: int = 360
    fps: Fraction = Fraction(25)
    seconds: float = 20.0
    seed: int = 1
    persons: int = 36
    vehicles: int = 14
    cuts: float = 8.0
    shake_px: float = 0.8
    noise: float = 2.0
    audio: bool = True

    def __post_init__(self) -> None:
        limits: tuple[tuple[str, float, float], ...] = (
            ("width", 16, 8192),
            ("height", 16, 8192),
            ("seed", 0, 2**32 - 1),
            ("persons", 0, 400),
            ("vehicles", 0, Vehicles.most()),
            ("shake_px", 0, 64),
            ("noise", 0, 32),
        )
        wrong = [
            f"{name} is {getattr(self, name)}, not {low} to {high}"
            for name, low, high in limits
            if not low <= getattr(self, name) <= high
        ]
        if not 0 < self.fps <= 240:
            wrong.append(f"fps is {self.fps}, not above 0 to 240")
        if not self.seconds > 0:
            wrong.append(f"seconds is {self.seconds}, not above 0 or inf")
        if not 0 <= self.cuts < math.inf:
            wrong.append(f"cuts is {self.cuts}, not 0 or more seconds")
        if wrong:
            raise ConfigError("; ".join(wrong), where="synthetic://")

    @property
    def size(self) -> Size:
        """Width and height."""
        return Size(width_px=self.width, height_px=self.height)

    @staticmethod
    def parse(uri: str) -> SceneConfig:
        """Return the config of `synthetic://street?width=640&fps=30000/1001&seconds=inf…`.

        Raises ConfigError for another scheme or scene, unknown, repeated or bad keys, all of them at once.
        """
        parts = urlsplit(uri)
        if (
            parts.scheme != "synthetic"
            or parts.netloc not in ("", "street")
            or parts.path not in ("", "/")
            or parts.fragment
        ):
            raise ConfigError("not a rendered scene", where=uri, hint="write synthetic://street?width=640&height=360")
        kinds = {f.name: _READERS[str(f.type)] for f in fields(SceneConfig)}
        given: dict[str, Any] = {}
        wrong: list[str] = []
        for key, text in parse_qsl(parts.query, keep_blank_values=True):
            if key not in kinds:
                near = difflib.get_close_matches(key, kinds, n=1, cutoff=0.4)
                wrong.append(f"unknown key {key!r}" + (f", nearest is {near[0]!r}" if near else ""))
            elif key in given:
                wrong.append(f"{key} is given twice")
            else:
                try:
                    given[key] = kinds[key](text)
                except (ValueError, ZeroDivisionError):
                    wrong.append(f"{key}={text!r} is no value for {key}")
        if wrong:
            raise ConfigError("; ".join(wrong), where=uri, hint=f"keys: {', '.join(kinds)}")
        return SceneConfig(**given)


def _truth_value(text: str) -> bool:
    if text.lower() not in ("0", "1", "true", "false", "yes", "no"):
        raise ValueError(text)
    return text.lower() in ("1", "true", "yes")


_READERS: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "bool": _truth_value, "Fraction": Fraction}


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """One frame: `i420` (frame_bytes,) uint8, BT.709 limited range, and what is true of it."""

    i420: NDArray[np.uint8]
    truth: Truth


class Scene:
    """A scene that gives any of its frames."""

    def __init__(self, config: SceneConfig) -> None:
        self.config = config
        rng = np.random.default_rng((config.seed, 1))
        self._camera = Camera(
            width_px=config.width,
            height_px=config.height,
            fps=config.fps,
            cut_s=Fraction(str(config.cuts)),
            shake_px=config.shake_px,
            phases=tuple(rng.uniform(0, 2 * math.pi, 6).tolist()),
            first_mount=int(rng.integers(3)),
        )
        total = max(config.persons + config.vehicles, 1)
        sprite_px = int(np.clip(config.height * 0.6, 48, 320))
        self._people = People(config.seed, config.persons, 0, total, sprite_px)
        self._vehicles = Vehicles(config.seed, config.vehicles, config.persons, total, self._people.clock_s)
        # The largest multiple of `total` below 65536: passages wrap there and stay distinct at any one time.
        self._id_wrap = 65535 // total * total
        self._light_phase = float(rng.uniform(0, 2 * math.pi))
        self._street = lru_cache(maxsize=1)(lambda: Street(config.seed, config.width))
        self._static = lru_cache(maxsize=3)(self._render_static)
        self._noise = lru_cache(maxsize=1)(self._render_noise)

    @property
    def num_frames(self) -> int | None:
        """How many frames there are, at least 1; None when the scene never ends."""
        if math.isinf(self.config.seconds):
            return None
        return max(1, math.floor(Fraction(str(self.config.seconds)) * self.config.fps))

    @property
    def num_samples(self) -> int | None:
        """How many samples of sound go with the frames: up to the end of the last one; None when it never ends."""
        return None if self.num_frames is None else round(self.num_frames / self.config.fps * SAMPLE_RATE_HZ)

    def frame(self, index: int) -> Rendered:
        """Return frame `index`; IndexError outside 0 to num_frames − 1."""
        if index < 0 or (self.num_frames is not None and index >= self.num_frames):
            raise IndexError(f"frame {index} of {self.num_frames}")
        t = float(index / self.config.fps)
        pose = self._camera.pose(index)
        static = self._static(pose.mount)
        canvas = self._background(pose, static)
        layers = self._draw(canvas, t, pose, static)
        light = 1 + 0.16 * math.sin(2 * math.pi * t / 31 + self._light_phase)
        i420 = self._expose(canvas, light, index)
        stamp = self._stamp(i420, index, pose)
        i420.flags.writeable = False
        truth = Truth(pose, light, static, layers, boards=self._street().boards, stamp=stamp)
        return Rendered(i420=i420, truth=truth)

    def audio(self, start_sample: int, num_samples: int) -> NDArray[np.int16]:
        """Return (num_samples,) int16 mono at 48 kHz: a quiet two-tone, and a 1 kHz beep of 60 ms at each second."""
        assert start_sample >= 0
        assert num_samples >= 0
        wanted = np.arange(start_sample, start_sample + num_samples, dtype=np.int64) % SAMPLE_RATE_HZ
        return np.asarray(_second_of_sound()[wanted], np.int16)

    def _render_static(self, mount: int) -> Static:
        return self._street().static(self._camera.panorama(mount))

    def _background(self, pose: Pose, static: Static) -> NDArray[np.uint8]:
        """Return (H, W, 3) Y'CbCr, both rounded up to even, so that chroma always averages four pixels."""
        size = (self.config.width + self.config.width % 2, self.config.height + self.config.height % 2)
        warp = pose.view.homography_from(static.view)
        flags = cv2.INTER_LINEAR
        seen = cv2.warpPerspective(static.panorama, warp, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(seen, np.uint8)

    def _draw(self, canvas: NDArray[np.uint8], t: float, pose: Pose, static: Static) -> list[Layer]:
        """Draw shadows, people, vehicles and what stands before them; return people and vehicles."""
        view = pose.view
        people = list(self._people.layers(t, view))
        vehicles = list(self._vehicles.layers(t, view))
        layers = [layer for layer, _ in people] + [layer for layer, _ in vehicles]
        layers = [replace(layer, id=1 + layer.id % self._id_wrap) for layer in layers]
        shade = np.zeros(canvas.shape[:2], np.uint8)
        touched = [_box(layer) for layer in layers]
        for _, shadow in people:
            window = shadow.window(canvas.shape[1], canvas.shape[0]) if shadow else None
            if shadow and window:
                part = shade[window[0], window[1]]
                np.maximum(part, shadow.patch[window[2], window[3], 3], out=part)
                touched.append(_box(shadow))
        for _, outline in vehicles:
            if len(outline):
                points = np.rint(np.clip(outline, -20000, 20000) * 16).astype(np.int32)
                cv2.fillConvexPoly(shade, points, 128, cv2.LINE_AA, 4)
                low, high = outline.min(axis=0), outline.max(axis=0)
                touched.append((low[0], low[1], high[0], high[1]))
        luma = np.ascontiguousarray(canvas[..., 0])
        # Y' − (Y' − 16)·shade/255: darkens towards black (code 16), which the saturating subtraction keeps.
        canvas[..., 0] = cv2.subtract(
            luma, cv2.multiply(cv2.subtract(luma, np.full_like(luma, 16)), shade, scale=1 / 255)
        )
        warp = view.homography_from(static.view)
        # Furniture is in the panorama: it is drawn again only where something may have covered it.
        near = _touched(placed(static, view, warp), touched)
        for layer in sorted([*layers, *(moved(thing, warp) for thing in near)], key=lambda layer: layer.key):
            layer.blend(canvas)
        return layers

    def _expose(self, canvas: NDArray[np.uint8], light: float, index: int) -> NDArray[np.uint8]:
        """Return I420 of a picture under the light, with sensor noise."""
        size, config = self.config.size, self.config
        half = cv2.resize(canvas, (size.chroma.width_px, size.chroma.height_px), interpolation=cv2.INTER_AREA)
        code = np.arange(256)
        brighter = np.clip(np.rint(16 + (code - 16) * light), 16, 235).astype(np.uint8)
        richer = np.clip(np.rint(128 + (code - 128) * light), 16, 240).astype(np.uint8)
        luma = config.width * config.height
        chroma = size.chroma.width_px * size.chroma.height_px
        out = np.empty(size.frame_bytes, np.uint8)
        plain = np.ascontiguousarray(canvas[: config.height, : config.width, 0])
        out[:luma] = cv2.LUT(plain, brighter).reshape(-1)
        out[luma : luma + chroma] = cv2.LUT(np.ascontiguousarray(half[..., 1]), richer).reshape(-1)
        out[luma + chroma :] = cv2.LUT(np.ascontiguousarray(half[..., 2]), richer).reshape(-1)
        if config.noise > 0:
            fine, coarse = self._noise()
            rng = np.random.default_rng((config.seed, 31, index))
            first, second = (int(k) for k in rng.integers(_NOISE_SLACK, size=2))
            noisy = out[:luma] + fine[first : first + luma]
            out[:luma] = np.clip(noisy, 16, 235, out=noisy)
            noisy = out[luma:] + coarse[second : second + 2 * chroma]
            out[luma:] = np.clip(noisy, 16, 240, out=noisy)
        return out

    def _render_noise(self) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
        """Return one long stretch of noise for luma and one for chroma; each frame takes a piece of each."""
        rng = np.random.default_rng((self.config.seed, 30))
        luma = self.config.width * self.config.height
        stretches = []
        for count, sigma in ((luma, self.config.noise), (luma // 2 + 2 * 8192, self.config.noise / 2)):
            values = rng.standard_normal(count + _NOISE_SLACK, np.float32) * np.float32(sigma)
            stretches.append(np.rint(values).astype(np.int16))
        return stretches[0], stretches[1]

    def _stamp(self, i420: NDArray[np.uint8], index: int, pose: Pose) -> Text | None:
        """Burn date, time and camera into the upper left; None when the picture is too small to read it."""
        width, height = self.config.width, self.config.height
        at = START + timedelta(microseconds=float(index / self.config.fps * 1_000_000))
        text = f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 10_000:02d} CAM {pose.mount + 1}"
        font = cv2.FONT_HERSHEY_SIMPLEX
        (wide, tall), _ = cv2.getTextSize(text, font, 1.0, 2)
        scale = min(max(0.034 * height, 8) / tall, 0.9 * width / wide)
        if scale * tall < 6:
            return None
        thick = max(1, round(scale * 2))
        (wide, tall), below = cv2.getTextSize(text, font, scale, thick)
        x, y = round(0.02 * width) + 2, round(0.03 * height) + tall + 2
        luma = i420[: width * height].reshape(height, width)
        chroma = i420[width * height :].reshape(2, self.config.size.chroma.height_px, -1)
        pad = max(2, tall // 3)
        x0, y0 = max(x - pad, 0) // 2 * 2, max(y - tall - pad, 0) // 2 * 2
        x1, y1 = min(x + wide + pad, width), min(y + below + pad // 2, height)
        plate = luma[y0:y1, x0:x1]
        plate[:] = (16 + (plate.astype(np.float32) - 16) * 0.35).astype(np.uint8)
        chroma[:, y0 // 2 : (y1 + 1) // 2, x0 // 2 : (x1 + 1) // 2] = 128
        cv2.putText(luma, text, (x, y), font, scale, 228, thick, cv2.LINE_AA)
        box = np.array([x, y - tall, x + wide, y + below], np.float32)
        return Text(text=text, kind="stamp", box=box, visible=1.0)


def iter_frames(config: SceneConfig, start: int = 0) -> Iterator[Rendered]:
    """Yield the frames of a scene from `start` to its end, if it has one."""
    scene, index = Scene(config), start
    while scene.num_frames is None or index < scene.num_frames:
        yield scene.frame(index)
        index += 1


def _box(layer: Layer) -> Box:
    height, width = layer.patch.shape[:2]
    return layer.left, layer.top, layer.left + width, layer.top + height


def _touched(things: list[Placed], boxes: list[Box]) -> list[Placed]:
    """Return the part of each thing within which boxes meet it, for those that any box meets."""
    if not things or not boxes:
        return []
    a, b = np.array([thing.box for thing in things], np.float64)[:, None], np.array(boxes)[None]
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    met = (low < high).all(axis=2)[..., None]
    first = np.floor(np.where(met, low, np.inf).min(axis=1))
    last = np.ceil(np.where(met, high, -np.inf).max(axis=1))
    found = zip(things, met.any(axis=(1, 2)).tolist(), first.tolist(), last.tolist(), strict=True)
    return [Placed(t.layer, (int(p[0]), int(p[1]), int(q[0]), int(q[1]))) for t, hit, p, q in found if hit]


@lru_cache(maxsize=1)
def _second_of_sound() -> NDArray[np.int16]:
    """Return the second that repeats: whole numbers of hertz close on themselves."""
    t = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    sound = 0.02 * np.sin(2 * np.pi * 220 * t) + 0.014 * np.sin(2 * np.pi * 331 * t)
    ramp = np.clip(np.minimum(t, 0.06 - t) / 0.004, 0, 1)  # no click
    sound += 0.25 * ramp * np.sin(2 * np.pi * 1000 * t)
    return np.rint(sound * 32767).astype(np.int16)
