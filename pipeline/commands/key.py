"""`limpid key new`: a publisher's key, by which it signs the models that it pushes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.store import keys


def main(argv: Sequence[str]) -> int:
    """Make a key; print the public half, which the service is told."""
    parser = argparse.ArgumentParser(prog="limpid key", description="Keys by which publishers sign models.")
    actions = parser.add_subparsers(dest="action", required=True)
    new = actions.add_parser("new", help="make a private key (PEM) and print its public key (base64)")
    new.add_argument("file", type=Path, metavar="FILE", help="of the private key; nothing may be there yet")
    new.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    public = keys.public_text(keys.new_key(args.file))
    print(json.dumps({"private_key": str(args.file), "public_key": public}) if args.json else public)
    return 0
