"""`limpid train tcsr`: trains TCSR by a recipe on what F-EDSR makes of the material; writes a model file."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.errors import ModelError, StorageError
from pipeline.models import model_path
from pipeline.models.load import load_model
from pipeline.models.runtime import Engine, open_engine
from pipeline.models.tcsr import Tcsr
from pipeline.store import modelfile
from pipeline.store.modelfile import ModelHeader
from pipeline.train.checkpoint import steps_of
from pipeline.train.curve import draw_curve
from pipeline.train.loop import Progress as Reached
from pipeline.train.recipe import TcsrRecipe
from pipeline.train.refining import RefineRun, judge, refine
from pipeline.train.windows import Enhance, Plane, Windows, cached_windows
from pipeline.wire.frames import Size

_TRIAL_STEPS = 20  # by which the speed is measured for --minutes


def tcsr(
    data: Path | None, output: Path, recipe: TcsrRecipe, *, cache: Path, minutes: float | None = None
) -> ModelHeader:
    """Train TCSR by `recipe` on `data` (None: the rendered scene alone) and write the model file `output`.

    Resumes from `output`.ckpt where there is one, and removes it at the end; draws `output`.png. `minutes` replaces the
    recipe's number of steps by as many as this machine does in that time.
    """
    console = Console(stderr=True)
    cv2.setNumThreads(1)  # the machine is PyTorch's
    checkpoint = output.with_name(output.name + ".ckpt")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot be made: {error.strerror}", where=str(output.parent)) from error
    enhance, enhanced_by = enhancer(recipe)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[facts]}"), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        making = bars.add_task("windows", total=1.0, facts="")
        windows, held = cached_windows(
            data,
            recipe.pairs,
            enhance,
            cache,
            lambda what, share: bars.update(making, completed=share, facts=what),
            enhanced_by=f"{enhanced_by} {recipe.runtime}",
            k=recipe.network.k,
            aligned=recipe.network.form == "low",
        )
        bars.update(making, completed=1.0, facts=f"{len(windows)} + {len(held)} held out")
        if checkpoint.exists() and minutes is not None:
            recipe = _stepped(recipe, steps_of(checkpoint))
        elif minutes is not None:
            recipe = _stepped(recipe, _steps_in(minutes, recipe, windows, held))
        if checkpoint.exists():
            run = RefineRun.load(checkpoint, recipe.network, recipe.train)
        else:
            run = RefineRun.start(recipe.network, recipe.train)
        training = bars.add_task("train", total=recipe.train.steps, completed=run.step, facts="")

        def report(reached: Reached) -> None:
            facts = f"loss {reached.loss:.4f}  held out {reached.gain_db:+.3f} dB"
            bars.update(training, completed=reached.step, facts=facts)
            if reached.step % recipe.train.judge_every == 0:
                run.save(checkpoint)
                draw_curve(run.curve, output.with_name(output.name + ".png"), over="F-EDSR")

        try:
            refine(run, windows, held, report=report)
        except KeyboardInterrupt:
            run.save(checkpoint)
            console.print(f"stopped at step {run.step}; the same command goes on from {checkpoint}")
            raise
    net = run.averaged()
    gain_db = judge(net.to(run.device), held)
    header = ModelHeader(
        name=recipe.name,
        kind=Tcsr.kind,
        version=recipe.version,
        config=net.config.to_dict(),
        trained_on=recipe.trained_on(data),
        metrics={"held_gain_over_f_edsr_db": round(gain_db, 4), "steps": float(run.step)},
    )
    header = modelfile.save(output, header, net.state_dict())
    draw_curve(run.curve, output.with_name(output.name + ".png"), over="F-EDSR")
    checkpoint.unlink(missing_ok=True)
    console.print(f"{output}: {gain_db:+.3f} dB over {enhanced_by} on {len(held)} held-out windows")
    return header


def enhancer(recipe: TcsrRecipe) -> tuple[Enhance, str]:
    """Return the F-EDSR whose output a recipe's TCSR refines, ready for frames of any size, and its name@version.

    Raises:
        ModelError, Unreachable: the model cannot be read, or is of another scale.
    """
    path = model_path(recipe.enhanced_by, recipe.network.scale)
    header, net = load_model(path)
    if net.config.scale != recipe.network.scale:
        raise ModelError(
            f"it up-scales by {net.config.scale}, not by {recipe.network.scale}",
            where=str(path),
            hint="name another model as enhanced_by",
        )
    net = net.fold()
    engines: dict[tuple[int, ...], Engine] = {}

    def enhance(y_HW: Plane) -> Plane:
        if y_HW.shape not in engines:
            engines.clear()  # one sequence after the other: a size does not come back soon
            size = Size(width_px=y_HW.shape[1], height_px=y_HW.shape[0])
            engines[y_HW.shape] = open_engine(recipe.runtime, net, size, ranges=header.ranges)
        out: Plane = engines[y_HW.shape].upscale(y_HW[None])[0]
        return out

    return enhance, f"{header.name}@{header.version}"


def _stepped(recipe: TcsrRecipe, steps: int) -> TcsrRecipe:
    return replace(recipe, train=replace(recipe.train, steps=steps))


def _steps_in(minutes: float, recipe: TcsrRecipe, windows: Windows, held: Windows) -> int:
    """Return how many steps fit into `minutes`, by a short trial whose first half warms up."""
    trial = RefineRun.start(recipe.network, replace(recipe.train, steps=max(_TRIAL_STEPS, recipe.train.steps)))
    seen: list[float] = []
    clock: Callable[[], float] = time.perf_counter
    refine(trial, windows, held, until=_TRIAL_STEPS, report=lambda _: seen.append(clock()))
    half = len(seen) // 2
    return max(_TRIAL_STEPS, int(minutes * 60 * half / (seen[-1] - seen[-1 - half])))
