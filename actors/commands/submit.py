"""`limpid submit URL`: have the service run a stream."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import Any

from actors.commands.client import AGAIN_S, Client, add_options, client_of, labels_of, plain, print_json, stream_path
from pipeline.errors import Unreachable
from pipeline.wire.status import ENDED, FAILED

PATIENCE_S = 60.0
"""Seconds that a service may be away (it restarts) while a stream is followed."""


def main(argv: Sequence[str]) -> int:
    """Submit the stream that `argv` describes. Exit code 0: taken (--follow: ended well); 1: refused, or failed."""
    args = _arguments(argv)
    client = client_of(args)
    found = client.call("POST", "/v1/streams", query={"dry_run": "true"} if args.dry_run else None, body=_request(args))
    if args.follow and not args.dry_run:
        found = _follow(client, found, quiet=args.json)
    if args.json:
        print_json(found)
    elif args.dry_run:
        print(f"it fits: takes about {found['wanted_cpus']:g} cores of {found['room_cpus']:g} that are free")
    elif not args.follow:
        _tell(found)
        print(f"{found['id']}: {client.server}{found['links']['hls'].partition('?')[0]}")
    return 1 if args.follow and found.get("state") == FAILED else 0


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="limpid submit",
        description="Have the service run a stream. The same id with the same request again changes nothing.",
    )
    parser.add_argument("url", metavar="URL", help="rtsp://, rtmp://, http(s)://, udp://, tcp:// or synthetic://…")
    parser.add_argument("--id", metavar="ID", help="the stream's id; else the service chooses one")
    parser.add_argument("--label", action="append", metavar="K=V", help="a label; may be repeated")
    parser.add_argument("--mode", choices=("auto", "live", "file"), help="whether the source waits for us (auto)")
    parser.add_argument("--slate", nargs="?", const="", metavar="TEXT", help="show a card while a live source is away")
    parser.add_argument("--scale", type=int, metavar="N", help="output size ÷ source size (2)")
    parser.add_argument("--segment-s", type=float, metavar="S", help="seconds an HLS segment (2)")
    parser.add_argument("--max-lag-s", type=float, metavar="S", help="seconds that the output may be behind (1)")
    parser.add_argument(
        "--priority", type=int, metavar="N", help="0 to 9: where cores are short, low ones are made lighter first (5)"
    )
    parser.add_argument("--follow", action="store_true", help="tell what becomes of it, until it ends")
    parser.add_argument("--dry-run", action="store_true", help="only ask whether it fits")
    add_options(parser)
    return parser.parse_args(argv)


def _request(args: argparse.Namespace) -> dict[str, Any]:
    source: dict[str, Any] = {"uri": args.url} | ({"mode": args.mode} if args.mode else {})
    if args.slate is not None:
        source["slate"] = {"text": args.slate} if args.slate else {}
    request: dict[str, Any] = {"source": source, "labels": labels_of(args.label)}
    if args.id is not None:
        request["id"] = args.id
    if args.scale is not None:
        request["enhance"] = {"scale": args.scale}
    if args.segment_s is not None:
        request["outputs"] = {"hls": {"segment_s": args.segment_s}}
    if args.max_lag_s is not None:
        request["slo"] = {"max_lag_s": args.max_lag_s}
    if args.priority is not None:
        request["priority"] = args.priority
    return request


def _follow(client: Client, status: Mapping[str, Any], *, quiet: bool) -> Any:
    """Tell each change of a stream's state until it has ended; return its last status. Ctrl-C leaves it running."""
    told = None
    away_s = 0.0
    while True:
        if not quiet and (status["state"], status["reason"]) != told:
            _tell(status)
            told = status["state"], status["reason"]
        if status["state"] in ENDED:
            return status
        time.sleep(AGAIN_S)
        try:
            status = client.call("GET", stream_path(status["id"]))
            away_s = 0.0
        except Unreachable:
            away_s += AGAIN_S
            if away_s >= PATIENCE_S:
                raise


def _tell(status: Mapping[str, Any]) -> None:
    reason = status["last_error"] if status["state"] == FAILED else status["reason"]
    more = f", {status['frames']} frames" if status["frames"] else ""
    print(f"{status['id']}: {status['state']}{more}{f' ({plain(reason)})' if reason else ''}", flush=True)
