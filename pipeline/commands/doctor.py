"""`limpid doctor`: what this machine has and lacks, each finding with its remedy; exit 1 if Limpid cannot run."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from pipeline.errors import LimpidError
from pipeline.models import SHIPPED

GIB = 1 << 30
MIN_MEMORY_BYTES = 2 * GIB  # one 1080p stream with queues, network and Ray's own processes (chosen)
MIN_SHM_BYTES = 1 * GIB  # Ray falls back to files in /tmp below what its object store asks for, and slows down
MIN_DISK_BYTES = 1 * GIB  # 16 Mbit/s, the cap of a rendition, for eight minutes
RAY_TIMEOUT_S = 90

GOOD, WARNING, BAD = "ok", "warning", "FAILED"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at: `level` is GOOD, WARNING (it runs, but …) or BAD (it does not)."""

    what: str
    level: str
    found: str
    remedy: str = ""


def main(argv: Sequence[str]) -> int:
    """Check, print a table, return 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="limpid doctor", description="check this machine before anything runs")
    parser.add_argument("-o", "--output", type=Path, default=Path(), metavar="DIR", help="where results will go")
    parser.add_argument("--ray", action="store_true", help="start Ray on this machine and run one task")
    args = parser.parse_args(argv)
    findings = list(examine(args.output, start_ray=args.ray))
    table = Table("", "", "found", "remedy", box=None, pad_edge=False)
    style = {GOOD: "green", WARNING: "yellow", BAD: "bold red"}
    for finding in findings:
        level = f"[{style[finding.level]}]{finding.level}[/]"
        table.add_row(level, finding.what, finding.found, finding.remedy)
    Console().print(table)
    return 1 if any(finding.level == BAD for finding in findings) else 0


def examine(output: Path, *, start_ray: bool = False) -> Iterator[Finding]:
    """Yield what is found, the cheap checks first."""
    yield judge_python(sys.version_info[:2])
    yield judge_cores(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    yield judge_size(
        "memory", psutil.virtual_memory().available, MIN_MEMORY_BYTES, "close other programs, or take smaller streams"
    )
    if Path("/dev/shm").is_dir():
        free = shutil.disk_usage("/dev/shm").free
        yield judge_size("/dev/shm", free, MIN_SHM_BYTES, "give it more: docker run --shm-size=4g …", level=WARNING)
    yield judge_output(output)
    yield from _devices()
    yield _codecs()
    yield _weights()
    yield _module("openvino", "the fastest runtime on CPUs", "pip install openvino")
    yield _module("ray", "more than one process", "pip install 'ray[serve]', or run with --local")
    yield _loopback()
    if start_ray:
        yield _ray()


def judge_python(version: tuple[int, int]) -> Finding:
    """Python's version is 3.11 or later."""
    level = GOOD if version >= (3, 11) else BAD
    remedy = "" if level == GOOD else "install Python 3.11 or later"
    return Finding(what="Python", level=level, found=f"{version[0]}.{version[1]}", remedy=remedy)


def judge_cores(cores: int) -> Finding:
    """Real time needs two cores: enhancing and encoding run side by side."""
    few = cores < 2
    remedy = "streams will be slower than real time; use two cores or more" if few else ""
    return Finding(what="cores", level=WARNING if few else GOOD, found=str(cores), remedy=remedy)


def judge_size(what: str, free_bytes: int, least_bytes: int, remedy: str, *, level: str = BAD) -> Finding:
    """At least `least_bytes` are free; else `level`."""
    enough = free_bytes >= least_bytes
    return Finding(
        what=what,
        level=GOOD if enough else level,
        found=f"{free_bytes / GIB:.1f} GiB free",
        remedy="" if enough else f"{least_bytes / GIB:.0f} GiB are needed: {remedy}",
    )


def judge_output(output: Path) -> Finding:
    """The directory of the results, or the nearest one above it, can be written and has room."""
    folder = output.absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        remedy = "name another directory with -o, or change its owner or mode"
        return Finding(what="output", level=BAD, found=f"{folder} cannot be written", remedy=remedy)
    return judge_size(f"disk of {folder}", shutil.disk_usage(folder).free, MIN_DISK_BYTES, "free some, or name another")


def _devices() -> Iterator[Finding]:
    import torch  # noqa: PLC0415  # two seconds, only for this command's run

    if not torch.cuda.is_available():
        yield Finding(what="GPU", level=GOOD, found="none, networks run on the CPU")
        return
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        yield Finding(what=f"GPU {index}", level=GOOD, found=f"{facts.name}, {facts.total_memory / GIB:.0f} GiB")


def _codecs() -> Finding:
    from pipeline.media.hardware import hardware_codecs  # noqa: PLC0415  # imports FFmpeg's libraries

    names = ", ".join(hardware_codecs())
    return Finding(what="NVDEC, NVENC", level=GOOD, found=f"FFmpeg has {names}" if names else "absent")


def _weights() -> Finding:
    from pipeline.models.load import load_any  # noqa: PLC0415  # imports torch, see above

    names = []
    try:
        for path in sorted(SHIPPED.glob("*.safetensors")):
            header, _ = load_any(path)
            names.append(f"{header.name}@{header.version}")
    except LimpidError as error:
        return Finding(what="weights", level=BAD, found=str(error), remedy="install Limpid again")
    if not names:
        return Finding(what="weights", level=BAD, found=f"none in {SHIPPED}", remedy="install Limpid again")
    return Finding(what="weights", level=GOOD, found=", ".join(names))


def _module(name: str, purpose: str, remedy: str) -> Finding:
    if importlib.util.find_spec(name) is None:
        return Finding(what=name, level=WARNING, found="absent", remedy=f"{purpose}: {remedy}")
    return Finding(what=name, level=GOOD, found=importlib.metadata.version(name))


def _loopback() -> Finding:
    try:
        with socket.create_server(("127.0.0.1", 0)):
            return Finding(what="ports", level=GOOD, found="127.0.0.1 can be listened on")
    except OSError as error:
        remedy = "Ray's processes talk over it: allow it, or run with --local"
        return Finding(what="ports", level=WARNING, found=f"127.0.0.1: {error.strerror}", remedy=remedy)


def _ray() -> Finding:
    """Start Ray in a process of its own, which is ended with all that it started when it hangs."""
    code = "import ray; ray.init(log_to_driver=False); print(ray.get(ray.remote(lambda: 41 + 1).remote()))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        output, errors = process.communicate(timeout=RAY_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        return Finding(
            what="Ray's start", level=BAD, found=f"nothing after {RAY_TIMEOUT_S} s", remedy="run with --local; see docs"
        )
    if process.returncode or "42" not in output:
        lines = errors.strip().splitlines()
        return Finding(what="Ray's start", level=BAD, found=lines[-1] if lines else "no answer", remedy="--local")
    return Finding(what="Ray's start", level=GOOD, found="started, and ran a task")
