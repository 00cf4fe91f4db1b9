"""`limpid token new|list|revoke`: who may call the service. Works on the store itself, with or without a service."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from actors.commands.client import print_json
from pipeline.commands.report import print_table
from pipeline.config import load_settings
from pipeline.store import tokens
from pipeline.store.objects import open_store
from pipeline.store.tokens import SCOPES, Token


def main(argv: Sequence[str]) -> int:
    """Make, list or revoke tokens of the store that the settings name."""
    args = _arguments(argv)
    store = open_store(load_settings(args.config).service.store)
    if args.action == "new":
        token = tokens.new_token(store, args.name, args.scope, now_s=time.time())
        if args.json:
            print_json({"name": args.name, "scopes": sorted(set(args.scope)), "token": token})
        else:
            print(token)
    elif args.action == "revoke":
        tokens.revoke_token(store, args.name)
        if args.json:
            print_json({"revoked": args.name})
        else:
            print(f"{args.name}: revoked")
    else:
        found = tokens.tokens(store)
        if args.json:
            print_json([dict(zip(("name", "scopes", "created_at"), _facts(token), strict=True)) for token in found])
        else:
            rows = [[name, " ".join(scopes), created] for name, scopes, created in map(_facts, found)]
            print_table("", ("token", "scopes", "created"), rows)
    return 0


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="limpid token", description="Who may call the service.")
    actions = parser.add_subparsers(dest="action", required=True)
    new = actions.add_parser("new", help="make a token and print it; it cannot be read again")
    new.add_argument("--name", required=True, metavar="N", help="whose it is")
    new.add_argument(
        "--scope",
        required=True,
        action="append",
        choices=SCOPES,
        help="read; write (implies read); models (push models); may be repeated",
    )
    listing = actions.add_parser("list", help="list tokens")
    revoke = actions.add_parser("revoke", help="refuse a token from now on")
    revoke.add_argument("name", metavar="NAME", help="whose it is")
    for each in (new, listing, revoke):
        each.add_argument("--config", type=Path, metavar="F", help="settings (YAML) of the service: service.store")
        each.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args(argv)


def _facts(token: Token) -> tuple[str, list[str], str]:
    return token.name, sorted(token.scopes), datetime.fromtimestamp(token.created_at, UTC).isoformat(timespec="seconds")
