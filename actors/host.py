"""A process that works for streams: it holds boxes (one stage or a chain), or reads a source.

One kind of process for all of it, so that a spare, started and with everything imported, can take any place at once.
It answers one order at a time, in turn; what stages raise goes back as data, never as an exception.
"""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from actors.calls import (
    Audition,
    Choose,
    Close,
    Hello,
    Measure,
    OpenBox,
    OpenUri,
    Prepare,
    ReadOn,
    Reply,
    Warm,
    WorkOn,
    bare,
    packed,
    unpacked,
)
from actors.slab import Reader, Slab
from actors.transport import Inbox, Outbox
from pipeline.errors import LimpidError, StageError
from pipeline.flow.boxes import SOURCE
from pipeline.flow.chain import PooledChain, StreamChain, captured_ns
from pipeline.graph import choose_stamp
from pipeline.wire.acks import stamp_at
from pipeline.wire.ids import StreamId
from pipeline.wire.items import Item
from pipeline.wire.packets import PacketBatch, Track

if TYPE_CHECKING:
    from pipeline.flow.sources import PacketReader
    from pipeline.train.canary import Canary


class Broken(LimpidError):
    """A host raised something that is no error of ours: a bug, told with its class."""


class Host:
    """What a host process does, without Ray.

    Args:
        slab: what it writes results to; None leaves them to Ray's object store.
    """

    def __init__(self, slab: Slab | None) -> None:
        self._slab = slab
        reader = Reader()
        self._inbox = Inbox(reader)
        self._outbox = Outbox(slab, reader)
        self._pooled: dict[str, PooledChain] = {}
        self._chains: dict[tuple[StreamId, str], tuple[int, StreamChain]] = {}
        self._failed: dict[tuple[StreamId | None, str], LimpidError] = {}
        self._sources: dict[StreamId, PacketReader] = {}
        self._preparing: dict[Prepare, _Preparation] = {}
        self._canary: Canary | None = None

    def answer(self, order: Any, payloads: Sequence[Any]) -> tuple[Reply, tuple[Any, ...]]:
        """Carry out an order; return the reply, and what goes beside it through the object store."""
        made: Mapping[str, Sequence[Item]] = {}
        began_s, cpu_s = time.monotonic(), time.process_time()
        try:
            match order:
                case WorkOn():
                    reply, made = self._work(order, payloads)
                case ReadOn():
                    reply, made = self._read(order)
                case OpenBox():
                    reply = self._open(order)
                case OpenUri():
                    reply = self._open_uri(order)
                case Close():
                    reply = self._close(order.stream)
                case Hello():
                    reply = self._hello()
                case Warm():
                    for module in order.modules:
                        importlib.import_module(module)
                    reply = Reply()
                case Choose():
                    reply = Reply(stamp=choose_stamp(order.graph, order.device))
                case Prepare():
                    reply = self._prepare(order)
                case Audition():
                    reply = Reply(trial=self._judging().audition(order.contest, payloads[0]))
                case Measure():
                    reply = Reply(gains=self._judging().gains(order.contest, order.after_ns))
            sent, beside = self._outbox.send(made)
            reply = replace(reply, outputs=sent)
        except StageError as error:
            reply, beside = Reply(error=bare(error), node=error.stage), ()
        except LimpidError as error:
            reply, beside = Reply(error=bare(error), fatal=True), ()
        except Exception as error:  # noqa: BLE001  (the host's border: what is no stage's error is a bug, and is told)
            broken = Broken(f"{type(error).__name__}: {error}", where="host", hint="this is a bug: report it")
            reply, beside = Reply(error=broken, fatal=True), ()
        made = {}
        reply = replace(
            reply,
            returned=self._inbox.returned(),
            service_s=time.monotonic() - began_s,
            cpu_s=time.process_time() - cpu_s,
        )
        return reply, beside

    # --- orders ----------------------------------------------------------------------------------------------

    def _hello(self) -> Reply:
        """Forget an earlier supervisor's work; what a live source sends meanwhile is kept."""
        reads = tuple(stream for stream, source in self._sources.items() if source.live)
        for stream in {s for s, _ in self._chains} | set(self._sources):
            self._close(stream, source=stream not in reads)
        if self._slab is not None:
            self._slab.drop()
        return Reply(pid=os.getpid(), reads=reads)

    def _open(self, order: OpenBox) -> Reply:
        """Open a box. What goes wrong is the answer to the work that follows, for that has a ticket."""
        self._failed.pop((order.stream, order.key), None)
        try:
            if order.stream is None:
                self._open_pooled(order)
            else:
                self._open_chain(order, order.stream)
        except LimpidError as error:
            self._failed[order.stream, order.key] = bare(error)
        return Reply()

    def _open_pooled(self, order: OpenBox) -> None:
        if order.key not in self._pooled:
            chain = PooledChain(order.box)
            chain.open(order.env)
            self._pooled[order.key] = chain

    def _open_chain(self, order: OpenBox, stream: StreamId) -> None:
        old = self._chains.pop((stream, order.key), None)
        if old is not None:
            old[1].close()
        chain = StreamChain(order.box, schedule=order.schedule, set_aside=order.set_aside, generation=order.generation)
        self._chains[stream, order.key] = (order.generation, chain)
        chain.open(order.env, order.checkpoint)

    def _work(self, order: WorkOn, payloads: Sequence[Any]) -> tuple[Reply, Mapping[str, Sequence[Item]]]:
        self._take_back(order.free)
        failed = self._failed.get((order.stream, order.key))
        if failed is not None:
            self._inbox.decline(order.inputs)
            raise failed
        inputs = [[self._inbox.take(lent, payloads) for lent in edge] for edge in order.inputs]
        if order.stream is None:
            chain = self._pooled[order.key]
            stamp = replace(stamp_at(order.schedule, order.span.start), set_aside=order.set_aside)
            made = chain.run(
                order.span,
                inputs,
                stamp=stamp,
                store=order.store,
                generation=order.generation,
                finish=order.finish,
            )
            captured = captured_ns(inputs[0][-1])
            return Reply(frames=len(order.span), captured_ns=captured), {name: [item] for name, item in made.items()}
        generation, stream_chain = self._chains[order.stream, order.key]
        assert generation == order.generation, f"{order.key} is of generation {generation}, not {order.generation}"
        stream_chain.follow(order.schedule)
        fed = stream_chain.feed(order.span, inputs, finish=order.finish)
        reply = Reply(
            checkpoint=fed.checkpoint,
            ended=fed.ended,
            reached=fed.reached,
            frames=fed.frames,
            captured_ns=fed.captured_ns,
        )
        return reply, fed.outputs

    def _open_uri(self, order: OpenUri) -> Reply:
        from pipeline.flow.sources import PacketReader  # noqa: PLC0415  # with FFmpeg: half of what a host would load, one in ten reads

        if order.stream not in self._sources:
            self._sources[order.stream] = PacketReader(order.stream, order.uri, order.settings)
        self._sources[order.stream].seek(order.epoch, order.packet)
        return Reply()

    def _read(self, order: ReadOn) -> tuple[Reply, Mapping[str, Sequence[Item]]]:
        self._take_back(order.free)
        source = self._sources[order.stream]
        batch = source.next(pace_s=order.pace_s)
        if batch is None:
            return Reply(ended=True, source=source.state), {SOURCE: ()}
        if not isinstance(batch, PacketBatch):
            return Reply(source=batch.state), {}
        first = batch.span.start == 0
        reply = Reply(
            video=batch.video if first else None,
            gap=source.gap_before(batch.span.epoch) if first else None,
            source=source.state,
            frames=sum(packet.track is Track.VIDEO for packet in batch.packets),
        )
        return reply, {SOURCE: (batch,)}

    def _prepare(self, order: Prepare) -> Reply:
        """Begin to get ready, or say whether it is done; then raise what went wrong."""
        found = self._preparing.get(order)
        if found is None:
            if order.stream is None:
                pooled = self._pooled.get(order.key)
                get_ready = partial(pooled.prepare, order.stamp, store=order.store) if pooled is not None else None
            else:
                _, chain = self._chains.get((order.stream, order.key), (0, None))
                get_ready = partial(chain.prepare, order.stamp) if chain is not None else None
            if get_ready is None:
                return Reply()  # it has been closed meanwhile
            found = self._preparing[order] = _Preparation(get_ready)
        if not found.done.is_set():
            return Reply(ready=False)
        del self._preparing[order]
        if found.error is not None:
            raise found.error
        return Reply()

    def _judging(self) -> Canary:
        from pipeline.train.canary import Canary  # noqa: PLC0415  # PyTorch: only some hosts load it

        if self._canary is None:
            self._canary = Canary()
        return self._canary

    def _close(self, stream: StreamId, *, source: bool = True) -> Reply:
        for key in [k for k in self._chains if k[0] == stream]:
            self._chains.pop(key)[1].close()
        for failed in [k for k in self._failed if k[0] == stream]:
            del self._failed[failed]
        reader = self._sources.pop(stream, None) if source else None
        if reader is not None:
            reader.close()
        return Reply()

    def _take_back(self, blocks: Sequence[Any]) -> None:
        if self._slab is not None and blocks:
            self._slab.free(blocks)


class _Preparation:
    """What a box gets ready in a thread of its own: its work does not wait."""

    def __init__(self, get_ready: Callable[[], None]) -> None:
        self.done = threading.Event()
        self.error: Exception | None = None
        self._get_ready = get_ready
        threading.Thread(target=self._run, name="host-prepare", daemon=True).start()

    def _run(self) -> None:
        try:
            self._get_ready()
        except Exception as error:  # noqa: BLE001  (the host's border is where it is raised again)
            self.error = error
        finally:
            self.done.set()


@ray.remote(max_restarts=0, max_task_retries=0)
class StageHost:
    """The actor around a Host.

    Args:
        name: unique in the run; its slab's files are named after it.
        directories: where slabs lie; empty: results go through the object store.
    """

    def __init__(self, name: str, directories: Sequence[str]) -> None:
        slab = Slab(name, [Path(d) for d in directories]) if directories else None
        self._host = Host(slab)
        self._term = 0

    def pid(self) -> int:
        """Return the process's number."""
        return os.getpid()

    def answer(self, term: int, returns: int, order: bytes, *payloads: Any) -> Any:
        """Carry out a packed order.

        Args:
            term: number of the supervisor that gives it. Once a later one has called, orders of an earlier one, which
                may still be under way when it is dead, are refused.
            returns: payloads beside the reply.
            order: packed.
            payloads: inputs that travel through the object store.

        Returns:
            the packed reply; with payloads, a tuple that begins with it.
        """
        if term < self._term:
            reply, beside = Reply(error=LimpidError("the supervisor that asked has been replaced"), fatal=True), ()
        else:
            self._term = term
            reply, beside = self._host.answer(unpacked(order), payloads)
        if not returns:
            return packed(reply)
        return packed(reply), *(beside or ((),) * returns)
