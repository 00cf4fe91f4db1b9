"""`run_on_ray`: runs streams on Ray to their end, whatever dies on the way, and leaves nothing behind.

This process makes the actors, for an actor dies with its maker: a supervisor that dies takes no host with it. It polls
the supervisor for progress and for processes that it wants, and makes another one when it is dead; that one takes every
stream up from its manifest.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import psutil
import ray
from ray.exceptions import RayError

from actors.cluster import gone_or_killed, ray_running, slab_directories
from actors.host import StageHost
from actors.slab import Claim, sweep
from actors.supervisor import News, Supervisor, Terms, failed
from pipeline.errors import LimpidError
from pipeline.flow.job import Job, OnProgress, Outcome

_LOOK_S = 0.2  # how often the driver looks whether it is to stop
_SILENT_S = 180.0  # without an answer until a supervisor counts as hung
_STOP_S = 45.0  # that streams have for stopping
_DEATHS = 5  # of supervisors, without progress in between, until the run gives up
_AT_ONCE = 3  # hosts made with the supervisor: the least that any plan asks for (source, box, spare)
_CPUS = 0.01  # that an actor claims: placement on one node is not to be limited by Ray's count


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
        driver = _Driver(jobs, stop, progress, claim)
        try:
            return driver.run()
        finally:
            driver.end()
            if claim is not None:
                claim.release()


class _Driver:
    """Makes actors and waits for outcomes."""

    def __init__(self, jobs: Sequence[Job], stop: threading.Event, progress: OnProgress, claim: Claim | None) -> None:
        self._jobs = dict(enumerate(jobs))
        self._stop, self._progress = stop, progress
        self._directories = tuple(map(str, claim.directories)) if claim else ()
        self._name = claim.name if claim else f"limpid-{os.getpid()}"
        self._outcomes: dict[int, Outcome] = {}
        self._hosts: dict[str, Any] = {}
        self._pids: list[Any] = []
        self._made = 0
        self._supervisor: Any = None
        self._term = 0
        self._down_since = 0.0
        self._gap_s = 0.0  # that a supervisor's death has cost, at most

    def run(self) -> list[Outcome]:
        """Go on until every job has an outcome."""
        deaths = 0
        stop_until = 0.0
        while len(self._outcomes) < len(self._jobs):
            inherited = bool(self._hosts)
            given = self._begin()
            before = len(self._outcomes)
            got_further = False
            asked = len(given)
            stopped = False
            try:
                while len(self._outcomes) < len(self._jobs):
                    if self._stop.is_set() and not stopped:
                        self._supervisor.stop.remote()
                        stopped, stop_until = True, stop_until or time.monotonic() + _STOP_S
                    news = self._poll(given, inherited)
                    inherited = False
                    got_further = got_further or bool(news.progress)
                    self._hear(news)
                    given = [self._make() for _ in range(news.requested - asked)]
                    asked = max(asked, news.requested)
                    if stop_until and time.monotonic() > stop_until:
                        self._give_up("it did not stop in time")
            except RayError as error:
                self._down_since = self._down_since or time.monotonic()
                deaths = 0 if got_further or len(self._outcomes) > before else deaths + 1
                if deaths >= _DEATHS:
                    self._give_up(f"its supervisors keep dying: {error}")
        return [self._outcomes[index] for index in self._jobs]

    def end(self) -> None:
        """End every process of the run."""
        for actor in (self._supervisor, *self._hosts.values()):
            if actor is not None:
                ray.kill(actor, no_restart=True)
        here = []
        ready, _ = ray.wait(self._pids, num_returns=len(self._pids), timeout=0) if self._pids else ([], [])
        for ref in ready:
            try:
                here.append(psutil.Process(ray.get(ref)))
            except (RayError, psutil.NoSuchProcess):
                continue
        gone_or_killed(here)

    # --- small things ----------------------------------------------------------------------------------------

    def _begin(self) -> list[tuple[str, Any]]:
        """Make a supervisor that takes on what has no outcome; return the hosts for it that are there."""
        self._term += 1
        terms = Terms(number=self._term, directories=self._directories, cpus=os.cpu_count() or 1)
        self._supervisor = Supervisor.options(  # type: ignore[attr-defined]  # Ray adds it to the class
            name=f"{self._name}-supervisor-{self._term}", num_cpus=_CPUS, enable_task_events=False
        ).remote(terms)
        self._pids.append(self._supervisor.pid.remote())
        left = {index: job for index, job in self._jobs.items() if index not in self._outcomes}
        self._supervisor.start.remote(left)
        if not self._hosts:
            # While the supervisor reads the graph, processes start that it will want in any case.
            return [self._make() for _ in range(_AT_ONCE)]
        return list(self._hosts.items())

    def _poll(self, given: list[tuple[str, Any]], inherited: bool) -> News:
        """Return the supervisor's news.

        Raises:
            RayError: it is dead, or silent for so long that it has been killed.
        """
        ref = self._supervisor.poll.remote(given, inherited=inherited)
        until = time.monotonic() + _SILENT_S
        while not ray.wait([ref], timeout=_LOOK_S)[0]:
            if time.monotonic() > until:
                ray.kill(self._supervisor, no_restart=True)
        news: News = ray.get(ref)
        return news

    def _hear(self, news: News) -> None:
        for index in news.begun:
            # A later supervisor must not begin a job anew, but take it up.
            self._jobs[index] = replace(self._jobs[index], overwrite=False)
        for name in news.discarded:
            self._hosts.pop(name, None)
        for step in news.progress:
            self._progress(step)
        if self._down_since and (news.progress or news.outcomes.keys() - self._outcomes.keys()):
            self._gap_s = max(self._gap_s, time.monotonic() - self._down_since)
            self._down_since = 0.0
        for index in news.outcomes.keys() - self._outcomes.keys():
            self._outcomes[index] = self._counted(news.outcomes[index])

    def _counted(self, outcome: Outcome) -> Outcome:
        """Return an outcome that tells of supervisors' deaths too."""
        if self._term == 1:
            return outcome
        counts = dict(outcome.counts)
        counts["restarts.supervisor"] = self._term - 1
        counts["gap_ms_max"] = max(counts.get("gap_ms_max", 0), round(1000 * self._gap_s))
        return replace(outcome, counts=counts)

    def _make(self) -> tuple[str, Any]:
        self._made += 1
        name = f"{self._name}-h{self._made}"
        host = StageHost.options(num_cpus=_CPUS, enable_task_events=False).remote(name, self._directories)  # type: ignore[attr-defined]  # as above
        self._pids.append(host.pid.remote())
        self._hosts[name] = host
        return name, host

    def _give_up(self, why: str) -> None:
        for index, job in self._jobs.items():
            if index not in self._outcomes:
                self._outcomes[index] = failed(
                    job, LimpidError(why, where=job.stream, hint="run again: it is taken up")
                )
