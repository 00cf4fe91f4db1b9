"""`limpid list`: the service's streams."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape

from actors.commands.client import Client, Query, add_options, client_of, labels_of, plain, print_json
from pipeline.commands.report import print_table
from pipeline.wire.status import STATES

COLUMNS = ("stream", "state", "size", "fps in", "fps out", "lag p95", "rung", "frames", "labels")


def main(argv: Sequence[str]) -> int:
    """Print the streams, a line each."""
    parser = argparse.ArgumentParser(prog="limpid list", description="List the service's streams.")
    parser.add_argument("--label", action="append", metavar="K=V", help="only with this label; several: with all")
    parser.add_argument("--state", action="append", choices=STATES, metavar="STATE", help=f"only: {', '.join(STATES)}")
    add_options(parser)
    args = parser.parse_args(argv)
    labels = [f"{key}:{value}" for key, value in labels_of(args.label).items()]
    found = _streams(client_of(args), {"label": labels, "state": args.state or []})
    if args.json:
        print_json(found)
    else:
        print_table("", COLUMNS, [[escape(cell) for cell in _row(stream)] for stream in found])
    return 0


def _streams(client: Client, query: Query) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = client.call("GET", "/v1/streams", query={**query, "limit": "1000", "cursor": cursor})
        found += page["items"]
        cursor = page["next_cursor"]
    return found


def _row(stream: Mapping[str, Any]) -> list[str]:
    lag_s = stream["lag_s"]["p95"]
    return [
        stream["id"],
        stream["state"],
        f"{stream['width']}×{stream['height']}" if stream["width"] else "",
        f"{stream['fps_in']:.1f}",
        f"{stream['fps_out']:.1f}",
        f"{lag_s:.2f} s" if lag_s else "",
        str(stream["rung"] or ""),
        str(stream["frames"]),
        plain(" ".join(f"{key}={value}" for key, value in sorted(stream["labels"].items()))),
    ]
