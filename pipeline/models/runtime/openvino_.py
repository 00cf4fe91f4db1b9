"""F-EDSR in OpenVINO on a CPU, in float32 or in int8 quantised from the ranges that the model file carries.

The graph is built directly: no export, no calibration data, compiled in a tenth of a second, so that weights that are
swapped into a running stream are quantised too.

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

from pipeline.errors import ModelError
from pipeline.models.fedsr import SLOPE, FEdsr
from pipeline.models.runtime.engine import Engine, Ranges
from pipeline.models.runtime.quantise import activation_limits, whole_weights
from pipeline.models.runtime.shuffle import shuffle, unshuffle


class OpenVinoFloat(Engine):
    """All convolutions in float32, also where the CPU has bfloat16."""

    name: ClassVar[str] = "openvino-fp32"
    int8: ClassVar[bool] = False

    def compile(self, net: FEdsr, device: str, ranges: Ranges) -> None:
        s, u = net.config.scale, net.config.unshuffle
        height, width = self.window.height_px // u, self.window.width_px // u
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
        return self._plane


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
    limits = activation_limits(net, ranges) if ranges is not None else {}
    whole = whole_weights(net) if ranges is not None else {}

    def conv(t: Any, name: str) -> Any:
        weight = op.constant(convs[name].weight.detach().numpy())
        if name in whole:
            t = _rounded(t, *limits[name])
            weight_OIKL, step_O = whole[name]
            weight = op.multiply(op.convert(op.constant(weight_OIKL), "f32"), op.constant(step_O.reshape(-1, 1, 1, 1)))
        bias = convs[name].bias
        assert bias is not None
        pad = [convs[name].kernel_size[0] // 2] * 2
        t = op.convolution(t, weight, [1, 1], pad, pad, [1, 1])
        return op.add(t, op.constant(bias.detach().numpy().reshape(1, -1, 1, 1)))

    def leaky(t: Any) -> Any:
        return op.prelu(t, op.constant(np.array([SLOPE], np.float32)))

    x = op.parameter(list(shape_NHWC), ov.Type.u8, name="y")
    t = op.multiply(op.convert(x, "f32"), np.float32(1 / 255))
    head = t = leaky(conv(op.transpose(t, np.array([0, 3, 1, 2])), "head"))
    for i in range(len(net.blocks)):
        t = op.add(t, conv(op.relu(conv(t, f"blocks.{i}.conv1")), f"blocks.{i}.conv2"))
    t = op.multiply(conv(leaky(op.add(head, conv(t, "close"))), "tail"), np.float32(255))
    t = _rounded(t, -128, 127)  # whole code values: adding them to bicubic is then exact
    return ov.Model([op.convert(op.transpose(t, np.array([0, 2, 3, 1])), "i8")], [x], "f-edsr")


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


def _rounded(t: Any, low: float, high: float) -> Any:
    """Round to 256 levels from `low` to `high`."""
    first, last = np.float32(low), np.float32(high)
    return op.fake_quantize(t, first, last, first, last, 256)
