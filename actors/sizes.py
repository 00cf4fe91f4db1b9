"""A stream as the rules of size see it (pipeline.plan.admit): what it asks for, and what it is measured to take."""

from __future__ import annotations

from dataclasses import replace

from pipeline.config import Settings
from pipeline.flow.job import Progress
from pipeline.plan.admit import Running, Wanted
from pipeline.plan.ladder import Rung
from pipeline.stages.enhance import CONVENTIONAL

RUNGS = (Rung.FULL, Rung.BICUBIC)
"""Of the overload ladder, those that do something today."""


def wanted_of(settings: Settings, *, live: bool) -> Wanted:
    """Return what is known of a stream before anything of it runs."""
    network = settings.enhance.enabled and settings.enhance.model not in CONVENTIONAL
    return Wanted(
        live=live,
        scale=settings.enhance.scale if settings.enhance.enabled else 1,
        network=network,
        runtime=settings.enhance.runtime,
        analyse=settings.analyse.enabled,
        rungs=RUNGS if network else RUNGS[:1],
    )


def running_of(wanted: Wanted, progress: Progress | None, *, rung: int, steady: bool) -> Running:
    """Return a stream that runs.

    Args:
        wanted: as it was asked for.
        progress: its latest.
        rung: that it began at.
        steady: it has run for so long that what it takes is measured.
    """
    if progress is None or not progress.width:
        return Running(wanted=wanted, rung=Rung(rung))
    steady = steady and progress.fps_out > 0
    return Running(
        wanted=replace(wanted, width=progress.width, height=progress.height, fps=progress.fps_in if steady else 0.0),
        rung=Rung(progress.rung),
        measured_cpus=progress.cpu_cores if steady else None,
    )
