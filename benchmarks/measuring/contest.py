"""Contestants: each run in a process of its own that has a deadline, so that none can hang or bend the others.

A contestant is a command that writes one JSON object to the file named by its last argument. While it runs, the memory
and the CPU time of it and all its descendants are sampled. When the deadline passes all of them are killed.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
SHM = Path("/dev/shm")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What all processes of a contestant held and had used at one moment."""

    at_s: float  # time.monotonic()
    pss_bytes: int  # proportional set size: shared pages count once over all processes
    shm_bytes: int  # of /dev/shm, whoever holds it
    cpu_s: float  # since the contestant began, processes that have ended included as far as they were seen
    processes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """How a contestant's run ended: `said` is what it wrote, or `why` tells why there is nothing."""

    said: Mapping[str, Any]
    why: str = ""
    samples: tuple[Sample, ...] = field(default=(), repr=False)
    seconds: float = 0.0

    @property
    def peak_pss_bytes(self) -> int:
        """The most memory at a time."""
        return max((s.pss_bytes for s in self.samples), default=0)

    def cpu_between(self, start_s: float, stop_s: float) -> float:
        """Return CPU seconds used between two moments (time.monotonic()), interpolated between samples."""
        return self._cpu_at(stop_s) - self._cpu_at(start_s)

    def _cpu_at(self, at_s: float) -> float:
        before = Sample(at_s=at_s, pss_bytes=0, shm_bytes=0, cpu_s=0.0, processes=0)
        for sample in self.samples:
            if sample.at_s >= at_s:
                width = sample.at_s - before.at_s
                share = (at_s - before.at_s) / width if width > 0 else 1.0
                return before.cpu_s + share * (sample.cpu_s - before.cpu_s)
            before = sample
        return before.cpu_s


def run(
    command: Sequence[str | Path],
    *,
    deadline_s: float,
    every_s: float = 0.0,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> Ran:
    """Run `command` with the path of a result file behind it; return what it wrote there.

    Args:
        command: program and arguments.
        deadline_s: when to kill it and everything that it started.
        every_s: between samples; 0 takes none.
        env: variables beside the inherited ones.
        log: where its output goes; None: into a temporary file, whose end is in `why` on failure.
    """
    with tempfile.TemporaryDirectory(prefix="limpid-bench-") as scratch:
        out, said = Path(scratch) / "out.json", log or Path(scratch) / "log.txt"
        paths = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
        with said.open("wb") as told:
            began = time.monotonic()
            process = subprocess.Popen(
                [*map(str, command), str(out)],
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=subprocess.STDOUT,
                cwd=scratch,
                env={**os.environ, "PYTHONPATH": paths, **(env or {})},
                start_new_session=True,
            )
            watch = _Watch(process.pid)
            code = _wait(process, watch, began + deadline_s, every_s)
            watch.kill_all()
            process.wait(10)
        seconds = time.monotonic() - began
        samples = tuple(watch.samples)
        if code is None:
            return Ran(said={}, why=f"took more than {deadline_s:.0f} s and was killed", samples=samples)
        if code == 0 and out.is_file():
            return Ran(said=json.loads(out.read_text(encoding="utf-8")), samples=samples, seconds=seconds)
        tail = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-6:]
        return Ran(said={}, why=f"exit code {code}: " + " | ".join(tail)[-800:], samples=samples, seconds=seconds)


def python(*arguments: str | Path) -> list[str]:
    """Return the command that runs this interpreter with arguments."""
    return [sys.executable, *map(str, arguments)]


def middle(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Return the median, and the least and the largest."""
    return statistics.median(values), (min(values), max(values))


def load() -> float:
    """Return the load average of the last minute: above the number of cores, figures are of a busy machine."""
    return os.getloadavg()[0]


def _wait(process: subprocess.Popen[bytes], watch: _Watch, until: float, every_s: float) -> int | None:
    while True:
        left = until - time.monotonic()
        if left <= 0:
            return None
        try:
            return process.wait(min(left, every_s or 0.5))
        except subprocess.TimeoutExpired:
            watch.look(sample=bool(every_s))


class _Watch:
    """The process tree under one process."""

    def __init__(self, pid: int) -> None:
        self.samples: list[Sample] = []
        self._root = psutil.Process(pid)
        self._seen: dict[int, psutil.Process] = {pid: self._root}
        self._cpu: dict[int, float] = {}

    def look(self, *, sample: bool) -> None:
        try:
            children = self._root.children(recursive=True)
        except psutil.NoSuchProcess:
            return
        alive = {p.pid: p for p in (self._root, *children)}
        self._seen |= alive
        if not sample:
            return
        pss = 0
        for pid, process in alive.items():
            try:
                times = process.cpu_times()
                self._cpu[pid] = times.user + times.system
                pss += pss_of(pid)
            except (psutil.Error, OSError):
                continue
        self.samples.append(
            Sample(
                at_s=time.monotonic(),
                pss_bytes=pss,
                shm_bytes=shm_used(),
                cpu_s=sum(self._cpu.values()),
                processes=len(alive),
            )
        )

    def kill_all(self) -> None:
        """Kill whatever the contestant has started and left."""
        self.look(sample=False)
        left = [p for p in self._seen.values() if p.is_running()]
        for process in left:
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(left, timeout=10)


def pss_of(pid: int) -> int:
    """Return a process's proportional set size in bytes (Linux; raises OSError elsewhere and for the dead)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def shm_used() -> int:
    """Return the bytes in use on /dev/shm."""
    if not SHM.is_dir():
        return 0
    found = os.statvfs(SHM)
    return (found.f_blocks - found.f_bfree) * found.f_frsize
