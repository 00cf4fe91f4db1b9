"""stamps/part-<n>.json: what decided the bytes, written before anything is made with it, read by a replay.

A stamp holds from its frame on until the next entry for that stage (or for all), across epochs. Of two entries for one
frame the one appended last holds. An aside says that a stage passes a span on unprocessed. Both are only ever
appended: the log of a run says what the run did.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import StorageError
from pipeline.store.objects import Store
from pipeline.wire.acks import Schedule, Stamp
from pipeline.wire.ids import Span

ALL = "*"
"""Stands for every stage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StampEntry:
    """From frame `seq` of `epoch` on, `stamp` decides what `stage` (or ALL) gives."""

    epoch: int
    seq: int
    stamp: Stamp
    stage: str = ALL


@dataclass(frozen=True, kw_only=True, slots=True)
class Aside:
    """The units [start, stop) of the driving input of `stage` in `epoch` pass it unprocessed (a poison batch)."""

    epoch: int
    start: int
    stop: int
    stage: str


class StampLog:
    """A stream's stamps: loaded on construction, durable as soon as `append` returns.

    Raises:
        StorageError: a part is damaged or cannot be read.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._entries: list[StampEntry] = []
        self._asides: list[Aside] = []
        self._parts = 0
        self._load()

    @property
    def entries(self) -> tuple[StampEntry, ...]:
        """All entries in the order in which they were appended."""
        return tuple(self._entries)

    def append(self, entries: Sequence[StampEntry]) -> None:
        """Make entries durable, then let them hold. Raises StorageError."""
        if not entries:
            return
        self._append([_to_json(e) for e in entries])
        self._entries += entries

    def set_aside(self, span: Span, stage: str) -> None:
        """Make durable that `stage` passes the units of `span` on unprocessed. Raises StorageError."""
        aside = Aside(epoch=span.epoch, start=span.start, stop=span.stop, stage=stage)
        if aside not in self._asides:
            self._append([_aside_to_json(aside)])
            self._asides.append(aside)

    def asides(self) -> tuple[Aside, ...]:
        """Return what was set aside, in the order in which it was."""
        return tuple(self._asides)

    def at(self, epoch: int, seq: int, stage: str = ALL) -> Stamp:
        """Return the stamp that holds for a frame; the default one where nothing was stamped."""
        stamp, best = Stamp(), (-1, -1)
        for entry in self._entries:
            place = (entry.epoch, entry.seq)
            if entry.stage in (ALL, stage) and best <= place <= (epoch, seq):
                stamp, best = entry.stamp, place
        return stamp

    def schedule(self, epoch: int, *, since: int = 0) -> Schedule:
        """Return what holds in an epoch from frame `since` on: (first frame, stamp) by rising frame, the first one 0.

        Of frames before `since` it says the wrong thing: a stream that has had thousands of stamps need not send them
        along with all of its work.
        """
        held, later = Stamp(), dict[int, Stamp]()
        mine = (e for e in self._entries if e.stage == ALL and e.epoch <= epoch)
        for entry in sorted(mine, key=lambda e: (e.epoch, e.seq)):  # stable: of two for a frame the last appended
            if entry.epoch < epoch or entry.seq <= since:
                held = entry.stamp
            else:
                later[entry.seq] = entry.stamp
        return ((0, held), *later.items())

    def _append(self, rows: Sequence[dict[str, Any]]) -> None:
        data = json.dumps(rows, sort_keys=True, separators=(",", ":")).encode()
        while not self._store.put_new(_part_name(self._parts), data):
            self._load()  # a part of another process (one that everyone took for dead) comes first
        self._parts += 1

    def _load(self) -> None:
        known = set(self._store.list("stamps/part-"))
        while _part_name(self._parts) in known:
            name = _part_name(self._parts)
            try:
                rows = json.loads(self._store.get(name))
                self._entries += [_from_json(row) for row in rows if "stop" not in row]
                self._asides += [_aside_from_json(row) for row in rows if "stop" in row]
            except (ValueError, KeyError, TypeError) as error:
                raise StorageError(
                    f"the stamps are damaged ({type(error).__name__}: {error})",
                    where=f"{self._store.url}/{name}",
                    hint="run again with --overwrite to start anew",
                ) from error
            self._parts += 1


def _part_name(n: int) -> str:
    return f"stamps/part-{n:06d}.json"


def _to_json(entry: StampEntry) -> dict[str, Any]:
    s = entry.stamp
    return {
        "epoch": entry.epoch,
        "seq": entry.seq,
        "stage": entry.stage,
        "model": s.model,
        "runtime": s.runtime,
        "threads": s.threads,
        "lighter": list(s.lighter),
    }


def _from_json(found: dict[str, Any]) -> StampEntry:
    return StampEntry(
        epoch=int(found["epoch"]),
        seq=int(found["seq"]),
        stage=str(found["stage"]),
        stamp=Stamp(
            model=str(found["model"]),
            runtime=str(found["runtime"]),
            threads=int(found["threads"]),
            lighter=tuple(map(str, found["lighter"])),
        ),
    )


def _aside_to_json(aside: Aside) -> dict[str, Any]:
    return {"epoch": aside.epoch, "start": aside.start, "stop": aside.stop, "stage": aside.stage}


def _aside_from_json(found: dict[str, Any]) -> Aside:
    return Aside(
        epoch=int(found["epoch"]), start=int(found["start"]), stop=int(found["stop"]), stage=str(found["stage"])
    )
