"""OFRnet: the learned flow of TCSR's full form (spec §1, after Wang et al. 2018, "Learning for video SR through HR
optical flow estimation"), two levels.

Level 1 works on frames of half the size and starts from a zero flow; its flow, up-sampled by 2, starts level 2, which
works on whole frames. A level warps the neighbour by the flow that it got and adds what warped neighbour and target
ask for:

    [warp(neighbour, f), target, f] ─ conv 3×3, leaky ReLU ─ residual blocks ─ conv 3×3 ─► + f

*Chosen* where the spec is silent: frames and flow are concatenated; the last convolution starts at 0, so the flow does;
warping is bilinear here, because its gradient is that of the two pixels between which a place lies.

Shapes: N pairs, H × W pixels (any), flows (N, 2, H, W) in pixels of their own level, x before y.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.models.fedsr import SLOPE, ResidualBlock
from pipeline.vision.motion import warp_tensor

MOST_PX = 16.0  # that a level adds in one direction: beyond it the gradient of a warp says nothing


class Level(nn.Module):
    """One level: frames and the flow so far in, the flow of that level out."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(4, channels, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(channels, 0) for _ in range(blocks)))
        self.tail = nn.Conv2d(channels, 2, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        assert self.tail.bias is not None
        nn.init.zeros_(self.tail.bias)

    def forward(self, target_N1HW: Tensor, neighbour_N1HW: Tensor, flow_N2HW: Tensor) -> Tensor:
        warped_N1HW = warp_tensor(neighbour_N1HW, flow_N2HW, mode="bilinear")
        x_NCHW = torch.cat([warped_N1HW - 0.5, target_N1HW - 0.5, flow_N2HW / MOST_PX], dim=1)
        x_NCHW = self.blocks(functional.leaky_relu(self.head(x_NCHW), SLOPE))
        added_N2HW: Tensor = MOST_PX * torch.tanh(self.tail(x_NCHW))
        return flow_N2HW + added_N2HW


class OfrNet(nn.Module):
    """Both levels."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.coarse = Level(channels, blocks)
        self.fine = Level(channels, blocks)

    def forward(self, target_N1HW: Tensor, neighbour_N1HW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the flows from `target_N1HW` into `neighbour_N1HW`: at half size (rounded up), at full size."""
        height, width = target_N1HW.shape[2:]
        small_target, small_neighbour = halved(target_N1HW), halved(neighbour_N1HW)
        zero_N2HW = torch.zeros_like(small_target).expand(-1, 2, -1, -1)
        half_N2HW = self.coarse(small_target, small_neighbour, zero_N2HW)
        up_N2HW = 2 * functional.interpolate(half_N2HW, scale_factor=2, mode="bilinear", align_corners=False)
        return half_N2HW, self.fine(target_N1HW, neighbour_N1HW, up_N2HW[:, :, :height, :width])


def halved(x_NCHW: Tensor) -> Tensor:
    """Return frames of half the size, rounded up: means of 2×2 pixels, an odd frame's last row and column repeated."""
    height, width = x_NCHW.shape[2:]
    padded = functional.pad(x_NCHW, (0, width % 2, 0, height % 2), mode="replicate")
    return functional.avg_pool2d(padded, 2)
