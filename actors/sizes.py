"""A stream as the rules of size see it (pipeline.plan.admit): what it asks for, and what it is measured to take."""

from __future__ import annotations

from dataclasses import replace

from pipeline.config import LIGHTER_PRESETS, Settings
from pipeline.flow.job import Progress
from pipeline.plan.admit import Running, Wanted
from pipeline.plan.ladder import Rung
from pipeline.stages.enhance import CONVENTIONAL

LANES = 2  # boxes that the planner cuts a stream into at most


def wanted_of(settings: Settings, *, live: bool) -> Wanted:
    """Return what is known of a stream before anything of it runs."""
    network = settings.enhance.enabled and settings.enhance.model not in CONVENTIONAL
    rungs = {
        Rung.FULL: True,
        Rung.BICUBIC: live and network,
        Rung.LIGHTER_ENCODE: live and settings.encode.preset in LIGHTER_PRESETS,
    }
    return Wanted(
        live=live,
        scale=settings.enhance.scale if settings.enhance.enabled else 1,
        network=network,
        refined=settings.refine.budget if network else 0.0,
        runtime=settings.enhance.runtime,
        analyse=settings.analyse.enabled,
        rungs=tuple(rung for rung, there in rungs.items() if there),
    )


def lanes_of(live: bool, beside: int, cpus: int) -> int:
    """Return into how many processes that work at once a stream is to be cut, where the plan is the planner's.

    A file takes what there is. Live streams take two as long as there are as many cores; then one: every batch that
    crosses costs a call and a copy, every process its memory, and many streams keep all cores at work by themselves.

    Args:
        live: it passes whether it is read or not.
        beside: live streams that run.
        cpus: cores of the cluster.
    """
    return cpus if not live or LANES * (beside + 1) <= cpus else 1


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
