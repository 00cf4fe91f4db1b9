"""The actor that looks after streams: it makes every call, so it owns every result, and it never touches a pixel."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray

from actors.calls import Device, bare
from actors.hosts import ANYWHERE, Hosts
from actors.machine import Machine
from actors.pool import Pool
from actors.run import StreamRun, device_of, key_of
from actors.seats import Places
from actors.sizes import lanes_of
from actors.weights import StreamWeights
from pipeline.config import Settings
from pipeline.errors import LimpidError, ModelRejected
from pipeline.flow.boxes import Box, groups_of, make_boxes
from pipeline.flow.job import Job, Outcome, Progress
from pipeline.flow.ledger import Ledger
from pipeline.graph import Graph, graph_of
from pipeline.plan.admit import capacity_of, may_return
from pipeline.plan.scale import ScaleRule
from pipeline.plan.turns import giver, returning
from pipeline.wire.acks import Stamp
from pipeline.wire.status import StageStatus
from pipeline.wire.trials import Swap

_POLL_S = 0.25
_TURN_S = 5.0  # between two streams that go back a rung or give one: what the first one did has to show
_STEP_S = 0.25  # between two steps of the ladders
_TICK_S = 1.0  # between two reports of all streams and stages
_UNUSED_S = 30.0  # that a pool without streams is kept
_START_S = 60.0  # that reading the graphs may take


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What a supervisor is told when it is made.

    Attributes:
        number: of the supervisor in the run; hosts obey the highest.
        directories: where slabs lie; empty: results go through the object store.
        cpus: of the node; how many processes make sense.
        inherits: hosts that an earlier supervisor had and that will be given.
    """

    number: int
    directories: tuple[str, ...]
    cpus: int
    inherits: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class News:
    """What the driver hears.

    Attributes:
        progress: of the streams, by the job's key: those that have got further, and once a second all.
        outcomes: by the job's key; each told until whoever polls has seen it.
        begun: keys of jobs that are on record in their store.
        wanted: processes that are asked for and were not given yet, by device.
        discarded: processes that are gone.
        stages: of the pools, once a second.
    """

    progress: dict[str, Progress]
    outcomes: dict[str, Outcome]
    begun: frozenset[str]
    wanted: dict[Device, int]
    discarded: tuple[str, ...]
    stages: tuple[StageStatus, ...] | None = None


@ray.remote(max_restarts=0, max_task_retries=0)
class Supervisor:
    """Drives streams; whoever holds the crew polls it."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._news = asyncio.Event()
        self._hosts = Hosts(term=terms.number, directories=[Path(d) for d in terms.directories], news=self._news)
        self._places = Places()
        self._started = asyncio.Event()
        self._pools: dict[str, Pool] = {}
        self._runs: dict[str, StreamRun] = {}
        self._weights: dict[str, StreamWeights] = {}
        self._progress: dict[str, Progress] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._begun: set[str] = set()
        self._stopping: set[str] = set()
        self._stages: tuple[StageStatus, ...] | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ticking: asyncio.Task[None] | None = None
        self._machine = Machine()

    async def start(self, jobs: dict[str, Job]) -> None:
        """Take on jobs, by key; returns before they have begun. More may come later."""
        graphs: dict[str, Graph] = {}
        for key, job in jobs.items():
            try:
                graphs[key] = graph_of(job.settings, live=job.live)
            except LimpidError as error:
                self._outcomes[key] = failed(job, error)
        self._hosts.learn(_modules(graphs.values()))
        cpus = self._terms.cpus
        plans: dict[str, list[list[str]]] = {}
        beside = sum(run.live for run in self._runs.values())
        for key, graph in graphs.items():
            live = jobs[key].live
            plans[key] = groups_of(graph, jobs[key].settings.flow.plan, lanes=lanes_of(live, beside, cpus))
            beside += live
        if self._ticking is None:
            largest = max((len(groups) for groups in plans.values()), default=0)
            self._hosts.begin(spares=1, first=largest + 1)
            self._ticking = asyncio.ensure_future(self._tick())
        for key, graph in graphs.items():
            if key not in self._tasks:
                self._tasks[key] = asyncio.ensure_future(self._run(key, jobs[key], graph, plans[key]))
        self._started.set()
        self._news.set()

    async def prepare(self, settings: Settings) -> None:
        """Have ready what streams with these settings will want, before the first one comes."""
        graph = graph_of(settings)
        self._hosts.learn(_modules([graph]))
        with contextlib.suppress(LimpidError):  # the stream that needs it will say so
            await self._hosts.choose(graph, device_of(settings))

    async def poll(
        self, given: Sequence[tuple[str, Any, Device]], *, inherited: bool = False, seen: Sequence[str] = ()
    ) -> News:
        """Take in hosts that were made; return what is new, at the latest after a quarter of a second.

        Args:
            given: names, handles and devices of hosts; those that are known already are ignored.
            inherited: an earlier supervisor had them, and they may be dead.
            seen: keys of the outcomes that the last poll told.
        """
        # Ray may begin calls of an asyncio actor in another order than they were made in: `start` can be the later one.
        await asyncio.wait_for(self._started.wait(), _START_S)
        for key in seen:
            self._outcomes.pop(key, None)
            self._begun.discard(key)
            self._tasks.pop(key, None)
        for name, handle, device in given:
            self._hosts.given(name, handle, device, inherited=inherited)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), _POLL_S)
        self._news.clear()
        progress, self._progress = self._progress, {}
        stages, self._stages = self._stages, None
        discarded, self._hosts.discarded = tuple(self._hosts.discarded), []
        return News(
            progress=progress,
            outcomes=dict(self._outcomes),
            begun=frozenset(self._begun),
            wanted={device: n for device, n in self._hosts.wanted.items() if n},
            discarded=discarded,
            stages=stages,
        )

    async def stop(self, keys: Sequence[str]) -> None:
        """End streams early."""
        for key in keys:
            if key in self._runs:
                self._runs[key].stop()
            else:
                self._stopping.add(key)

    async def aim(self, key: str, max_lag_s: float, priority: int) -> None:
        """Have a stream keep another lag, or have another priority among the streams."""
        if key in self._runs:
            self._runs[key].aim(max_lag_s, priority)

    async def push(self, key: str, data: Sequence[Any], keys: dict[str, str]) -> Swap | LimpidError:
        """Try a model on a stream, and have it hold if it is better; an error is given back, not raised.

        Args:
            key: of the stream.
            data: a reference to the model's file.
            keys: public keys of those who may sign it, by the publisher's id.
        """
        try:
            return await self._weights_of(key).push(data[0], keys)
        except LimpidError as error:
            return bare(error)

    async def roll_back(self, key: str) -> Swap | LimpidError:
        """Have a stream go back to the weights before those in use; an error is given back."""
        try:
            return await self._weights_of(key).roll_back()
        except LimpidError as error:
            return bare(error)

    async def key_frame(self, key: str) -> None:
        """Hear that a key frame of a stream is in its directory."""
        if key in self._weights:
            self._weights[key].key_frame_came()

    async def limit(self, name: str, limits: dict[str, Any]) -> None:
        """Change fields of the rule by which the pools of a stage are sized."""
        for pool in self._pools.values():
            if pool.name == name:
                pool.limit(replace(pool.rule, **limits))

    async def pid(self) -> int:
        """Return the process's number."""
        return os.getpid()

    async def pids(self) -> dict[str, int]:
        """Return the processes by role, for tests and for people who look into a run."""
        roles = {"supervisor": os.getpid()}
        for run in self._runs.values():
            roles |= run.pids()
        return roles | {f"spare.{n}": host.pid for n, host in enumerate(self._hosts.spares())}

    async def _run(self, key: str, job: Job, graph: Graph, groups: list[list[str]]) -> None:
        try:
            hosts, loop = self._hosts, asyncio.get_running_loop()

            def choose(graph: Graph) -> Stamp:
                return asyncio.run_coroutine_threadsafe(hosts.choose(graph, device_of(job.settings)), loop).result()

            # In a thread: reading a store may wait for a network.
            ledger = await asyncio.to_thread(Ledger, job, graph=graph, choose=choose)
            await hosts.greeted(self._terms.inherits)  # one of them may read this stream's source
            self._begun.add(key)
            if ledger.completed:
                outcome = ledger.outcome_of_completed()
            else:
                run = self._runs[key] = StreamRun(
                    ledger,
                    make_boxes(ledger.graph, groups),
                    hosts=hosts,
                    places=self._places,
                    per_box=max(1, self._terms.cpus // len(groups)),
                    pool_of=self._pool_of(job),
                    progressed=lambda: self._progressed(key, run.status()),
                )
                self._weights[key] = StreamWeights(run, hosts)
                if key in self._stopping:
                    run.stop()
                outcome = await run.run()
                self._progressed(key, replace(run.status(), state=outcome.state))
        except LimpidError as error:
            outcome = failed(job, error)
        except Exception as error:  # noqa: BLE001  (the stream's border: a bug must not end the others, nor hang them)
            what = f"the supervisor raised {type(error).__name__}: {error}"
            outcome = failed(job, LimpidError(what, where=job.stream, hint="this is a bug: report it"))
        self._runs.pop(key, None)
        self._weights.pop(key, None)
        self._stopping.discard(key)
        self._outcomes[key] = outcome
        self._news.set()

    def _weights_of(self, key: str) -> StreamWeights:
        if key not in self._weights:
            raise ModelRejected("the stream does not run", where="model", hint="push when it does")
        return self._weights[key]

    def _pool_of(self, job: Job) -> Any:
        def pool_of(box: Box) -> Pool:
            key = key_of(box)
            if key not in self._pools:
                flow = job.settings.flow
                rule = ScaleRule(
                    min=flow.hosts, max=max(flow.hosts, flow.max_hosts), target_utilisation=flow.target_utilisation
                )
                device = device_of(job.settings) if box.networks else ANYWHERE
                self._pools[key] = Pool(self._hosts, box, key, rule=rule, device=device)
            return self._pools[key]

        return pool_of

    def _progressed(self, key: str, progress: Progress) -> None:
        self._progress[key] = progress
        self._news.set()

    async def _tick(self) -> None:
        next_s = turned_s = 0.0
        while True:
            now_s = time.monotonic()
            self._machine.look(now_s)
            back, gives = self._turns() if now_s - turned_s > _TURN_S else (None, None)
            for key, run in self._runs.items():
                run.tick(may_return=key == back, give=key == gives)
            if back is not None or gives is not None:
                turned_s = now_s
            await asyncio.sleep(_STEP_S)
            if now_s < next_s:
                continue
            next_s = now_s + _TICK_S
            self._hosts.kill_hung()
            self._progress |= {key: run.status() for key, run in self._runs.items()}
            for name, pool in list(self._pools.items()):
                if pool.unused_since_s is not None and now_s - pool.unused_since_s > _UNUSED_S:
                    self._pools.pop(name).close()
                else:
                    pool.tick(now_s)
            self._stages = tuple(pool.status(now_s) for pool in self._pools.values())
            self._news.set()

    def _turns(self) -> tuple[str | None, str | None]:
        """Return the stream that may go back a rung and the one that takes one for another: one of them at a time."""
        standings = [found for key, run in self._runs.items() if (found := run.standing(key)) is not None]
        cores, idle = self._machine.cluster_cpus, self._machine.idle_cpus
        gives = giver(standings, idle_cpus=idle, cluster_cpus=cores)
        if gives is not None:
            return None, gives
        well = list(returning(standings))
        if not well:
            return None, None
        running = {key: run.running() for key, run in self._runs.items()}
        among = list(running.values())
        capacity = capacity_of(cores, 0.0, among, idle_cpus=idle)
        fits = (key for key in well if may_return(running[key].wanted, running[key].rung, capacity, among))
        return next(fits, None), None


def _modules(graphs: Iterable[Graph]) -> set[str]:
    """Return what a process imports that may take any place of these graphs."""
    nodes = [node for graph in graphs for node in graph.nodes]
    modules = {node.stage.__module__ for node in nodes}
    return modules | {"pipeline.models.load"} if any(node.networks for node in nodes) else modules


def failed(job: Job, error: LimpidError) -> Outcome:
    """Return the outcome of a job that could not begin or go on."""
    return Outcome(stream=job.stream, state="failed", frames=0, epochs=0, seconds=0.0, error=error)
