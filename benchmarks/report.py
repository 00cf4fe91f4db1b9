"""What the benchmarks share: their command line, the JSON of the interface, and time per call in turn.

Every script: `python benchmarks/NAME.py [--quick] [--json FILE]`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.commands.report import Row, document, print_table, write_json

__all__ = ["SHARED", "Row", "Times", "alternating", "document", "parser", "print_table", "write_json"]

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """Repetitions of one thing, in ms."""

    ms: tuple[float, ...]

    @property
    def least(self) -> float:
        return min(self.ms)

    @property
    def median(self) -> float:
        return statistics.median(self.ms)

    @property
    def spread(self) -> tuple[float, float]:
        """Least and ninth decile: the rest is what the machine did beside."""
        return self.least, sorted(self.ms)[int(0.9 * (len(self.ms) - 1))]


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return the parser with the options that every benchmark has."""
    out = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    out.add_argument("--quick", action="store_true", help="fewer repetitions and cases: seconds, not minutes")
    out.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    return out


def alternating(
    calls: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.process_time
) -> dict[str, Times]:
    """Return the time of each call, `repeats` times, the calls in turn: what disturbs one disturbs all.

    A call that returns a float has measured itself, in ms (another process did the work). `clock` in seconds; the
    default counts this process's CPU time, which a busy machine disturbs least.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            start = clock()
            own = call()
            taken[name].append(own if isinstance(own, float) else (clock() - start) * 1e3)
    return {name: Times(ms=tuple(ms)) for name, ms in taken.items()}
