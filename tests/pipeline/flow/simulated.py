"""Carries out the flow's actions one at a time, in whatever order a chooser says, with deaths of everything."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import StageError
from pipeline.flow.boxes import Box, make_boxes
from pipeline.flow.chain import PooledChain, StreamChain
from pipeline.flow.signals import (
    Arrived,
    Completed,
    Done,
    Entry,
    EpochDone,
    Fail,
    Failed,
    HostDied,
    Lost,
    Open,
    OpenSource,
    Position,
    Pull,
    Release,
    Report,
    Save,
    SetAside,
    SourceEnded,
    SourceLost,
    Submit,
    TakeApart,
)
from pipeline.flow.stream import StreamFlow
from pipeline.stage import StageEnv
from pipeline.wire.acks import Stamp
from pipeline.wire.events import Event
from pipeline.wire.packets import PacketBatch
from tests.pipeline.flow import toys

Choose = Callable[[int], int]
"""Return a number in [0, n)."""


@dataclass
class Host:
    box: Box
    generation: int
    chain: StreamChain
    calls: deque[Submit[int]]


class Simulation:
    """One stream's flow on toy stages; payloads live in `payloads` under int references."""

    def __init__(
        self, epochs: Sequence[Sequence[PacketBatch]], plan: Sequence[Sequence[str]], *, queue_bytes: int = 200
    ) -> None:
        self.epochs = epochs
        self.queue_bytes = queue_bytes
        self.saved: Position | None = None
        self.aside: dict[int, list[tuple[str, int, int]]] = {}
        self.events: list[Event] = []
        self.poison: Callable[[str, int, int], str] = lambda name, start, stop: ""
        self.completed = False
        self.failed: Fail | None = None
        self.kills: dict[str, int] = {}
        self.begin(plan)

    def begin(self, plan: Sequence[Sequence[str]]) -> None:
        """Start (again), from what was saved."""
        self.payloads: dict[int, Any] = {}
        self.hosts: dict[str, Host] = {}
        self.pooled: list[Submit[int]] = []
        self.pulls = 0
        self.inbox: list[Any] = []
        self.doubled: list[Any] = []
        self._next_ref = 0
        self.flow: StreamFlow[int] = StreamFlow(
            toys.STREAM,
            make_boxes(toys.GRAPH, plan),
            make_boxes(toys.GRAPH, toys.PLANS[0]),
            position=self.saved,
            queue_bytes=self.queue_bytes,
            set_aside=self.aside,
        )
        self.carry_out(self.flow.start())

    def entry(self, item: Any) -> Entry[int]:
        self._next_ref += 1
        self.payloads[self._next_ref] = item
        return Entry(span=item.span, ref=self._next_ref, nbytes=item.nbytes)

    def carry_out(self, actions: Sequence[Any]) -> None:
        for action in actions:
            match action:
                case OpenSource(epoch=epoch, packet=packet):
                    self.source = [
                        replace(b.cut(max(packet, b.span.start), b.span.stop)) if b.span.epoch == epoch else b
                        for batches in self.epochs
                        for b in batches
                        if b.span.epoch > epoch or (b.span.epoch == epoch and b.span.stop > packet)
                    ]
                    self.pulls = 0
                case Pull():
                    self.pulls += 1
                case Open(box=box, generation=generation, checkpoint=checkpoint, set_aside=aside):
                    chain = StreamChain(box, schedule=((0, Stamp()),), set_aside=aside, generation=generation)
                    env = StageEnv(stream=toys.STREAM, epoch=self.flow.epoch.epoch)
                    chain.open(env, checkpoint)
                    self.hosts[box.name] = Host(box, generation, chain, deque())
                case Submit(box=box) if box.pooled:
                    self.alive(action)
                    self.pooled.append(action)
                case Submit(box=box):
                    self.alive(action)
                    host = self.hosts.get(box.name)
                    if host is not None:  # else it has died and the flow does not know yet
                        assert host.generation == action.generation
                        host.calls.append(action)
                case Release(ref=ref):
                    del self.payloads[ref]
                case Save(position=position):
                    self.saved = position
                case SetAside(node=node, span=span):
                    self.aside.setdefault(span.epoch, []).append((node, span.start, span.stop))
                case Report(event=event):
                    self.events.append(event)
                case TakeApart() | EpochDone():
                    self.hosts.clear()
                    self.pooled.clear()
                case Completed():
                    self.completed = True
                case Fail():
                    self.failed = action

    def alive(self, action: Submit[int]) -> None:
        for entries in action.inputs:
            for entry in entries:
                assert entry.ref in self.payloads, f"{action.box.name} {action.span} is given a released payload"

    # --- what can happen next --------------------------------------------------------------------------------------

    def choices(self, *, but: str = "") -> list[Callable[[], None]]:
        """Return what could happen next, but for work of the box `but`."""
        found: list[Callable[[], None]] = []
        if self.pulls:
            found.append(self.pull)
        found += [lambda n=name: self.feed(n) for name, host in self.hosts.items() if host.calls and name != but]  # type: ignore[misc]
        found += [lambda s=s: self.run_pooled(s) for s in self.pooled if s.box.name != but]  # type: ignore[misc]
        found += [lambda i=i: self.deliver(i) for i in range(len(self.inbox))]  # type: ignore[misc]
        return found

    def pull(self) -> None:
        self.pulls -= 1
        if self.source:
            batch = self.source.pop(0)
            self.inbox.append(Arrived(entry=self.entry(batch)))
        else:
            self.inbox.append(SourceEnded())

    def feed(self, name: str) -> None:
        host = self.hosts[name]
        action = host.calls.popleft()
        harm = next((h for n in host.box.nodes if (h := self.harm(n.name, action))), "")
        if harm == "die":
            self.hosts.pop(name)
            self.inbox.append(HostDied(box=name, generation=host.generation))
            return
        if harm == "raise":
            error = StageError("toy", stage=host.box.nodes[0].name, span=str(action.span))
            node = host.box.nodes[0].name if len(host.box.nodes) == 1 else ""
            self.inbox.append(Failed(ticket=action.ticket, error=error, node=node))
            return
        inputs = [[self.payloads[e.ref] for e in entries] for entries in action.inputs]
        fed = host.chain.feed(action.span, inputs, finish=action.finish)
        outputs = {n: tuple(self.entry(item) for item in items) for n, items in fed.outputs.items()}
        self.inbox.append(Done(ticket=action.ticket, outputs=outputs, checkpoint=fed.checkpoint, ended=fed.ended))

    def harm(self, node: str, action: Submit[int]) -> str:
        aside = self.aside.get(action.span.epoch, [])
        if any(n == node and a < action.span.stop and action.span.start < b for n, a, b in aside):
            return ""
        return self.poison(node, action.span.start, action.span.stop)

    def run_pooled(self, action: Submit[int]) -> None:
        self.pooled.remove(action)
        harm = next((h for n in action.box.nodes if (h := self.harm(n.name, action))), "")
        if harm == "die":
            self.inbox.append(Lost(ticket=action.ticket))
            return
        if harm == "raise":
            error = StageError("toy", stage=action.box.nodes[0].name, span=str(action.span))
            self.inbox.append(Failed(ticket=action.ticket, error=error, node=action.box.nodes[0].name))
            return
        chain = PooledChain(action.box)
        chain.open(StageEnv())
        inputs = [[self.payloads[e.ref] for e in entries] for entries in action.inputs]
        made = chain.run(action.span, inputs, stamp=Stamp(set_aside=action.set_aside))
        outputs = {name: (self.entry(item),) for name, item in made.items()}
        self.inbox.append(Done(ticket=action.ticket, outputs=outputs))

    def deliver(self, index: int, *, again: bool = False) -> None:
        signal = self.inbox.pop(index)
        if again and isinstance(signal, Done):
            # A doubled answer names payloads of its own: the caller would hold two references.
            copies = {
                n: tuple(self.entry(self.payloads[e.ref]) for e in entries) for n, entries in signal.outputs.items()
            }
            self.doubled.append(replace(signal, outputs=copies))
        self.carry_out(self.flow.on(signal))

    # --- harm ------------------------------------------------------------------------------------------------------

    def kill_host(self, choose: Choose) -> None:
        """Kill a host; but none three times: at one place that is what a poison batch does."""
        if self.hosts:
            name = sorted(self.hosts)[choose(len(self.hosts))]
            if self.kills.get(name, 0) == 2:
                return
            self.kills[name] = self.kills.get(name, 0) + 1
            host = self.hosts.pop(name)
            self.inbox.append(HostDied(box=name, generation=host.generation))

    def kill_worker(self, choose: Choose) -> None:
        """Kill a worker, with the same mercy."""
        if self.pooled:
            action = self.pooled[choose(len(self.pooled))]
            if self.kills.get(action.box.name, 0) == 2:
                return
            self.kills[action.box.name] = self.kills.get(action.box.name, 0) + 1
            self.pooled.remove(action)
            self.inbox.append(Lost(ticket=action.ticket))

    def kill_ingest(self) -> None:
        for signal in self.inbox:
            if isinstance(signal, Arrived):
                del self.payloads[signal.entry.ref]
        self.inbox = [s for s in self.inbox if not isinstance(s, Arrived | SourceEnded)]
        self.pulls = 0
        self.carry_out(self.flow.on(SourceLost()))

    def run(self, choose: Choose = lambda n: 0, *, steps: int = 20_000) -> None:
        """Go on without harm until everything is done."""
        for _ in range(steps):
            if self.completed or self.failed:
                return
            while self.doubled:
                self.carry_out(self.flow.on(self.doubled.pop()))
            found = self.choices()
            assert found, "the flow waits for nothing: a deadlock"
            found[choose(len(found))]()
        raise AssertionError("it does not end")
