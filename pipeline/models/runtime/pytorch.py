"""F-EDSR in PyTorch: float32 on a CPU, half precision and channels last on a GPU."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.models.fedsr import FEdsr
from pipeline.models.runtime.engine import Engine, Ranges

GPU_ROWS = 8
GPU_ROWS_PX = 8 * 640 * 360  # pixels a call that fill a GPU; larger frames go one by one


class PyTorch(Engine):
    """The reference runtime, and the one for GPUs."""

    name: ClassVar[str] = "pytorch"

    def compile(self, net: FEdsr, device: str, ranges: Ranges) -> None:
        try:
            self._device = torch.device(device)
            cuda = self._device.type == "cuda"
            self._dtype = torch.float16 if cuda else torch.float32
            # A copy: the caller's network stays where it is.
            self._net = FEdsr(net.config).eval().requires_grad_(False)
            self._net.load_state_dict(net.state_dict())
            self._net.to(device=self._device, dtype=self._dtype)
            for _, conv in self._net.layers():
                conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last)
        except RuntimeError as error:
            raise ModelError(
                f"the device '{device}' cannot be used: {error}", where=self.name, hint="limpid doctor lists devices"
            ) from error
        pixels = self.window.width_px * self.window.height_px
        self.rows = max(1, min(GPU_ROWS, GPU_ROWS_PX // pixels)) if cuda else 1

    def run(self, y_RHW: NDArray[np.uint8]) -> NDArray[np.int8]:
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)  # one setting a process: others may have changed it
        with torch.inference_mode():
            y_R1HW = torch.from_numpy(np.ascontiguousarray(y_RHW)).to(self._device)[:, None].to(self._dtype) / 255
            residual_R1HW = self._net(y_R1HW.contiguous(memory_format=torch.channels_last))
            codes_R1HW = (residual_R1HW.float() * 255).round().clamp(-128, 127).to(torch.int8)
        out: NDArray[np.int8] = codes_R1HW[:, 0].contiguous().cpu().numpy()
        return out
