"""F-EDSR: the super-resolution network that runs on every frame (spec §1; EDSR of Lim et al. 2017, made light).

Shapes: N batch, C channels, H × W luma pixels of the frame that comes in, s scale, u unshuffle.

    y_N1HW ─ pixel unshuffle u ─ head 5×5, leaky ReLU ─► h
    h ─ [conv 3×3, ReLU, conv 3×3, + skip] × blocks ─ close 3×3, + h, leaky ReLU ─ tail 3×3 ─ pixel shuffle s·u ─►
    residual

The residual is *added to the bicubic up-scale* (OpenCV's INTER_CUBIC on the uint8 plane), which is no part
of the network: `enhance_y` shows the whole.

Chosen where the spec is silent: luma only (chroma is up-sampled conventionally); the input is unshuffled by 2,
so that convolutions run at a quarter of the pixels (measured: 2 to 3 times faster at equal quality); the tail
convolves before it shuffles; leaky ReLUs behind the head and before the tail, which cost nothing: EDSR has none there,
but then a network of one block is a single bend, and gains 0.4 dB less. Plain ReLUs there do nearly as well
where training succeeds, but one run in three dies: all features 0, and no gradient left (docs/training.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import ConfigError

HEAD_GAIN = 4.0  # of the branches that a network is trained with; see RepConv
TAIL_GAIN = 0.0625
SLOPE = 0.1  # of the leaky ReLUs below 0


@dataclass(frozen=True, kw_only=True, slots=True)
class FEdsrConfig:
    """The size of an F-EDSR; the shipped weights have the default one, folded (`expand` 0)."""

    scale: int = 2  # 2, 3 or 4
    channels: int = 32  # 4 to 256; cost grows with its square
    blocks: int = 2  # 0 to 32 residual blocks
    unshuffle: int = 2  # 1 or 2; 2 runs all convolutions at a quarter of the pixels
    expand: int = 0  # 0 to 8; above 0 each convolution is trained as a sum of branches (`RepConv`)

    def __post_init__(self) -> None:
        limits = {
            "scale": (2, 4),
            "channels": (4, 256),
            "blocks": (0, 32),
            "unshuffle": (1, 2),
            "expand": (0, 8),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ConfigError(
                    f"{name} is {value!r}", where="f-edsr", hint=f"use a whole number from {low} to {high}"
                )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FEdsrConfig:
        """Return the configuration that a model's header holds.

        Raises:
            ConfigError: a key is unknown or a value out of range.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ConfigError(f"unknown key '{unknown[0]}'", where="f-edsr", hint=f"known are {', '.join(known)}")
        return cls(**values)

    def to_dict(self) -> dict[str, int]:
        """Return the configuration as the JSON object that a model's header holds."""
        return asdict(self)


class RepConv(nn.Module):
    """A k×k convolution trained as a sum of linear branches, which `fold` turns into one (after RepVGG and SESR).

    Weight = k×k + centred 1×1 + (1×1 after a k×k that widens to `expand` × out channels). The branches are summed
    as *weights*, before the convolution, so a training step costs about as much as with the plain one.
    Input (N, in, H, W), output (N, out, H, W), zero padding of k // 2.

    `gain` scales weight and bias, so that Adam's equal steps fit layers of unequal scale (luma differences are small,
    residuals smaller). `centred` takes the kernel's mean away, so that a flat area gives 0 whatever its brightness;
    both are *chosen*, and folded away.
    """

    def __init__(
        self, num_in: int, num_out: int, kernel: int, expand: int, *, gain: float = 1.0, centred: bool = False
    ) -> None:
        super().__init__()
        self.gain, self.centred = gain, centred
        plain = nn.Conv2d(num_in, num_out, kernel, padding=kernel // 2)
        wide = nn.Conv2d(num_in, expand * num_out, kernel, bias=False)
        self.weight = nn.Parameter(plain.weight.detach().clone())
        assert plain.bias is not None
        self.bias = nn.Parameter(plain.bias.detach().clone())
        self.point = nn.Parameter(torch.zeros(num_out, num_in))
        self.wide = nn.Parameter(wide.weight.detach().clone())
        # Half the scale of the plain branch: the sum starts close to a plain convolution.
        self.narrow = nn.Parameter(torch.randn(num_out, expand * num_out) * (0.5 / (expand * num_out) ** 0.5))
        self.kernel = kernel

    def merged(self) -> Tensor:
        """Return the weight (out, in, k, k) of the one convolution that equals all branches."""
        pad = self.kernel // 2
        centre = functional.pad(self.point[:, :, None, None], (pad, pad, pad, pad))
        weight = self.weight + centre + torch.einsum("op,pikl->oikl", self.narrow, self.wide)
        if self.centred:
            weight = weight - weight.mean(dim=(1, 2, 3), keepdim=True)
        return weight * self.gain

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return functional.conv2d(x_NCHW, self.merged(), self.bias * self.gain, padding=self.kernel // 2)

    def fold(self) -> nn.Conv2d:
        """Return the plain convolution that gives the same output."""
        num_out, num_in = self.weight.shape[:2]
        plain = nn.Conv2d(num_in, num_out, self.kernel, padding=self.kernel // 2)
        with torch.no_grad():
            plain.weight.copy_(self.merged())
            assert plain.bias is not None
            plain.bias.copy_(self.bias * self.gain)
        return plain


def _conv(
    num_in: int, num_out: int, kernel: int, expand: int, *, gain: float = 1.0, centred: bool = False
) -> nn.Module:
    if expand:
        return RepConv(num_in, num_out, kernel, expand, gain=gain, centred=centred)
    return nn.Conv2d(num_in, num_out, kernel, padding=kernel // 2)


class ResidualBlock(nn.Module):
    """x + conv2(ReLU(conv1(x))), without batch normalisation; (N, C, H, W) in and out."""

    def __init__(self, channels: int, expand: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, channels, 3, expand)
        self.conv2 = _conv(channels, channels, 3, expand)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        out: Tensor = x_NCHW + self.conv2(functional.relu(self.conv1(x_NCHW)))
        return out


class FEdsr(nn.Module):
    """The network: luma in, what bicubic up-scaling lacks out."""

    Config = FEdsrConfig
    kind = "f-edsr"

    def __init__(self, config: FEdsrConfig) -> None:
        super().__init__()
        self.config = config
        c, e = config.channels, config.expand
        self.head = _conv(config.unshuffle**2, c, 5, e, gain=HEAD_GAIN, centred=True)
        self.blocks = nn.ModuleList(ResidualBlock(c, e) for _ in range(config.blocks))
        self.close = _conv(c, c, 3, e)
        self.tail = _conv(c, (config.scale * config.unshuffle) ** 2, 3, e, gain=TAIL_GAIN)

    def forward(self, y_N1HW: Tensor) -> Tensor:
        """Return the residual (N, 1, s·H, s·W) to add to the bicubic up-scale of `y_N1HW`, float in 0..1.

        H and W may be odd: this is the one place where a frame is padded to a multiple of `unshuffle` (by
        repeating its last row and column) and its residual is cut again.
        """
        s, u = self.config.scale, self.config.unshuffle
        height, width = y_N1HW.shape[2:]
        bottom, right = -height % u, -width % u
        if bottom or right:
            y_N1HW = functional.pad(y_N1HW, (0, right, 0, bottom), mode="replicate")
        head_NCHW = _leaky(self.head(functional.pixel_unshuffle(y_N1HW, u) if u > 1 else y_N1HW))
        x_NCHW = head_NCHW
        for block in self.blocks:
            x_NCHW = block(x_NCHW)
        x_NCHW = _leaky(head_NCHW + self.close(x_NCHW))
        residual_N1HW = functional.pixel_shuffle(self.tail(x_NCHW), s * u)
        return residual_N1HW[:, :, : s * height, : s * width]

    def fold(self) -> FEdsr:
        """Return the plain network for inference, with the same output: every `RepConv` is one convolution."""
        plain = FEdsr(
            FEdsrConfig(
                scale=self.config.scale,
                channels=self.config.channels,
                blocks=self.config.blocks,
                unshuffle=self.config.unshuffle,
            )
        )
        state = {
            f"{name}.{part}": tensor
            for name, conv in self._convs()
            for part, tensor in (conv.fold() if isinstance(conv, RepConv) else conv).state_dict().items()
        }
        plain.load_state_dict(state)
        return plain.eval().requires_grad_(False)

    def layers(self) -> list[tuple[str, nn.Conv2d]]:
        """Return the (name, convolution) pairs of a folded network in the order in which they run.

        That is: head, blocks.0.conv1, blocks.0.conv2, …, close, tail. The names are those of the tensors in a
        model file and of its int8 activation ranges.
        """
        assert not self.config.expand, "fold() first"
        return [(name, conv) for name, conv in self._convs() if isinstance(conv, nn.Conv2d)]

    def _convs(self) -> list[tuple[str, nn.Module]]:
        convs: list[tuple[str, nn.Module]] = [("head", self.head)]
        for i, block in enumerate(self.blocks):
            assert isinstance(block, ResidualBlock)
            convs += [(f"blocks.{i}.conv1", block.conv1), (f"blocks.{i}.conv2", block.conv2)]
        return [*convs, ("close", self.close), ("tail", self.tail)]


def _leaky(x_NCHW: Tensor) -> Tensor:
    return functional.leaky_relu(x_NCHW, SLOPE)


def input_ranges(net: FEdsr, frames: list[NDArray[np.uint8]]) -> dict[str, tuple[float, float]]:
    """Return the (min, max) of the input of each convolution of a folded `net` over luma `frames` (H, W).

    Computed where `net` lies. In the order of `layers`; this is what an int8 runtime needs, so that quantising asks for
    no frame at run time. 0 always lies inside, since padding is zero.
    """
    device = next(net.parameters()).device
    ranges = {name: torch.zeros(2, device=device) for name, _ in net.layers()}

    def watch(name: str) -> Any:
        def hook(_conv: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            low, high = torch.aminmax(inputs[0])
            ranges[name] = torch.stack([torch.minimum(ranges[name][0], low), torch.maximum(ranges[name][1], high)])

        return hook

    hooks = [conv.register_forward_pre_hook(watch(name)) for name, conv in net.layers()]
    try:
        with torch.inference_mode():
            for frame in frames:
                net(torch.from_numpy(frame)[None, None].to(device).float() / 255)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: (float(pair[0]) + 0.0, float(pair[1])) for name, pair in ranges.items()}  # + 0.0: a −0.0 is 0.0


def bicubic(y_HW: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Return the (s·H, s·W) bicubic up-scale that F-EDSR's residual is added to."""
    height, width = y_HW.shape
    out: NDArray[np.uint8] = cv2.resize(  # type: ignore[assignment]
        y_HW, (width * scale, height * scale), interpolation=cv2.INTER_CUBIC
    )
    return out


def enhance_y(net: FEdsr, y_NHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return luma (N, H, W) up-scaled to (N, s·H, s·W): bicubic plus the network's residual, rounded and clipped.

    The reference in PyTorch that every faster runtime is compared with.
    """
    with torch.inference_mode():
        residual_NHW = net(torch.from_numpy(y_NHW)[:, None].float() / 255)[:, 0].numpy()
    base_NHW = np.stack([bicubic(y_HW, net.config.scale) for y_HW in y_NHW])
    out: NDArray[np.uint8] = np.rint(base_NHW + residual_NHW * 255).clip(0, 255).astype(np.uint8)
    return out
