"""Which runtime is the fastest here: by a short measurement at start-up, among those whose output is right."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.models.runtime import RUNTIMES, Engine, Ranges, open_engine
from pipeline.wire.frames import Size

if TYPE_CHECKING:
    from pipeline.models.fedsr import FEdsr

BUDGET_S = 2.0  # of all trials together
TRIAL_PX = 320 * 180  # larger frames are judged by a part of this size
TRIALS = 4
INT8_FLOOR_DB = 40.0  # int8 against float32; a quantisation that has gone wrong lies below 30


def choose(
    net: FEdsr,
    size: Size,
    *,
    device: str = "cpu",
    threads: int = 1,
    ranges: Ranges | None = None,
    budget_s: float = BUDGET_S,
) -> str:
    """Return the name of the fastest runtime for `net` on frames of `size`, in about `budget_s` at most.

    Float runtimes agree to a code value; int8 is taken only where it stays within INT8_FLOOR_DB of them on a test
    pattern. What is chosen decides bytes: it belongs in the stamp, and a replay uses its name, not this function.
    """
    trial = _part(size)
    y_NHW = pattern(trial)[None]
    kind = device.split(":", maxsplit=1)[0]
    names = [
        name
        for name, runtime in RUNTIMES.items()
        if kind in runtime.devices and (not runtime.int8 or (ranges and all(n in ranges for n, _ in net.layers())))
    ]
    if len(names) == 1:
        return names[0]
    deadline = time.monotonic() + budget_s
    seconds: dict[str, float] = {}
    for name in names:
        if seconds and time.monotonic() >= deadline:
            break
        engine = open_engine(name, net, trial, device=device, threads=threads, ranges=ranges)
        if RUNTIMES[name].int8 and not _sane(engine, net, y_NHW):
            continue
        seconds[name] = _fastest_s(engine, y_NHW, deadline)
    return min(seconds, key=seconds.__getitem__)


def pattern(size: Size) -> NDArray[np.uint8]:
    """Return a luma plane (H, W) with what a network meets: slopes, fine and coarse waves, hard edges, noise."""
    y, x = np.mgrid[0 : size.height_px, 0 : size.width_px].astype(np.float64)
    chirp = 50 * np.sin(x**2 / (2.5 * size.width_px)) * np.cos(y / 7)
    edges = 40.0 * ((x // 11 + y // 9) % 2)
    noise = np.random.default_rng(7).normal(0, 2, x.shape)
    plane = 60 + 90 * x / size.width_px + np.where(y < size.height_px / 2, chirp, edges) + noise
    out: NDArray[np.uint8] = plane.clip(16, 235).astype(np.uint8)
    return out


def _part(size: Size) -> Size:
    if size.width_px * size.height_px <= TRIAL_PX:
        return size
    width = min(size.width_px, 320)
    return Size(width_px=width, height_px=min(size.height_px, TRIAL_PX // width))


def _fastest_s(engine: Engine, y_NHW: NDArray[np.uint8], deadline: float) -> float:
    engine.upscale(y_NHW)
    best = math.inf
    for _ in range(TRIALS):
        start = time.perf_counter()
        engine.upscale(y_NHW)
        best = min(best, time.perf_counter() - start)
        if time.monotonic() >= deadline:
            break
    return best


def _sane(engine: Engine, net: FEdsr, y_NHW: NDArray[np.uint8]) -> bool:
    try:
        exact = open_engine("pytorch", net, engine.size, threads=engine.threads)
    except ModelError:
        return False
    error = engine.upscale(y_NHW).astype(np.float64) - exact.upscale(y_NHW)
    mse = float(np.mean(error**2))
    return mse == 0 or 10 * math.log10(255**2 / mse) >= INT8_FLOOR_DB
