"""The supervisor's host processes: spares that are ready, places that are taken, orders under way, deaths."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from actors.calls import Choose, Device, Hello, Lent, Parcel, Reply, Slot, Warm, WorkOn, packed, unpacked
from actors.faults import Verdict, verdict_of
from actors.slab import Custody, files_of
from actors.transport import Held, Ref, Stored
from pipeline.errors import CapacityError, LimpidError, StageError
from pipeline.flow.signals import Entry
from pipeline.graph import Graph
from pipeline.wire.acks import Stamp
from pipeline.wire.ids import StreamId

_CALL_S = 300.0  # a call that takes longer counts as hung, and its process is killed
_GREET_S = 5.0  # that an earlier supervisor's hosts have for their first answer
_UNCLAIMED_S = 30.0  # that a reader without a stream is kept
_START_S = 120.0  # until a process that was asked for has to be there
_CHOICES = 3  # processes that may die while they measure
_STARTS = 5  # processes in a row that may die before they are ready


ANYWHERE = Device()


class Died(Exception):
    """The host of a call is gone."""


class InputLost(Exception):
    """An input of a call is gone: the stream has to be taken up from what is durable."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A host's reply, and what it made as the flow keeps it."""

    reply: Reply
    outputs: dict[str, tuple[Entry[Ref], ...]]


@dataclass(slots=True, eq=False)
class Call:
    """An order under way."""

    host: Host
    refs: list[Any]  # of its answer, and of what comes beside it
    issued_s: float
    answered: bool = False
    returned: tuple[int, ...] = ()


class Host:
    """One host process, as its supervisor sees it."""

    def __init__(self, name: str, handle: Any, device: Device) -> None:
        self.name, self.handle, self.device = name, handle, device
        self.pid = 0
        self.alive = True
        self.users = 0
        self.networks = False  # whether it has loaded what networks need: a second, and 200 MB
        self.loans: dict[int, Ref] = {}
        self.calls: deque[Call] = deque()  # under way, in the order in which they were issued
        self._watchers: list[Callable[[Host], None]] = []

    def watch(self, told: Callable[[Host], None]) -> None:
        """Have `told` called once, when the process dies."""
        self._watchers.append(told)

    def unwatch(self, told: Callable[[Host], None]) -> None:
        """Take back what `watch` was given."""
        if told in self._watchers:
            self._watchers.remove(told)

    def lend(self, inputs: Sequence[Sequence[Ref]], first: int) -> tuple[tuple[tuple[Lent, ...], ...], list[Any]]:
        """Return inputs as an order has them, and the payloads that go beside it; loans are counted from `first`."""
        payloads: list[Any] = []
        edges: list[tuple[Lent, ...]] = []
        for edge in inputs:
            lents = []
            for ref in edge:
                if isinstance(ref, Held):
                    self.loans[first] = ref
                    lents.append(Lent(loan=first, where=ref.where))
                    first += 1
                else:
                    if ref.ref not in payloads:
                        payloads.append(ref.ref)
                    lents.append(Lent(loan=0, where=Slot(payload=payloads.index(ref.ref), index=ref.index)))
            edges.append(tuple(lents))
        return tuple(edges), payloads

    def settle(self, call: Call) -> None:
        """Note that a call has been answered; take the loans back that came with it and with those before it.

        Never earlier: the host may have passed a loan on with the answer to an earlier call, which may be heard later,
        and until then nothing else here holds what it passed on.
        """
        call.answered = True
        while self.calls and self.calls[0].answered:
            for loan in self.calls.popleft().returned:
                self.loans.pop(loan, None)

    def gone(self) -> list[Callable[[Host], None]]:
        """Note the death; return who is to be told."""
        self.alive = False
        self.loans.clear()
        watchers, self._watchers = self._watchers, []
        return watchers


class Hosts:
    """All of them.

    Args:
        term: of the supervisor.
        directories: where slabs lie; empty if results go through the object store.
        news: set when the driver should look at `wanted`.

    Attributes:
        wanted: processes that were asked for and have not been given, by device.
        discarded: names of those that are gone; whoever reads it empties it.
    """

    def __init__(self, *, term: int, directories: Sequence[Path], news: asyncio.Event) -> None:
        self.custody = Custody()
        self.in_slabs = bool(directories)
        self.wanted: Counter[Device] = Counter()
        self.discarded: list[str] = []
        self._term = term
        self._modules: set[str] = set()
        self._directories = tuple(directories)
        self._keep = self._most = self._first = 0
        self._news = news
        self._all: dict[str, Host] = {}
        self._spare: list[Host] = []
        self._waiting: dict[Device, deque[asyncio.Future[Host]]] = {}
        self._sources: dict[StreamId, tuple[Host, float]] = {}
        self._inherited = 0
        self._met = asyncio.Event()
        self._failures = 0
        self._choices: dict[bytes, asyncio.Future[Stamp]] = {}
        self._loan = term << 32  # a host may still give back what an earlier supervisor lent it
        self._tasks: set[asyncio.Task[None]] = set()

    # --- processes -------------------------------------------------------------------------------------------

    def begin(self, *, spares: int, first: int) -> None:
        """Ask for the `first` processes; keep `spares` ready from then on."""
        self._most = self._keep = first + spares
        self._refill()
        self._keep = spares

    def learn(self, modules: Iterable[str]) -> None:
        """Have spares import these while they wait; the first processes import what their box needs, when it comes."""
        self._modules |= set(modules)

    def given(self, name: str, handle: Any, device: Device, *, inherited: bool) -> None:
        """Take in a process that was made; `inherited`: an earlier supervisor had it, and it may be dead."""
        if name in self._all:
            return
        if not inherited and self.wanted[device]:
            self.wanted[device] -= 1
        host = Host(name, handle, device)
        self._all[name] = host
        self.spawn(self._greet(host, inherited))

    async def take(self, *, networks: bool = False, device: Device = ANYWHERE) -> Host:
        """Return a host that nobody else has; of several, one that has loaded what networks need if they are meant.

        One that is pinned to a device is waited for as long as it takes: Ray's autoscaler sees that it is asked for.

        Raises:
            CapacityError: none came in time.
        """
        if self._spare and device == ANYWHERE:
            host = next((host for host in self._spare if host.networks == networks), self._spare[0])
            self._spare.remove(host)
            self._refill()
            return host
        waiter: asyncio.Future[Host] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(device, deque()).append(waiter)
        self._refill()
        try:
            return await asyncio.wait_for(waiter, _START_S if device == ANYWHERE else None)
        except TimeoutError as error:
            raise CapacityError(
                f"no process could be started within {_START_S:.0f} s", where="ray", hint="free CPU and memory"
            ) from error

    async def greeted(self, inherited: int) -> None:
        """Wait until so many hosts of an earlier supervisor have answered or died, or for some seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GREET_S):
                while self._inherited < inherited:
                    await self._met.wait()
                    self._met.clear()

    def reader_of(self, stream: StreamId) -> Host | None:
        """Return the host that reads a stream's source since an earlier supervisor's time, once; None if none does."""
        host, _ = self._sources.pop(stream, (None, 0.0))
        return host if host is not None and host.alive else None

    async def choose(self, graph: Graph, device: Device = ANYWHERE) -> Stamp:
        """Have a host choose what a graph's networks run in: it has the device, and may die of a runtime.

        Streams with the same networks share one choice: measurements at once would disturb each other.

        Raises:
            CapacityError, StageError: no process could be started, or each died of it.
            LimpidError: a model cannot be loaded.
        """
        networks = [node for node in graph.nodes if node.networks]
        if not networks:
            return Stamp()
        key = packed((networks, device))
        if key not in self._choices:
            self._choices[key] = asyncio.ensure_future(self._choose(graph, device))
        try:
            return await self._choices[key]
        except LimpidError:
            self._choices.pop(key, None)  # the next stream tries again
            raise

    async def _choose(self, graph: Graph, device: Device) -> Stamp:
        for _ in range(_CHOICES):
            host = await self.take(networks=True, device=device)
            try:
                reply = (await self.reply(self.issue(host, Choose(graph=graph, device=device.torch)))).reply
            except (Died, InputLost):
                self.died(host)
                continue
            host.networks = True
            self.put_back(host)
            if reply.error is not None:
                raise reply.error
            assert reply.stamp is not None
            return reply.stamp
        raise StageError(
            "processes die while they measure which runtime is the fastest",
            stage="enhance",
            span="",
            hint="name one: enhance.runtime",
        )

    async def aside(self, order: object, payloads: Sequence[Any] = ()) -> Reply:
        """Have a spare that has networks carry out an order that is no stream's work; it stays a spare meanwhile.

        Who takes it waits for the rest only: nobody has to start a process because of it.

        Raises:
            CapacityError, StageError: no process could be started, or each died of it.
            LimpidError: what the order raised.
        """
        for _ in range(_CHOICES):
            ready = [host for host in self._spare if host.networks]
            taken = None if ready else await self.take(networks=True)
            host = taken or min(ready, key=lambda host: len(host.calls))
            try:
                reply = (await self.reply(self.issue(host, order, payloads))).reply
                host.networks = True
            except Died:
                continue
            except InputLost as error:
                raise CapacityError(f"what it works on is gone: {error}", where="ray", hint="try again") from error
            finally:
                if taken is not None:
                    self.put_back(taken)
            if reply.error is not None:
                raise reply.error
            return reply
        raise StageError("processes die while they try it", stage="enhance", span="", hint="see the log of Ray")

    def put_back(self, host: Host) -> None:
        """Return a host that nobody uses any more."""
        if host.alive:
            self._ready(host)

    def discard(self, host: Host) -> None:
        """End a host's process; nobody is told."""
        if host.alive:
            host.gone()
            self._bury(host)

    def died(self, host: Host) -> None:
        """Note that a host's process is gone, and tell those who watch it."""
        if host.alive:
            watchers = host.gone()
            self._bury(host)
            for told in watchers:
                told(host)

    def spares(self) -> list[Host]:
        """Return those that have imported what they may need and do nothing."""
        return [host for host in self._spare if not host.calls]

    def kill_hung(self) -> None:
        """Kill the processes that have been at one call for too long, and readers of streams that nobody takes up."""
        now = time.monotonic()
        for stream, (host, since) in list(self._sources.items()):
            if now - since > _UNCLAIMED_S:
                del self._sources[stream]
                self.discard(host)
        for host in list(self._all.values()):
            if host.calls and now - host.calls[0].issued_s > _CALL_S:
                self.died(host)

    # --- orders ----------------------------------------------------------------------------------------------

    def work(self, host: Host, order: WorkOn, inputs: Sequence[Sequence[Ref]], *, exports: int) -> Call:
        """Issue work."""
        edges, payloads = host.lend(inputs, self._loan + 1)
        self._loan += sum(len(edge) for edge in edges)
        order = replace(order, inputs=edges, free=self.custody.freed(host.name))
        return self.issue(host, order, payloads, exports=exports)

    def issue(self, host: Host, order: object, payloads: Sequence[Any] = (), *, exports: int = 0) -> Call:
        """Send an order, whose `reply` must be waited for. Orders to one host arrive in turn."""
        if self.in_slabs or not exports:
            refs = [host.handle.answer.remote(self._term, 0, packed(order), *payloads)]
        else:
            method = host.handle.answer.options(num_returns=1 + exports)
            refs = method.remote(self._term, exports, packed(order), *payloads)
        call = Call(host, refs, time.monotonic())
        host.calls.append(call)
        return call

    async def reply(self, call: Call) -> Answer:
        """Return the answer; whoever drops it gives back what it holds.

        Raises:
            Died: the process is gone; those who watch it have been told.
            InputLost: an input of the call is gone.
            LimpidError: something that another try cannot help.
        """
        host = call.host
        try:
            reply: Reply = unpacked(await call.refs[0])
            if not host.alive:
                # It answered and died, and its death was heard first: what it made has been removed.
                raise Died(host.name)
            call.returned = reply.returned
            return Answer(reply, self._entries(reply, call.refs))
        except RayError as error:
            verdict, why = verdict_of(error)
            if verdict is Verdict.REPLAY:
                raise InputLost(why) from error
            if verdict is Verdict.FAIL:
                raise LimpidError(f"{why}: {error}", where=host.name, hint="see the log of Ray") from error
            self.died(host)
            raise Died(host.name) from error
        finally:
            host.settle(call)

    def _entries(self, reply: Reply, refs: list[Any]) -> dict[str, tuple[Entry[Ref], ...]]:
        def ref_of(where: Parcel | Slot) -> Ref:
            if isinstance(where, Slot):
                return Stored(refs[1 + where.payload], where.index)
            return Held(where, self.custody)

        return {
            name: tuple(Entry(span=sent.span, ref=ref_of(sent.where), nbytes=sent.nbytes) for sent in sents)
            for name, sents in reply.outputs.items()
        }

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine beside; it handles its own errors."""
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- small things ----------------------------------------------------------------------------------------

    async def _greet(self, host: Host, inherited: bool) -> None:
        try:
            await self._meet(host, inherited)
        finally:
            self._inherited += inherited
            self._met.set()

    async def _meet(self, host: Host, inherited: bool) -> None:
        try:
            reply = (await self.reply(self.issue(host, Hello()))).reply
        except (Died, InputLost, LimpidError) as error:
            self._failures += 0 if inherited else 1
            self.died(host)
            self._fail_waiting(error)
            return
        if reply.error is not None:
            self._failures += 1
            self._fail_waiting(reply.error)
            self.discard(host)
            return
        self._failures = 0
        host.pid = reply.pid
        if reply.reads:
            self._sources |= dict.fromkeys(reply.reads, (host, time.monotonic()))
            return
        self._ready(host)
        self._first -= 1
        if self._first < 0 and host in self._spare:
            self.spawn(self._warm(host))

    async def _warm(self, host: Host) -> None:
        """Have a spare import what it may need; who takes it meanwhile waits for the rest only."""
        try:
            await self.reply(self.issue(host, Warm(modules=tuple(sorted(self._modules)))))
            host.networks = True
        except (Died, InputLost, LimpidError):
            self.died(host)

    def _ready(self, host: Host) -> None:
        waiting = self._waiting.get(host.device, ())
        while waiting:
            waiter = waiting.popleft()
            if not waiter.done():
                waiter.set_result(host)
                return
        if host.device == ANYWHERE and len(self._spare) < self._most:
            self._spare.append(host)
        else:
            self.discard(host)

    def _bury(self, host: Host) -> None:
        self._all.pop(host.name, None)
        if host in self._spare:
            self._spare.remove(host)
        self.discarded.append(host.name)
        self.custody.died(host.name, files_of(f"{host.name}.", self._directories))
        # What cannot be reached may still live: two must never work on one generation.
        ray.kill(host.handle, no_restart=True)
        self._refill()

    def _refill(self) -> None:
        """Ask the driver for as many processes as are waited for, and the spares."""
        for device in {ANYWHERE, *self._waiting}:
            needed = sum(1 for w in self._waiting.get(device, ()) if not w.done())
            needed += self._keep - len(self._spare) if device == ANYWHERE else 0
            coming = sum(1 for host in self._all.values() if host.pid == 0 and host.device == device)
            missing = needed - self.wanted[device] - coming
            if missing > 0 and self._failures < _STARTS:
                self.wanted[device] += missing
                self._news.set()

    def _fail_waiting(self, error: BaseException) -> None:
        if self._failures < _STARTS:
            self._refill()
            return
        told = (
            error
            if isinstance(error, LimpidError)
            else StageError("processes die while they start", stage="host", span="", hint="see the log of Ray")
        )
        for waiting in self._waiting.values():
            while waiting:
                waiter = waiting.popleft()
                if not waiter.done():
                    waiter.set_exception(told)
