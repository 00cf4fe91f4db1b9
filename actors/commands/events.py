"""`limpid events [ID]`: what happens, as it happens."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from actors.commands.client import Event, add_options, client_of, plain, stream_path


def main(argv: Sequence[str]) -> int:
    """Print events, a line each (JSON: a CloudEvent a line); goes on where it was when the service restarts."""
    parser = argparse.ArgumentParser(prog="limpid events", description="Print events, and wait for more.")
    parser.add_argument("id", nargs="?", metavar="ID", help="of this stream only")
    parser.add_argument("--types", metavar="T,T", help="only these types, comma-separated")
    parser.add_argument("--no-follow", action="store_true", help="what there is, and no more")
    add_options(parser)
    args = parser.parse_args(argv)
    path = "/v1/events" if args.id is None else stream_path(args.id, "/events")
    query = {} if args.types is None else {"types": args.types}
    for event in client_of(args).events(path, query=query, follow=not args.no_follow):
        print(json.dumps(event.content, ensure_ascii=False) if args.json else _line(event), flush=True)
    return 0


def _line(event: Event) -> str:
    content = event.content
    facts = " ".join(f"{name}={_text(value)}" for name, value in content["data"].items())
    return plain(f"{content['time']}  {content['stream']}  {content['type']}  {facts}".rstrip())


def _text(value: object) -> str:
    return value if isinstance(value, str) and " " not in value else json.dumps(value, ensure_ascii=False)
