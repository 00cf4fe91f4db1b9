"""What every contestant's stages do, written once. Needs NumPy only, for a peer's environment may hold no more."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FRAME_BYTES = 1280 * 720 * 3 // 2  # I420
WORKERS = 4  # stages between the one that makes frames and the one that counts
_PAGE = 4096
_RECORD = struct.Struct("<dq")  # time.monotonic(), frame number


def make_frames(numbers: Sequence[int]) -> np.ndarray[Any, Any]:
    """Return one 1.4 MB frame a number, (N, FRAME_BYTES) uint8, written throughout; the number is in its first bytes.

    Stands for decoding: memory is allocated and every byte of it is written once.
    """
    data = np.empty((len(numbers), FRAME_BYTES), np.uint8)
    for row, number in zip(data, numbers, strict=True):
        row.fill(number % 251)
        row[:8] = np.frombuffer(int(number).to_bytes(8, "little"), np.uint8)
    return data


def numbers_of(data: np.ndarray[Any, Any]) -> list[int]:
    """Return the numbers that `make_frames` put in."""
    return [int.from_bytes(row[:8].tobytes(), "little") for row in data]


def work(data: np.ndarray[Any, Any], spin_ms: float) -> None:
    """Look at every page of the frames, then use `spin_ms` of CPU time for each of them."""
    touched = int(data[:, ::_PAGE].sum())
    assert touched >= 0
    if spin_ms:
        until = time.thread_time() + spin_ms * 1e-3 * len(data)
        while time.thread_time() < until:
            pass


class Log:
    """Where a stage writes when it was done with each frame: a file of its own in a folder.

    Args:
        folder: that exists; of this run only.
        stage: 0 makes frames, 1 to WORKERS work, WORKERS + 1 counts.
    """

    def __init__(self, folder: str, stage: int) -> None:
        self._file = os.open(Path(folder) / f"stage{stage}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def done(self, data: np.ndarray[Any, Any]) -> None:
        """Note that the stage is done with frames, now."""
        now = time.monotonic()
        os.write(self._file, b"".join(_RECORD.pack(now, number) for number in numbers_of(data)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Steady:
    """The steady part of a run.

    Attributes:
        start_s, stop_s: time.monotonic(), from the arrival of the first counted frame to that of the last.
        frames: that were worth of work done in it: of all stages' work, what was done before the start does not count,
            so a contestant that runs ahead in its first stages gains nothing by it.
        ordered: whether frames came in their order.
    """

    start_s: float
    stop_s: float
    frames: float
    ordered: bool


def steady(folder: Path, frames: int, warm: float) -> Steady:
    """Return the steady part of a run, which begins when the share `warm` of the frames has arrived.

    Raises:
        ValueError: a stage has not had every frame exactly once.
    """
    stages = WORKERS + 2
    logs = [list(_RECORD.iter_unpack((folder / f"stage{n}").read_bytes())) for n in range(stages)]
    for stage, log in enumerate(logs):
        if sorted(number for _, number in log) != list(range(frames)):
            raise ValueError(f"stage {stage}: {len(log)} frames, {len({n for _, n in log})} different ones of {frames}")
    arrivals = logs[-1]
    start_s = arrivals[max(0, int(warm * frames) - 1)][0]
    before = sum(at <= start_s for log in logs for at, _ in log)
    return Steady(
        start_s=start_s,
        stop_s=arrivals[-1][0],
        frames=frames - before / stages,
        ordered=[n for _, n in arrivals] == list(range(frames)),
    )
