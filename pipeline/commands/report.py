"""Figures as a table and as the JSON that every evaluation and benchmark writes (docs/formats.md)."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pipeline.errors import StorageError

PACKAGES = ("limpid", "ray", "torch", "openvino", "onnxruntime", "opencv-python-headless", "av", "numpy", "pyarrow")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One measured figure, beside a peer or limit that was measured in the same run."""

    case: str  # what was measured, on what
    metric: str  # "psnr_y", "cpu_time", "throughput"
    unit: str  # "dB", "ms", "frames/s", "" for a pure number
    value: float
    reference: str = ""  # the peer or limit, "" if there is none
    reference_value: float | None = None
    spread: tuple[float, float] | None = None  # lowest and highest of the repetitions or frames

    @property
    def ratio(self) -> float | None:
        """value / reference_value; None without a reference, and for decibels, which are a ratio already."""
        if self.reference_value is None or self.reference_value == 0 or self.unit == "dB":
            return None
        return self.value / self.reference_value

    def to_dict(self) -> dict[str, Any]:
        """Return the row as the JSON object of the interface."""
        return {**asdict(self), "ratio": self.ratio}


def document(rows: Sequence[Row], command: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the JSON document: the rows, and beside them hardware, versions, command (None: this process's)."""
    return {
        "hardware": hardware(),
        "versions": versions(),
        "command": shlex.join(sys.argv if command is None else command),
        "rows": [row.to_dict() for row in rows],
    }


def write_json(path: Path, rows: Sequence[Row], command: Sequence[str] | None = None) -> None:
    """Write `document(rows)` to `path`, whose folder is made if need be.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document(rows, command), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot be written: {error.strerror}", where=str(path), hint="name another file") from error


def hardware() -> dict[str, Any]:
    """Return what this machine is: processor, cores that this process may use, memory, GPU."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpu": _gpu(),
        "system": platform.platform(terse=True),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that figures depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to stdout, the first column left, the others right; as wide as it needs to be in a pipe."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console()
    wide = Console(width=1000).measure(table).maximum
    if not console.is_terminal and console.width < wide:
        console = Console(width=wide)
    console.print(table)


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _gpu() -> str | None:
    torch = sys.modules.get("torch")  # a figure that a GPU decides has imported it
    if torch is None or not torch.cuda.is_available():
        return None
    return str(torch.cuda.get_device_name(0))
