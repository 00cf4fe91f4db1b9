"""Carries out the flow in this process: a thread a box, payloads passed as they are.

The same rules and stages as on Ray, without processes: for `limpid run --local`, `limpid replay`, tests and
benchmarks. OpenCV, FFmpeg, NumPy and the networks' runtimes let go of the interpreter lock, so boxes do run at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any

from pipeline.errors import LimpidError, StageError
from pipeline.flow.boxes import Box, groups_of, make_boxes
from pipeline.flow.chain import PooledChain, StreamChain
from pipeline.flow.job import Job, OnProgress, Outcome
from pipeline.flow.ledger import Ledger
from pipeline.flow.signals import (
    Arrived,
    Completed,
    Done,
    Entry,
    EpochDone,
    Fail,
    Failed,
    Open,
    OpenSource,
    Pull,
    SourceEnded,
    Submit,
    TakeApart,
)
from pipeline.flow.sources import PacketReader, Pause
from pipeline.graph import Graph
from pipeline.stage import StageEnv
from pipeline.wire.acks import stamp_at
from pipeline.wire.items import Item
from pipeline.wire.packets import PacketBatch

_TICK_S = 0.25  # how often a waiting run looks whether it is to stop


def run_local(
    job: Job,
    *,
    stop: threading.Event | None = None,
    progress: OnProgress | None = None,
    graph: Graph | None = None,
) -> Outcome:
    """Process one stream to its end, or until `stop` is set, in this process.

    Args:
        job: what to do.
        stop: set it to end early: what is written is closed and playable, and a later run takes it up.
        progress: called from this thread whenever more is durable.
        graph: in place of the one that the settings ask for.

    Raises:
        ConfigError: the directory holds something else.
        StorageError: the directory cannot be used.
    """
    ledger = Ledger(job, graph=graph)
    if ledger.completed:
        return ledger.outcome_of_completed()
    return LocalRun(ledger).run(stop or threading.Event(), progress or (lambda _: None))


class LocalRun:
    """One run of one stream."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._job = ledger.job
        plan = self._job.settings.flow.plan
        # Boxes cost nothing here, so "auto" is one for each stage.
        groups = groups_of(ledger.graph, "chained" if plan == "chained" else "unchained")
        self.boxes = make_boxes(ledger.graph, groups)
        self.flow = ledger.flow(self.boxes)
        self._signals: SimpleQueue[Any] = SimpleQueue()
        self._threads: dict[str, _Worker] = {}
        self._ingest = _Worker("ingest", self._signals)
        self._source = PacketReader(self._job.stream, self._job.source, self._job.settings.source)
        self._read_error: LimpidError | None = None
        self._stopping = threading.Event()

    def run(self, stop: threading.Event, progress: OnProgress) -> Outcome:
        """Carry the flow out to its end; see run_local."""
        state, error = "stopped", None
        try:
            verdict = self._carry_out(self.flow.start())
            while verdict is None and not stop.is_set():
                try:
                    signal = self._signals.get(timeout=_TICK_S)
                except Empty:
                    continue
                if isinstance(signal, BaseException):
                    raise signal
                if isinstance(signal, Arrived) and signal.entry.span.start == 0:
                    epoch = signal.entry.span.epoch
                    self._ledger.epoch_began(epoch, signal.entry.ref.video, self._source.gap_before(epoch))
                before = self._ledger.progress().frames_done
                verdict = self._carry_out(self.flow.on(signal))
                if self._ledger.progress().frames_done != before:
                    progress(self._ledger.progress())
            if verdict is not None:
                state, error = verdict
        except LimpidError as raised:
            state, error = "failed", raised
        finally:
            self._close()
        if state == "completed" and self._read_error is not None:
            state, error = "failed", self._read_error
        outcome = self._ledger.finish(state, error)
        progress(replace(self._ledger.progress(), state=outcome.state))
        return outcome

    def _carry_out(self, actions: Sequence[Any]) -> tuple[str, LimpidError | None] | None:
        """Do what the flow says; return how the stream ended, once it has."""
        verdict: tuple[str, LimpidError | None] | None = None
        for action in actions:
            self._ledger.carry_out(action)
            match action:
                case OpenSource(epoch=epoch, packet=packet):
                    self._ingest.call(lambda e=epoch, p=packet: self._source.seek(e, p))  # type: ignore[misc]
                case Pull():
                    self._ingest.call(self._pull)
                case Open():
                    worker = self._worker(action.box.name)
                    worker.call(lambda a=action, w=worker: self._open(w, a))  # type: ignore[misc]
                case Submit(box=box):
                    for_all = self._pool(box) if box.pooled else self._worker(box.name)
                    for_all.call(lambda a=action, w=for_all: self._work(w, a))  # type: ignore[misc]
                case TakeApart() | EpochDone():
                    self._close_boxes()
                case Fail(error=error):
                    verdict = ("failed", error)
                case Completed():
                    verdict = ("completed", None)
        return verdict

    # --- in the workers' threads ---------------------------------------------------------------------------------

    def _pull(self) -> None:
        try:
            batch = self._source.next()
            while isinstance(batch, Pause) and not self._stopping.is_set():
                batch = self._source.next()
        except LimpidError as error:
            # What was read is still processed; the run then says that it is not all.
            self._read_error = error
            batch = None
        if not isinstance(batch, PacketBatch):
            self._signals.put(SourceEnded())
            return
        self._signals.put(Arrived(entry=Entry(span=batch.span, ref=batch, nbytes=batch.nbytes)))

    def _open(self, worker: _Worker, action: Open) -> None:
        worker.close_chain()
        worker.failed = None
        chain = StreamChain(
            action.box,
            schedule=self._ledger.schedule(self.flow.epoch.epoch),
            set_aside=action.set_aside,
            generation=action.generation,
        )
        worker.chain = chain
        env = StageEnv(stream=self._job.stream, epoch=self.flow.epoch.epoch, store=self._job.store)
        try:
            chain.open(env, action.checkpoint)
        except LimpidError as error:
            worker.failed = error

    def _work(self, worker: _Worker, action: Submit[Item]) -> None:
        inputs = [[entry.ref for entry in entries] for entries in action.inputs]
        try:
            if worker.failed is not None:
                raise worker.failed
            if action.box.pooled:
                if worker.chain is None:
                    worker.chain = PooledChain(action.box)
                    worker.chain.open(StageEnv())
                held = stamp_at(self._ledger.schedule(action.span.epoch), action.span.start)
                stamp = replace(held, set_aside=action.set_aside)
                store, generation = self._job.store, action.generation
                made = worker.chain.run(action.span, inputs, stamp=stamp, store=store, generation=generation)
                outputs = {name: _entries([item]) for name, item in made.items()}
                self._signals.put(Done(ticket=action.ticket, outputs=outputs))
            else:
                fed = worker.chain.feed(action.span, inputs, finish=action.finish)
                outputs = {name: _entries(items) for name, items in fed.outputs.items()}
                self._signals.put(
                    Done(ticket=action.ticket, outputs=outputs, checkpoint=fed.checkpoint, ended=fed.ended)
                )
        except StageError as error:
            self._signals.put(Failed(ticket=action.ticket, error=error, node=error.stage))
        except LimpidError as error:
            self._signals.put(Failed(ticket=action.ticket, error=error, fatal=True))

    # --- workers -------------------------------------------------------------------------------------------------

    def _worker(self, name: str) -> _Worker:
        if name not in self._threads:
            self._threads[name] = _Worker(name, self._signals)
        return self._threads[name]

    def _pool(self, box: Box) -> _Worker:
        """Return the least busy of a pooled box's workers; one for each core at most."""
        workers = [self._worker(f"{box.name}.{n}") for n in range(max(1, os.cpu_count() or 1))]
        return min(workers, key=lambda w: w.waiting)

    def _close_boxes(self) -> None:
        for worker in self._threads.values():
            worker.end()
        self._threads.clear()

    def _close(self) -> None:
        self._stopping.set()
        self._close_boxes()
        self._ingest.end()
        self._source.close()


def _entries(items: Sequence[Item]) -> tuple[Entry[Item], ...]:
    return tuple(Entry(span=item.span, ref=item, nbytes=item.nbytes) for item in items)


class _Worker:
    """A thread that answers calls in turn; what a call raises goes to the run's signals."""

    def __init__(self, name: str, signals: SimpleQueue[Any]) -> None:
        self.chain: Any = None
        self.failed: LimpidError | None = None
        self.waiting = 0
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._signals = signals
        self._ending = False
        self._thread = threading.Thread(target=self._run, name=f"limpid-{name}", daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], None]) -> None:
        self.waiting += 1
        self._calls.put(function)

    def end(self) -> None:
        """Let the running call end, drop those that wait, close the chain."""
        self._ending = True
        self._calls.put(None)
        self._thread.join()
        self.close_chain()

    def close_chain(self) -> None:
        if self.chain is not None:
            self.chain.close()
            self.chain = None

    def _run(self) -> None:
        while (function := self._calls.get()) is not None:
            if not self._ending:
                try:
                    function()
                except BaseException as error:  # noqa: BLE001  (a bug of ours: the run's thread raises it)
                    self._signals.put(error)
            self.waiting -= 1
