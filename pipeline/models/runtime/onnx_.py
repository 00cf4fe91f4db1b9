"""F-EDSR in onnxruntime on a CPU, float32. The ONNX graph is built directly, without an export.

Input (1, h, w, u²) uint8, output (1, h, w, (s·u)²) int8 code values, as in the OpenVINO runtime.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pipeline.models.fedsr import SLOPE, FEdsr
from pipeline.models.runtime.engine import Engine, Ranges
from pipeline.models.runtime.shuffle import shuffle, unshuffle

OPSET = 17
IR_VERSION = 8  # of opset 17; onnx would write its newest, which an older onnxruntime refuses


class OnnxRuntime(Engine):
    """All convolutions in float32."""

    name: ClassVar[str] = "onnx"

    def compile(self, net: FEdsr, device: str, ranges: Ranges) -> None:
        s, u = net.config.scale, net.config.unshuffle
        height, width = self.window.height_px // u, self.window.width_px // u
        self._x = np.zeros((1, height, width, u * u), np.uint8)
        self._plane = np.zeros((1, s * u * height, s * u * width), np.int8)
        self._unshuffle, self._shuffle = u, s * u
        self._session = session(graph(net, self._x.shape), self.threads)

    def run(self, y_RHW: NDArray[np.uint8]) -> NDArray[np.int8]:
        unshuffle(y_RHW[0], self._unshuffle, self._x[0])
        codes_NHWC: NDArray[np.int8] = self._session.run(None, {"y": self._x})[0]
        shuffle(codes_NHWC[0], self._shuffle, self._plane[0])
        return self._plane


def session(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """Return a model ready to run with exactly `threads` threads, which sleep when there is nothing to do."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def graph(net: FEdsr, shape_NHWC: tuple[int, ...]) -> onnx.ModelProto:
    """Return the network as an ONNX model."""
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    convs = dict(net.layers())

    def constant(name: str, value: Any) -> str:
        weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(kind: str, *inputs: str, **attributes: Any) -> str:
        out = f"t{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def conv(t: str, name: str, before: float = 1.0, after: float = 1.0) -> str:
        layer = convs[name]
        assert layer.bias is not None
        weight = constant(f"{name}.weight", layer.weight.detach().numpy() * np.float32(before * after))
        bias = constant(f"{name}.bias", layer.bias.detach().numpy() * np.float32(after))
        return node("Conv", t, weight, bias, pads=[layer.kernel_size[0] // 2] * 4)

    t = node("Transpose", node("Cast", "y", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    head = t = node("LeakyRelu", conv(t, "head", before=1 / 255), alpha=SLOPE)
    for i in range(len(net.blocks)):
        t = node("Add", t, conv(node("Relu", conv(t, f"blocks.{i}.conv1")), f"blocks.{i}.conv2"))
    t = conv(node("LeakyRelu", node("Add", head, conv(t, "close")), alpha=SLOPE), "tail", after=255.0)
    low, high = constant("low", np.float32(-128)), constant("high", np.float32(127))
    t = node("Cast", node("Clip", node("Round", t), low, high), to=TensorProto.INT8)
    out = node("Transpose", t, perm=[0, 2, 3, 1])
    y = helper.make_tensor_value_info("y", TensorProto.UINT8, shape_NHWC)
    residual = helper.make_tensor_value_info(out, TensorProto.INT8, (*shape_NHWC[:3], convs["tail"].out_channels))
    return helper.make_model(
        helper.make_graph(nodes, "f-edsr", [y], [residual], weights),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
