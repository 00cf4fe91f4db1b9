"""`limpid model`: model files (show, sign, verify), and the models of a stream (list, push, rollback)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.markup import escape

from actors.commands.client import add_options, client_of, plain, print_json, stream_path
from pipeline.commands import model as files
from pipeline.commands.report import print_table
from pipeline.errors import Unreachable

COLUMNS = ("model", "state", "tried", "dB before", "dB after", "gain", "from", "publisher", "reason")


def main(argv: Sequence[str]) -> int:
    """Do what the first word says."""
    parser = argparse.ArgumentParser(prog="limpid model", description="Model files, and the models of streams.")
    actions = parser.add_subparsers(dest="action", required=True)
    files.add_actions(actions)
    listing = actions.add_parser("list", help="list a stream's models: what they gained, and which is in use")
    push = actions.add_parser("push", help="push a signed model to a stream; it holds if it is better")
    rollback = actions.add_parser("rollback", help="have a stream go back to the model before")
    for each in (listing, push, rollback):
        each.add_argument("stream", metavar="STREAM", help="the stream's id")
        add_options(each)
    push.add_argument("file", type=Path, metavar="FILE", help="a model file that a publisher of the stream has signed")
    args = parser.parse_args(argv)
    if args.action not in ("list", "push", "rollback"):
        return files.run(args)
    client = client_of(args)
    if args.action == "list":
        found = client.call("GET", stream_path(args.stream, "/models"))["items"]
        if args.json:
            print_json(found)
        else:
            print_table("", COLUMNS, [[escape(plain(cell)) for cell in _row(model)] for model in found])
        return 0
    if args.action == "push":
        taken = client.call("PUT", stream_path(args.stream, "/models/f-edsr"), body=_read(args.file))
    else:
        taken = client.call("POST", stream_path(args.stream, "/models/rollback"))
    if args.json:
        print_json(taken)
    else:
        print(f"{args.stream}: {_told(taken)}")
    return 0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unreachable(f"cannot be read: {error.strerror}", where=str(path), hint="name a model file") from error


def _told(taken: Mapping[str, Any]) -> str:
    where = f"from frame {taken['seq']} of epoch {taken['epoch']} on"
    if taken["psnr_after"] is None:
        return f"{plain(taken['model'])} {where}"
    return f"{plain(taken['model'])} {where} ({taken['psnr_before']:.3f} dB → {taken['psnr_after']:.3f} dB)"


def _row(model: Mapping[str, Any]) -> list[str]:
    at = datetime.fromtimestamp(model["at"], UTC).isoformat(timespec="seconds") if model["at"] else ""
    place = f"{model['epoch']}:{model['seq']}" if model["seq"] >= 0 else ""
    figures = [_db(model[name]) for name in ("psnr_before", "psnr_after", "gain")]
    return [model["model"], model["state"], at, *figures, place, model["publisher"], model["reason"]]


def _db(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
