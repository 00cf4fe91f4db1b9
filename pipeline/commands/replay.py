"""`limpid replay`: a recorded run again, undisturbed, in this process; the output equals what the run wrote."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.commands.progress import Display
from pipeline.commands.stopping import stop_on_signals
from pipeline.commands.summary import report
from pipeline.config import Settings, load_settings
from pipeline.errors import ConfigError, NotFound
from pipeline.flow.job import Job
from pipeline.flow.ledger import wipe
from pipeline.flow.local import run_local
from pipeline.flow.sources import KEPT
from pipeline.graph import Graph
from pipeline.store import manifest as manifests
from pipeline.store.manifest import Manifest
from pipeline.store.objects import Store, open_store
from pipeline.store.packets import packet_parts
from pipeline.store.redact import HIDDEN


def main(argv: Sequence[str]) -> int:
    """Replay the manifest that `argv` names; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="limpid replay",
        description="Process a run's source again with all that was chosen in it (model, runtime, threads, batches set "
        "aside): decoded frames and tables equal the run's.",
    )
    parser.add_argument("manifest", metavar="MANIFEST", help="manifest.json, or the directory that it is in")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="another directory")
    parser.add_argument("--source", metavar="URI", help="where the source is now; also when its URL holds a secret")
    parser.add_argument("--config", type=Path, metavar="F", help="settings whose stage_modules may be imported")
    parser.add_argument("--overwrite", action="store_true", help="start anew where DIR holds results")
    args = parser.parse_args(argv)
    recorded = open_store(str(args.manifest).removesuffix(f"/{manifests.NAME}").removesuffix(manifests.NAME) or ".")
    found = manifests.load(recorded)
    if found is None:
        raise NotFound(
            f"there is no {manifests.NAME}", where=recorded.url, hint="name a stream's directory or its manifest"
        )
    store = open_store(args.output)
    if store.url == recorded.url:
        raise ConfigError("it would replace the run itself", where="-o", hint="name another directory")
    job = Job(
        stream=found.id,
        source=args.source or _source(found, recorded),
        store=store.url,
        settings=Settings.from_dict(found.config, where=f"{recorded.url}/{manifests.NAME}"),
    )
    # The manifest says which modules its run trusted; whoever replays it has to trust them too.
    allowed = load_settings(args.config).stage_modules
    graph = Graph.from_dict(found.graph, allowed_modules=allowed, where=f"{recorded.url}/{manifests.NAME}")
    _prepare(store, recorded, overwrite=args.overwrite)
    frames = {job.stream: found.counts.get("frames")}
    with stop_on_signals() as stopping, Display(frames) as display:
        outcome = run_local(job, stop=stopping.event, progress=display, graph=graph)
    return report({job.store: outcome}, fps=display.fps, stopped=stopping.exit_code)


def _source(found: Manifest, recorded: Store) -> str:
    if packet_parts(recorded):
        return f"{KEPT}{recorded.url}"
    if HIDDEN in found.source:
        raise ConfigError(
            f"the manifest keeps no secrets: {found.source}", where="--source", hint="give the whole URL with --source"
        )
    return found.source


def _prepare(store: Store, recorded: Store, *, overwrite: bool) -> None:
    """Give an empty directory the run's stamps, which say what was set aside, and the weights that they may name.

    A replay that goes on has them.
    """
    if overwrite:
        wipe(store)
    if manifests.load(store) is None:
        for name in (*recorded.list("models/f-edsr-"), *recorded.list("stamps/")):
            store.put_new(name, recorded.get(name))
