"""`limpid stop ID`: stop streams."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from actors.commands.client import add_options, client_of, print_json, stream_path


def main(argv: Sequence[str]) -> int:
    """Stop the streams that `argv` names; what they wrote stays playable."""
    parser = argparse.ArgumentParser(prog="limpid stop", description="Stop streams, whatever they are doing.")
    parser.add_argument("id", nargs="+", metavar="ID", help="the stream's id")
    add_options(parser)
    args = parser.parse_args(argv)
    client = client_of(args)
    for stream in args.id:
        client.call("DELETE", stream_path(stream))
        if not args.json:
            print(f"{stream}: stopped")
    if args.json:
        print_json({"stopped": args.id})
    return 0
