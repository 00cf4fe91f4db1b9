"""Pairs for tests: a detailed picture that a blurred, coarser one stands for, and a small network."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.models.fedsr import FEdsr, FEdsrConfig
from pipeline.publisher.pairs import Pair
from pipeline.store.modelfile import ModelHeader

SMALL = FEdsrConfig(channels=8, blocks=0)


def generic(version: int = 1) -> tuple[ModelHeader, FEdsr]:
    """A network that adds next to nothing to bicubic, and its header."""
    torch.manual_seed(1)
    net = FEdsr(SMALL).eval().requires_grad_(False)
    net.tail.weight.mul_(0.01)  # type: ignore[operator, union-attr]
    net.tail.bias.zero_()  # type: ignore[operator, union-attr]
    return ModelHeader(name="f-edsr-x2", kind="f-edsr", version=version, config=SMALL.to_dict()), net


def texture(seed: int, *, height: int = 128, width: int = 192) -> NDArray[np.uint8]:
    """Stripes and noise: what bicubic blurs and a network can learn."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    wave = np.sin(x * (0.9 + 0.1 * seed)) * np.cos(y * 0.7)
    coarse = cv2.resize(rng.uniform(60, 190, (height // 16, width // 16)), (width, height))
    return np.clip(coarse + 40 * np.sign(wave), 16, 235).astype(np.uint8)


def pair(at_s: float, *, seed: int = 1, shift: int = 0) -> Pair:
    """A pair of the moment `at_s`; the picture pans by `shift`."""
    high = np.ascontiguousarray(np.roll(texture(seed), shift, axis=1))
    low = cv2.resize(high, (96, 64), interpolation=cv2.INTER_AREA)
    return Pair(at_s=at_s, captured_ns=round(1.7e18 + at_s * 1e9), low=np.asarray(low, np.uint8), high=high)
