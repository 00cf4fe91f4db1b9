"""The service's one memory: which streams it runs, and what is known of them.

A detached actor that Ray starts again when it dies. Every stream's request lies in the store
(`service/streams/<id>.json`), so a registry that begins, after its death or the whole service's, takes all of them up.
It makes the supervisor and the hosts, for an actor dies with its maker; they are detached too, and go on while it is
gone. Replicas of the HTTP API ask it (`actors/service.py`).
"""

from __future__ import annotations

import contextlib
import queue
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, cast

import ray
from ray.autoscaler.sdk import request_resources

from actors.cluster import slab_directories
from actors.crew import Crew
from actors.record import Record, load_records
from actors.sizes import wanted_of
from actors.slab import PREFIX, Claim, sweep
from actors.supervisor import News
from pipeline.config import Settings
from pipeline.errors import CapacityError, ConfigError, Conflict, LimpidError, NotFound
from pipeline.flow.job import Job
from pipeline.flow.ledger import as_begun
from pipeline.flow.sources import options_of
from pipeline.graph import graph_of
from pipeline.media.hostile import check_uri
from pipeline.media.source import is_live
from pipeline.plan.admit import Running, Wanted, admit, capacity_of, cluster_cpus, starting_rung
from pipeline.request import StreamRequest
from pipeline.store import manifest as manifests
from pipeline.store import tokens
from pipeline.store.objects import open_store
from pipeline.store.redact import redact
from pipeline.store.servicelog import ServiceLog
from pipeline.wire.events import Event
from pipeline.wire.ids import StreamId
from pipeline.wire.status import Capacity, StageStatus, StreamStatus, Verdict
from pipeline.wire.trials import Swap

NAME = "limpid-registry"
_COLLECT_S = 0.5  # between two looks for new events
_REFUSED_S = 120.0  # that a stream that did not fit counts as wanted: a node takes so long to come
_END_S = 1.5  # that deleting waits for a stream to end; it ends all the same
_SWAP_S = 60.0  # that trying a model and getting it ready may take
_FRESH_S = 15.0  # since the supervisor's last news, until the service counts as not ready


class Registry:
    """All streams of one service.

    Args:
        settings: of the service; what a stream's request does not say is as here.
        crew: makes the processes, given what hears the news and the settings that streams will have.
        cpus, gpus: of the cluster.
        grow: is told how many cores the cluster should have, whenever that changes.
    """

    def __init__(
        self,
        settings: Settings,
        crew: Callable[[Callable[[News], None], Settings], Crew],
        *,
        cpus: Callable[[], float],
        gpus: Callable[[], float],
        grow: Callable[[int], None],
    ) -> None:
        self._settings = settings
        self._store = open_store(settings.service.store)
        self._store.check()
        self._log = ServiceLog(self._store)
        self._cpus, self._gpus, self._grow = cpus, gpus, grow
        self._refused: list[tuple[float, float]] = []  # (time.monotonic(), cores) of streams that did not fit
        self._told_cpus = 0
        self._collected: set[str] = set()  # ended streams whose events are all in the log
        self._lock = threading.RLock()
        self._records: dict[str, Record] = load_records(self._store)
        self._ended: dict[str, list[threading.Event]] = {}
        self._stages: tuple[StageStatus, ...] = ()
        self._heard_s = 0.0
        self._broken = ""
        self._stopping = threading.Event()
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._crew = crew(self._hear, settings)
        for record in self._records.values():
            if not record.ended:
                self._tell(record, record.reason)  # it may have died before it could
                self._crew.add(self._job(record, again=True), record.id)
        self._threads = [
            threading.Thread(target=target, name=f"registry-{name}", daemon=True)
            for name, target in (("crew", self._drive), ("events", self._collect))
        ]
        for thread in self._threads:
            thread.start()

    # --- streams ---------------------------------------------------------------------------------------------

    def create(self, request: StreamRequest, *, dry_run: bool) -> tuple[StreamStatus | Verdict, bool]:
        """Begin a stream; see Service.create."""
        with self._lock:
            known = self._records.get(request.id or "")
            if known is not None and not dry_run:
                if known.request == request and not known.deleting:
                    return known.status(), False
                what = "is being stopped" if known.deleting else "is taken by another request"
                raise Conflict(
                    f"the id '{request.id}' {what}", where="id", hint="choose another id, or delete it first"
                )
        self._check(request)
        self._check_place(request)
        verdict = self._verdict(request)
        if dry_run:
            return verdict, False
        with self._lock:
            if not verdict.fits:
                self._refused.append((time.monotonic(), verdict.wanted_cpus))
                raise CapacityError(
                    verdict.reason, where="streams", hint="stop another stream", retry_after_s=verdict.retry_after_s
                )
            wanted, running = self._wanted(request), self._running()
            rung = starting_rung(wanted, capacity_of(self._cpus(), self._gpus(), running), running)
            name = request.id or f"s-{secrets.token_hex(4)}"
            record = Record.new(request, name, time.time(), rung=int(rung))
            if record.id in self._records:
                raise Conflict(f"the id '{record.id}' is taken", where="id", hint="choose another id")
            record.save(self._store)
            self._records[record.id] = record
        self._tell(record, "", anew=not self._store.exists(f"streams/{record.id}/{manifests.NAME}"))
        self._order(lambda: self._crew.add(self._job(record), record.id))
        return record.status(), True

    def streams(self) -> list[StreamStatus]:
        """Return all streams."""
        with self._lock:
            return [record.status() for record in self._records.values() if not record.deleting]

    def show(self, stream: str) -> StreamStatus:
        """Return one. Raises NotFound."""
        with self._lock:
            return self._record(stream).status()

    def patch(self, stream: str, changes: Mapping[str, Any]) -> StreamStatus:
        """Merge changes of labels, priority and slo into a request. Raises NotFound, ConfigError."""
        with self._lock:
            record = self._record(stream)
            changed = record.changed(changes)
            changed.save(self._store)
            self._records[stream] = changed
            status = changed.status()
        aim = changed.request.slo.max_lag_s, changed.request.priority
        if aim != (record.request.slo.max_lag_s, record.request.priority):
            self._order(lambda: self._crew.tell("aim", stream, *aim))
        return status

    def delete(self, stream: str, *, data: bool = False) -> None:
        """Stop and forget a stream, from every state; `data`: remove what it has written too. Raises NotFound."""
        with self._lock:
            record = self._record(stream)
            gone = threading.Event()
            if not record.ended:
                self._ended.setdefault(stream, []).append(gone)
            record = self._records[stream] = replace(record, deleting=True, delete_data=data, updated_at=time.time())
            record.delete(self._store)
        if record.ended:
            self._forget(record)
            return
        self._order(lambda: self._crew.stop(stream))
        gone.wait(_END_S)

    # --- weights ---------------------------------------------------------------------------------------------

    def push(self, stream: str, data: Sequence[Any]) -> Swap:
        """Try a model on a stream, and have it hold if it is better.

        Args:
            stream: whose.
            data: a reference to the model's file, in a list, so that it travels as one.

        Raises:
            NotFound: there is no such stream.
            SignatureError, ModelFormatError, ModelRejected: the model is not taken.
        """
        with self._lock:
            self._record(stream)
        keys = {one.id: one.public_key for one in tokens.publishers(self._store) if one.stream == stream}
        return cast(Swap, self._crew.ask("push", stream, list(data), keys, within_s=_SWAP_S))

    def roll_back(self, stream: str) -> Swap:
        """Have a stream go back to the weights before those in use. Raises NotFound, ModelRejected."""
        with self._lock:
            self._record(stream)
        return cast(Swap, self._crew.ask("roll_back", stream, within_s=_SWAP_S))

    def key_frame(self, stream: str) -> None:
        """Hear that a key frame of a stream is in its directory. Raises NotFound."""
        with self._lock:
            self._record(stream)
        self._order(lambda: self._crew.tell("key_frame", stream))

    # --- stages and capacity ---------------------------------------------------------------------------------

    def stages(self) -> list[StageStatus]:
        """Return the pooled stages."""
        with self._lock:
            return list(self._stages)

    def patch_stage(
        self, name: str, *, min: int | None, max: int | None, target_utilisation: float | None
    ) -> StageStatus:
        """Change the limits of a stage's workers. Raises NotFound, ConfigError."""
        with self._lock:
            found = next((stage for stage in self._stages if stage.name == name), None)
        if found is None:
            raise NotFound(f"there is no pooled stage '{name}'", where="name", hint="GET /v1/stages lists them")
        given = {"min": min, "max": max, "target_utilisation": target_utilisation}
        limits: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        changed = replace(found, **limits)
        if not 1 <= changed.min <= changed.max:
            hint = "use 1 ≤ min ≤ max"
            raise ConfigError(f"min is {changed.min} and max is {changed.max}", where="min", hint=hint)
        self._order(lambda: self._crew.tell("limit", name, limits))
        with self._lock:
            self._stages = tuple(replace(s, **limits) if s.name == name else s for s in self._stages)
        return changed

    def capacity(self) -> Capacity:
        """Return what the cluster has and what streams use of it."""
        return capacity_of(self._cpus(), self._gpus(), self._running())

    def ready(self) -> str:
        """Return "" if streams can be taken, else why not."""
        if self._broken:
            return self._broken
        return "" if time.monotonic() - self._heard_s < _FRESH_S else "the supervisor has not answered yet"

    def settings(self) -> dict[str, Any]:
        """Return the settings that it works with."""
        return self._settings.to_dict()

    def pids(self) -> Mapping[str, int]:
        """Return the processes by role, for tests and for people who look into the service."""
        found: Future[Mapping[str, int]] = Future()
        self._order(lambda: found.set_result(self._crew.pids()))
        return found.result(30)

    def end(self, *, streams: bool = False) -> None:
        """Stop working; `streams`: end every process too. What runs is taken up by the next registry."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)
        if streams:
            self._crew.end()

    # --- the crew's thread -----------------------------------------------------------------------------------

    def _drive(self) -> None:
        self._crew.adopt()
        while not self._stopping.is_set():
            try:
                while True:
                    self._orders.get_nowait()()
            except queue.Empty:
                pass
            try:
                self._broken = ""
                self._crew.step()
            except LimpidError as error:
                self._broken = str(error)
                self._stopping.wait(5.0)

    def _hear(self, news: News) -> None:
        self._heard_s = time.monotonic()
        changed = []
        with self._lock:
            if news.stages is not None:
                self._stages = news.stages
            for key, progress in news.progress.items():
                record = self._records.get(key)
                if record is not None and key not in news.outcomes:
                    after = self._records[key] = record.heard(progress, time.time())
                    if after.state != record.state and not after.deleting:
                        changed.append(after)
            ended = [(self._records[key], outcome) for key, outcome in news.outcomes.items() if key in self._records]
        for record, outcome in ended:
            if not record.deleting:
                with self._lock:
                    self._records[record.id] = record.finished(outcome, time.time())
        try:
            for record in changed:
                record.save(self._store)
                self._tell(record, record.reason)
            for record, _ in ended:
                if record.deleting:
                    self._forget(record)
                else:
                    self._records[record.id].save(self._store)
        except LimpidError as error:  # a store that is full or away: news are told once, and must not be lost for it
            self._broken = f"the list of streams cannot be written: {error}"

    def _forget(self, record: Record) -> None:
        if record.delete_data:
            self._log.collect([StreamId(record.id)])
            record.delete_output(self._store)
        self._tell(record, "deleted by request", state="deleted", anew=record.delete_data)
        with self._lock:
            self._records.pop(record.id, None)
            waiting = self._ended.pop(record.id, [])
        for gone in waiting:
            gone.set()

    # --- small things ----------------------------------------------------------------------------------------

    def _collect(self) -> None:
        while not self._stopping.wait(_COLLECT_S):
            with self._lock:
                ended = {name for name, record in self._records.items() if record.ended}
                streams = [StreamId(name) for name in self._records if name not in self._collected]
            try:
                self._log.collect(streams)
                self._collected = ended
            except LimpidError as error:
                self._broken = f"the events cannot be written: {error}"
            self._ask_for_cores()

    def _ask_for_cores(self) -> None:
        """Have Ray's autoscaler see what runs and what was refused: our processes claim next to nothing of a node."""
        now_s = time.monotonic()
        self._refused = [(at_s, cpus) for at_s, cpus in self._refused if now_s - at_s < _REFUSED_S]
        wanted = cluster_cpus(self._running(), sum(cpus for _, cpus in self._refused))
        if wanted != self._told_cpus:
            self._told_cpus = wanted
            self._grow(wanted)

    def _record(self, stream: str) -> Record:
        record = self._records.get(stream)
        if record is None or record.deleting:
            raise NotFound(f"there is no stream '{stream}'", where="id", hint="GET /v1/streams lists them")
        return record

    def _order(self, order: Callable[[], None]) -> None:
        self._orders.put(order)

    def _tell(self, record: Record, reason: str, *, state: str = "", anew: bool = False) -> None:
        """Put a change of state into the log; a run tells of its own beginning and end.

        Args:
            record: whose state it is, and since when.
            reason: why.
            state: to be told instead.
            anew: the stream's directory is new, or gone.
        """
        data = {"state": state or record.state, "reason": reason}
        event = Event(type="stream.state_changed", stream=StreamId(record.id), epoch=0, seq=-1, data=data)
        # The time is the one that is kept with the state: told again after a crash, it is the same event.
        self._log.append(event, round(record.updated_at * 1e9), forget=anew)

    def _settings_of(self, request: StreamRequest) -> Settings:
        return request.settings(self._settings, live=_live(request))

    def _job(self, record: Record, *, again: bool = False) -> Job:
        """Return what is to be done for a stream; `again`: another registry has begun it, maybe with other settings."""
        settings, store = self._settings_of(record.request), self._store.part(f"streams/{record.id}")
        if again:
            with contextlib.suppress(LimpidError):  # what is wrong with it its run tells
                found = manifests.load(store)
                settings = as_begun(settings, found) if found is not None else settings
        return Job(
            stream=StreamId(record.id),
            source=record.request.source.uri,
            store=store.url,
            settings=settings,
            rung=record.rung,
        )

    def _check(self, request: StreamRequest) -> None:
        """Refuse what cannot run: an address that is not allowed, settings that do not go together."""
        settings = self._settings_of(request)
        check_uri(request.source.uri, options_of(settings.source))
        graph_of(settings, live=_live(request))

    def _check_place(self, request: StreamRequest) -> None:
        """Refuse an id in whose directory another source's output lies."""
        found = manifests.load(self._store.part(f"streams/{request.id}")) if request.id else None
        if found is not None and found.source != redact(request.source.uri):
            raise Conflict(
                f"the directory of '{request.id}' holds what was made of {found.source}",
                where="id",
                hint="choose another id, or delete that stream with ?data=true",
            )

    def _verdict(self, request: StreamRequest) -> Verdict:
        running = self._running()
        capacity = capacity_of(self._cpus(), self._gpus(), running)
        limit = self._settings.service.max_streams
        return admit(self._wanted(request), capacity, running, stages=self.stages(), max_streams=limit)

    def _wanted(self, request: StreamRequest) -> Wanted:
        return wanted_of(self._settings_of(request), live=_live(request))

    def _running(self) -> list[Running]:
        with self._lock:
            return [record.running(self._settings) for record in self._records.values() if record.runs]


@ray.remote(max_restarts=-1, max_task_retries=-1)
class RegistryActor:
    """The actor around a Registry; every method is one of its, with a LimpidError given back instead of raised."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._registry = Registry(
            Settings.from_dict(settings), _crew, cpus=_counted("CPU"), gpus=_counted("GPU"), grow=_grow
        )

    def ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method; return what it returns or the LimpidError that it raises."""
        try:
            return getattr(self._registry, method)(*args, **kwargs)
        except LimpidError as error:
            error.__traceback__ = error.__cause__ = error.__context__ = None
            return error


def _live(request: StreamRequest) -> bool:
    return is_live(request.source.uri, request.source.mode)


def _crew(hear: Callable[[News], None], expected: Settings) -> Crew:
    """Return the service's crew: detached, and named after the Ray that it lives in."""
    directories = slab_directories()
    name = f"service-{ray.get_runtime_context().gcs_address.replace(':', '-')}"
    # Claimed before anything is swept: of an earlier registry's crew nobody holds the lock, and its files are in use.
    claim = Claim(name, directories) if directories else None
    sweep(slab_directories())
    return Crew(f"{PREFIX}{name}", claim, detached=True, hear=hear, expected=expected)


def _grow(cpus: int) -> None:
    """Tell Ray's autoscaler, where there is one, how many cores there should be."""
    request_resources(num_cpus=cpus)


def _counted(resource: str) -> Callable[[], float]:
    return lambda: float(ray.cluster_resources().get(resource, 0.0))  # type: ignore[no-untyped-call]  # Ray's
