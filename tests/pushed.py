"""What a publisher pushes, made without training: weights whose worth is known, and key frames to try them on.

The shipped ×2 network with its last convolution times `factor` adds that much of its residual to bicubic: 1 is as
shipped, 0 is bicubic, −1 makes every picture worse by about what the network makes it better. So `factor` orders them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from pipeline.media.synthetic import Scene, SceneConfig
from pipeline.models import SHIPPED
from pipeline.store import keys, modelfile
from pipeline.store.keyframes import KeyFrame, dumps

NAME = "f-edsr-x2"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
PUBLIC = keys.public_text(KEY)
CAPTURED_NS = 1_700_000_000 * 10**9


def model(
    factor: float, version: int, *, key: Ed25519PrivateKey | None = KEY, ranges: bool = True, name: str = NAME
) -> bytes:
    """Return a model file, signed by `key`; `ranges`: with what int8 needs."""
    header, state = modelfile.load(SHIPPED / f"{NAME}.safetensors")
    for tensor in ("tail.weight", "tail.bias"):
        state[tensor] = state[tensor] * factor
    header = replace(header, name=name, version=version, parent=f"{header.name}@{header.version}")
    return signed(header if ranges else replace(header, ranges={}), state, key)


def signed(header: modelfile.ModelHeader, state: dict[str, modelfile.Tensor], key: Ed25519PrivateKey | None) -> bytes:
    """Return the file of a header and weights."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        modelfile.save(path, header, state)
        if key is not None:
            modelfile.sign(path, key)
        return path.read_bytes()


def write(path: Path, factor: float, version: int) -> Path:
    """Write a model file; return its path."""
    path.write_bytes(model(factor, version))
    return path


def key_frame(number: int = 0, *, upside_down: bool = False) -> KeyFrame:
    """Return a key frame of the rendered scene, a second after the one before.

    `upside_down`: the residual points the other way, so that what is good elsewhere is bad here.
    """
    low_HW, high_HW = _pair(number % 4)
    if upside_down:
        plain_HW = cv2.resize(low_HW, high_HW.shape[::-1], interpolation=cv2.INTER_CUBIC).astype(np.int16)
        high_HW = (2 * plain_HW - high_HW).clip(0, 255).astype(np.uint8)
    return KeyFrame(captured_ns=CAPTURED_NS + number * 10**9, low=low_HW[None], high=high_HW[None])


def body(number: int = 0, *, upside_down: bool = False) -> bytes:
    """Return the body that holds it."""
    return dumps(key_frame(number, upside_down=upside_down))


@cache
def _pair(number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    width, height = 320, 192
    i420 = Scene(SceneConfig(width=width, height=height, seconds=4, seed=5, noise=0)).frame(25 * number).i420
    high_HW = i420[: width * height].reshape(height, width)
    low_HW = cv2.resize(high_HW, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(low_HW), np.ascontiguousarray(high_HW)
