"""The picture of a training run: its loss and its gain on held-out patches over the steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StorageError

WIDTH_PX, HEIGHT_PX = 900, 480
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 70, 30, 40
_LOSS_BGR, _GAIN_BGR, _INK_BGR = (180, 120, 40), (60, 60, 200), (60, 60, 60)


def draw_curve(curve: Sequence[tuple[int, float, float]], path: Path, *, over: str = "bicubic") -> None:
    """Write a PNG of the (step, mean loss, gain in dB) points of a run: loss at the left axis, gain at the right one.

    `over` names what the gain is measured against.

    Raises:
        StorageError: it cannot be written.
    """
    image = np.full((HEIGHT_PX, WIDTH_PX, 3), 255, np.uint8)
    right, bottom = WIDTH_PX - _RIGHT, HEIGHT_PX - _BOTTOM
    cv2.rectangle(image, (_LEFT, _TOP), (right, bottom), _INK_BGR, 1)
    if curve:
        steps, losses, gains = (np.array(values, float) for values in zip(*curve, strict=True))
        _line(image, steps, losses, _LOSS_BGR)
        _line(image, steps, gains, _GAIN_BGR)
        for values, x, color in ((losses, 4, _LOSS_BGR), (gains, right + 6, _GAIN_BGR)):
            _text(image, f"{values.max():.3g}", (x, _TOP + 6), color)
            _text(image, f"{values.min():.3g}", (x, bottom), color)
        _text(image, "0", (_LEFT, bottom + 20), _INK_BGR)
        _text(image, f"{int(steps[-1])} steps", (right - 90, bottom + 20), _INK_BGR)
    _text(image, "loss", (_LEFT, 20), _LOSS_BGR)
    _text(image, f"gain over {over}, held out, dB", (right - 250, 20), _GAIN_BGR)
    done, data = cv2.imencode(".png", image)
    assert done
    try:
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise StorageError(f"cannot be written: {error.strerror}", where=str(path)) from error


def _line(
    image: NDArray[np.uint8], steps: NDArray[np.float64], values: NDArray[np.float64], color: tuple[int, ...]
) -> None:
    span = max(float(np.ptp(values)), 1e-12)
    x = _LEFT + steps / steps[-1] * (WIDTH_PX - _LEFT - _RIGHT)
    y = HEIGHT_PX - _BOTTOM - (values - values.min()) / span * (HEIGHT_PX - _TOP - _BOTTOM)
    points = np.stack([x, y], axis=1).round().astype(np.int32)
    cv2.polylines(image, [points[:, None]], False, color, 2, cv2.LINE_AA)


def _text(image: NDArray[np.uint8], text: str, place: tuple[int, int], color: tuple[int, ...]) -> None:
    cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, 1, cv2.LINE_AA)
