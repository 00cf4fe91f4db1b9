"""What the tests of training train on."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.train.data import Pairs
from pipeline.train.drawn import sheet


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    """Drawn sheets, halved by taking means of 2×2: learnable in a few steps."""
    rng = np.random.default_rng(5)
    high = np.stack([sheet(96, 96, rng).y for _ in range(12)])
    low = high.reshape(12, 48, 2, 48, 2).mean(axis=(2, 4)).round().astype(np.uint8)
    return Pairs(low=low, high=high)
