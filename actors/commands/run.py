"""`limpid run`: sources to their ends, without a server, on Ray or in this process."""

from __future__ import annotations

import argparse
import glob
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.commands.progress import Display
from pipeline.commands.stopping import Stopping, stop_on_signals
from pipeline.commands.summary import report
from pipeline.config import Settings, load_settings
from pipeline.errors import ConfigError, LimpidError, StorageError
from pipeline.flow.job import Job, Outcome
from pipeline.flow.local import run_local
from pipeline.flow.sources import options_of
from pipeline.graph import graph_of
from pipeline.media.source import open_source
from pipeline.store import manifest as manifests
from pipeline.store.objects import open_store
from pipeline.wire.ids import StreamId, stream_id

MIN_FREE_BYTES = 64 << 20
"""Room that a disk must have before a run begins: half a minute of a rendition at its cap of 16 Mbit/s (chosen)."""


def main(argv: Sequence[str]) -> int:
    """Process the sources that `argv` names; return the exit code."""
    args = _arguments(argv)
    settings = load_settings(args.config, overrides=_overrides(args))
    graph_of(settings)
    jobs = _jobs(args, settings)
    check_room(args.output)
    fresh = not Path(args.output).exists()
    failed: dict[str, Outcome] = {}
    frames: dict[StreamId, int | None] = {}
    for job in jobs:
        try:
            frames[job.stream] = _expected(job)
        except LimpidError as error:
            failed[job.store] = _failed(job, error)
    with stop_on_signals() as stopping, Display(frames) as display:
        done = _run([job for job in jobs if job.store not in failed], args.local, stopping, display)
    outcomes = {job.store: (failed | done)[job.store] for job in jobs if job.store in failed | done}
    _remove_if_nothing_came(args.output, fresh, list(outcomes.values()))
    return report(outcomes, fps=display.fps, stopped=stopping.exit_code)


def sources(words: Sequence[str]) -> list[str]:
    """Return the sources that `words` (URLs, paths, globs) mean; paths become absolute, so that a replay finds them.

    Raises:
        ConfigError: a glob matches nothing.
    """
    found = []
    for word in words:
        if "://" in word or re.match(r"[a-z]+:", word):
            found.append(word)  # the source says what it thinks of its scheme
        elif glob.has_magic(word) and not Path(word).exists():
            files = sorted(glob.glob(word, recursive=True))
            if not files:
                raise ConfigError(f"'{word}' matches no file", where="SOURCE", hint="check the pattern")
            found += [str(Path(file).absolute()) for file in files if not Path(file).is_dir()]
        else:
            found.append(str(Path(word).absolute()))
    return found


def name_of(source: str) -> StreamId:
    """Return an id made of a source's name: "My Clip.mp4" gives my-clip."""
    parts = urlsplit(source)
    name = Path(parts.path).stem if Path(parts.path).stem else parts.netloc
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:64].strip("-")
    return stream_id(slug or "stream")


def check_room(output: str) -> None:
    """See that results can be written below `output`, without leaving anything.

    Raises:
        StorageError: it is a file, cannot be written, or its disk is full.
    """
    if "://" in output:
        return  # the store's own check, at the start of each stream
    folder = Path(output).absolute()
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise StorageError(
            f"cannot be written: {error.strerror}", where=str(folder), hint="name another directory with -o"
        ) from error
    if free < MIN_FREE_BYTES:
        raise StorageError(
            f"only {free >> 20} MiB are free, a run needs {MIN_FREE_BYTES >> 20} MiB to begin",
            where=str(folder),
            hint="free some space, or name another directory with -o",
        )


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="limpid run",
        description="Process sources to their ends: sharper HLS and tables. Run again to go on where it stopped.",
    )
    parser.add_argument("source", nargs="+", metavar="SOURCE", help="file, glob, http(s):// or synthetic://street?…")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="of the stream, or of several (DIR/ID)")
    parser.add_argument("--config", type=Path, metavar="F", help="settings (YAML)")
    parser.add_argument("--scale", type=int, metavar="N", help="output size ÷ source size (2)")
    parser.add_argument(
        "--refine-budget", type=float, metavar="B", help="share of frames to refine by TCSR, 0 to 1 (0)"
    )
    parser.add_argument("--no-enhance", action="store_true", help="keep the source's size")
    parser.add_argument("--no-analyse", action="store_true", help="do not judge the frames' quality")
    parser.add_argument("--local", action="store_true", help="in this process, without Ray")
    parser.add_argument("--plan", choices=("auto", "chained", "unchained"), help="how stages share processes")
    parser.add_argument("--overwrite", action="store_true", help="start anew where DIR holds results")
    parser.add_argument("--id", metavar="ID", help="the stream's id; else made of the source's name")
    return parser.parse_args(argv)


def _overrides(args: argparse.Namespace) -> Mapping[str, Any]:
    asked = {
        "enhance.scale": args.scale,
        "refine.budget": args.refine_budget,
        "enhance.enabled": False if args.no_enhance else None,
        "analyse.enabled": False if args.no_analyse else None,
        "flow.plan": args.plan,
    }
    return {key: value for key, value in asked.items() if value is not None}


def _jobs(args: argparse.Namespace, settings: Settings) -> list[Job]:
    found = sources(args.source)
    if args.id and len(found) > 1:
        raise ConfigError(
            f"one id for {len(found)} sources", where="--id", hint="leave it out: ids come from the names"
        )
    jobs: list[Job] = []
    taken: set[str] = set()
    for source in found:
        name = stream_id(args.id) if args.id else name_of(source)
        number = 2
        while name in taken:
            name, number = stream_id(f"{name_of(source)[:60]}-{number}"), number + 1
        taken.add(name)
        store = args.output if len(found) == 1 else f"{args.output.rstrip('/')}/{name}"
        store = store if "://" in store else str(Path(store).absolute())
        jobs.append(Job(stream=name, source=source, store=store, settings=settings, overwrite=args.overwrite))
    return jobs


def _expected(job: Job) -> int | None:
    """Say where a stream starts, and return about how many frames it will have, None where that cannot be known.

    Raises:
        LimpidError: its source cannot be used, or its directory not be read.
    """
    found = None if job.overwrite else manifests.load(open_store(job.store))
    if found is not None and found.state == manifests.COMPLETED:
        print(f"{job.stream}: complete already; --overwrite starts anew", file=sys.stderr)
        return found.counts.get("frames")
    if job.live:
        return None
    source = open_source(job.source, options=options_of(job.settings.source))
    try:
        seconds, rate = source.info.duration_s, source.info.frame_rate
    finally:
        source.close()
    if found is not None:
        at = found.watermark
        print(f"{job.stream}: going on at frame {at.seq} of epoch {at.epoch}", file=sys.stderr)
    return round(seconds * rate) if seconds and rate else None


def _run(jobs: Sequence[Job], local: bool, stopping: Stopping, display: Display) -> dict[str, Outcome]:
    if local:
        done = {}
        for job in jobs:
            if not stopping.event.is_set():
                try:
                    done[job.store] = run_local(job, stop=stopping.event, progress=display)
                except LimpidError as error:
                    done[job.store] = _failed(job, error)
        return done
    if not jobs:
        return {}
    from actors.deploy import run_on_ray  # noqa: PLC0415  # --local must not wait for Ray's import

    outcomes = run_on_ray(jobs, stop=stopping.event, progress=display)
    return {job.store: outcome for job, outcome in zip(jobs, outcomes, strict=True)}


def _failed(job: Job, error: LimpidError) -> Outcome:
    return Outcome(stream=job.stream, state="failed", frames=0, epochs=0, seconds=0.0, error=error)


def _remove_if_nothing_came(output: str, fresh: bool, outcomes: Sequence[Outcome]) -> None:
    """Remove a directory that this run made and that holds nothing to see or read: a failure leaves no litter."""
    if fresh and "://" not in output and all(o.state == "failed" and o.frames == 0 for o in outcomes):
        # The watermark is where *all* sinks are: segments may well have come out before the first table has.
        came = (p for p in Path(output).rglob("*") if p.suffix in (".m4s", ".parquet") and "-ops-" not in p.name)
        if next(came, None) is None:
            shutil.rmtree(output, ignore_errors=True)
