"""Drawn material for training: text, thin lines and grids, which photographs hold too little of.

Scoreboards, time stamps, captions and façades are what viewers look at, and what bicubic up-scaling blurs most.
"""

from __future__ import annotations

import string

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pipeline.media.degrade import Picture

Plane = NDArray[np.uint8]

_FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_PLAIN,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
)
_LETTERS = np.array(list(string.ascii_letters + string.digits * 2 + ":-/.,%"))


def marked(picture: Picture, rng: Generator) -> Picture:
    """Return the picture with a few texts, lines, boxes and grids drawn into its luma."""
    y = np.ascontiguousarray(picture.y).copy()
    for _ in range(int(rng.integers(2, 7))):
        _DRAWERS[int(rng.integers(len(_DRAWERS)))](y, rng)
    return Picture(y=y, u=picture.u, v=picture.v)


def sheet(width_px: int, height_px: int, rng: Generator) -> Picture:
    """Return a picture that is wholly drawn: a shaded ground, one large grid or page of text, and marks on it."""
    ramp = np.linspace(rng.integers(16, 236), rng.integers(16, 236), width_px)
    y = np.ascontiguousarray(np.broadcast_to(ramp, (height_px, width_px)).astype(np.uint8))
    if rng.random() < 0.6:
        _tiles(y, rng)
    for _ in range(int(rng.integers(4, 14))):
        _DRAWERS[int(rng.integers(len(_DRAWERS)))](y, rng)
    return Picture.grey(y)


def _tone(rng: Generator) -> int:
    """Mostly one of the extremes: that is what captions and frames use."""
    return int(rng.choice([16, 235])) if rng.random() < 0.6 else int(rng.integers(16, 236))


def _place(y: Plane, rng: Generator) -> tuple[int, int]:
    return int(rng.integers(0, y.shape[1])), int(rng.integers(0, y.shape[0]))


def _text(y: Plane, rng: Generator) -> None:
    text = "".join(rng.choice(_LETTERS, int(rng.integers(3, 16))))
    size = float(rng.uniform(0.35, 1.6))
    font, thickness = int(rng.choice(_FONTS)), int(rng.integers(1, 3))
    x, row = _place(y, rng)
    x -= 20
    if rng.random() < 0.4:
        (width, height), below = cv2.getTextSize(text, font, size, thickness)
        cv2.rectangle(y, (x - 3, row - height - 3), (x + width + 3, row + below), (_tone(rng),), -1)
    cv2.putText(y, text, (x, row), font, size, (_tone(rng),), thickness, cv2.LINE_AA)


def _lines(y: Plane, rng: Generator) -> None:
    x, row = _place(y, rng)
    for _ in range(int(rng.integers(1, 6))):
        end = (x + int(rng.normal(0, 90)), row + int(rng.normal(0, 60)))
        cv2.line(y, (x, row), end, (_tone(rng),), int(rng.integers(1, 4)), cv2.LINE_AA)
        if rng.random() < 0.5:
            x, row = end


def _box(y: Plane, rng: Generator) -> None:
    x, row = _place(y, rng)
    corner = (x + int(rng.integers(6, 120)), row + int(rng.integers(6, 90)))
    cv2.rectangle(y, (x, row), corner, (_tone(rng),), int(rng.choice([-1, 1, 2, 3])))


def _disc(y: Plane, rng: Generator) -> None:
    axes = (int(rng.integers(3, 50)), int(rng.integers(3, 50)))
    angle, width = float(rng.uniform(0, 180)), int(rng.choice([-1, 1, 2]))
    cv2.ellipse(y, _place(y, rng), axes, angle, 0, 360, (_tone(rng),), width, cv2.LINE_AA)


def _grid(y: Plane, rng: Generator) -> None:
    x, row = _place(y, rng)
    step_x, step_y, num = int(rng.integers(4, 28)), int(rng.integers(4, 28)), int(rng.integers(3, 9))
    tone, width = (_tone(rng),), int(rng.integers(1, 3))
    for i in range(num + 1):
        cv2.line(y, (x + i * step_x, row), (x + i * step_x, row + num * step_y), tone, width)
        cv2.line(y, (x, row + i * step_y), (x + num * step_x, row + i * step_y), tone, width)


def _tiles(y: Plane, rng: Generator) -> None:
    """Cover the picture with tiles of one size, each of its own tone, with or without joints, slightly turned."""
    height, width = y.shape
    side_x, side_y = int(rng.integers(6, 48)), int(rng.integers(6, 48))
    few = rng.integers(16, 236, (int(rng.integers(2, 6)),))
    tones = rng.choice(few, (2 * height // side_y + 2, 2 * width // side_x + 2)).astype(np.uint8)
    tiles = np.kron(tones, np.ones((side_y, side_x), np.uint8))
    if rng.random() < 0.5:
        joint = _tone(rng)
        tiles[::side_y] = joint
        tiles[:, ::side_x] = joint
    turn = cv2.getRotationMatrix2D((width, height), float(rng.choice([0, rng.uniform(-30, 30)])), 1.0)
    turn[:, 2] -= (width / 2, height / 2)
    y[:] = cv2.warpAffine(tiles, turn, (width, height), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)


_DRAWERS = (_text, _text, _text, _lines, _box, _disc, _grid)
