"""Published super-resolution networks (FSRCNN, ESPCN as frozen TensorFlow graphs) in OpenVINO, to compare with.

They run in the same runtime and under the same settings as F-EDSR: uint8 luma in, uint8 luma out, one frame size.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as op
from openvino.preprocess import PrePostProcessor

from pipeline.errors import ModelFormatError, Unreachable
from pipeline.models.runtime.openvino_ import compiled, core
from pipeline.wire.frames import Size

SCALE = 2


class FrozenNetwork:
    """A frozen graph made ready for one frame size; luma only, ×2."""

    def __init__(self, path: Path, size: Size, *, threads: int, precision: str = "f32") -> None:
        """Compile the graph at `path`; `precision` is that of `openvino_.compiled`.

        Raises:
            Unreachable: there is no such file.
            ModelFormatError: it is no frozen graph that takes (1, H, W, 1) and gives (1, 1, 2H, 2W).
        """
        self._x = np.zeros((1, size.height_px, size.width_px, 1), np.uint8)
        self._y = np.zeros((1, 1, SCALE * size.height_px, SCALE * size.width_px), np.uint8)
        self._request = compiled(self._graph(path), threads, precision=precision).create_infer_request()
        self._request.set_input_tensor(ov.Tensor(self._x, shared_memory=True))
        self._request.set_output_tensor(ov.Tensor(self._y, shared_memory=True))

    def upscale(self, y_NHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return luma (N, H, W) up-scaled to (N, 2H, 2W)."""
        out_NHW = np.empty((len(y_NHW), *self._y.shape[2:]), np.uint8)
        for y_HW, out_HW in zip(y_NHW, out_NHW, strict=True):
            self._x[0, :, :, 0] = y_HW
            self._request.infer()
            out_HW[...] = self._y[0, 0]
        return out_NHW

    def _graph(self, path: Path) -> ov.Model:
        """Return the graph with uint8 code values in and out instead of floats in 0..1."""
        if not path.is_file():
            raise Unreachable("there is no such file", where=str(path), hint="give the folder of the peers' .pb files")
        try:
            model = core().read_model(str(path))
            model.reshape(list(self._x.shape))
        except RuntimeError as error:
            raise ModelFormatError("no frozen graph of a luma network", where=str(path)) from error
        if model.output(0).partial_shape.to_shape() != ov.Shape(self._y.shape):
            raise ModelFormatError(
                f"it gives {model.output(0).partial_shape}", where=str(path), hint="use a ×2 network"
            )
        steps = PrePostProcessor(model)
        steps.input().tensor().set_element_type(ov.Type.u8)
        steps.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
        model = steps.build()
        codes = op.multiply(op.clamp(model.get_results()[0].input_value(0), 0.0, 1.0), np.float32(255))
        return ov.Model([op.convert(op.round(codes, "half_to_even"), "u8")], model.get_parameters(), path.stem)
