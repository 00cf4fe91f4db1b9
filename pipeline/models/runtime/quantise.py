"""F-EDSR in 8 bits, from its weights and the ranges of its model file alone: no frames, a twentieth of a second.

Weights are symmetric per output channel, activations have 256 levels from their least to their greatest value with 0
among them; the luma that comes in is uint8 already and stays exact.

What 8 bits spoil first is flat areas: a rounded weight errs by the same amount at every pixel there, and a residual
that should be 0 becomes a pattern of ±1. So weights are rounded such that *constant frames* pass each convolution
unchanged: a few weights of each output channel, those nearest to the middle between two steps, go to their other side
until the errors of a dark, two middle and a bright level vanish together (greedy; a data-free kin of AdaRound, Nagel
et al. 2020). Measured with the shipped weights on all of clips/dev against float32: −0.042 dB with plain rounding and
whole ranges, −0.051 with this rounding, −0.004 with it and RANGE_SHARE.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.models.fedsr import SLOPE, FEdsr
from pipeline.models.runtime.engine import Ranges

LEVELS = (16 / 255, 90 / 255, 160 / 255, 235 / 255)  # of the constant frames (chosen)
RANGE_SHARE = 0.5  # of the largest activation seen; what lies beyond is clipped, and steps are half as large
FLIPS = 24  # at most, of an output channel's weights
FLIP_PRICE = 0.02  # of a flip's own rounding error against that of the constant frames; small: those come first


def activation_limits(net: FEdsr, ranges: Ranges) -> dict[str, tuple[float, float]]:
    """Return (lowest, highest) of the 256 levels of each convolution's input, in the network's own unit.

    0 is a level of each, so that padding stays exact.
    """
    found: dict[str, tuple[float, float]] = {}
    for name, _ in net.layers():
        if name == "head":
            found[name] = (0.0, 1.0)
            continue
        low, high = (RANGE_SHARE * limit for limit in ranges[name])
        step = max(high - low, 1e-6) / 255
        below = round(-low / step)
        found[name] = (-below * step, (255 - below) * step)
    return found


def whole_weights(net: FEdsr) -> dict[str, tuple[NDArray[np.int8], NDArray[np.float32]]]:
    """Return for each convolution its weights as whole numbers −127..127 (O, I, k, k) and the step of each (O,)."""
    flat = _constant_inputs(net)
    found: dict[str, tuple[NDArray[np.int8], NDArray[np.float32]]] = {}
    for name, conv in net.layers():
        weight_OIKL = conv.weight.detach().numpy()
        step_O = np.maximum(np.abs(weight_OIKL).max(axis=(1, 2, 3)) / 127, 1e-12)
        taps = weight_OIKL.shape[2] * weight_OIKL.shape[3]
        through_KL = np.repeat(flat[name], taps, axis=0)
        through_KL = through_KL / max(float(np.abs(through_KL).mean()), 1e-9)
        exact_OK = (weight_OIKL / step_O[:, None, None, None]).reshape(len(step_O), -1)
        whole_OK = np.stack([_rounded(exact_K, through_KL) for exact_K in exact_OK])
        found[name] = whole_OK.reshape(weight_OIKL.shape).astype(np.int8), step_O.astype(np.float32)
    return found


def _rounded(exact_K: NDArray[np.float32], through_KL: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return whole numbers near `exact_K` whose errors cancel for inputs that are constant over the frame.

    K weights of one output channel; column l of `through_KL` is what reaches them of constant frame l.
    """
    whole_K = np.rint(exact_K).astype(np.float64)
    other_K = np.clip(np.where(exact_K > whole_K, whole_K + 1, whole_K - 1), -127, 127)
    price_K = FLIP_PRICE * (np.square(other_K - exact_K) - np.square(whole_K - exact_K))
    error_L = (whole_K - exact_K) @ through_KL
    for _ in range(FLIPS):
        after_KL = error_L + (other_K - whole_K)[:, None] * through_KL
        total_K = np.square(after_KL).sum(axis=1) + price_K
        k = int(total_K.argmin())
        if total_K[k] >= np.square(error_L).sum():
            break
        error_L = after_KL[k]
        whole_K[k], other_K[k] = other_K[k], whole_K[k]
        price_K[k] = np.inf  # each at most once
    return whole_K


def _constant_inputs(net: FEdsr) -> dict[str, NDArray[np.float64]]:
    """Return what reaches each convolution of constant frames far from the border, (I, L): there it is a product."""
    convs = dict(net.layers())
    found: dict[str, NDArray[np.float64]] = {}

    def conv(x_IL: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        found[name] = x_IL
        layer = convs[name]
        assert layer.bias is not None
        sums_OI = layer.weight.detach().numpy().astype(np.float64).sum(axis=(2, 3))
        out: NDArray[np.float64] = sums_OI @ x_IL + layer.bias.detach().numpy()[:, None]
        return out

    head_CL = x_CL = _leaky(conv(np.tile(LEVELS, (net.config.unshuffle**2, 1)), "head"))
    for i in range(len(net.blocks)):
        x_CL = x_CL + conv(np.maximum(conv(x_CL, f"blocks.{i}.conv1"), 0), f"blocks.{i}.conv2")
    conv(_leaky(head_CL + conv(x_CL, "close")), "tail")
    return found


def _leaky(x_IL: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(x_IL, SLOPE * x_IL)
