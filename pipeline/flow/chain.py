"""Running the stages of one box: what a host process does with what the flow submits.

`PooledChain` works on one span at a time and remembers nothing. `StreamChain` is one stream's object: it buffers what
its stages give each other, feeds each stage spans on that stage's own grid, and takes checkpoints at consistent cuts:
every stage's snapshot is old enough that what stages behind it still need is made again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pipeline.errors import LimpidError, StageError
from pipeline.flow.boxes import SOURCE, Box, is_pooled
from pipeline.flow.shelf import Shelf
from pipeline.graph import Edge, Node
from pipeline.stage import NoBypass, PooledStage, StageEnv, StreamStage, Work
from pipeline.wire.acks import Checkpoint, Schedule, Snapshot, Stamp, stamp_at
from pipeline.wire.ids import Span
from pipeline.wire.items import Item, cut, join

T = TypeVar("T")

_FAR = 1 << 62


def take(items: Sequence[Item], start: int, stop: int) -> Any:
    """Return the units [start, stop) of items that hold them, as one item; no copy where one item holds them all."""
    inside = [i for i in items if i.span.start < stop and i.span.stop > start]
    return join([cut(i, max(start, i.span.start), min(stop, i.span.stop)) for i in inside])


def captured_ns(item: Any) -> int:
    """Return the Unix time at which the last frame of an item arrived; 0 where it does not say."""
    times = getattr(item, "captured_ns", None)
    return 0 if times is None or not len(times) else int(times[-1])


def _field(item: Any, edge: Edge) -> Any:
    return getattr(item, edge.field) if edge.field else item


def _guarded(node: Node, span: Span, call: Callable[[], T]) -> T:
    """Run a stage's code. This is the border where whatever it raises becomes an error of ours that names the stage."""
    try:
        return call()
    except NoBypass as error:
        raise StageError(
            "processing failed, and the stage has no way to pass the batch on unprocessed",
            stage=node.name,
            span=str(span),
        ) from error
    except LimpidError:
        raise
    except Exception as error:
        raise StageError(
            f"the stage raised {type(error).__name__}: {error}", stage=node.name, span=str(span), cause=repr(error)
        ) from error


class PooledChain:
    """The stages of a pooled box."""

    def __init__(self, box: Box) -> None:
        assert box.pooled
        self.box = box
        self._stages: list[tuple[Node, PooledStage[Any, Any, Any]]] = []
        for node in box.nodes:
            stage = node.stage(node.config)
            assert isinstance(stage, PooledStage)
            self._stages.append((node, stage))

    def open(self, env: StageEnv) -> None:
        """Open every stage; raises what they raise."""
        for node, stage in self._stages:
            stage.open(replace(env, batch_frames=node.batch_frames))

    def run(
        self,
        span: Span,
        inputs: Sequence[Sequence[Item]],
        *,
        stamp: Stamp,
        store: str = "",
        generation: int = 0,
        finish: bool = False,
    ) -> dict[str, Item]:
        """Return per exported node its output for `span`.

        Args:
            span: frames asked for.
            inputs: per input of the box the items that hold the span; those of the first also its halo, as far as the
                epoch reaches.
            stamp: `set_aside` names the nodes that pass the span on unprocessed.
            store: of the stream.
            generation: of the try.
            finish: unused here; pooled stages have no end.
        """
        outside = dict(zip(self.box.inputs, inputs, strict=True))
        made: dict[str, Item] = {}
        for node, stage in self._stages:
            values = []
            for edge in node.inputs:
                whole = (
                    made[edge.producer]
                    if edge.producer in made
                    else take(outside[edge.producer], span.start, span.stop)
                )
                values.append(_field(whole, edge))
            before = after = None
            if node is self.box.nodes[0] and self.box.halo != (0, 0):
                before, after = self._halo(outside[node.inputs[0].producer], span, node.inputs[0])
            work = Work(
                item=values[0],
                span=span,
                side=tuple(values[1:]),
                before=before,
                after=after,
                stamp=stamp,
                store=store,
                generation=generation,
            )
            call = stage.bypass if node.name in stamp.set_aside else stage.process
            made[node.name] = _guarded(node, span, lambda call=call, work=work: call(work))  # type: ignore[misc]
        return {name: made[name] for name in self.box.exports}

    def prepare(self, stamp: Stamp, *, store: str) -> None:
        """Have every stage get ready for a stamp that is to come; raises what they raise."""
        for _, stage in self._stages:
            stage.prepare(stamp, store=store)

    def _halo(self, items: Sequence[Item], span: Span, edge: Edge) -> tuple[Any, Any]:
        first, last = items[0].span.start, items[-1].span.stop
        start, stop = max(first, span.start - self.box.halo[0]), min(last, span.stop + self.box.halo[1])
        before = _field(take(items, start, span.start), edge) if start < span.start else None
        after = _field(take(items, span.stop, stop), edge) if stop > span.stop else None
        return before, after

    def close(self) -> None:
        """Close every stage."""
        for _, stage in self._stages:
            stage.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class Fed:
    """What came of feeding a StreamChain.

    Attributes:
        outputs: per exported node.
        checkpoint: where another object could start.
        ended: it has taken the end of its input.
        reached: no frame at or behind it was met by any stage, or will be in what was taken so far.
        frames: that the last stage is done with, in this call.
        captured_ns: Unix time at which the last of them arrived; 0 where there is none.
    """

    outputs: Mapping[str, Sequence[Item]]
    checkpoint: Checkpoint
    ended: bool
    reached: int = 0
    frames: int = 0
    captured_ns: int = 0


class _Lane:
    """One node in a StreamChain: its stage, where it is, what waits for it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.stage: Any = node.stage(node.config)
        self.pooled = is_pooled(node)
        self.packets = node.inputs[0].producer == SOURCE
        self.batch = node.batch_frames
        self.halo = node.stage.spec.halo_frames
        self.shelves: list[Shelf[Item]] = [Shelf() for _ in node.inputs]
        self.pos = 0
        self.emitted = 0
        self.finished = False
        self.history: list[Snapshot] = []

    @property
    def reached(self) -> int:
        """No frame at or behind it was met, or will be in what was taken so far."""
        if not self.packets:
            return self.pos
        return self.emitted + self.stage.held() if self.node.stage.spec.gives is not None else 0

    def start(self, snapshot: Snapshot | None) -> None:
        if snapshot is not None:
            self.pos, self.emitted = snapshot.resume_from, snapshot.after
            if not self.pooled:
                self.stage.restore(snapshot)
        if not self.pooled:
            self.history = [snapshot if snapshot is not None else self.stage.snapshot()]

    def note(self) -> None:
        """Remember the stage's latest snapshot."""
        snapshot: Snapshot = self.stage.snapshot()
        if self.node.stage.spec.gives is None:
            self.history = [snapshot]
        elif snapshot.after > self.history[-1].after:
            self.history.append(snapshot)

    def keep_from(self) -> int:
        return self.pos if self.packets else max(0, self.pos - self.halo[0])


class StreamChain:
    """The stages of a per-stream box, for one stream and epoch.

    Args:
        box: what to run.
        set_aside: (node, start, stop): units of the node's driving input that it passes on unprocessed.
        schedule: what decides the bytes beside the input.
        generation: of this object.
    """

    def __init__(
        self,
        box: Box,
        *,
        schedule: Schedule,
        set_aside: Sequence[tuple[str, int, int]] = (),
        generation: int = 0,
    ) -> None:
        self.box = box
        self._schedule = schedule
        self._store = ""
        self._aside = tuple(set_aside)
        self._generation = generation
        self._lanes = [_Lane(node) for node in box.nodes]
        self._inside = {node.name for node in box.nodes}
        self._stops: dict[str, int] = {}
        self._out: dict[str, list[Item]] = {}
        self._last = next((lane for lane in reversed(self._lanes) if not lane.packets), None)
        self._frames, self._captured_ns = 0, 0  # of this call, in the last lane

    def open(self, env: StageEnv, checkpoint: Checkpoint | None) -> None:
        """Open every stage and restore it from `checkpoint` (None: the epoch's start); raises what they raise."""
        self._store = env.store
        for lane in self._lanes:
            lane.stage.open(replace(env, batch_frames=lane.batch))
            snapshot = checkpoint.get(lane.node.name) if checkpoint is not None else None
            _guarded(lane.node, _nowhere(env), lambda lane=lane, s=snapshot: lane.start(s))  # type: ignore[misc]

    def follow(self, schedule: Schedule) -> None:
        """Go by a schedule that says more; it must agree with the old one on every frame met so far."""
        self._schedule = schedule

    def feed(self, span: Span, inputs: Sequence[Sequence[Item]], *, finish: bool) -> Fed:
        """Take the next units of every input and run as far as they reach.

        Args:
            span: units of the driving input; may be empty at the end.
            inputs: per input of the box the items that hold the span.
            finish: nothing follows.
        """
        self._out = {name: [] for name in self.box.exports}
        self._frames, self._captured_ns = 0, 0
        for name, items in zip(self.box.inputs, inputs, strict=True):
            for item in items:
                start, stop = max(span.start, item.span.start), min(span.stop, item.span.stop)
                if start < stop:
                    self._give(name, cut(item, start, stop))
            if finish:
                self._stops[name] = span.stop
        for lane in self._lanes:
            self._run(lane, span)
        ended = all(lane.finished for lane in self._lanes)
        return Fed(
            outputs=self._out,
            checkpoint=self.checkpoint(),
            ended=ended,
            reached=max((lane.reached for lane in self._lanes), default=0),
            frames=self._frames,
            captured_ns=self._captured_ns,
        )

    def prepare(self, stamp: Stamp) -> None:
        """Have every pooled stage get ready for a stamp that is to come; raises what they raise."""
        for lane in self._lanes:
            if lane.pooled:
                lane.stage.prepare(stamp, store=self._store)

    def checkpoint(self) -> dict[str, Snapshot]:
        """Return for every node where it would start again, such that each finds what it needs made again."""
        need: dict[str, int] = {}
        cuts: dict[str, Snapshot] = {}
        for lane in reversed(self._lanes):
            name = lane.node.name
            limit = need.get(name, _FAR)
            if name in self.box.exports:
                limit = min(limit, lane.emitted)
            if lane.pooled:
                start = min(limit, lane.pos) // lane.batch * lane.batch
                snapshot = Snapshot(after=start, resume_from=start)
                low = max(0, start - lane.halo[0])
            else:
                index = max(i for i, s in enumerate(lane.history) if s.after <= limit)
                del lane.history[:index]
                snapshot = lane.history[0]
                low = snapshot.resume_from
            cuts[name] = snapshot
            for edge in lane.node.inputs:
                if edge.producer in self._inside:
                    need[edge.producer] = min(need.get(edge.producer, _FAR), low)
        return cuts

    def close(self) -> None:
        """Close every stage."""
        for lane in self._lanes:
            lane.stage.close()

    def _give(self, producer: str, item: Item) -> None:
        if producer in self._out:
            self._out[producer].append(item)
        for lane in self._lanes:
            for edge, shelf in zip(lane.node.inputs, lane.shelves, strict=True):
                if edge.producer == producer and item.span.stop > lane.keep_from():
                    shelf.put(item)

    def _run(self, lane: _Lane, span: Span) -> None:
        if lane.finished:
            return
        while True:
            stop = self._next_stop(lane)
            if stop is None:
                break
            self._process(lane, span.part(lane.pos, stop))
        edges = lane.node.inputs
        end = self._stops.get(edges[0].producer)
        if end is None or lane.pos < end or any(e.producer not in self._stops for e in edges):
            return
        lane.finished = True
        if isinstance(lane.stage, StreamStage):
            here = span.part(end, end)
            for item in _guarded(lane.node, here, lane.stage.finish):
                lane.emitted = item.span.stop
                self._give(lane.node.name, item)
            _guarded(lane.node, here, lane.note)
        self._stops[lane.node.name] = lane.emitted

    def _next_stop(self, lane: _Lane) -> int | None:
        """Return where the lane's next span ends, or None while its input is not complete."""
        end = self._stops.get(lane.node.inputs[0].producer)
        if end is not None and lane.pos >= end:
            return None
        if lane.packets:
            found = lane.shelves[0].covering(lane.pos, lane.pos + 1)
            return found[0].span.stop if found else None
        stop = (lane.pos // lane.batch + 1) * lane.batch
        ahead = stop + lane.halo[1]
        if end is not None:
            stop, ahead = min(stop, end), min(ahead, end)
        if lane.shelves[0].covering(lane.pos, ahead) is None:
            return None
        if any(shelf.covering(lane.pos, stop) is None for shelf in lane.shelves[1:]):
            return None
        return stop

    def _process(self, lane: _Lane, span: Span) -> None:
        node = lane.node
        values = []
        for edge, shelf in zip(node.inputs, lane.shelves, strict=True):
            found = shelf.covering(span.start, span.stop)
            assert found is not None
            values.append(_field(take(found, span.start, span.stop), edge))
        overlapping = (n for n, start, stop in self._aside if start < span.stop and span.start < stop)
        aside = () if lane.packets else tuple(overlapping)
        stamp = Stamp() if lane.packets else stamp_at(self._schedule, span.start)
        work = Work(
            item=values[0],
            span=span,
            side=tuple(values[1:]),
            before=self._neighbours(lane, max(0, span.start - lane.halo[0]), span.start),
            after=self._neighbours(lane, span.stop, span.stop + lane.halo[1]),
            stamp=replace(stamp, set_aside=aside) if aside else stamp,
            store=self._store,
            generation=self._generation,
        )
        passed = any(n == node.name and start < span.stop and span.start < stop for n, start, stop in self._aside)
        call = lane.stage.bypass if passed else lane.stage.process
        made = _guarded(node, span, lambda: call(work))
        lane.pos = span.stop
        if lane is self._last:
            self._frames += len(span)
            self._captured_ns = captured_ns(values[0])
        for shelf in lane.shelves:
            shelf.drop_before(lane.keep_from())
        if lane.pooled:
            lane.emitted = span.stop
            self._give(node.name, made)
            return
        for item in made:
            lane.emitted = item.span.stop
            self._give(node.name, item)
        _guarded(node, span, lane.note)

    def _neighbours(self, lane: _Lane, start: int, stop: int) -> Any:
        end = self._stops.get(lane.node.inputs[0].producer, _FAR)
        stop = min(stop, end)
        if start >= stop:
            return None
        found = lane.shelves[0].covering(start, stop)
        assert found is not None, f"{lane.node.name} lacks its halo [{start}, {stop})"
        return _field(take(found, start, stop), lane.node.inputs[0])


def _nowhere(env: StageEnv) -> Span:
    assert env.stream is not None
    return Span(stream=env.stream, epoch=env.epoch, start=0, stop=0)
