"""Losses of super-resolution: how far a patch is from the true one, as a mean over the batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

BORDER_PX = 6  # of a low-resolution patch, where the network sees the zero padding
BORDER_WEIGHT = 0.3  # of a squared difference there: a patch has far more border than a frame, but a frame has one
EPSILON = 1e-3  # Charbonnier's knee: a quarter of a code value, below which it is quadratic
FLOOR = 2e-5  # of a patch's bicubic MSE: the mean square of quantising to 8 bits is a sixteenth of it


def mse(out_N1HW: Tensor, true_N1HW: Tensor, base_N1HW: Tensor) -> Tensor:
    """Return the mean squared difference; hard patches decide."""
    del base_N1HW
    return (out_N1HW - true_N1HW).square().mean()


def charbonnier(out_N1HW: Tensor, true_N1HW: Tensor, base_N1HW: Tensor) -> Tensor:
    """Return mean √(d² + ε²) (Lai et al. 2018, eq. 4), which outliers pull less than the square."""
    del base_N1HW
    return ((out_N1HW - true_N1HW).square() + EPSILON**2).sqrt().mean()


def relative_mse(out_N1HW: Tensor, true_N1HW: Tensor, base_N1HW: Tensor) -> Tensor:
    """Return the mean over patches of MSE ÷ (bicubic's MSE + floor): each patch counts by the share that is won.

    *Chosen*: PSNR averages logarithms, so an easy picture counts as much as a hard one; this is its first order.
    """
    error_N = (out_N1HW - true_N1HW).square().mean(dim=(1, 2, 3))
    base_N = (base_N1HW - true_N1HW).square().mean(dim=(1, 2, 3))
    return (error_N / (base_N + FLOOR)).mean()


Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # (out, true, bicubic), each (N, 1, H, W) in 0..1 -> scalar
LOSSES: dict[str, Loss] = {"mse": mse, "charbonnier": charbonnier, "relative": relative_mse}


def psnr_gain_db(out_N1HW: Tensor, true_N1HW: Tensor, base_N1HW: Tensor) -> Tensor:
    """Return each patch's PSNR above bicubic's (N,), in dB, both with the floor of 8-bit rounding."""
    error_N = (out_N1HW - true_N1HW).square().mean(dim=(1, 2, 3)) + 1 / (12 * 255**2)
    base_N = (base_N1HW - true_N1HW).square().mean(dim=(1, 2, 3)) + 1 / (12 * 255**2)
    return 10 * torch.log10(base_N / error_N)


def border_weight(side_px: int, scale: int) -> Tensor:
    """Return what differences are multiplied by (1, 1, side, side): the root of each pixel's weight in the loss.

    `side_px` is that of a high-resolution patch.
    """
    weight = torch.full((1, 1, side_px, side_px), BORDER_WEIGHT**0.5)
    inner(weight, scale).fill_(1.0)
    return weight


def inner(x_N1HW: Tensor, scale: int) -> Tensor:
    """Return the view of high-resolution patches without their border."""
    border_px = BORDER_PX * scale
    return x_N1HW[:, :, border_px:-border_px, border_px:-border_px]
