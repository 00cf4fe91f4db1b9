"""What is drawn over the background of the rendered scene: a patch with alpha, and what is true of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.media.synthetic_camera import View

Bytes = NDArray[np.uint8]
Array = NDArray[np.float64]

STATIC, PERSON, VEHICLE = -1, 0, 1
# R'G'B' in 0..255 to Y'CbCr 8 bit limited range: ITU-R BT.709-6 items 3.2 to 3.5, with offsets.
_BT709 = (
    np.array(
        [
            [0.2126, 0.7152, 0.0722],
            [-0.2126 / 1.8556, -0.7152 / 1.8556, 0.9278 / 1.8556],
            [0.7874 / 1.5748, -0.7152 / 1.5748, -0.0722 / 1.5748],
        ]
    )
    * (np.array([219.0, 224.0, 224.0]) / 255)[:, None]
)
_BT709_OFFSET = np.array([16.0, 128.0, 128.0])


def yuv(rgb: Bytes) -> Bytes:
    """Return (H, W, 3) R'G'B' as Y'CbCr, BT.709 limited range, uint8."""
    return np.asarray(cv2.transform(rgb, np.column_stack([_BT709, _BT709_OFFSET])), np.uint8)


def ink(red: float, green: float, blue: float, shade: float = 1.0) -> tuple[float, float, float, float]:
    """Return an R'G'B' colour times `shade` as Y'CbCr and opaque alpha, what a patch is painted with."""
    y, u, v = _BT709 @ np.clip(np.array([red, green, blue]) * shade, 0, 255) + _BT709_OFFSET
    return float(y), float(u), float(v), 255.0


def premultiplied(rgb: Bytes, alpha: Bytes) -> Bytes:
    """Return (H, W, 4) Y'CbCr times alpha, and alpha: what blends and resizes without a fringe."""
    weight = alpha.astype(np.float32)[..., None] / 255
    return np.dstack([np.rint(yuv(rgb) * weight).astype(np.uint8), alpha])


@dataclass(frozen=True, kw_only=True, slots=True)
class Face:
    """A flat part of a layer: its outline in patch pixels (K, 2) and three or more of its world points (K, 3)."""

    outline: Array
    points: Array


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """Text on a thing: the string and its outline in picture pixels (4, 2)."""

    text: str
    kind: str
    outline: Array


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One drawn thing.

    Attributes:
        kind: PERSON, VEHICLE or STATIC.
        key: drawing order, smallest (farthest) first.
        id: 1..65535, or 0 for static things.
        left, top: of the patch in the picture, px; may be negative.
        patch: (h, w, 4) uint8, Y'CbCr premultiplied with alpha. Alpha ≥ 128 is what counts as drawn.
        points: (3 or more, 3) world points of the plane that the thing lies in.
        faces: the flat parts in drawing order, for things that are not flat themselves.
        head: xyxy px of a person's head.
        words: text on it.
    """

    kind: int
    key: tuple[float, float]
    id: int
    left: int
    top: int
    patch: Bytes
    points: Array
    faces: tuple[Face, ...] = ()
    head: tuple[float, float, float, float] | None = None
    words: tuple[Words, ...] = field(default=())

    def drawn(self) -> NDArray[np.bool_]:
        """(h, w) where the patch counts as drawn."""
        return self.patch[..., 3] >= 128

    def window(self, width: int, height: int) -> tuple[slice, slice, slice, slice] | None:
        """Return rows and columns in the picture, then in the patch, of what lies inside; None if nothing."""
        h, w = self.patch.shape[:2]
        x0, y0 = max(self.left, 0), max(self.top, 0)
        x1, y1 = min(self.left + w, width), min(self.top + h, height)
        if x0 >= x1 or y0 >= y1:
            return None
        return (
            slice(y0, y1),
            slice(x0, x1),
            slice(y0 - self.top, y1 - self.top),
            slice(x0 - self.left, x1 - self.left),
        )

    def blend(self, canvas: Bytes) -> None:
        """Draw the patch on (H, W, 3) Y'CbCr."""
        window = self.window(canvas.shape[1], canvas.shape[0])
        if window is None:
            return
        rows, columns, patch_rows, patch_columns = window
        part = self.patch[patch_rows, patch_columns]
        left = cv2.bitwise_not(cv2.extractChannel(part, 3))
        under = cv2.multiply(canvas[rows, columns], cv2.merge([left, left, left]), scale=1 / 255)
        canvas[rows, columns] = cv2.add(under, cv2.cvtColor(part, cv2.COLOR_BGRA2BGR))

    def depth(self, view: View) -> NDArray[np.float32]:
        """(h, w) depth in metres over the patch; means something only where it is drawn."""
        h, w = self.patch.shape[:2]
        part = np.zeros((h, w), np.uint8)
        planes = [_inverse_depth(view, self.points)]
        for number, face in enumerate(self.faces):
            cv2.fillConvexPoly(part, np.rint(face.outline * 16).astype(np.int32), number + 1, shift=4)
            planes.append(_inverse_depth(view, face.points))
        a, b, c = (np.array(planes)[part][..., k] for k in range(3))
        inverse = a * (np.arange(w) + self.left)[None, :] + b * (np.arange(h) + self.top)[:, None] + c
        return (1 / np.maximum(inverse, 1e-4)).astype(np.float32)


def _inverse_depth(view: View, points: Array) -> Array:
    """Return a, b, c of 1/depth = a·u + b·v + c on the plane of an outline (K, 3) in the world.

    With n·X = d in camera axes and X = depth·K⁻¹(u, v, 1): 1/depth = n·K⁻¹(u, v, 1) / d.
    """
    seen = (points - view.centre) @ view.rotation.T
    normal = np.cross(seen, np.roll(seen, -1, axis=0)).sum(axis=0)
    normal = normal / max(float(np.linalg.norm(normal)), 1e-12)
    distance = float(normal @ seen[0])
    if abs(distance) < 1e-9:  # seen edge-on: nothing of it is drawn
        return np.array([0.0, 0.0, 1 / max(float(seen[0, 2]), 1e-3)])
    return np.asarray(normal @ np.linalg.inv(view.intrinsics) / distance)
