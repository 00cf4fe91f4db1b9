"""Who may write where, when: hosts pass blocks on, die, are heard in any order; no picture changes under a reader.

Hosts, slabs and the supervisor's side are the real ones; only the calls between them are made here, not by Ray, so that
answers can be late.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.calls import Lent, OpenBox, Parcel, WorkOn, packed, unpacked
from actors.host import Host as Working
from actors.hosts import ANYWHERE, Call, Died, Host, Hosts
from actors.slab import Reader, Slab
from actors.transport import Held, Inbox, Outbox, Ref
from pipeline.flow.boxes import Box
from pipeline.graph import Edge, Node
from pipeline.stage import PooledStage, StageConfig, StageEnv, StageSpec, Work
from pipeline.wire.acks import Stamp
from pipeline.wire.frames import FrameBatch
from pipeline.wire.ids import Span, StreamId
from tests.actors.test_transport import frames

STREAM = StreamId("s")
PASSES, COPIES = "passes", "copies"
HOSTS = 5


class Passes(PooledStage[StageConfig, FrameBatch, FrameBatch]):
    spec = StageSpec(name=PASSES, version=1, takes=(FrameBatch,), gives=FrameBatch, batch_frames=2)
    Config = StageConfig

    def process(self, work: Work[FrameBatch]) -> FrameBatch:
        self._last = work.item  # looked at until the next call: the loan comes back with a later answer
        return work.item


class Copies(Passes):
    spec = StageSpec(name=COPIES, version=1, takes=(FrameBatch,), gives=FrameBatch, batch_frames=2)

    def process(self, work: Work[FrameBatch]) -> FrameBatch:
        return replace(work.item, data=work.item.data.copy())


def box(stage: type[Passes]) -> Box:
    name = stage.spec.name
    node = Node(name=name, stage=stage, config=StageConfig(), inputs=(Edge(producer="before", field=""),))
    return Box(
        name=name,
        nodes=(node,),
        pooled=True,
        packets=False,
        batch=2,
        halo=(0, 0),
        inputs=("before",),
        exports=(name,),
        sinks=(),
    )


class Process:
    """A host process: it works at once, and is heard when `deliver` says."""

    def __init__(self, name: str, directory: Path) -> None:
        self.answer = self
        self._host = Working(Slab(name, [directory]))
        self._waiting: list[tuple[asyncio.Future[bytes], bytes]] = []

    def remote(self, term: int, returns: int, order: bytes, *payloads: Any) -> asyncio.Future[bytes]:
        reply, _ = self._host.answer(unpacked(order), payloads)
        heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append((heard, packed(reply)))
        return heard

    def deliver(self, dice: random.Random) -> None:
        """Let one of the answers under way be heard."""
        if self._waiting:
            heard, reply = self._waiting.pop(dice.randrange(len(self._waiting)))
            heard.set_result(reply)


class World:
    """Some hosts and their supervisor; what it holds, and what has to be in it."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.dice = random.Random(seed)
        self.directory = directory
        self.hosts = Hosts(term=1, directories=[directory], news=asyncio.Event())
        self.processes: dict[str, Process] = {}
        self.held: list[tuple[Ref, int]] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.source = Slab("source", [directory])
        self.inbox = Inbox(Reader())
        self.made = 0

    def start_host(self) -> None:
        name = f"h{len(self.processes)}"
        self.processes[name] = Process(name, self.directory)
        self.hosts.given(name, self.processes[name], ANYWHERE, inherited=False)

    def alive(self) -> list[Host]:
        return [h for h in self.hosts._all.values() if h.pid]

    def pictures(self, value: int) -> Ref:
        """Return frames full of a value, as a source that is not among the hosts gives them."""
        item = replace(frames(), data=np.full_like(frames().data, value % 251))
        self.source.free(self.hosts.custody.freed("source"))
        where = Outbox(self.source, Reader()).send({"n": [item]})[0]["n"][0].where
        assert isinstance(where, Parcel)
        return Held(where, self.hosts.custody)

    def check(self) -> None:
        """Look at everything that is held."""
        for ref, value in self.held:
            assert isinstance(ref, Held)
            item = self.inbox.take(Lent(loan=0, where=ref.where), ())
            assert isinstance(item, FrameBatch)
            assert np.all(item.data == value % 251), f"{ref.where.blocks} was written while it was held"

    def step(self) -> None:
        """Do one thing: make pictures, give some to a host, hear an answer, forget something, lose a host."""
        what = self.dice.random()
        if what < 0.15 or not self.held:
            self.made += 1
            self.held.append((self.pictures(self.made), self.made))
        elif what < 0.6:
            index = self.dice.randrange(len(self.held))
            ref, value = self.held[index]
            if self.dice.random() < 0.6:
                del self.held[index]  # nobody else needs it any more, as in a chain of boxes
            host = self.dice.choice(self.alive())
            key = self.dice.choice([PASSES, COPIES, PASSES])
            span = Span(stream=STREAM, epoch=0, start=0, stop=2)
            order = WorkOn(
                key=key, stream=None, generation=0, span=span, inputs=(), finish=False, schedule=((0, Stamp()),)
            )
            self.hear(self.hosts.work(host, order, [[ref]], exports=1), key, value)
        elif what < 0.97:
            self.dice.choice(list(self.processes.values())).deliver(self.dice)
        elif what < 0.995 or len(self.alive()) < 3:
            del self.held[self.dice.randrange(len(self.held))]
        else:
            self.hosts.died(self.dice.choice(self.alive()))

    def hear(self, call: Call, key: str, value: int) -> None:
        async def heard() -> None:
            try:
                answer = await self.hosts.reply(call)
            except Died:
                return
            assert answer.reply.error is None
            (entry,) = answer.outputs[key]
            self.held.append((entry.ref, value))

        self.tasks.add(asyncio.ensure_future(heard()))

    def lent(self) -> int:
        """Return how many loans the hosts have not given back yet: they say so with their next answer."""
        return sum(len(host.loans) for host in self.alive())

    async def settle(self, until: Callable[[], bool]) -> None:
        """Let every answer be heard."""
        for _ in range(300):
            for process in self.processes.values():
                process.deliver(self.dice)
            await turn()
            if until():
                return


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.hosts.ray.kill", lambda *_, **__: None)


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("seed", range(12))
def test_no_picture_changes_under_who_holds_it(tmp_path: Path, seed: int) -> None:
    async def run() -> None:
        world = World(tmp_path, seed)
        world.hosts.begin(spares=HOSTS, first=0)
        for _ in range(HOSTS):
            world.start_host()
        await world.settle(lambda: len(world.alive()) == HOSTS)
        for host in world.alive():
            for stage in (Passes, Copies):
                opened = world.hosts.issue(host, OpenBox(key=stage.spec.name, box=box(stage), env=StageEnv()))
                world.tasks.add(asyncio.ensure_future(acknowledged(world.hosts, opened)))
        for number in range(600):
            world.step()
            await turn()
            if number % 5 == 0:
                world.check()
        await world.settle(lambda: not any(host.calls for host in world.alive()))
        assert world.held
        world.held.clear()
        await world.settle(lambda: False)
        gc.collect()
        assert len(world.hosts.custody._holders) <= world.lent()
        for task in world.tasks:
            assert task.cancel() or task.exception() is None

    asyncio.run(run())


async def acknowledged(hosts: Hosts, call: Call) -> None:
    with suppress(Died):
        await hosts.reply(call)


async def turn() -> None:
    """Let everything that can go on do so."""
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(done.set_result, None)
    await done


def test_loans_come_back_in_the_order_of_the_calls() -> None:
    host = Host("h", None, ANYWHERE)
    first, second = Call(host, [], 0.0, returned=(1,)), Call(host, [], 0.0, returned=(2,))
    host.calls.extend((first, second))
    host.loans = {1: None, 2: None}  # type: ignore[dict-item]  # what is lent does not matter here
    host.settle(second)
    assert set(host.loans) == {1, 2}
    host.settle(first)
    assert not host.loans
    assert not host.calls
