"""`run_on_ray`: runs streams on Ray to their end, whatever dies on the way, and leaves nothing behind."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence

from actors.cluster import ray_running, slab_directories
from actors.crew import Crew
from actors.slab import Claim, sweep
from actors.supervisor import News, failed
from pipeline.errors import LimpidError
from pipeline.flow.job import Job, OnProgress, Outcome

_STOP_S = 45.0  # that streams have for stopping


def run_on_ray(
    jobs: Sequence[Job], *, stop: threading.Event, progress: OnProgress, slabs: bool = True
) -> list[Outcome]:
    """Process streams on Ray, started here or where RAY_ADDRESS says.

    Args:
        jobs: each into a directory of its own.
        stop: set it to end early: what is written is closed and playable, and a later run takes it up.
        progress: called from this thread whenever more of a stream is durable.
        slabs: results move through the node's shared memory; False: through Ray's object store, as between nodes.

    Returns:
        per job how it ended; what is wrong with a job is in its outcome, never raised.
    """
    with ray_running():
        directories = slab_directories() if slabs else ()
        sweep(slab_directories())
        claim = Claim(f"{os.getpid()}-{os.urandom(4).hex()}", directories) if directories else None
        outcomes: dict[str, Outcome] = {}

        def hear(news: News) -> None:
            for step in news.progress.values():
                progress(step)
            outcomes.update(news.outcomes)

        crew = Crew(claim.name if claim else f"limpid-{os.getpid()}", claim, detached=False, hear=hear)
        for index, job in enumerate(jobs):
            crew.add(job, str(index))
        why = LimpidError("it did not stop in time", hint="run again: it is taken up")
        try:
            _until_done(crew, stop)
        except LimpidError as error:
            why = error
        finally:
            crew.end()
        return [outcomes.get(str(index)) or failed(job, why) for index, job in enumerate(jobs)]


def _until_done(crew: Crew, stop: threading.Event) -> None:
    """Go on until no job is left, or those that were told to stop have had their time."""
    stop_until = 0.0
    while crew.jobs and not (stop_until and time.monotonic() > stop_until):
        if stop.is_set() and not stop_until:
            stop_until = time.monotonic() + _STOP_S
            for key in list(crew.jobs):
                crew.stop(key)
        crew.step()
