"""TCSR made ready for one frame size: luma of a frame and its neighbours in, refined luma out.

On a CPU the low form runs in OpenVINO in float32, on cells of u × u pixels as the network computes them: pixels are
moved as bytes (`shuffle.py`), and the 5×5 linear path at full size is a 3×3 convolution of cells, exactly. Its output
is `tcsr.refine_y`'s but for a code value here and there; everything else runs as `refine_y` does, in PyTorch.

Shapes: H × W pixels of F-EDSR's output, padded to u·h × u·w; q = u² pixels a cell; K neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import cv2
import numpy as np
import openvino as ov
import torch
from numpy.typing import NDArray
from openvino import opset13 as op
from torch import nn

from pipeline.models.fedsr import SLOPE
from pipeline.models.runtime.openvino_ import compiled
from pipeline.models.runtime.shuffle import shuffle, unshuffle
from pipeline.models.tcsr import DOUBT, MARGIN_PX, DifferenceFusion, Tcsr, refine_y
from pipeline.vision.motion import aligned_plane
from pipeline.wire.frames import Size

Plane = NDArray[np.uint8]


class Refiner(Protocol):
    """Refines one frame."""

    def refine(self, target_HW: Plane, neighbours: Sequence[Plane]) -> Plane:
        """Return what `tcsr.refine_y` does; planes of the size that it was made for."""


def open_refiner(net: Tcsr, size: Size, *, device: str = "cpu", threads: int = 1) -> Refiner:
    """Return `net`, which lies on `device`, ready for frames of `size` (F-EDSR's output)."""
    if device == "cpu" and isinstance(net.fusion, DifferenceFusion) and net.config.unshuffle > 1:
        return _OpenVino(net, size, threads)
    return _PyTorch(net, threads)


class _PyTorch:
    def __init__(self, net: Tcsr, threads: int) -> None:
        self._net, self._threads = net, threads

    def refine(self, target_HW: Plane, neighbours: Sequence[Plane]) -> Plane:
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)  # one setting a process: others may have changed it
        return refine_y(self._net, target_HW, neighbours)


class _OpenVino:
    def __init__(self, net: Tcsr, size: Size, threads: int) -> None:
        u, k = net.config.unshuffle, 2 * net.config.k
        self._scale, self._unshuffle = net.config.scale, u
        height, width = (side + 2 * MARGIN_PX for side in (size.height_px, size.width_px))
        self._padded = np.zeros((height + -height % u, width + -width % u), np.uint8)
        cells = (1, self._padded.shape[0] // u, self._padded.shape[1] // u, u * u)
        self._x = [np.zeros(cells, np.uint8) for _ in range(1 + k)]
        self._y = np.zeros(cells, np.int8)
        self._residual = np.zeros(self._padded.shape, np.int8)
        assert isinstance(net.fusion, DifferenceFusion)
        self._request = compiled(graph(net.fusion, cells, k), threads).create_infer_request()
        for i, x in enumerate(self._x):
            self._request.set_input_tensor(i, ov.Tensor(x, shared_memory=True))
        self._request.set_output_tensor(ov.Tensor(self._y, shared_memory=True))

    def refine(self, target_HW: Plane, neighbours: Sequence[Plane]) -> Plane:
        planes = [target_HW, *(aligned_plane(target_HW, neighbour, self._scale) for neighbour in neighbours)]
        height, width = target_HW.shape
        bottom, right = self._padded.shape[0] - MARGIN_PX - height, self._padded.shape[1] - MARGIN_PX - width
        for plane_HW, x in zip(planes, self._x, strict=True):
            cv2.copyMakeBorder(plane_HW, MARGIN_PX, bottom, MARGIN_PX, right, cv2.BORDER_REPLICATE, dst=self._padded)
            unshuffle(self._padded, self._unshuffle, x[0])
        self._request.infer()
        shuffle(self._y[0], self._unshuffle, self._residual)
        residual_HW = self._residual[MARGIN_PX : MARGIN_PX + height, MARGIN_PX : MARGIN_PX + width]
        out: Plane = cv2.add(target_HW, residual_HW, dtype=cv2.CV_8U)  # type: ignore[assignment]
        return out


def graph(fusion: DifferenceFusion, cells_NHWC: tuple[int, ...], num_neighbours: int) -> ov.Model:
    """Return fusion and reconstruction as an OpenVINO model.

    Inputs: target and neighbours, (1, h, w, q) uint8 each; output: the residual (1, h, w, q) in int8 code values.
    """

    def conv(t: Any, layer: nn.Module) -> Any:
        assert isinstance(layer, nn.Conv2d) and layer.bias is not None
        pad = [layer.kernel_size[0] // 2] * 2
        t = op.convolution(t, op.constant(layer.weight.detach().numpy()), [1, 1], pad, pad, [1, 1])
        return op.add(t, op.constant(layer.bias.detach().numpy().reshape(1, -1, 1, 1)))

    def leaky(t: Any) -> Any:
        return op.prelu(t, op.constant(np.array([SLOPE], np.float32)))

    inputs = [op.parameter(list(cells_NHWC), ov.Type.u8, name=f"x{i}") for i in range(1 + num_neighbours)]
    first, *others = (
        op.multiply(op.transpose(op.convert(x, "f32"), np.array([0, 3, 1, 2])), np.float32(1 / 255)) for x in inputs
    )
    target = leaky(conv(op.subtract(first, np.float32(0.5)), fusion.target))
    features, differences = [target], []
    for aligned in others:
        difference = op.subtract(aligned, first)
        scaled = op.multiply(difference, np.float32(fusion.gain))
        neighbour = conv(op.concat([op.subtract(aligned, np.float32(0.5)), scaled], 1), fusion.neighbour)
        doubt = op.relu(conv(op.multiply(op.abs(scaled), np.float32(DOUBT)), fusion.doubt))
        distance = op.sigmoid(op.subtract(op.multiply(target, neighbour), doubt))
        features.append(op.multiply(distance, neighbour))
        differences.append(difference)
    x = leaky(conv(op.concat(features, 1), fusion.merge))
    x = op.add(x, conv(op.relu(conv(x, fusion.block.conv1)), fusion.block.conv2))
    kernel = cell_kernel(fusion.linear.weight.detach().numpy(), fusion.unshuffle)
    linear = op.convolution(op.concat(differences, 1), op.constant(kernel), [1, 1], [1, 1], [1, 1], [1, 1])
    residual = op.multiply(op.add(conv(x, fusion.tail), linear), np.float32(255))
    rounded = op.fake_quantize(residual, *(np.float32(limit) for limit in (-128, 127, -128, 127)), 256)
    return ov.Model([op.convert(op.transpose(rounded, np.array([0, 2, 3, 1])), "i8")], inputs, "tcsr")


def cell_kernel(weight_1K55: NDArray[np.float32], unshuffle_by: int) -> NDArray[np.float32]:
    """Return the kernel (q, K·q, 3, 3) that does to cells of u × u pixels, u ≥ 2, what a 5×5 one does to pixels."""
    u, num_planes = unshuffle_by, weight_1K55.shape[1]
    assert u >= 2, "two pixels further is two cells further"
    out = np.zeros((u * u, num_planes * u * u, 3, 3), np.float32)
    for row in range(u):
        for column in range(u):
            for a in range(5):
                for b in range(5):
                    cell_y, inner_y = divmod(row + a - 2, u)
                    cell_x, inner_x = divmod(column + b - 2, u)
                    source = np.arange(num_planes) * u * u + inner_y * u + inner_x
                    out[row * u + column, source, cell_y + 1, cell_x + 1] += weight_1K55[0, :, a, b]
    return out
