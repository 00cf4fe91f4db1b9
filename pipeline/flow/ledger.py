"""What of a stream is durable beside its output: manifest, stamps, events of the run; and what follows from it.

One ledger a run of a stream, held by whoever carries out the flow's actions (`local.py`, the supervisor on Ray). It
decides where a stream is taken up, pins what would otherwise be chosen anew, and counts.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from pipeline.config import Settings
from pipeline.errors import ConfigError, LimpidError
from pipeline.flow.boxes import Box, groups_of, make_boxes
from pipeline.flow.job import Job, Outcome, Progress
from pipeline.flow.signals import EpochDone, Fail, Open, Position, Report, Save, SetAside
from pipeline.flow.stream import StreamFlow
from pipeline.graph import Graph, choose_stamp, graph_of
from pipeline.media.hls import close_playlists
from pipeline.store import manifest as manifests
from pipeline.store.eventlog import write_events
from pipeline.store.manifest import Manifest, Watermark
from pipeline.store.objects import Store, open_store
from pipeline.store.parquet import operational_count
from pipeline.store.redact import redact, redact_all
from pipeline.store.stamps import StampEntry, StampLog
from pipeline.wire.acks import CONVENTIONAL_RUNTIME, Schedule, Stamp
from pipeline.wire.events import Event
from pipeline.wire.packets import Codec
from pipeline.wire.status import Gap

Ref = TypeVar("Ref")

_ANY_RUN = ("flow.", "source.", "service.", "live.max_lag_s", "live.priority")
"""Settings that runs of one stream may differ in."""

_BEHIND = 4096  # frames behind the watermark that may be made again: a segment's at most, 30 s at 60 a second are 1800

BICUBIC_RUNG, LIGHTER_RUNG = 4, 5  # plan.ladder.Rung.BICUBIC, LIGHTER_ENCODE
_GRID = 8  # frames: what batches end on, at most
_PIECE = re.compile(r"(\d+)-\d+-(\d+)\.(?:m4s|parquet)$")
_GAPS = 20  # that are remembered

WRITTEN = ("hls/", "live/", "tables/", "stamps/", "packets/", "pictures/", "models/", "key-frames/")
"""What of a stream's directory is ours, beside the manifest."""


class Ledger:
    """The durable side of one stream's run.

    Args:
        graph: that the job's settings describe, where it has been read already.
        choose: chooses what networks run in; in a process of its own on Ray.

    Attributes:
        graph: as the stream's first run had it.
        stamp: what decides the bytes of the stream beside its input; chosen by the first run.
        model: the weights of the latest frames; the stamp's own are the generic ones.
        gain_db: what they were measured to gain over those; None: not measured.
        gaps: of a live source, the last ones that this run has met.
        fresh: no earlier run has begun the stream.
        completed: an earlier run finished the stream; there is nothing to do.

    Raises:
        ConfigError: the directory holds another stream, or this one under another configuration.
        StorageError: it cannot be read or written.
    """

    def __init__(
        self, job: Job, *, graph: Graph | None = None, choose: Callable[[Graph], Stamp] = choose_stamp
    ) -> None:
        self.job = job
        self.store: Store = open_store(job.store)
        self.store.check()
        self._began = time.monotonic()
        self.counts: Counter[str] = Counter()
        self._opened: set[str] = set()
        self.gaps: tuple[Gap, ...] = ()
        wanted = graph or graph_of(job.settings, live=job.live)
        if job.overwrite:
            wipe(self.store)
        found = manifests.load(self.store)
        self.fresh = found is None
        if found is None:
            self.graph = wanted
            self.stamps = StampLog(self.store)
            if not self.stamps.entries:
                self.stamps.append([StampEntry(epoch=0, seq=0, stamp=choose(self.graph))])
            self._manifest = self._first()
        else:
            _check_same(job, found, self.store.url)
            modules = job.settings.stage_modules
            self.graph = Graph.from_dict(found.graph, allowed_modules=modules, where=f"{self.store.url}/manifest.json")
            self.stamps = StampLog(self.store)
            self._manifest = found
        self.completed = self._manifest.state == manifests.COMPLETED
        self.stamp = self.stamps.at(0, 0)
        self.model = self.stamps.entries[-1].stamp.model
        self.gain_db: float | None = None
        self._made = (0, 0) if self.fresh else None  # looked up when it is needed: whoever made it has stopped then
        self._schedule: tuple[tuple[int, int, int], Schedule] | None = None
        self._frames_before = self._manifest.counts.get("frames_of_earlier_epochs", 0)
        self._frames_at_start = self._frames_before + self._manifest.watermark.seq
        if not self.completed:
            self._put(replace(self._manifest, state=manifests.RUNNING, last_error=""))
            self.event(self._state_event("running", "started" if self.fresh else "taken up"))

    def flow(self, boxes: tuple[Box, ...]) -> StreamFlow[Any]:
        """Return the flow of the stream from where it stopped."""
        singles = make_boxes(self.graph, groups_of(self.graph, "unchained"))
        aside: dict[int, list[tuple[str, int, int]]] = {}
        for a in self.stamps.asides():
            aside.setdefault(a.epoch, []).append((a.stage, a.start, a.stop))
        return StreamFlow(
            self.job.stream,
            boxes,
            singles,
            position=self._position(),
            queue_bytes=self.job.settings.flow.queue_bytes,
            set_aside=aside,
        )

    # --- actions of the flow that are the ledger's ---------------------------------------------------------------

    def carry_out(self, action: object) -> None:
        """Make durable what an action says; actions of others only count."""
        match action:
            case SetAside(node=node, span=span):
                self.stamps.set_aside(span, node)
                self.counts[f"set_aside.{node}"] += 1
            case Save(position=position):
                self._save(position)
            case Report(event=event):
                self.event(event)
            case EpochDone(frames=frames, epoch=epoch):
                self._frames_before += frames
                self._put(
                    replace(
                        self._manifest,
                        watermark=Watermark(epoch=epoch + 1, seq=0),
                        position=manifests.Position(epoch=epoch + 1, packet=0),
                    )
                )
            case Open(box=box):
                if box.name in self._opened:
                    self.counts[f"restarts.{box.name}"] += 1
                self._opened.add(box.name)
            case Fail():
                self.counts["failed"] += 1

    def epoch_began(self, epoch: int, video: Codec, gap: Gap | None = None) -> None:
        """Note what an epoch's pictures are like, when its first packets arrive; told again it does nothing.

        `gap` is what a live source knows to be missing before it.
        """
        if any(e.epoch == epoch for e in self._manifest.epochs) or video.size is None:
            return
        size = video.size
        began = manifests.Epoch(epoch=epoch, width=size.width_px, height=size.height_px, time_base=video.time_base)
        self._put(replace(self._manifest, epochs=(*self._manifest.epochs, began)))
        if epoch > 0:
            gap = gap or Gap(epoch=epoch, reason="the source's pictures or timeline changed", seconds=0.0)
            self.gaps = (*self.gaps, gap)[-_GAPS:]
            data = {"reason": gap.reason, "seconds": round(gap.seconds, 3), "size": str(size), "slate": gap.slate}
            self.event(Event(type="gap", stream=self.job.stream, epoch=epoch, seq=0, data=data))

    def schedule(self, epoch: int) -> Schedule:
        """Return what decides the bytes of an epoch's frames beside its input, of all that may still be made."""
        at = self._manifest.watermark
        since = max(0, at.seq - _BEHIND) // _BEHIND * _BEHIND if at.epoch == epoch else 0
        key = epoch, since, len(self.stamps.entries)
        if self._schedule is None or self._schedule[0] != key:
            self._schedule = key, self.stamps.schedule(epoch, since=since)
        return self._schedule[1]

    @property
    def rung(self) -> int:
        """The rung of the overload ladder that the stream's latest frames are made at."""
        last = self.stamps.entries[-1].stamp
        if last.lighter:
            return LIGHTER_RUNG
        return BICUBIC_RUNG if last.runtime == CONVENTIONAL_RUNTIME != self.stamp.runtime else 0

    def take_rung(self, rung: int, epoch: int, seq: int, reason: str) -> None:
        """Have frames from `seq` on made at another rung, durable when this returns; no stage may have met them."""
        if rung == self.rung:
            return
        stamp = replace(self.stamp, model=self.model)
        if rung >= BICUBIC_RUNG and stamp.model:
            stamp = replace(stamp, runtime=CONVENTIONAL_RUNTIME)
        if rung >= LIGHTER_RUNG:
            stamp = replace(stamp, lighter=("encode",))
        epoch, seq = self._stamped(stamp, epoch, seq)
        data = {"rung": rung, "reason": reason}
        self.event(Event(type="effort.changed", stream=self.job.stream, epoch=epoch, seq=seq, data=data))

    def swap(self, model: str, epoch: int, seq: int) -> tuple[int, int]:
        """Have frames from `seq` on made with other weights, durable when this returns; no stage may have met them.

        Return the first frame (epoch, number) that it holds for. The rung stays: at one without a network the weights
        hold as soon as it is left.
        """
        at = self._stamped(replace(self.stamps.entries[-1].stamp, model=model), epoch, seq)
        self.model = model
        self._put(replace(self._manifest, models={**self._manifest.models, "enhance": model}))
        return at

    def first_free(self, epoch: int, seq: int) -> tuple[int, int]:
        """Return the first frame, from this one on, that a stamp may begin at.

        A stream that was taken up may be behind its latest stamp, which then comes first; and behind what one of its
        sinks had made durable already, which stays as it was made.
        """
        if self._made is None:
            self._made = _made_to(self.store)
        last = self.stamps.entries[-1]
        return max((epoch, seq), (last.epoch, last.seq), self._made)

    def _stamped(self, stamp: Stamp, epoch: int, seq: int) -> tuple[int, int]:
        epoch, seq = self.first_free(epoch, seq)
        self.stamps.append([StampEntry(epoch=epoch, seq=seq, stamp=stamp)])
        return epoch, seq

    def event(self, event: Event) -> None:
        """Write an event of the run, durable when this returns."""
        event = replace(event, occurrence=operational_count(self.store, "events") + 1)
        write_events(self.store, [event], captured_ns=time.time_ns())
        self.counts[f"events.{event.type}"] += 1

    # --- the end -------------------------------------------------------------------------------------------------

    def finish(self, state: str, error: LimpidError | None = None) -> Outcome:
        """Close what is written so that it plays, and return how the run ended.

        Args:
            state: "completed", "stopped" or "failed".
            error: why it failed.
        """
        try:
            close_playlists(self.store)
            self.event(self._state_event(state, str(error) if error else ""))
            self._put(replace(self._manifest, state=state, last_error=str(error) if error else ""))
        except LimpidError as late:
            # A full disk is told once: as the first error.
            state, error = "failed", error or late
        return Outcome(
            stream=self.job.stream,
            state=state,
            frames=self._frames(),
            epochs=len(self._manifest.epochs),
            seconds=time.monotonic() - self._began,
            error=error,
            counts=dict(self.counts),
        )

    def outcome_of_completed(self) -> Outcome:
        """Return the outcome of a stream that an earlier run completed."""
        return Outcome(
            stream=self.job.stream,
            state="completed",
            frames=self._frames(),
            epochs=len(self._manifest.epochs),
            seconds=0.0,
            counts={"completed_before": 1},
        )

    def progress(self, state: str = "running") -> Progress:
        """Return how far the stream is."""
        frames, seconds = self._frames(), time.monotonic() - self._began
        epochs, at = self._manifest.epochs, self._manifest.watermark
        return Progress(
            stream=self.job.stream,
            state=state,
            frames_done=frames,
            fps=(frames - self._frames_at_start) / seconds if seconds > 0 else 0.0,
            epoch=at.epoch,
            seq=at.seq,
            width=epochs[-1].width if epochs else 0,
            height=epochs[-1].height if epochs else 0,
            model=self.model,
            gain_db=self.gain_db,
            runtime=self.stamp.runtime,
            gaps=self.gaps,
            counts=dict(self.counts),
        )

    # --- small things --------------------------------------------------------------------------------------------

    def _first(self) -> Manifest:
        stamp = self.stamps.at(0, 0)
        return Manifest(
            id=self.job.stream,
            source=self.job.source,
            config=self.job.settings.to_dict(),
            graph=self.graph.to_dict(),
            plan={"name": self.job.settings.flow.plan},
            models={"enhance": self.stamps.entries[-1].stamp.model} if stamp.model else {},
            runtime=stamp.runtime,
        )

    def _position(self) -> Position | None:
        at = self._manifest.position
        if at is None:
            return None
        return Position(
            epoch=at.epoch, packet=at.packet, watermark=self._manifest.watermark.seq, checkpoint=dict(at.checkpoints)
        )

    def _save(self, position: Position) -> None:
        self._put(
            replace(
                self._manifest,
                watermark=Watermark(epoch=position.epoch, seq=position.watermark),
                position=manifests.Position(
                    epoch=position.epoch, packet=position.packet, checkpoints=position.checkpoint
                ),
            )
        )

    def _put(self, changed: Manifest) -> None:
        self._manifest = replace(
            changed, counts={"frames": self._frames(changed), "frames_of_earlier_epochs": self._frames_before}
        )
        manifests.save(self.store, self._manifest)

    def _frames(self, manifest: Manifest | None = None) -> int:
        return self._frames_before + (manifest or self._manifest).watermark.seq

    def _state_event(self, state: str, reason: str) -> Event:
        data = {"state": state, "reason": reason}
        return Event(type="stream.state_changed", stream=self.job.stream, epoch=0, seq=-1, data=data)


def _made_to(store: Store) -> tuple[int, int]:
    """Return (epoch, frame) up to which anything of a stream's pictures is durable, up to the grid of batches."""
    names = (_PIECE.search(name) for prefix in ("hls/main/", "tables/") for name in store.list(prefix))
    epoch, seq = max(((int(name[1]), int(name[2])) for name in names if name), default=(0, 0))
    return epoch, -(-seq // _GRID) * _GRID


def wipe(store: Store) -> None:
    """Remove what an earlier run has written into a stream's directory, and nothing else."""
    for prefix in WRITTEN:
        for name in store.list(prefix):
            store.delete(name)
    if store.exists(manifests.NAME):
        store.delete(manifests.NAME)


def _check_same(job: Job, found: Manifest, where: str) -> None:
    hint = "name another directory, or add --overwrite to start anew"
    if found.id != job.stream or found.source != redact(job.source):
        raise ConfigError(f"it holds stream '{found.id}' of {found.source}", where=where, hint=hint)
    wanted, had = _flat(redact_all(job.settings.to_dict())), _flat(found.config)
    changed = sorted(
        f"{key} was {had.get(key)!r} and is now {wanted.get(key)!r}"
        for key in wanted.keys() | had.keys()
        if wanted.get(key) != had.get(key) and not key.startswith(_ANY_RUN)
    )
    if changed:
        raise ConfigError("it was written with other settings: " + "; ".join(changed), where=where, hint=hint)


def as_begun(settings: Settings, found: Manifest) -> Settings:
    """Return settings with which the stream of a manifest can be taken up, where those for new ones have changed since.

    What its runs may differ in is as in `settings`, all else as its first run had it.

    Raises:
        ConfigError: the manifest's are no settings of this version.
    """
    values = settings.to_dict()
    for key, value in _flat(found.config).items():
        if not key.startswith(_ANY_RUN):
            *path, name = key.split(".")
            section = values
            for each in path:
                section = section.setdefault(each, {})
            section[name] = value
    return Settings.from_dict(values)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat
