"""The machine of one epoch: what to submit, to keep, to make again, until everything is durable.

Theory of operation
-------------------
Every exported node has a *shelf* of entries that were made and may still be asked for. A per-stream box has a position
(`fed`: the next unit of its driving input) and consumes in order; a pooled box has none: it makes whatever spans of
its grid its consumers still need and no shelf holds. After each signal one sweep (`_settle`) runs:

1. From the sinks backwards: what does each consumer still need (`low`), and what of it is missing (`need`)? A
   per-stream box that is dead, or that has passed a unit which somebody needs and nobody holds, is opened again
   from its latest checkpoint at or before that unit; it makes everything from there again, and consumers drop what they
   have. So there is one rule for every fault: *whoever lost something says what it needs, producers go back for it*.
2. Whatever lies before every consumer's `low` is released. Packets are kept from the point where all boxes could start
   again if every process died (`position`).
3. From the source forwards: submit what is needed and complete, as far as credit reaches: a box submits while its
   shelves hold less than `queue_bytes`. What an *idle* per-stream box waits for is *urgent* and may be made, credit or
   not, if it lies in a hole of the shelf or nothing at all is in flight: this keeps holes behind a full shelf from
   being a deadlock, and costs one batch a stage at most. A fast box beside a slow one on the same shelf waits for it.
4. Pull packets.

Answers to tickets that are not in flight (late, doubled, of an older generation) are released and ignored.

A span at which work fails is tried a second time, a third time alone in a fresh process, and then *set aside*:
passed on unprocessed. A box of several stages that dies without saying where is taken apart first (`TakeApart`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic

from pipeline.errors import LimpidError
from pipeline.flow.boxes import SOURCE, Box, starts_of
from pipeline.flow.failures import TAKE_APART, TRIES, Failures
from pipeline.flow.shelf import Shelf
from pipeline.flow.signals import (
    Action,
    Arrived,
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
    Ref,
    Release,
    Save,
    Signal,
    SourceEnded,
    SourceLost,
    Submit,
    TakeApart,
)
from pipeline.wire.acks import Checkpoint, Snapshot
from pipeline.wire.ids import Span, StreamId

_FAR = 1 << 62
_SPARE_FRAMES = 2  # of a decoder, beyond what its packets say: some codecs pack two pictures into one
_WINDOW = 2  # tickets of a per-stream box in flight: one is processed while the next one's input travels
_PACKET_BATCHES = 4  # entries of packets ahead of the slowest box


@dataclass(frozen=True, kw_only=True, slots=True)
class _Flight:
    span: Span
    finish: bool


@dataclass(slots=True)
class _State(Generic[Ref]):
    """A box's side of the flow; the first group is of per-stream boxes only."""

    box: Box
    generation: int = 0
    open: bool = False
    ended: bool = False
    fed: int = 0
    starts: dict[str, int] = field(default_factory=dict)  # first unit of each input that the object needs
    checkpoints: list[Checkpoint] = field(default_factory=list)
    early: dict[int, Done[Ref]] = field(default_factory=dict)
    alone: bool = False
    reached: int = 0  # no frame at or behind it was met, as far as answers say

    flight: dict[int, _Flight] = field(default_factory=dict)
    low: int = 0  # of the driving input: units before it are never asked for again


class EpochFlow(Generic[Ref]):
    """One epoch of one stream.

    Args:
        stream, epoch: whose.
        boxes: the physical plan.
        position: where to start; None is the epoch's beginning.
        queue_bytes: that a shelf may hold before its box waits.
        set_aside: (node, start, stop) that a stamp has recorded.
        first_ticket: tickets are counted from here, so that they are unique in a stream.
        packets, source_ended, pulling: what an earlier machine of the epoch handed over.
    """

    def __init__(
        self,
        stream: StreamId,
        epoch: int,
        boxes: Sequence[Box],
        *,
        position: Position | None = None,
        queue_bytes: int,
        set_aside: Iterable[tuple[str, int, int]] = (),
        first_ticket: int = 0,
        packets: Sequence[Entry[Ref]] = (),
        source_ended: bool = False,
        pulling: bool = False,
    ) -> None:
        self.stream, self.epoch = stream, epoch
        self._boxes = tuple(boxes)
        self._queue_bytes = queue_bytes
        self._aside: set[tuple[str, int, int]] = set(set_aside)
        self.next_ticket = first_ticket
        self._states = {box.name: _State[Ref](box=box) for box in boxes}
        self._maker = {name: box for box in boxes for name in box.exports}
        self._by_frame = {n.name for box in boxes for n in box.nodes if n.inputs[0].producer != SOURCE}
        batches = [n.batch_frames for box in boxes for n in box.nodes if n.name in self._by_frame]
        self._grid = math.lcm(*batches)  # frames: what every stage's batches end on
        self._takers: dict[str, list[Box]] = {}
        for box in boxes:
            for name in box.inputs:
                self._takers.setdefault(name, []).append(box)
        self._shelves: dict[str, Shelf[Entry[Ref]]] = {name: Shelf() for name in (SOURCE, *self._maker)}
        self._emitted = dict.fromkeys(self._maker, 0)
        self._stops: dict[str, int] = {}
        self._unit_bytes = dict.fromkeys(self._maker, 0)
        self._failures = Failures(stream, epoch, self._aside)
        self._pulling = pulling
        self._packets_to = packets[-1].span.stop if packets else position.packet if position else 0
        self._saved = position or Position(epoch=epoch, packet=0, watermark=0, checkpoint={})
        self._keep_packets_from = self._saved.packet
        self._cut_moved = False
        self._over = False
        self._stuck = False
        for entry in packets:
            self._shelves[SOURCE].put(entry)
        if source_ended:
            self._stops[SOURCE] = self._packets_to
        if position is not None:
            for box in boxes:
                state = self._states[box.name]
                own = {n.name: position.checkpoint[n.name] for n in box.nodes if n.name in position.checkpoint}
                if not box.pooled:
                    state.checkpoints = [own]
                for name in box.exports:
                    self._emitted[name] = 0 if box.pooled else own[name].after

    # --- outside ---------------------------------------------------------------------------------------------

    def start(self) -> list[Action[Ref]]:
        """Return the first actions."""
        return self._settle()

    def on(self, signal: Signal[Ref]) -> list[Action[Ref]]:
        """Take a signal; return what is to be done, in order."""
        if self._over:
            return _releases(signal)
        actions: list[Action[Ref]] = []
        match signal:
            case Arrived(entry=entry):
                self._pulling = False
                if entry.span.start != self._packets_to or not self._shelves[SOURCE].put(entry):
                    actions.append(Release(ref=entry.ref))
                else:
                    self._packets_to = entry.span.stop
            case SourceEnded():
                self._pulling = False
                self._stops[SOURCE] = self._packets_to
            case SourceLost():
                self._pulling = False
                if SOURCE not in self._stops:
                    actions.append(OpenSource(epoch=self.epoch, packet=self._packets_to))
            case Done():
                actions += self._on_done(signal)
            case Failed(ticket=ticket, error=error, node=node, fatal=fatal):
                state = self._state_of(ticket)
                if state is not None and fatal:
                    return self._end([Fail(error=error)])
                if state is not None:
                    actions += self._on_failure(state, state.flight[ticket].span, error, node)
                    if state.box.pooled:
                        state.flight.pop(ticket, None)
                    else:
                        actions += self._void(state)
            case Lost(ticket=ticket):
                state = self._state_of(ticket)
                if state is not None:
                    flight = state.flight.pop(ticket)
                    actions += self._on_failure(state, flight.span, None, "")
            case HostDied(box=name, generation=generation):
                state = self._states.get(name)
                if state is not None and state.open and state.generation == generation:
                    if state.flight:
                        first = state.flight[min(state.flight)]
                        actions += self._on_failure(state, first.span, None, "")
                    actions += self._void(state)
        if any(isinstance(a, Fail | TakeApart) for a in actions):
            return self._end(actions)
        return actions + self._settle()

    def position(self) -> Position:
        """Return where the epoch could be taken up again if every process died now."""
        need: dict[str, int] = {}
        cuts: dict[str, Snapshot] = {}
        packet = _FAR
        for box in reversed(self._boxes):
            if box.pooled:
                # Node by node, each on its own grid: so the cut also suits a plan with other boxes.
                for node in reversed(box.nodes):
                    start = need.get(node.name, _FAR)
                    start = start // node.batch_frames * node.batch_frames
                    cuts[node.name] = Snapshot(after=start, resume_from=start)
                    low = max(0, start - node.stage.spec.halo_frames[0])
                    for edge in node.inputs:
                        need[edge.producer] = min(need.get(edge.producer, _FAR), low)
                continue
            chosen = self._choose(self._states[box.name], need)
            cuts |= chosen or {}
            for name, low in starts_of(box, chosen).items():
                if box.packets:
                    packet = min(packet, low)
                else:
                    need[name] = min(need.get(name, _FAR), low)
        frames = [
            cuts[sink].after if sink in cuts else 0
            for box in self._boxes
            for sink in box.sinks
            if sink in self._by_frame
        ]
        complete = len(cuts) == sum(len(box.nodes) for box in self._boxes)
        return Position(
            epoch=self.epoch,
            packet=packet if complete and packet < _FAR else 0,
            watermark=min(frames, default=0),
            checkpoint=cuts if complete else {},
        )

    def frontier(self) -> int:
        """Return a frame that no stage has met or will meet in what was submitted: what changes there changes all."""
        met = [self._saved.watermark]
        for state in self._states.values():
            flights = state.flight.values()
            if state.box.packets:
                met.append(state.reached + sum(len(f.span) for f in flights) + _SPARE_FRAMES)
            else:
                met += [f.span.stop for f in flights]
                met.append(state.fed if not state.box.pooled else 0)
        met += [shelf.stop for name, shelf in self._shelves.items() if name != SOURCE]
        return -(-max(met) // self._grid) * self._grid

    def hand_over(self) -> tuple[list[Entry[Ref]], bool]:
        """Return the packets held and whether the source has ended; this machine is over."""
        self._over = True
        return self._shelves[SOURCE].clear(), SOURCE in self._stops

    @property
    def pulling(self) -> bool:
        """Whether a Pull is under way."""
        return self._pulling

    @property
    def set_aside(self) -> frozenset[tuple[str, int, int]]:
        """What passes unprocessed: (node, start, stop)."""
        return frozenset(self._aside)

    def held_bytes(self) -> dict[str, int]:
        """Return the bytes on each shelf, by producer."""
        return {name: shelf.nbytes for name, shelf in self._shelves.items()}

    # --- signals ---------------------------------------------------------------------------------------------

    def _on_done(self, done: Done[Ref]) -> list[Action[Ref]]:
        state = self._state_of(done.ticket)
        if state is None:
            return _releases(done)
        if state.box.pooled:
            return self._take(state, done)
        if done.ticket in state.early:
            return _releases(done)
        state.early[done.ticket] = done
        actions: list[Action[Ref]] = []
        # Answers of one box are taken in the order of its tickets: its checkpoints and emissions follow each other.
        while state.flight and (ticket := min(state.flight)) in state.early:
            actions += self._take(state, state.early.pop(ticket))
        return actions

    def _take(self, state: _State[Ref], done: Done[Ref]) -> list[Action[Ref]]:
        flight = state.flight.pop(done.ticket)
        self._failures.forget(state.box, flight.span)
        state.alone = False
        state.reached = max(state.reached, done.reached)
        actions: list[Action[Ref]] = []
        for name, entries in done.outputs.items():
            for entry in entries:
                self._emitted[name] = max(self._emitted[name], entry.span.stop)
                self._unit_bytes[name] = entry.nbytes // max(1, len(entry.span))
                if not self._shelves[name].put(entry):
                    actions.append(Release(ref=entry.ref))
        if done.checkpoint is not None:
            state.checkpoints.append(done.checkpoint)
            self._cut_moved = True
        if done.ended:
            state.ended = True
            for name in state.box.exports:
                self._stops[name] = self._emitted[name]
        return actions

    def _on_failure(self, state: _State[Ref], span: Span, error: LimpidError | None, node: str) -> list[Action[Ref]]:
        count, actions = self._failures.failed(state.box, span, error, node)
        state.alone = count == TRIES - 1
        return [TakeApart(position=self.position()) if a is TAKE_APART else a for a in actions]

    def _void(self, state: _State[Ref]) -> list[Action[Ref]]:
        """Give up a per-stream box's object; return what lets go of answers that waited for earlier ones."""
        actions = [action for done in state.early.values() for action in _releases(done)]
        state.open = False
        state.flight.clear()
        state.early.clear()
        return actions

    def _state_of(self, ticket: int) -> _State[Ref] | None:
        return next((s for s in self._states.values() if ticket in s.flight), None)

    def _end(self, actions: list[Action[Ref]]) -> list[Action[Ref]]:
        self._over = True
        for name, shelf in self._shelves.items():
            if name != SOURCE:
                actions += [Release(ref=entry.ref) for entry in shelf.clear()]
        return actions

    # --- the sweep -------------------------------------------------------------------------------------------

    def _settle(self) -> list[Action[Ref]]:
        actions: list[Action[Ref]] = []
        if all(s.ended for s in self._states.values() if s.box.sinks):
            actions += [Release(ref=entry.ref) for entry in self._shelves[SOURCE].clear()]
            position = self.position()
            actions = self._end(actions)
            return [*actions, Save(position=position), EpochDone(epoch=self.epoch, frames=position.watermark)]
        for box in reversed(self._boxes):
            actions += self._sweep_back(self._states[box.name])
        if self._cut_moved:
            self._cut_moved = False
            position = self.position()
            self._keep_packets_from = position.packet
            actions += self._save(position)
        actions += self._release()
        for box in self._boxes:
            actions += self._submit(self._states[box.name])
        if not any(state.flight for state in self._states.values()):
            # Nothing will make room by itself any more.
            self._stuck = True
            for box in self._boxes:
                actions += self._submit(self._states[box.name])
            self._stuck = False
        actions += self._pull()
        return actions

    def _sweep_back(self, state: _State[Ref]) -> list[Action[Ref]]:
        """Settle what a box still needs; its consumers have been settled. Open it where it is dead or too far."""
        box = state.box
        need = {name: self._need(name) for name in box.exports}
        if box.pooled:
            lowest = min(need.values())
            lowest = lowest // box.batch * box.batch if lowest < _FAR else _FAR
            # What calls in flight read is kept, even when nobody wants their answer any more.
            state.low = min([lowest, *(f.span.start for f in state.flight.values())])
            return []
        actions: list[Action[Ref]] = []
        passed = any(need[name] < self._emitted[name] for name in box.exports)
        if passed or (not state.open and not state.ended):
            chosen = self._choose(state, need)
            # What was taken after the chosen one is taken again.
            del state.checkpoints[state.checkpoints.index(chosen) + 1 if chosen is not None else 0 :]
            actions += self._void(state)
            state.open, state.ended = True, False
            # A stream that was taken up has met what its checkpoint has, before any answer says so.
            counted = [n.name for n in box.nodes if n.stage.spec.gives is not None or n.name in self._by_frame]
            state.reached = max([state.reached, *(chosen[name].after for name in counted if chosen)])
            state.generation += 1
            state.starts = starts_of(box, chosen)
            state.fed = min(state.starts.values())
            for name in box.exports:
                self._emitted[name] = chosen[name].after if chosen is not None else 0
            aside = tuple(sorted(self._aside))
            opened = Open(box=box, generation=state.generation, checkpoint=chosen, set_aside=aside, alone=state.alone)
            actions.append(opened)
        if state.ended:
            state.low = _FAR
        else:
            state.low = min([state.fed, *(f.span.start for f in state.flight.values())])
        return actions

    def _need(self, name: str) -> int:
        """Return the first unit of a node's output that a consumer needs and the shelf lacks; _FAR if none."""
        stop = self._stops.get(name, _FAR)
        lowest = _FAR
        for taker in self._takers[name]:
            low = self._low_of(taker, name)
            if low < stop:
                missing = self._shelves[name].first_missing(low)
                if missing < stop:
                    lowest = min(lowest, missing)
        return lowest

    def _low_of(self, taker: Box, name: str) -> int:
        """Return the first unit of an input that a box may still ask for."""
        state = self._states[taker.name]
        if state.low >= _FAR:
            return _FAR
        if taker.pooled:
            return max(0, state.low - taker.halo[0]) if name == taker.inputs[0] else state.low
        return max(state.low, state.starts[name])

    def _choose(self, state: _State[Ref], need: dict[str, int]) -> Checkpoint | None:
        """Return the latest checkpoint at or before what is needed of the box's exports; None is the beginning."""
        for checkpoint in reversed(state.checkpoints):
            if all(checkpoint[name].after <= need.get(name, _FAR) for name in state.box.exports):
                return checkpoint
        return None

    def _save(self, position: Position) -> list[Action[Ref]]:
        for box in self._boxes:
            state = self._states[box.name]
            if not box.pooled and state.checkpoints and position.checkpoint:
                self._prune(state, position.checkpoint)
        if position.watermark <= self._saved.watermark or not position.checkpoint:
            return []
        self._saved = position
        return [Save(position=position)]

    def _prune(self, state: _State[Ref], floor: Checkpoint) -> None:
        """Forget checkpoints before the one that a start from `position` would take."""
        for index, checkpoint in enumerate(state.checkpoints):
            if all(checkpoint[n.name] == floor[n.name] for n in state.box.nodes):
                del state.checkpoints[:index]
                return

    def _release(self) -> list[Action[Ref]]:
        actions: list[Action[Ref]] = []
        for name, shelf in self._shelves.items():
            if name == SOURCE:
                low = self._keep_packets_from
            else:
                low = min(self._low_of(taker, name) for taker in self._takers[name])
            actions += [Release(ref=entry.ref) for entry in shelf.drop_before(low)]
        return actions

    def _submit(self, state: _State[Ref]) -> list[Action[Ref]]:
        return self._submit_pooled(state) if state.box.pooled else self._submit_stream(state)

    def _submit_stream(self, state: _State[Ref]) -> list[Action[Ref]]:
        box = state.box
        actions: list[Action[Ref]] = []
        while (
            state.open
            and not state.ended
            and len(state.flight) < _WINDOW
            and not any(f.finish for f in state.flight.values())
        ):
            if not self._room(state) and (state.flight or not self._wanted(box)):
                break
            end = self._stops.get(box.inputs[0])
            span = self._next_span(state, end)
            if span is None:
                break
            inputs = [
                self._shelves[name].covering(max(span.start, state.starts[name]), span.stop) for name in box.inputs
            ]
            entries = [found for found in inputs if found is not None]
            if len(entries) < len(inputs):
                break
            finish = end is not None and span.stop == end
            actions.append(self._ticket(state, span, entries, finish=finish))
            state.fed = span.stop
        return actions

    def _next_span(self, state: _State[Ref], end: int | None) -> Span | None:
        box, fed = state.box, state.fed
        if end is not None and fed >= end:
            return self._span(end, end)
        if box.packets:
            found = self._shelves[SOURCE].covering(fed, fed + 1)
            return self._span(fed, found[0].span.stop) if found else None
        stop = (fed // box.batch + 1) * box.batch
        return self._span(fed, stop if end is None else min(stop, end))

    def _submit_pooled(self, state: _State[Ref]) -> list[Action[Ref]]:
        box = state.box
        actions: list[Action[Ref]] = []
        if state.low >= _FAR:
            return actions
        end = self._stops.get(box.inputs[0])
        if end is not None:
            for name in box.exports:
                self._stops[name] = end
        flying = {f.span.start for f in state.flight.values()}
        start = state.low
        while end is None or start < end:
            stop = start + box.batch if end is None else min(start + box.batch, end)
            if start not in flying and any(self._shelves[n].covering(start, stop) is None for n in box.exports):
                if not self._room(state) and not (start == state.low and self._wanted(box)):
                    break
                low = max(0, start - box.halo[0])
                high = stop + box.halo[1] if end is None else min(stop + box.halo[1], end)
                driving = self._shelves[box.inputs[0]].covering(low, high)
                others = [self._shelves[name].covering(start, stop) for name in box.inputs[1:]]
                found = [o for o in (driving, *others) if o is not None]
                if len(found) < len(box.inputs):
                    break
                actions.append(self._ticket(state, self._span(start, stop), found, finish=False))
            start = stop
        return actions

    def _ticket(
        self, state: _State[Ref], span: Span, inputs: Sequence[Sequence[Entry[Ref]]], *, finish: bool
    ) -> Submit[Ref]:
        ticket = self.next_ticket
        self.next_ticket += 1
        state.flight[ticket] = _Flight(span=span, finish=finish)
        box = state.box
        # guard has to know that enhance was passed over, so every frame-driven node's entry goes along.
        aside = tuple(sorted(n for n, a, b in self._aside if n in self._by_frame and a < span.stop and span.start < b))
        return Submit(
            ticket=ticket,
            box=box,
            generation=state.generation,
            span=span,
            inputs=tuple(tuple(entries) for entries in inputs),
            finish=finish,
            set_aside=aside if box.pooled else (),
            alone=box.pooled and self._failures.count(box, span) >= TRIES - 1,
        )

    def _room(self, state: _State[Ref]) -> bool:
        """Say whether a box's shelves have credit for one more call."""
        flying = sum(len(f.span) for f in state.flight.values())
        return all(
            self._shelves[name].nbytes + flying * self._unit_bytes[name] < self._queue_bytes
            for name in state.box.exports
        )

    def _wanted(self, box: Box) -> bool:
        """Say whether an idle per-stream box waits, at once or through pooled ones, for what this box makes next."""
        for name in box.exports:
            ready = self._shelves[name]
            for taker in self._takers[name]:
                state = self._states[taker.name]
                if state.flight or state.ended or state.low >= _FAR:
                    continue
                end = self._stops.get(name, _FAR)
                stop = (state.low // taker.batch + 1) * taker.batch
                ahead = taker.halo[1] if taker.pooled and name == taker.inputs[0] else 0
                low = self._low_of(taker, name)
                lacks = ready.covering(low, min(stop + ahead, end)) is None
                # A taker that has merely emptied the shelf before slower ones have is no reason to exceed the credit.
                urgent = self._stuck or ready.first_missing(low) < ready.stop
                if lacks and urgent and (not taker.pooled or self._wanted(taker)):
                    return True
        return False

    def _pull(self) -> list[Action[Ref]]:
        if self._pulling or SOURCE in self._stops:
            return []
        fed = min(self._states[taker.name].fed for taker in self._takers[SOURCE])
        ahead = sum(1 for entry in self._shelves[SOURCE] if entry.span.stop > fed)
        if ahead >= _PACKET_BATCHES:
            return []
        self._pulling = True
        return [Pull()]

    # --- small things ----------------------------------------------------------------------------------------

    def _span(self, start: int, stop: int) -> Span:
        return Span(stream=self.stream, epoch=self.epoch, start=start, stop=stop)


def _releases(signal: Signal[Ref]) -> list[Action[Ref]]:
    """Return what lets go of payloads that nobody waits for any more."""
    match signal:
        case Arrived(entry=entry):
            return [Release(ref=entry.ref)]
        case Done(outputs=outputs):
            return [Release(ref=entry.ref) for entries in outputs.values() for entry in entries]
    return []
