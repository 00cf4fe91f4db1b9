"""`limpid show ID`: one stream, all that is known of it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from actors.commands.client import add_options, client_of, plain, print_json, stream_path


def main(argv: Sequence[str]) -> int:
    """Print a stream's status."""
    parser = argparse.ArgumentParser(prog="limpid show", description="Show a stream.")
    parser.add_argument("id", metavar="ID", help="the stream's id")
    add_options(parser)
    args = parser.parse_args(argv)
    client = client_of(args)
    status = client.call("GET", stream_path(args.id))
    if args.json:
        print_json(status)
        return 0
    rows = list(_rows(status, client.server))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name.ljust(width)}  {plain(value)}")
    return 0


def _rows(status: Mapping[str, Any], server: str) -> Iterator[tuple[str, str]]:
    reason = f" ({status['reason']})" if status["reason"] else ""
    yield "stream", status["id"]
    yield "source", status["source"]
    yield "state", f"{status['state']}{reason}"
    yield "since", datetime.fromtimestamp(status["created_at"], UTC).isoformat(timespec="seconds")
    for name, value in sorted(status["labels"].items()):
        yield "label", f"{name}={value}"
    if status["width"]:
        yield "source size", f"{status['width']}×{status['height']}"
        gain = "" if status["gain_db"] is None else f", {status['gain_db']:+.2f} dB over the generic model"
        yield "enhanced by", f"{status['model'] or 'no model'} {status['runtime']}{gain}"
    yield "frames", f"{status['frames']}, {status['fps_in']:.1f}/s in, {status['fps_out']:.1f}/s out"
    yield "lag", f"{_quantiles(status['lag_s'])}, target {status['max_lag_s']:g} s"
    for stage, quantiles in status["latency_s"].items():
        yield f"to {stage}", _quantiles(quantiles)
    if status["rung"]:
        yield "lighter", f"rung {status['rung']}"
    for name, count in sorted(status["counts"].items()):
        yield "count", f"{name} {count}"
    for gap in status["gaps"]:
        slate = ", a slate" if gap["slate"] else ""
        yield "gap", f"{gap['seconds']:.1f} s before epoch {gap['epoch']}{slate}: {gap['reason']}"
    if status["last_error"]:
        yield "error", status["last_error"]
    yield "playlist", f"{server}{status['links']['hls']}"


def _quantiles(found: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.3f} s" for name, value in found.items())
