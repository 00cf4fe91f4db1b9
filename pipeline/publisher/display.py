"""What the streamer sees: PSNR curves, state, uplink and frames on a terminal; or one JSON line a second."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.publisher.session import Status

_LEVELS = "▁▂▃▄▅▆▇█"
_CURVE_COLUMNS = 60
_BAR_COLUMNS = 30
_LINE_EVERY = 5  # without a terminal: a line each so many statuses


class Display:
    """Shows each `Status` it is called with while it is entered: live on a terminal, else a line now and then."""

    def __init__(self, *, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._live = Live(console=self._console, transient=False) if self._console.is_terminal else None
        self._count = 0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, status: Status) -> None:
        """Show a status."""
        if self._live is not None:
            self._live.update(picture(status))
        elif self._count % _LINE_EVERY == 0:
            self._console.print(line(status), highlight=False)
        self._count += 1


class JsonLines:
    """Prints each `Status` as one line of JSON."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._out.flush()

    def __call__(self, status: Status) -> None:
        """Print a status; of the curve its newest point only, which is in `standing`."""
        found = asdict(status)
        del found["curve"]
        print(json.dumps(found), file=self._out, flush=True)


def line(status: Status) -> str:
    """Return a status in one line."""
    standing = status.standing
    parts = [f"{status.at_s:.0f} s", f"{status.frames} frames", status.state]
    if standing is not None:
        parts.append(f"deployed {standing.point.deployed_db:.2f} dB")
        if standing.point.best_db is not None:
            parts.append(f"best {standing.point.best_db:.2f} dB")
    parts.append(f"video {status.video_bps / 1e3:.0f} kb/s, uploads {status.upload_bps / 1e3:.0f} kb/s")
    if status.push is not None and not status.push.connected:
        parts.append(f"not connected: {status.push.reason}")
    return " · ".join(parts)


def picture(status: Status) -> Group:
    """Return a status as the table that a terminal shows."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column()
    push, standing = status.push, status.standing
    table.add_row("state", status.state + (f" ({standing.why})" if standing and standing.why else ""))
    size = f"{status.size}, " if status.size is not None else ""
    table.add_row("video", f"{size}{status.frames} frames, {status.at_s:.0f} s, late by {status.late_s:.1f} s")
    if push is not None:
        how = "connected" if push.connected else f"not connected: {push.reason}"
        waits = f"{push.pushed} pushed, {push.dropped} dropped, {push.waiting_s:.1f} s waiting"
        table.add_row("push", f"{how}; {waits}")
    if standing is not None:
        deployed = [point.deployed_db for point in status.curve]
        best = [point.best_db for point in status.curve]
        low, high = _range([*deployed, *best])
        table.add_row("deployed", _curve(deployed, low, high, f"{standing.point.deployed_db:.2f} dB"))
        if standing.point.best_db is not None:
            table.add_row("best", _curve(best, low, high, f"{standing.point.best_db:.2f} dB"))
        gain = "none yet" if standing.gain_db is None else f"{standing.gain_db:+.2f} dB"
        table.add_row(
            "training",
            f"number {standing.trainings}, {standing.steps} steps, gain {gain}, target {standing.target_db:+.2f} dB",
        )
    table.add_row("uplink", _bar(status))
    uploads = f"{status.accepted} taken, {status.refused} refused, {status.failed} not reached"
    table.add_row("uploads", f"{uploads}, {status.sent_bytes / 1e3:.0f} kB")
    if status.service:
        table.add_row("service", status.service)
    return Group(table)


def _range(values: Sequence[float | None]) -> tuple[float, float]:
    known = [value for value in values if value is not None]
    return min(known), max(*known, min(known) + 0.5)


def _curve(values: Sequence[float | None], low: float, high: float, now: str) -> Text:
    """Return values as a row of blocks, the newest at the right, and in words."""
    chosen = values[-_CURVE_COLUMNS:]
    top = len(_LEVELS) - 1
    blocks = "".join(" " if v is None else _LEVELS[round((v - low) / (high - low) * top)] for v in chosen)
    return Text.assemble((blocks, "cyan"), f" {now}  ({low:.1f} to {high:.1f})")


def _bar(status: Status) -> Text:
    """Return how the uplink is used: video, uploads, free."""
    shares = [min(1.0, rate / status.uplink_bps) for rate in (status.video_bps, status.upload_bps)]
    video = round(shares[0] * _BAR_COLUMNS)
    uploads = min(_BAR_COLUMNS - video, round(shares[1] * _BAR_COLUMNS))
    rates = f" video {status.video_bps / 1e3:.0f}, uploads {status.upload_bps / 1e3:.0f} of"
    return Text.assemble(
        ("█" * video, "green"),
        ("█" * uploads, "magenta"),
        ("░" * (_BAR_COLUMNS - video - uploads), "dim"),
        f"{rates} {status.uplink_bps / 1e3:.0f} kb/s",
    )
