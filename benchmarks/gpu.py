"""F-EDSR on a GPU: frames a second by size, beside the same network on the CPU and the limit of moving the pictures.

The engine takes uint8 frames in host memory and gives them back up-scaled: decoders and encoders sit there. The limit
is what the same route costs with no network in between: copies both ways, and the bicubic base on one CPU core.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from report import Row, alternating, parser, print_table, write_json

from pipeline.models import SHIPPED
from pipeline.models.fedsr import FEdsr, FEdsrConfig
from pipeline.models.load import load_model
from pipeline.models.runtime import open_engine
from pipeline.models.runtime.choose import pattern
from pipeline.vision.upscale import bicubic
from pipeline.wire.frames import Size

SIZES = ((320, 180), (640, 360), (1280, 720), (1920, 1080))
FRAMES = 8


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--device", default="cuda")
    chosen = options.parse_args()
    if not torch.cuda.is_available():
        print("there is no CUDA device: nothing to measure", file=sys.stderr)
        return 0
    shipped = load_model(SHIPPED / "f-edsr-x2.safetensors")[1].fold()
    large = FEdsr(FEdsrConfig(channels=64, blocks=16)).eval().requires_grad_(False)
    rows, body = [], []
    for width, height in SIZES[: 2 if chosen.quick else None]:
        size = Size(width_px=width, height_px=height)
        y_NHW = np.stack([np.roll(pattern(size), 3 * i, axis=1) for i in range(FRAMES)])
        engines = {
            "shipped": open_engine("pytorch", shipped, size, device=chosen.device),
            "16 blocks of 64": open_engine("pytorch", large, size, device=chosen.device),
        }
        runs: dict[str, Callable[[], object]] = {
            name: partial(engine.upscale, y_NHW) for name, engine in engines.items()
        }
        if size.width_px <= 640:
            on_cpu = open_engine("pytorch", shipped, size, threads=1)
            runs["shipped on one core"] = partial(on_cpu.upscale, y_NHW)
        runs["moving only"] = partial(_moved, y_NHW, chosen.device)
        times = alternating(runs, 5 if chosen.quick else 20, clock=time.perf_counter)
        limit = 1000 * FRAMES / times["moving only"].median
        for name, found in times.items():
            fps = 1000 * FRAMES / found.median
            body.append([f"{width}×{height}", name, f"{fps:.0f}", f"{fps / limit:.2f}"])
            rows.append(
                Row(
                    case=f"{width}x{height} {name}",
                    metric="throughput",
                    unit="frames/s",
                    value=fps,
                    reference="moving only",
                    reference_value=limit,
                    spread=(1000 * FRAMES / found.spread[1], 1000 * FRAMES / found.spread[0]),
                )
            )
    print_table(f"F-EDSR ×2 on {torch.cuda.get_device_name(0)}", ["size", "network", "frames/s", "/ limit"], body)
    if chosen.json:
        write_json(chosen.json, rows)
    return 0


def _moved(y_NHW: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], device: str) -> None:
    """Do all but the network: to the device, a residual of the output's size back, the base and the sum."""
    for y_HW in y_NHW:
        base_HW = bicubic(y_HW, 2)
        on_device = torch.from_numpy(y_HW).to(device)
        residual = on_device.new_zeros(base_HW.shape, dtype=torch.int8).cpu().numpy()
        np.add(base_HW.view(np.int8), residual, out=base_HW.view(np.int8))


if __name__ == "__main__":
    sys.exit(main())
