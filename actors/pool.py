"""The hosts of one pooled box: any of them takes any ticket; who dies is replaced, and its tickets go on.

Their number follows the load, by the rule of `pipeline.plan.scale`; who is given back answers what it has first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from actors.calls import Device, OpenBox, WorkOn
from actors.hosts import ANYWHERE, Answer, Call, Died, Host, Hosts, InputLost
from actors.transport import Ref
from pipeline.errors import LimpidError, StageError
from pipeline.flow.boxes import Box
from pipeline.flow.queue import PoolQueue
from pipeline.plan.load import LoadMeter
from pipeline.plan.scale import ScaleRule, ScaleState, scale
from pipeline.stage import StageEnv
from pipeline.wire.ids import StreamId
from pipeline.wire.status import StageStatus

_DEATHS = 12  # of its workers, without an answer in between, until a pool gives up


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Task:
    """A ticket of a stream, and whom to tell how it ended: exactly one of the three is called, at most once."""

    stream: StreamId
    order: WorkOn
    inputs: Sequence[Sequence[Ref]]
    answered: Callable[[Answer], None]
    lost: Callable[[], None]
    failed: Callable[[Exception], None]
    asked_s: float = field(default_factory=time.monotonic)


class Pool:
    """Workers for one pooled box, whatever the stream.

    Args:
        key: tells this box and configuration from others.
        rule: how many workers.
        device: that each of them is pinned to.
    """

    def __init__(self, hosts: Hosts, box: Box, key: str, *, rule: ScaleRule, device: Device = ANYWHERE) -> None:
        self._hosts, self._box, self.key = hosts, box, key
        self._queue: PoolQueue[Task] = PoolQueue()
        self._workers: dict[str, Host] = {}
        self._alone: list[Host] = []
        self._deaths = 0  # since the last answer
        self._error: Exception | None = None
        self._rule, self._scale, self._device = rule, ScaleState(), device
        self._meter = LoadMeter()
        self._coming = 0  # workers that were asked for
        self._streams: set[StreamId] = set()
        self.unused_since_s: float | None = time.monotonic()
        self._grow(max(1, rule.min))

    @property
    def name(self) -> str:
        """The box's name."""
        return self._box.name

    @property
    def networks(self) -> bool:
        """Whether the box runs networks."""
        return self._box.networks

    @property
    def workers(self) -> list[Host]:
        """Return the hosts that work here."""
        return [*self._workers.values(), *self._alone]

    @property
    def rule(self) -> ScaleRule:
        """How many workers there may be, and what they are to be used to."""
        return self._rule

    def limit(self, rule: ScaleRule) -> None:
        """Go by another rule from now on."""
        self._rule = rule

    def tick(self, now_s: float) -> None:
        """Bring the number of workers to what the load asks for."""
        here = self._queue.workers
        load = self._meter.load(now_s, len(here))
        wanted, self._scale, _ = scale(load, self._rule, self._scale, now_s)
        if self._error is not None:
            return
        self._grow(wanted - len(here) - self._coming)
        for name in here[wanted:]:
            self._queue.drain(name)
        for name in self._queue.drained():
            self._queue.remove_worker(name)
            host = self._workers.pop(name)
            host.unwatch(self._on_death)
            self._hosts.discard(host)

    def status(self, now_s: float) -> StageStatus:
        """Return how the pool is doing."""
        here = len(self._queue.workers)
        load = self._meter.load(now_s, here)
        return StageStatus(
            name=self.name,
            streams=len(self._streams),
            workers=here,
            min=self._rule.min,
            max=self._rule.max,
            pending=self._coming,
            queue=load.queue,
            arrival_hz=load.arrival_hz,
            service_s=load.service_s,
            utilisation=load.busy / here if here else 0.0,
            target_utilisation=self._rule.target_utilisation,
            latency_s=self._meter.latency(now_s),
        )

    def close(self) -> None:
        """End every worker; nobody may be waiting."""
        self._error = StageError("the pool is closed", stage=self.name, span="", hint="this is a bug: report it")
        for host in self.workers:
            host.unwatch(self._on_death)
            self._hosts.discard(host)
        self._workers.clear()

    def submit(self, task: Task, *, alone: bool) -> None:
        """Have a task done; `alone`: in a process of its own, for it may kill it."""
        self._streams.add(task.stream)
        self.unused_since_s = None
        if self._error is not None:
            task.failed(self._error)
        elif alone:
            self._hosts.spawn(self._do_alone(task))
        else:
            self._meter.arrived(task.asked_s)
            self._queue.put(task.stream, task)
            self._pump()

    def forget(self, stream: StreamId) -> None:
        """Drop what a stream still waits for; it is over."""
        for _ in self._queue.forget(stream):
            self._meter.withdrawn()
        self._streams.discard(stream)
        if not self._streams:
            self.unused_since_s = time.monotonic()

    def _grow(self, workers: int) -> None:
        for _ in range(workers):
            self._coming += 1
            self._hosts.spawn(self._add_worker())

    def _pump(self) -> None:
        while (assigned := self._queue.assign()) is not None:
            name, task = assigned
            host = self._workers[name]
            self._meter.began(time.monotonic())
            call = self._hosts.work(host, task.order, task.inputs, exports=len(self._box.exports))
            self._hosts.spawn(self._answer(call, task))

    async def _answer(self, call: Call, task: Task) -> None:
        try:
            answer = await self._hosts.reply(call)
        except Died:
            return  # _on_death has seen to it
        except (InputLost, LimpidError) as error:
            self._queue.done(call.host.name, task)
            task.failed(error)
        else:
            self._deaths = 0
            self._queue.done(call.host.name, task)
            now_s = time.monotonic()
            self._meter.ended(now_s, answer.reply.service_s, now_s - task.asked_s)
            task.answered(answer)
        self._pump()

    async def _add_worker(self) -> None:
        try:
            host = await self._hosts.take(networks=self._box.networks, device=self._device)
        except LimpidError as error:
            if not self._workers:
                self._give_up(error)
            return
        finally:
            self._coming -= 1
        if self._error is not None:
            self._hosts.put_back(host)
            return
        host.watch(self._on_death)
        self._workers[host.name] = host
        self._queue.add_worker(host.name)
        opened = self._open(host)
        self._pump()
        await self._watch_over(opened)

    def _open(self, host: Host) -> Call:
        return self._hosts.issue(host, OpenBox(key=self.key, box=self._box, env=StageEnv(device=self._device.torch)))

    async def _watch_over(self, opened: Call) -> None:
        try:
            # What goes wrong in opening is the answer to the work that follows.
            await self._hosts.reply(opened)
        except Died:
            return
        except (InputLost, LimpidError) as error:
            self._give_up(error)

    def _on_death(self, host: Host) -> None:
        self._workers.pop(host.name, None)
        left = self._queue.remove_worker(host.name)
        for _ in left.put_back:
            self._meter.returned(time.monotonic())
        self._deaths += 1
        if self._deaths < _DEATHS:
            self._grow(1)
            self._pump()
        else:
            self._give_up(
                StageError("its processes keep dying", stage=self._box.name, span="", hint="see the log of Ray")
            )
        if left.blamed is not None:
            left.blamed.lost()

    async def _do_alone(self, task: Task) -> None:
        try:
            host = await self._hosts.take(networks=self._box.networks, device=self._device)
        except LimpidError as error:
            task.failed(error)
            return
        self._alone.append(host)
        try:
            opened = self._open(host)
            call = self._hosts.work(host, task.order, task.inputs, exports=len(self._box.exports))
            await self._hosts.reply(opened)
            answer = await self._hosts.reply(call)
        except Died:
            task.lost()
        except (InputLost, LimpidError) as error:
            task.failed(error)
        else:
            task.answered(answer)
        finally:
            self._alone.remove(host)
            self._hosts.discard(host)

    def _give_up(self, error: Exception) -> None:
        """Tell everybody who waits that there is nobody to wait for."""
        self._error = error
        while (task := self._queue.pop()) is not None:
            task.failed(error)
