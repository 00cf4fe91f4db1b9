"""Losses of super-resolution: how far a patch is from the true one, as a mean over the batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

BORDER_PX = 6  # of a low-resolution patch, where the network sees the zero padding
BORDER_WEIGHT = 0.3  # of a squared difference there: a patch has far more border than a frame, but a frame has one
EPSILON = 1e-3  # Charbonnier's knee: a quarter of a code value, below which it is quadratic
REFINING_FLOOR = 1e-4  # of F-EDSR's MSE: 40 dB, above which a crop counts less
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


def refining(out_N1HW: Tensor, true_N1HW: Tensor, base_N1HW: Tensor) -> Tensor:
    """Return TCSR's L_sr: the mean over crops of MSE ÷ (F-EDSR's MSE + REFINING_FLOOR); `base_N1HW` is F-EDSR's.

    The spec has the plain MSE, which a few hard crops decide; and where F-EDSR errs by little, little is to be won.
    """
    error_N = (out_N1HW - true_N1HW).square().mean(dim=(1, 2, 3))
    base_N = (base_N1HW - true_N1HW).square().mean(dim=(1, 2, 3))
    return (error_N / (base_N + REFINING_FLOOR)).mean()


def flow_l1(aligned_NKHW: Tensor, target_N1HW: Tensor) -> Tensor:
    """Return L_flow = 1/(2k) Σ_i ‖I[t+i,t] − I[t]‖₁ (spec §1), as a mean over pixels and the batch."""
    return (aligned_NKHW - target_N1HW).abs().mean()


def three_part(sr: Tensor, flow_full: Tensor, flow_half: Tensor, *, alpha: float, beta: float) -> Tensor:
    """Return L = L_sr + β·L_flow2 + α·L_flow1, α < β < 1 (spec §1); level 2, at full size, gets β *(chosen)*."""
    return sr + beta * flow_full + alpha * flow_half


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
