"""A supervisor and its hosts, made and looked after by one process: the driver of a run, or the service's registry.

Actors are made here and nowhere else, for an actor dies with its maker: a supervisor that dies takes no host with it.
Whoever holds the crew polls the supervisor for news and for the processes that it wants, and makes another one when it
is dead; that one takes every stream up from its manifest. Detached, a crew outlives its maker too: the next one finds
it by name and goes on.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import psutil
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.calls import Device
from actors.cluster import gone_or_killed
from actors.host import StageHost
from actors.hosts import ANYWHERE
from actors.slab import Claim
from actors.supervisor import News, Supervisor, Terms
from pipeline.config import Settings
from pipeline.errors import CapacityError, LimpidError
from pipeline.flow.job import Job, Outcome

NAMESPACE = "limpid"
"""Of all of our actors, whichever process asks for them."""

_SILENT_S = 180.0  # without an answer until a supervisor counts as hung
_DEATHS = 5  # of supervisors, without progress in between, until nothing more is tried
_AT_ONCE = 3  # hosts made with the supervisor: the least that any plan asks for (source, box, spare)
_CPUS = 0.01  # that an actor claims: placement on one node is not to be limited by Ray's count


class Crew:
    """One supervisor, its hosts, and the jobs that they are to do.

    Args:
        name: of all of its actors and files, unique.
        claim: on the files in which results lie; None: they go through Ray's object store.
        detached: whether it is to outlive this process.
        hear: is given each news.
        expected: settings that streams will have; a supervisor gets ready for them when it begins.
    """

    def __init__(
        self,
        name: str,
        claim: Claim | None,
        *,
        detached: bool,
        hear: Callable[[News], None],
        expected: Settings | None = None,
    ) -> None:
        self.jobs: dict[str, Job] = {}
        self.restarts = 0  # of supervisors
        self.gap_s = 0.0  # that a supervisor's death has cost, at most
        self._name, self._claim, self._detached, self._hear = name, claim, detached, hear
        self._directories = tuple(map(str, claim.directories)) if claim is not None else ()
        self._expected = expected
        self._hosts: dict[str, tuple[Any, Device]] = {}
        self._given: set[str] = set()
        self._pids: dict[str, Any] = {}  # references, by name
        self._made = 0
        self._supervisor: Any = None
        self._term = 0
        self._deaths = 0
        self._down_since = 0.0
        self._seen: list[str] = []
        self._stopping: set[str] = set()

    # --- jobs ------------------------------------------------------------------------------------------------

    def add(self, job: Job, key: str) -> None:
        """Have a job done; `key` names it from now on."""
        self.jobs[key] = job
        if self._supervisor is not None:
            self._supervisor.start.remote({key: job})

    def stop(self, key: str) -> None:
        """Have a job stopped: its outcome comes as news."""
        self._stopping.add(key)
        if self._supervisor is not None:
            self._supervisor.stop.remote([key])

    def tell(self, method: str, *args: Any) -> None:
        """Call a method of the supervisor that changes something; it is not waited for."""
        if self._supervisor is not None:
            getattr(self._supervisor, method).remote(*args)

    def ask(self, method: str, *args: Any, within_s: float) -> Any:
        """Return what a method of the supervisor returns; any thread may call this, beside the loop.

        Raises:
            CapacityError: it does not answer now; it may later.
            LimpidError: it was given back.
        """
        supervisor = self._supervisor
        hint, retry_s = "ask again", 1.0
        if supervisor is None:
            raise CapacityError("the supervisor is being made", where="service", hint=hint, retry_after_s=retry_s)
        try:
            answer = ray.get(getattr(supervisor, method).remote(*args), timeout=within_s)
        except RayError as error:
            what = f"the supervisor did not answer ({type(error).__name__})"
            raise CapacityError(what, where="service", hint=hint, retry_after_s=retry_s) from error
        if isinstance(answer, LimpidError):
            raise answer
        return answer

    # --- the loop --------------------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Take over what a crew of this name, whose maker has died, has left running; after the jobs were added."""
        pattern = re.compile(rf"{re.escape(self._name)}-(h|supervisor-)(\d+)(?:-(\w+)-([\d.]+))?")
        for listed in ray.util.list_named_actors(all_namespaces=True):
            actor = str(listed["name"])
            found = pattern.fullmatch(actor)
            if found is None or listed["namespace"] != NAMESPACE:
                continue
            try:
                handle = ray.get_actor(actor, namespace=NAMESPACE)
            except ValueError:
                continue  # it has just died
            self._pids[actor] = handle.pid.remote()
            number = int(found[2])
            if found[1] == "h":
                self._hosts[actor] = handle, Device(resource=found[3] or "", share=float(found[4] or 0))
                self._made = max(self._made, number)
            elif number > self._term:
                self._term, self._supervisor = number, handle
        if self._supervisor is not None:
            self._supervisor.start.remote(dict(self.jobs))  # what it has already it does not begin again
        self._made = max(self._made, int(time.time()))  # dead ones, whose files are still there, had numbers too

    def step(self) -> None:
        """Poll the supervisor once, making it first if there is none; its news go to `hear`.

        Raises:
            LimpidError: supervisors keep dying.
        """
        inherited = False
        if self._supervisor is None:
            inherited = bool(self._hosts)
            self._begin()
        try:
            given = [(name, *host) for name, host in self._hosts.items() if name not in self._given]
            news = self._poll(given, inherited)
        except RayError as error:
            self._supervisor = None
            self._given.clear()
            self._down_since = self._down_since or time.monotonic()
            self._deaths += 1
            if self._deaths >= _DEATHS:
                raise LimpidError(
                    f"its supervisors keep dying: {error}", where="ray", hint="run again: it is taken up"
                ) from error
            return
        self._given |= {name for name, *_ in given}
        self._take(news)

    def pids(self) -> Mapping[str, int]:
        """Return the processes by role, for tests and for people who look into a run."""
        found: dict[str, int] = ray.get(self._supervisor.pids.remote()) if self._supervisor is not None else {}
        return found

    def end(self) -> None:
        """End every process of the crew, and remove its files."""
        for actor in (self._supervisor, *(handle for handle, _ in self._hosts.values())):
            if actor is not None:
                ray.kill(actor, no_restart=True)
        here = []
        pids = list(self._pids.values())
        ready, _ = ray.wait(pids, num_returns=len(pids), timeout=0) if pids else ([], [])
        for ref in ready:
            try:
                here.append(psutil.Process(ray.get(ref)))
            except (RayError, psutil.NoSuchProcess):
                continue
        gone_or_killed(here)
        if self._claim is not None:
            self._claim.release()

    # --- small things ----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Make a supervisor that takes on every job."""
        self.restarts += 1 if self._term else 0
        self._term = max(self._term + 1, int(time.time()))  # rises, even if this process knows none before
        cpus, inherits = os.cpu_count() or 1, len(self._hosts)
        terms = Terms(number=self._term, directories=self._directories, cpus=cpus, inherits=inherits)
        name = f"{self._name}-supervisor-{self._term}"
        self._supervisor = Supervisor.options(name=name, **self._options()).remote(terms)  # type: ignore[attr-defined]  # Ray adds it to the class
        self._pids[name] = self._supervisor.pid.remote()
        self._supervisor.start.remote(dict(self.jobs))
        if self._expected is not None:
            self._supervisor.prepare.remote(self._expected)
        if self._stopping:
            self._supervisor.stop.remote(sorted(self._stopping))
        if not self._hosts:
            # While the supervisor reads the graph, processes start that it will want in any case.
            for _ in range(_AT_ONCE):
                self._make(ANYWHERE)

    def _poll(self, given: list[tuple[str, Any, Device]], inherited: bool) -> News:
        ref = self._supervisor.poll.remote(given, inherited=inherited, seen=self._seen)
        until = time.monotonic() + _SILENT_S
        while not ray.wait([ref], timeout=1.0)[0]:
            if time.monotonic() > until:
                ray.kill(self._supervisor, no_restart=True)
        news: News = ray.get(ref)
        return news

    def _take(self, news: News) -> None:
        for key in news.begun:
            if key in self.jobs and self.jobs[key].overwrite:
                # A later supervisor must not begin a job anew, but take it up.
                self.jobs[key] = replace(self.jobs[key], overwrite=False)
        for name in news.discarded:
            self._hosts.pop(name, None)
            self._pids.pop(name, None)
            self._given.discard(name)
        if news.progress or news.outcomes:
            self._deaths = 0
            if self._down_since:
                self.gap_s = max(self.gap_s, time.monotonic() - self._down_since)
                self._down_since = 0.0
        for device, wanted in news.wanted.items():
            for _ in range(wanted):
                self._make(device)
        self._seen = list(news.outcomes)
        outcomes = {key: self._counted(outcome) for key, outcome in news.outcomes.items() if key in self.jobs}
        for key in outcomes:
            del self.jobs[key]
            self._stopping.discard(key)
        self._hear(replace(news, outcomes=outcomes))

    def _counted(self, outcome: Outcome) -> Outcome:
        """Return an outcome that tells of supervisors' deaths too."""
        if not self.restarts:
            return outcome
        counts = dict(outcome.counts)
        counts["restarts.supervisor"] = self.restarts
        counts["gap_ms_max"] = max(counts.get("gap_ms_max", 0), round(1000 * self.gap_s))
        return replace(outcome, counts=counts)

    def _make(self, device: Device) -> None:
        self._made += 1
        name = f"{self._name}-h{self._made}"
        options = self._options()
        if device.resource == "GPU":
            options["num_gpus"] = device.share
        elif device.resource:
            options["resources"] = {device.resource: device.share}
        if device.resource:
            name += f"-{device.resource}-{device.share}"
        host = StageHost.options(name=name, **options).remote(name, self._directories)  # type: ignore[attr-defined]  # as above
        self._pids[name] = host.pid.remote()
        self._hosts[name] = host, device

    def _options(self) -> dict[str, Any]:
        """Return where and how an actor runs: beside the results' files, or else on the node that has fewest actors.

        Ray itself would fill one node up to half of its cores first, by what is claimed, and so never use another.
        """
        place: Any = "SPREAD"
        if self._directories:
            place = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        lifetime = {"lifetime": "detached"} if self._detached else {}
        named = {"namespace": NAMESPACE, "scheduling_strategy": place}
        return {"num_cpus": _CPUS, "enable_task_events": False, **named, **lifetime}
