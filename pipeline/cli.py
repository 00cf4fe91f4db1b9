"""`limpid COMMAND …`: finds the command, imports it only then, and says what went wrong in one sentence.

Exit codes: 0 done · 1 the work failed · 2 wrong use (arguments, settings, graph) · 130 Ctrl-C · 143 SIGTERM.
`--debug` anywhere shows the traceback of an error.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pipeline.errors import ConfigError, LimpidError

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130


class Command(NamedTuple):
    """Where a command lives ("module:function") and what it does, in one line."""

    target: str
    does: str


COMMANDS = {
    "run": Command("actors.commands.run:main", "process a source (or several): sharper HLS and tables"),
    "submit": Command("actors.commands.submit:main", "have the service run a stream"),
    "list": Command("actors.commands.list:main", "list the service's streams"),
    "show": Command("actors.commands.show:main", "show a stream"),
    "stop": Command("actors.commands.stop:main", "stop streams"),
    "events": Command("actors.commands.events:main", "print what happens, as it happens"),
    "token": Command("actors.commands.token:main", "make, list and revoke tokens of the service"),
    "model": Command("actors.commands.model:main", "model files, and the models of streams"),
    "key": Command("pipeline.commands.key:main", "make a key by which a publisher signs models"),
    "publish": Command("pipeline.publisher.cli:main", "push a source and train the service's network on its scene"),
    "replay": Command("pipeline.commands.replay:main", "repeat a recorded run; gives the same output"),
    "serve": Command("serve_app:main", "run the service: HTTP API, live streams, web page"),
    "probe": Command("pipeline.commands.probe:main", "say what a source is and whether it can be used"),
    "graph": Command("pipeline.commands.graph:main", "print and draw the logical graph and the physical plan"),
    "train": Command("pipeline.commands.train:main", "train a network"),
    "eval": Command("pipeline.commands.eval:main", "measure quality with the field's metrics, peers beside"),
    "doctor": Command("pipeline.commands.doctor:main", "check this machine before anything runs"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` (None: the process's arguments) names; return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return DONE if words else WRONG_USE
    if words[0] == "--version":
        print(_version())
        return DONE
    name, *rest = words
    try:
        return _find(name)(rest)
    except LimpidError as error:
        if debug:
            raise
        print(f"limpid {name}: {error}", file=sys.stderr)
        return WRONG_USE if isinstance(error, ConfigError) else FAILED
    except KeyboardInterrupt:
        if debug:
            raise
        print(f"limpid {name}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone (`limpid … | head`). Python would complain when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def usage() -> str:
    """Return the list of commands, one line each."""
    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name.ljust(width)}  {command.does}" for name, command in COMMANDS.items()]
    head = ["usage: limpid COMMAND …", "", "Limpid: a sharper HLS stream and data out of every video.", ""]
    return "\n".join([*head, *lines, "", "`limpid COMMAND --help` says more; `--debug` shows tracebacks."])


def _find(name: str) -> Callable[[Sequence[str]], int]:
    if name not in COMMANDS:
        from pipeline.config import nearest  # noqa: PLC0415  # pydantic takes longer than all of `limpid --help`

        raise ConfigError(f"there is no command '{name}', {nearest(name, COMMANDS)}", hint="`limpid --help` lists them")
    module, _, function = COMMANDS[name].target.partition(":")
    found: Callable[[Sequence[str]], int] = getattr(importlib.import_module(module), function)
    return found


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415  # only needed here

    return f"limpid {version('limpid')}"


if __name__ == "__main__":
    sys.exit(main())
