"""The hosts of one pooled box: any of them takes any ticket; who dies is replaced, and its tickets go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from actors.calls import OpenBox, WorkOn
from actors.hosts import Answer, Call, Died, Host, Hosts, InputLost
from actors.transport import Ref
from pipeline.errors import LimpidError, StageError
from pipeline.flow.boxes import Box
from pipeline.flow.queue import PoolQueue
from pipeline.stage import StageEnv
from pipeline.wire.ids import StreamId

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


class Pool:
    """Workers for one pooled box, whatever the stream.

    Args:
        key: tells this box and configuration from others.
        size: workers.
    """

    def __init__(self, hosts: Hosts, box: Box, key: str, *, size: int) -> None:
        self._hosts, self._box, self.key = hosts, box, key
        self._queue: PoolQueue[Task] = PoolQueue()
        self._workers: dict[str, Host] = {}
        self._alone: list[Host] = []
        self._deaths = 0  # since the last answer
        self._error: Exception | None = None
        for _ in range(size):
            hosts.spawn(self._add_worker())

    @property
    def name(self) -> str:
        """The box's name."""
        return self._box.name

    @property
    def workers(self) -> list[Host]:
        """Return the hosts that work here."""
        return [*self._workers.values(), *self._alone]

    def submit(self, task: Task, *, alone: bool) -> None:
        """Have a task done; `alone`: in a process of its own, for it may kill it."""
        if self._error is not None:
            task.failed(self._error)
        elif alone:
            self._hosts.spawn(self._do_alone(task))
        else:
            self._queue.put(task.stream, task)
            self._pump()

    def forget(self, stream: StreamId) -> None:
        """Drop what a stream still waits for."""
        self._queue.forget(stream)

    def _pump(self) -> None:
        while (assigned := self._queue.assign()) is not None:
            name, task = assigned
            host = self._workers[name]
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
            task.answered(answer)
        self._pump()

    async def _add_worker(self) -> None:
        try:
            host = await self._hosts.take(networks=self._box.networks)
        except LimpidError as error:
            self._give_up(error)
            return
        host.watch(self._on_death)
        self._workers[host.name] = host
        self._queue.add_worker(host.name)
        opened = self._open(host)
        self._pump()
        await self._watch_over(opened)

    def _open(self, host: Host) -> Call:
        return self._hosts.issue(host, OpenBox(key=self.key, box=self._box, env=StageEnv()))

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
        self._deaths += 1
        if self._deaths < _DEATHS:
            self._hosts.spawn(self._add_worker())
            self._pump()
        else:
            self._give_up(
                StageError("its processes keep dying", stage=self._box.name, span="", hint="see the log of Ray")
            )
        if left.blamed is not None:
            left.blamed.lost()

    async def _do_alone(self, task: Task) -> None:
        try:
            host = await self._hosts.take(networks=self._box.networks)
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
