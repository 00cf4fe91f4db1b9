"""`limpid model show|sign|verify`: model files, without a service."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.models import model_path
from pipeline.store import keys

Actions = Any  # argparse's own type of sub-parsers is private


def add_actions(actions: Actions) -> None:
    """Add the actions that work on files."""
    show = actions.add_parser("show", help="say what a model file holds")
    show.add_argument("file", metavar="FILE", help="a model file, or a shipped model's name")
    sign = actions.add_parser("sign", help="sign a model file in place")
    sign.add_argument("file", type=Path, metavar="FILE", help="a model file")
    sign.add_argument("--key", type=Path, required=True, metavar="F", help="private key (`limpid key new`)")
    verify = actions.add_parser("verify", help="check a model file, and who signed it")
    verify.add_argument("file", type=Path, metavar="FILE", help="a model file")
    verify.add_argument("--key", required=True, metavar="K", help="public key (base64), or the file of a private one")
    for each in (show, sign, verify):
        each.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Carry out one of them.

    Raises:
        ModelError, Unreachable: it is no model file, damaged, not signed, or signed by another key.
    """
    from pipeline.models.load import load_model  # noqa: PLC0415  # PyTorch: what asks the service goes without
    from pipeline.store import modelfile  # noqa: PLC0415

    facts: dict[str, Any]
    if args.action == "show":
        header, net = load_model(model_path(args.file))
        facts = {
            "name": header.name,
            "kind": header.kind,
            "version": header.version,
            "config": dict(header.config),
            "parameters": sum(parameter.numel() for parameter in net.fold().parameters()),
            "int8": all(name in header.ranges for name, _ in net.fold().layers()),
            "parent": header.parent,
            "trained_on": list(header.trained_on),
            "metrics": dict(header.metrics),
            "signed": header.signature is not None,
        }
    elif args.action == "sign":
        key = keys.load_key(args.key)
        header = modelfile.sign(args.file, key)
        facts = {"model": f"{header.name}@{header.version}", "signed_by": keys.public_text(key)}
    else:
        private = Path(args.key)
        text = keys.public_text(keys.load_key(private)) if private.is_file() else args.key
        header = modelfile.verify(args.file, keys.public_key(text))
        load_model(args.file)
        facts = {"model": f"{header.name}@{header.version}", "signature": "holds"}
    if args.json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        width = max(map(len, facts))
        for name, value in facts.items():
            print(f"{name.ljust(width)}  {' · '.join(_texts(value))}")
    return 0


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (f"{key} {inner}" for key, inner in value.items())
    elif isinstance(value, list):
        yield from map(str, value)
    elif isinstance(value, bool):
        yield "yes" if value else "no"
    else:
        yield "none" if value is None else str(value)
