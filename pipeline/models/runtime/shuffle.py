"""Pixel (un)shuffle of 8-bit pictures as plain byte moves, with channels last as CPU runtimes compute.

Inside a runtime a float shuffle costs as much as a convolution; here it is a copy of 2 or 4 bytes at a time.
Shapes: H × W pixels, r the factor, channel r·i + j is row i, column j of an r×r cell (as torch's pixel_shuffle).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def unshuffle(y_HW: NDArray[np.uint8], factor: int, out_HWC: NDArray[np.uint8]) -> None:
    """Fill `out_HWC` (H/r, W/r, r²) from a plane (H, W); both contiguous, r divides H and W."""
    cells = y_HW.view(_group(factor)).reshape(out_HWC.shape[0], factor, out_HWC.shape[1])
    groups = out_HWC.view(_group(factor))
    for i in range(factor):
        groups[:, :, i] = cells[:, i]


def shuffle(x_HWC: NDArray[np.int8], factor: int, out_HW: NDArray[np.int8]) -> None:
    """Fill the plane `out_HW` (r·H, r·W), contiguous, from (H, W, r²), contiguous."""
    groups = x_HWC.view(_group(factor))
    cells = out_HW.view(_group(factor)).reshape(x_HWC.shape[0], factor, x_HWC.shape[1])
    for i in range(factor):
        cells[:, i] = groups[:, :, i]


def _group(factor: int) -> np.dtype[Any]:
    """The type that holds `factor` bytes; integers where there are any, since numpy moves those by vectors."""
    return np.dtype(f"u{factor}" if factor in (1, 2, 4, 8) else f"V{factor}")
