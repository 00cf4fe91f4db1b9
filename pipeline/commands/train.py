"""`limpid train`: trains a network by a recipe, with progress, checkpoint and curve; writes a model file.

F-EDSR's training is here, TCSR's in `train_tcsr.py`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.commands.train_tcsr import tcsr
from pipeline.errors import ConfigError, StorageError
from pipeline.models.fedsr import FEdsr, input_ranges
from pipeline.store import modelfile
from pipeline.store.modelfile import ModelHeader
from pipeline.train.checkpoint import steps_of
from pipeline.train.curve import draw_curve
from pipeline.train.data import Pairs, cached_pairs
from pipeline.train.device import DEVICES, chosen_device, steps_at_once
from pipeline.train.loop import Progress as Reached
from pipeline.train.loop import judge, train
from pipeline.train.recipe import RECIPES, Recipe, TcsrRecipe, load_recipe, load_tcsr_recipe
from pipeline.train.run import Run

RecipeT = TypeVar("RecipeT", Recipe, TcsrRecipe)

_TRIAL_REPORTS = 20  # of the loop, by which the speed is measured for --minutes
_RANGE_PATCHES = 1500  # of what the network trained on, over which the int8 ranges are measured


def main(argv: Sequence[str]) -> int:
    """Run `limpid train …`; return the exit code."""
    arguments = _parser().parse_args(argv)
    if arguments.network == "tcsr":
        refined = _asked(load_tcsr_recipe(arguments.config or RECIPES / "tcsr_x2.yaml"), arguments)
        tcsr(arguments.data, arguments.output, refined, cache=arguments.cache, minutes=arguments.minutes)
        return 0
    recipe = _asked(load_recipe(arguments.config or RECIPES / "f_edsr_x2.yaml"), arguments)
    fedsr(
        arguments.data,
        arguments.output,
        recipe,
        cache=arguments.cache,
        minutes=arguments.minutes,
        workers=arguments.workers,
    )
    return 0


def _asked(recipe: RecipeT, arguments: argparse.Namespace) -> RecipeT:
    """Return the recipe with what the command line says of it; what cannot be is better said before data are made."""
    if arguments.quick:
        recipe = recipe.quick()
    train: Any = recipe.train
    if arguments.threads is not None:
        train = replace(train, threads=arguments.threads)
    if arguments.device is not None:
        train = replace(train, device=arguments.device)
    recipe = replace(recipe, train=train)
    chosen_device(recipe.train.device)
    if arguments.data is not None and not arguments.data.is_dir():
        raise ConfigError(
            "there is no such folder", where=str(arguments.data), hint="leave --data out to train on the rendered scene"
        )
    if arguments.output.is_dir() or not arguments.output.suffix:
        raise ConfigError("-o takes a file's name", where=str(arguments.output), hint="such as my-model.safetensors")
    return recipe


def fedsr(
    data: Path | None,
    output: Path,
    recipe: Recipe,
    *,
    cache: Path,
    minutes: float | None = None,
    workers: int | None = None,
) -> ModelHeader:
    """Train F-EDSR by `recipe` on `data` (None: rendered material alone) and write the model file `output`.

    Resumes from `output`.ckpt where there is one, and removes it at the end; draws `output`.png. `minutes` replaces the
    recipe's number of steps by as many as this machine does in that time. `workers` processes make the pairs.
    """
    console = Console(stderr=True)
    cv2.setNumThreads(1)  # the machine is PyTorch's; patches are too small to gain by OpenCV's own threads
    checkpoint = output.with_name(output.name + ".ckpt")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot be made: {error.strerror}", where=str(output.parent)) from error
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[facts]}"), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        making = bars.add_task("pairs", total=1.0, facts="")
        pairs, held = cached_pairs(
            data,
            recipe.pairs,
            cache,
            lambda what, share: bars.update(making, completed=share, facts=what),
            workers=workers,
        )
        bars.update(making, completed=1.0, facts=f"{len(pairs)} + {len(held)} held out")
        if checkpoint.exists() and minutes is not None:
            recipe = _stepped(recipe, steps_of(checkpoint))
        elif minutes is not None:
            recipe = _stepped(recipe, _steps_in(minutes, recipe, pairs, held))
        if checkpoint.exists():
            run = Run.load(checkpoint, recipe.network, recipe.train)
        else:
            run = Run.start(recipe.network, recipe.train)
        training = bars.add_task("train", total=recipe.train.steps, completed=run.step, facts="")

        def report(reached: Reached) -> None:
            facts = f"loss {reached.loss:.4f}  held out {reached.gain_db:+.3f} dB"
            bars.update(training, completed=reached.step, facts=facts)
            if reached.step % recipe.train.judge_every == 0:
                run.save(checkpoint)
                draw_curve(run.curve, output.with_name(output.name + ".png"))

        try:
            train(run, pairs, held, report=report)
        except KeyboardInterrupt:
            run.save(checkpoint)
            console.print(f"stopped at step {run.step}; the same command goes on from {checkpoint}")
            raise
    header = write(run, output, recipe, data, pairs, held)
    draw_curve(run.curve, output.with_name(output.name + ".png"))
    checkpoint.unlink(missing_ok=True)
    console.print(f"{output}: {header.metrics['held_gain_db']:+.3f} dB over bicubic on {len(held)} held-out patches")
    return header


def write(run: Run, output: Path, recipe: Recipe, data: Path | None, pairs: Pairs, held: Pairs) -> ModelHeader:
    """Write the averaged, folded weights of `run` to the model file `output`; return its header.

    The gain and the int8 ranges in the header are measured on the run's device.
    """
    net: FEdsr = run.averaged().to(run.device)
    chosen = np.unique(np.linspace(0, len(pairs) - 1, _RANGE_PATCHES).astype(int))
    header = ModelHeader(
        name=recipe.name,
        kind=FEdsr.kind,
        version=recipe.version,
        config=net.config.to_dict(),
        trained_on=recipe.trained_on(data),
        metrics={"held_gain_db": round(judge(net, held), 4), "steps": float(run.step)},
        ranges=input_ranges(net, [np.array(pairs.low[i]) for i in chosen]),
    )
    return modelfile.save(output, header, net.state_dict())


def _stepped(recipe: Recipe, steps: int) -> Recipe:
    return replace(recipe, train=replace(recipe.train, steps=steps))


def _steps_in(minutes: float, recipe: Recipe, pairs: Pairs, held: Pairs) -> int:
    """Return how many steps fit into `minutes`, by a short trial whose first half warms up."""
    until = _TRIAL_REPORTS * steps_at_once(chosen_device(recipe.train.device))
    trial = Run.start(recipe.network, replace(recipe.train, steps=max(until, recipe.train.steps)))
    seen: list[tuple[int, float]] = []  # (step, seconds)
    train(trial, pairs, held, until=until, report=lambda reached: seen.append((reached.step, time.perf_counter())))
    (first, began_s), (last, ended_s) = seen[len(seen) // 2 - 1], seen[-1]
    return max(_TRIAL_REPORTS, int(minutes * 60 * (last - first) / (ended_s - began_s)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="limpid train", description="Train a network.")
    networks = parser.add_subparsers(dest="network", required=True, metavar="NETWORK")
    one = networks.add_parser("fedsr", help="super-resolution of every frame (F-EDSR)")
    _add(one)
    workers = "processes that make pairs (default: one for each core)"
    one.add_argument("--workers", type=int, choices=range(1, 257), metavar="N", help=workers)
    _add(networks.add_parser("tcsr", help="refinement of picked frames by their neighbours (TCSR)"))
    return parser


def _add(one: argparse.ArgumentParser) -> None:
    one.add_argument("--data", type=Path, metavar="DIR", help="holds clips/train and stills; without: rendered scene")
    one.add_argument("-o", "--output", type=Path, required=True, metavar="MODEL", help="the model file to write")
    one.add_argument("--config", type=Path, metavar="RECIPE", help="a recipe (YAML); default: that of the shipped x2")
    one.add_argument("--minutes", type=_minutes, metavar="M", help="train so long instead of the recipe's steps")
    one.add_argument("--quick", action="store_true", help="seconds, to see that everything runs")
    one.add_argument("--threads", type=int, choices=range(1, 65), metavar="N", help="of PyTorch, on a CPU")
    one.add_argument("--device", choices=DEVICES, help="default: the recipe's, auto: CUDA where there is a device")
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "limpid" / "pairs"
    one.add_argument("--cache", type=Path, default=cache, metavar="DIR", help="keeps the data (default: %(default)s)")


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes <= 60 * 24 * 30:
        raise argparse.ArgumentTypeError("minutes above 0, up to 30 days")
    return minutes
