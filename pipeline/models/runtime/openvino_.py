"""F-EDSR in OpenVINO on a CPU, in float32 or in int8 quantised from the ranges that the model file carries.

The graph is built directly: no export, no calibration data, compiled in a tenth of a second, so that weights that are
swapped into a running stream are quantised too. Int8: weights symmetric per output channel; activations symmetric
per layer where they are signed, 0..max after a ReLU; the unshuffled uint8 luma enters as it is, exactly.

Input (1, h, w, u²) uint8, output (1, h, w, (s·u)²) int8 code values, channels last: the layout that the kernels
compute in.
"""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as op
from torch import nn

from pipeline.errors import ModelError
from pipeline.models.fedsr import FEdsr, ResidualBlock
from pipeline.models.runtime.engine import Engine, Ranges
from pipeline.models.runtime.shuffle import shuffle, unshuffle

LEVELS = 256


class OpenVinoFloat(Engine):
    """All convolutions in float32, also where the CPU has bfloat16."""

    name: ClassVar[str] = "openvino-fp32"
    int8: ClassVar[bool] = False

    def compile(self, net: FEdsr, device: str, ranges: Ranges) -> None:
        s, u = net.config.scale, net.config.unshuffle
        height, width = -(-self.window.height_px // u), -(-self.window.width_px // u)
        self._x = np.zeros((1, height, width, u * u), np.uint8)
        self._y = np.zeros((1, height, width, (s * u) ** 2), np.int8)
        self._plane = np.zeros((1, s * u * height, s * u * width), np.int8)
        self._unshuffle, self._shuffle = u, s * u
        model = graph(net, self._x.shape, ranges if self.int8 else None)
        self._request = compiled(model, self.threads).create_infer_request()
        self._request.set_input_tensor(ov.Tensor(self._x, shared_memory=True))
        self._request.set_output_tensor(ov.Tensor(self._y, shared_memory=True))

    def run(self, y_RHW: NDArray[np.uint8]) -> NDArray[np.int8]:
        unshuffle(y_RHW[0], self._unshuffle, self._x[0])
        self._request.infer()
        shuffle(self._y[0], self._shuffle, self._plane[0])
        s = self.scale
        return self._plane[:, : s * self.window.height_px, : s * self.window.width_px]


class OpenVinoInt8(OpenVinoFloat):
    """All convolutions in int8, sums in int32, the trunk of the residual blocks in float32."""

    name: ClassVar[str] = "openvino-int8"
    int8: ClassVar[bool] = True

    def compile(self, net: FEdsr, device: str, ranges: Ranges) -> None:
        missing = [name for name, _ in net.layers() if name not in ranges]
        if missing:
            raise ModelError(
                f"the model gives no range for the input of '{missing[0]}'",
                where=self.name,
                hint="int8 needs the ranges that `limpid train fedsr` writes; use the runtime openvino-fp32",
            )
        super().compile(net, device, ranges)


def graph(net: FEdsr, shape_NHWC: tuple[int, ...], ranges: Ranges | None) -> ov.Model:
    """Return the network as an OpenVINO model; in int8 where `ranges` are given, else in float32."""
    convs = dict(net.layers())
    x = op.parameter(list(shape_NHWC), ov.Type.u8, name="y")
    t = op.transpose(op.convert(x, "f32"), np.array([0, 3, 1, 2]))

    def conv(t: Any, name: str, *, gain: float = 1.0, signed: bool = True) -> Any:
        limits = None
        if ranges is not None:
            low, high = ranges[name] if name != "head" else (0.0, 255.0)
            limits = _limits(low, high, signed=signed)
        return _conv(t, convs[name], limits, gain=(1 / 255 if name == "head" else 1.0, gain))

    head = t = conv(t, "head", signed=False)
    for i in range(len(net.blocks)):
        assert isinstance(net.blocks[i], ResidualBlock)
        inner = op.relu(conv(t, f"blocks.{i}.conv1"))
        t = op.add(t, conv(inner, f"blocks.{i}.conv2", signed=False))
    t = op.add(head, conv(t, "close"))
    t = conv(t, "tail", gain=255.0)
    t = _quantised(t, (-128.0, 127.0))  # rounds to whole code values: adding them to bicubic is then exact
    out = op.convert(op.transpose(t, np.array([0, 2, 3, 1])), "i8")
    return ov.Model([out], [x], "f-edsr")


def compiled(model: ov.Model, threads: int, *, precision: str = "f32") -> ov.CompiledModel:
    """Return a model compiled for the CPU with exactly `threads` threads of one stream, none of them pinned.

    `precision` is that of float operations; left to OpenVINO it is "bf16" on CPUs that have it: other bytes there.
    """
    return core().compile_model(
        model,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # several workers share a machine: pinned, they would share a core
            "INFERENCE_PRECISION_HINT": precision,
        },
    )


@cache
def core() -> ov.Core:
    """Return OpenVINO's entry point, one a process."""
    return ov.Core()


def _limits(low: float, high: float, *, signed: bool) -> tuple[float, float]:
    """Return what 256 levels span: 0..high, or symmetric with zero on a level (zero padding stays exact)."""
    if not signed:
        return 0.0, max(high, 1e-6)
    peak = max(-low, high, 1e-6)
    return -peak * 128 / 127, peak


def _quantised(t: Any, limits: tuple[float, float]) -> Any:
    low, high = (np.float32(limit) for limit in limits)
    return op.fake_quantize(t, low, high, low, high, LEVELS)


def _conv(t: Any, conv: nn.Conv2d, limits: tuple[float, float] | None, *, gain: tuple[float, float]) -> Any:
    """One convolution; `gain` multiplies its input and its output (folded into the weights)."""
    weight_OIKL = conv.weight.detach().numpy() * np.float32(gain[0] * gain[1])
    assert conv.bias is not None
    bias_O = conv.bias.detach().numpy() * np.float32(gain[1])
    if limits is None:
        weight = op.constant(weight_OIKL)
    else:
        t = _quantised(t, limits)
        step_O111 = np.maximum(np.abs(weight_OIKL).max(axis=(1, 2, 3), keepdims=True) / 127, 1e-12)
        whole_OIKL = np.rint(weight_OIKL / step_O111).clip(-127, 127).astype(np.int8)
        weight = op.multiply(op.convert(op.constant(whole_OIKL), "f32"), op.constant(step_O111.astype(np.float32)))
    pad = [conv.kernel_size[0] // 2] * 2
    t = op.convolution(t, weight, [1, 1], pad, pad, [1, 1])
    return op.add(t, op.constant(bias_O.reshape(1, -1, 1, 1)))
