"""What a user sees at the end of a run: a table of what came out, where it is and how to watch it."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.flow.job import Outcome
from pipeline.store import manifest as manifests
from pipeline.store.manifest import Manifest
from pipeline.store.objects import Store, open_store
from pipeline.store.parquet import read_table
from pipeline.wire.ids import StreamId

MEASURES = ("exposure", "sharpness", "noise", "stability")
"""Columns of the table `quality` whose means are shown, each in [0, 1], 1 = best."""


COLUMNS = ("stream", "state", "frames", "fps", "size", "playlist")
"""What is shown of each of several streams."""


def report(outcomes: Mapping[str, Outcome], *, fps: Mapping[StreamId, float], stopped: int) -> int:
    """Print the outcomes (by their store's URL) and what went wrong; return the exit code.

    Args:
        fps: frames made durable a second, by stream.
        stopped: the exit code of the signal that asked for an end, 0 if none did.

    Raises:
        LimpidError: of an only stream of which nothing came.
    """
    ended = list(outcomes.values())
    if len(ended) == 1 and ended[0].error is not None and ended[0].frames == 0:
        raise ended[0].error
    show(outcomes, fps=fps)
    for outcome in ended:
        if outcome.error is not None:
            print(f"{outcome.stream}: {outcome.error}", file=sys.stderr)
    if any(outcome.state == "failed" for outcome in ended):
        return 1
    return stopped if any(outcome.state == "stopped" for outcome in ended) else 0


def show(outcomes: Mapping[str, Outcome], *, fps: Mapping[StreamId, float]) -> None:
    """Print the outcomes (by their store's URL): an only one in full, several a line each."""
    found = [facts(url, outcome, fps.get(outcome.stream, 0.0)) for url, outcome in outcomes.items()]
    if len(found) == 1:
        rows = [list(pair) for pair in found[0]]
    else:
        rows = [list(COLUMNS), *([dict(pairs).get(column, "") for column in COLUMNS] for pairs in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def facts(url: str, outcome: Outcome, fps: float) -> list[tuple[str, str]]:
    """Return what is to be said of one stream, as (name, value)."""
    store = open_store(url)
    found = manifests.load(store)
    rows = [("stream", outcome.stream), ("state", outcome.state), ("frames", _frames(outcome))]
    if fps:
        rows.append(("fps", f"{fps:.1f} over {outcome.seconds:.1f} s"))
    if found is None:
        return rows
    rows += [("size", _sizes(found)), ("model", _enhancement(found))]
    quality = _means(read_table(store, "quality"))
    if quality:
        rows.append(("quality", f"{quality} (0 to 1, 1 = best)"))
    rows.append(("gaps", str(outcome.counts.get("events.gap", 0))))
    told = [
        f"{name} {count}"
        for name, count in sorted(outcome.counts.items())
        if name.startswith(("restarts", "set_aside"))
    ]
    if told:
        rows.append(("faults", ", ".join(told)))
    playlist = _playlist(store)
    if playlist:
        rows += [("playlist", playlist), ("watch it", how_to_watch(playlist))]
    return rows


def how_to_watch(playlist: str) -> str:
    """Return a command that plays a playlist."""
    return f"mpv {playlist}   (or VLC, ffplay, Safari; browsers with hls.js)"


def _frames(outcome: Outcome) -> str:
    return f"{outcome.frames} in {outcome.epochs} epochs" if outcome.epochs > 1 else str(outcome.frames)


def _scale(found: Manifest) -> int:
    for node in found.graph.get("stages", ()):
        if node["stage"] == "enhance":
            return int(node["config"]["scale"])
    return 1


def _sizes(found: Manifest) -> str:
    scale = _scale(found)
    sizes = dict.fromkeys((e.width, e.height) for e in found.epochs)
    return ", ".join(f"{w}×{h} → {w * scale}×{h * scale}" for w, h in sizes)


def _enhancement(found: Manifest) -> str:
    model = found.models.get("enhance", "")
    if not model:
        return "none"
    return f"{model} on {found.runtime}" if found.runtime else model


def _means(quality: pa.Table) -> str:
    parts = []
    for name in MEASURES:
        mean = pc.mean(quality[name]).as_py() if name in quality.column_names else None
        if mean is not None:
            parts.append(f"{name} {mean:.2f}")
    return ", ".join(parts)


def _playlist(store: Store) -> str:
    return f"{store.url}/hls/index.m3u8" if store.exists("hls/index.m3u8") else ""
