"""The actor that looks after streams: it makes every call, so it owns every result, and it never touches a pixel."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray

from actors.hosts import Hosts
from actors.pool import Pool
from actors.run import StreamRun, key_of
from actors.seats import Places
from pipeline.errors import LimpidError
from pipeline.flow.boxes import Box, groups_of, make_boxes
from pipeline.flow.job import Job, Outcome, Progress
from pipeline.flow.ledger import Ledger
from pipeline.graph import Graph, graph_of
from pipeline.wire.acks import Stamp

_POLL_S = 0.25
_START_S = 60.0  # that reading the graphs may take


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What a supervisor is told when it is made.

    Attributes:
        number: of the supervisor in the run; hosts obey the highest.
        directories: where slabs lie; empty: results go through the object store.
        cpus: of the node; how many processes make sense.
    """

    number: int
    directories: tuple[str, ...]
    cpus: int


@dataclass(frozen=True, kw_only=True, slots=True)
class News:
    """What the driver hears.

    Attributes:
        progress: of the streams that have got further.
        outcomes: by the job's index; each told until the driver has seen it (they are few).
        begun: indices of jobs that are on record in their store.
        requested: processes that were asked for, over all time.
        discarded: processes that are gone.
    """

    progress: tuple[Progress, ...]
    outcomes: dict[int, Outcome]
    begun: frozenset[int]
    requested: int
    discarded: tuple[str, ...]


@ray.remote(max_restarts=0, max_task_retries=0)
class Supervisor:
    """Drives streams; the driver polls it."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._hosts: Hosts | None = None
        self._started = asyncio.Event()
        self._pools: dict[str, Pool] = {}
        self._runs: dict[int, StreamRun] = {}
        self._news = asyncio.Event()
        self._progress: dict[str, Progress] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._begun: set[int] = set()
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, jobs: dict[int, Job]) -> None:
        """Take on jobs, by index; returns before they have begun."""
        graphs: dict[int, Graph] = {}
        for index, job in jobs.items():
            try:
                graphs[index] = graph_of(job.settings)
            except LimpidError as error:
                self._outcomes[index] = failed(job, error)
        nodes = [node for graph in graphs.values() for node in graph.nodes]
        modules = sorted({node.stage.__module__ for node in nodes})
        if any(node.networks for node in nodes):
            modules.append("pipeline.models.load")
        hosts = self._hosts = Hosts(
            term=self._terms.number,
            modules=modules,
            directories=[Path(d) for d in self._terms.directories],
            news=self._news,
        )
        plans = {i: groups_of(g, jobs[i].settings.flow.plan, lanes=self._terms.cpus) for i, g in graphs.items()}
        largest = max((len(groups) for groups in plans.values()), default=1)
        places = Places(max(1, self._terms.cpus // largest))
        if graphs:
            hosts.begin(spares=1, first=largest + 1)
        for index, graph in graphs.items():
            self._tasks.append(asyncio.ensure_future(self._run(index, jobs[index], graph, plans[index], places)))
        self._tasks.append(asyncio.ensure_future(self._watch(hosts)))
        self._started.set()
        self._news.set()

    async def poll(self, given: Sequence[tuple[str, Any]], *, inherited: bool = False) -> News:
        """Take in hosts that were made; return what is new, at the latest after a quarter of a second."""
        # Ray may begin calls of an asyncio actor in another order than they were made in: `start` can be the later one.
        await asyncio.wait_for(self._started.wait(), _START_S)
        assert self._hosts is not None
        for name, handle in given:
            self._hosts.given(name, handle, inherited=inherited)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), _POLL_S)
        self._news.clear()
        progress, self._progress = tuple(self._progress.values()), {}
        discarded, self._hosts.discarded = tuple(self._hosts.discarded), []
        return News(
            progress=progress,
            outcomes=dict(self._outcomes),
            begun=frozenset(self._begun),
            requested=self._hosts.requested,
            discarded=discarded,
        )

    async def stop(self) -> None:
        """End every stream early."""
        self._stopping = True
        for run in self._runs.values():
            run.stop()

    async def pid(self) -> int:
        """Return the process's number."""
        return os.getpid()

    async def pids(self) -> dict[str, int]:
        """Return the processes by role, for tests and for people who look into a run."""
        roles = {"supervisor": os.getpid()}
        for run in self._runs.values():
            roles |= run.pids()
        if self._hosts is not None:
            roles |= {f"spare.{n}": host.pid for n, host in enumerate(self._hosts.spares())}
        return roles

    async def _run(self, index: int, job: Job, graph: Graph, groups: list[list[str]], places: Places) -> None:
        try:
            hosts, loop = self._hosts, asyncio.get_running_loop()
            assert hosts is not None

            def choose(graph: Graph) -> Stamp:
                return asyncio.run_coroutine_threadsafe(hosts.choose(graph), loop).result()

            # In a thread: reading a store may wait for a network.
            ledger = await asyncio.to_thread(Ledger, job, graph=graph, choose=choose)
            self._begun.add(index)
            if ledger.completed:
                outcome = ledger.outcome_of_completed()
            else:
                run = self._runs[index] = StreamRun(
                    ledger,
                    make_boxes(ledger.graph, groups),
                    hosts=hosts,
                    places=places,
                    pool_of=self._pool_of(job),
                    progressed=lambda: self._progressed(ledger.progress()),
                )
                if self._stopping:
                    run.stop()
                outcome = await run.run()
                self._progressed(replace(ledger.progress(), state=outcome.state))
        except LimpidError as error:
            outcome = failed(job, error)
        except Exception as error:  # noqa: BLE001  (the stream's border: a bug must not end the others, nor hang them)
            what = f"the supervisor raised {type(error).__name__}: {error}"
            outcome = failed(job, LimpidError(what, where=job.stream, hint="this is a bug: report it"))
        self._runs.pop(index, None)
        self._outcomes[index] = outcome
        self._news.set()

    def _pool_of(self, job: Job) -> Any:
        def pool_of(box: Box) -> Pool:
            key = key_of(box)
            if key not in self._pools:
                assert self._hosts is not None
                self._pools[key] = Pool(self._hosts, box, key, size=job.settings.flow.hosts)
            return self._pools[key]

        return pool_of

    def _progressed(self, progress: Progress) -> None:
        self._progress[progress.stream] = progress
        self._news.set()

    async def _watch(self, hosts: Hosts) -> None:
        while True:
            await asyncio.sleep(5.0)
            hosts.kill_hung()


def failed(job: Job, error: LimpidError) -> Outcome:
    """Return the outcome of a job that could not begin or go on."""
    return Outcome(stream=job.stream, state="failed", frames=0, epochs=0, seconds=0.0, error=error)
