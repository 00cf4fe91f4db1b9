"""TCSR: refines what F-EDSR made of a frame by the frames before and after it (spec §1).

Input is F-EDSR's luma of the frames t−k … t+k, output what frame t lacks (image residual). Two forms, by `form`:

"full" is the spec's. Each neighbour is aligned by OFRnet (`ofrnet.py`) at full size; then, with A_i the aligned one,

    D_i = sigmoid(conv 3×3(A_i) ⊙ conv 3×3(I_t)),  F_i = D_i ⊙ A_i                     (distance map, fusion)
    [F_i of all neighbours] ─ conv 3×3 ─ conv 3×3, leaky ReLU ─ residual block ─ conv 3×3 ─►  + I_t   (reconstruction)

"low", the default, measured better and is a fraction of the cost (docs/training.md). Neighbours come aligned by a
classical flow that was found on the low-resolution grid (`vision/motion.py`), and all convolutions run on frames
that are pixel-unshuffled by u, so at 1/u² of the pixels. What a neighbour knows better is small beside the picture:
so its *difference* to the target is what goes in, times `gain`. With d_i = gain · (A_i − I_t):

    D_i = sigmoid(conv(I_t) ⊙ conv[A_i, d_i] − ReLU(conv|d_i|)),  F_i = D_i ⊙ conv[A_i, d_i]
    [conv(I_t), F_i of all] ─ conv 3×3, leaky ReLU ─ residual block ─ conv 3×3 ─ pixel shuffle u ─► + linear ─► + I_t

`linear` is one 5×5 convolution of the differences at full size: most of the gain where the motion is small. Neighbours
share their convolutions. *Chosen* where the spec is silent: the product is taken channel by channel, so D has as many;
|d| lowers it, so that a neighbour that does not fit is left out.

Shapes: N frames, K = 2k neighbours in order of time, H × W pixels of F-EDSR's output, u unshuffle; float in 0..1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import ConfigError
from pipeline.models.fedsr import SLOPE, ResidualBlock
from pipeline.models.ofrnet import OfrNet, halved
from pipeline.vision.motion import aligned_plane, warp_tensor

FORMS = ("low", "full")
MARGIN_PX = 8  # a frame is padded by repeating its border: the network's own padding is zero, which is an edge
DOUBT = 0.8  # of |d|, beside the gain of d (chosen)


@dataclass(frozen=True, kw_only=True, slots=True)
class TcsrConfig:
    """The form and size of a TCSR; the shipped weights have the default one."""

    scale: int = 2  # 2, 3 or 4: of the F-EDSR before it
    form: str = "low"  # one of FORMS
    k: int = 1  # 1 to 3 neighbours on each side
    channels: int = 8  # 4 to 128, of what is compared
    features: int = 24  # 4 to 256, of the reconstruction
    unshuffle: int = 2  # 1 to 4; "full" has 1
    gain: float = 10.0  # 1 to 100, of the differences; "full" has none
    align_blocks: int = 2  # 0 to 8 residual blocks of each level of OFRnet, in "full"

    def __post_init__(self) -> None:
        limits = {
            "scale": (2, 4),
            "k": (1, 3),
            "channels": (4, 128),
            "features": (4, 256),
            "unshuffle": (1, 4),
            "align_blocks": (0, 8),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ConfigError(f"{name} is {value!r}", where="tcsr", hint=f"use a whole number from {low} to {high}")
        if not isinstance(self.gain, int | float) or not 1 <= self.gain <= 100:
            raise ConfigError(f"gain is {self.gain!r}", where="tcsr", hint="use 1 to 100")
        if self.form not in FORMS:
            raise ConfigError(f"form is {self.form!r}", where="tcsr", hint=f"known are {', '.join(FORMS)}")
        if self.form == "full" and self.unshuffle != 1:
            raise ConfigError("the full form works at full size", where="tcsr", hint="use unshuffle 1")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TcsrConfig:
        """Return the configuration that a model's header holds.

        Raises:
            ConfigError: a key is unknown or a value out of range.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ConfigError(f"unknown key '{unknown[0]}'", where="tcsr", hint=f"known are {', '.join(known)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as the JSON object that a model's header holds."""
        return asdict(self)


class Aligned(NamedTuple):
    """Neighbours carried to the target's place.

    Attributes:
        full: (N, K, H, W).
        half: by OFRnet's first level, (N, K, ⌈H/2⌉, ⌈W/2⌉); None where the flow was given.
    """

    full: Tensor
    half: Tensor | None


class DifferenceFusion(nn.Module):
    """Fusion and reconstruction of the low form."""

    def __init__(self, config: TcsrConfig) -> None:
        super().__init__()
        self.unshuffle, self.gain = config.unshuffle, config.gain
        q, c, f, num_neighbours = config.unshuffle**2, config.channels, config.features, 2 * config.k
        self.target = nn.Conv2d(q, c, 3, padding=1)
        self.neighbour = nn.Conv2d(2 * q, c, 3, padding=1)
        self.doubt = nn.Conv2d(q, c, 3, padding=1)
        self.merge = nn.Conv2d((1 + num_neighbours) * c, f, 3, padding=1)
        self.block = ResidualBlock(f, 0)
        self.tail = nn.Conv2d(f, q, 3, padding=1)
        self.linear = nn.Conv2d(num_neighbours, 1, 5, padding=2, bias=False)
        # It starts from F-EDSR's frame: a residual of random weights costs more steps than there is to learn.
        for last in (self.linear, self.tail):
            _zeroed(last)

    def forward(self, target_N1HW: Tensor, aligned_NKHW: Tensor) -> Tensor:
        """Return the residual (N, 1, H, W); u divides H and W."""
        u, (n, num_neighbours, height, width) = self.unshuffle, aligned_NKHW.shape
        difference_NKHW = aligned_NKHW - target_N1HW
        small = (n * num_neighbours, u * u, height // u, width // u)
        # Neighbours stand in the batch: all of them pass the same convolutions.
        d = self.gain * functional.pixel_unshuffle(difference_NKHW, u).reshape(small)
        a = functional.pixel_unshuffle(aligned_NKHW - 0.5, u).reshape(small)
        target = functional.leaky_relu(self.target(functional.pixel_unshuffle(target_N1HW - 0.5, u)), SLOPE)
        neighbour = _split(self.neighbour(torch.cat([a, d], dim=1)), n)
        doubt = _split(functional.relu(self.doubt(DOUBT * d.abs())), n)
        distance = torch.sigmoid(target[:, None] * neighbour - doubt)
        fused = (distance * neighbour).flatten(1, 2)
        x = functional.leaky_relu(self.merge(torch.cat([target, fused], dim=1)), SLOPE)
        residual_N1HW = functional.pixel_shuffle(self.tail(self.block(x)), u)
        out: Tensor = residual_N1HW + self.linear(difference_NKHW)
        return out


def _zeroed(layer: nn.Conv2d) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def _split(x_MCHW: Tensor, n: int) -> Tensor:
    """Return what passed as a batch of N·K pictures as (N, K, C, H, W)."""
    return x_MCHW.reshape(n, -1, *x_MCHW.shape[1:])


class ProductFusion(nn.Module):
    """Fusion and reconstruction of the full form, as the spec has them."""

    def __init__(self, config: TcsrConfig) -> None:
        super().__init__()
        c, f, num_neighbours = config.channels, config.features, 2 * config.k
        self.target = nn.Conv2d(1, c, 3, padding=1)
        self.neighbour = nn.Conv2d(1, c, 3, padding=1)
        self.merge = nn.Conv2d(num_neighbours * c, f, 3, padding=1)
        self.head = nn.Conv2d(f, f, 3, padding=1)
        self.block = ResidualBlock(f, 0)
        self.tail = nn.Conv2d(f, 1, 3, padding=1)
        _zeroed(self.tail)

    def forward(self, target_N1HW: Tensor, aligned_NKHW: Tensor) -> Tensor:
        """Return the residual (N, 1, H, W)."""
        neighbour = self.neighbour(aligned_NKHW.reshape(-1, 1, *aligned_NKHW.shape[2:]) - 0.5)
        distance = torch.sigmoid(self.target(target_N1HW - 0.5)[:, None] * _split(neighbour, len(target_N1HW)))
        fused = (distance * aligned_NKHW[:, :, None]).flatten(1, 2)
        x = functional.leaky_relu(self.head(self.merge(fused)), SLOPE)
        out: Tensor = self.tail(self.block(x))
        return out


class Tcsr(nn.Module):
    """The network: F-EDSR's luma of a frame and its neighbours in, what the frame lacks out."""

    Config = TcsrConfig
    kind = "tcsr"

    def __init__(self, config: TcsrConfig) -> None:
        super().__init__()
        self.config = config
        self.fusion: DifferenceFusion | ProductFusion
        self.flow: OfrNet | None = None
        if config.form == "full":
            self.flow = OfrNet(config.channels, config.align_blocks)
            self.fusion = ProductFusion(config)
        else:
            self.fusion = DifferenceFusion(config)

    @property
    def aligns(self) -> bool:
        """Whether it finds the motion itself; else neighbours have to come aligned."""
        return self.flow is not None

    def align(self, target_N1HW: Tensor, neighbours_NKHW: Tensor) -> Aligned:
        """Return the neighbours carried to the target's place; as they are where they come aligned."""
        if self.flow is None:
            return Aligned(neighbours_NKHW, None)
        full, half = [], []
        for i in range(neighbours_NKHW.shape[1]):
            neighbour_N1HW = neighbours_NKHW[:, i : i + 1]
            half_flow, full_flow = self.flow(target_N1HW, neighbour_N1HW)
            half.append(warp_tensor(halved(neighbour_N1HW), half_flow, mode="bilinear"))
            full.append(warp_tensor(neighbour_N1HW, full_flow, mode="bilinear"))
        return Aligned(torch.cat(full, dim=1), torch.cat(half, dim=1))

    def forward(self, target_N1HW: Tensor, neighbours_NKHW: Tensor) -> Tensor:
        """Return the residual (N, 1, H, W) to add to `target_N1HW`; u divides H and W."""
        out: Tensor = self.fusion(target_N1HW, self.align(target_N1HW, neighbours_NKHW).full)
        return out


def refine_y(net: Tcsr, target_HW: NDArray[np.uint8], neighbours: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return the refined luma of one frame (H, W), rounded and clipped; computed where `net` lies.

    `neighbours` are F-EDSR's luma of the 2k frames around it in order of time; one that is missing is the frame itself.
    """
    assert len(neighbours) == 2 * net.config.k, (len(neighbours), net.config.k)
    if not net.aligns:
        neighbours = [aligned_plane(target_HW, neighbour, net.config.scale) for neighbour in neighbours]
    device = next(net.parameters()).device
    height, width = target_HW.shape
    planes = torch.from_numpy(np.stack([target_HW, *neighbours])).to(device)[None].float() / 255
    u = net.config.unshuffle
    bottom, right = (MARGIN_PX + -(side + 2 * MARGIN_PX) % u for side in (height, width))
    padded = functional.pad(planes, (MARGIN_PX, right, MARGIN_PX, bottom), mode="replicate")
    with torch.inference_mode():
        residual = net(padded[:, :1], padded[:, 1:])
    residual_HW = residual[0, 0, MARGIN_PX : MARGIN_PX + height, MARGIN_PX : MARGIN_PX + width].cpu().numpy()
    out: NDArray[np.uint8] = np.rint(target_HW + residual_HW * 255).clip(0, 255).astype(np.uint8)
    return out
