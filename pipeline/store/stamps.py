"""stamps/part-<n>.json: what decided the bytes, written before anything is made with it, read by a replay.

An entry holds from its frame on until the next entry for that stage (or for all), across epochs. Of two entries for one
frame the one appended last holds. Entries are only ever appended: the log of a run says what the run did.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import StorageError
from pipeline.store.objects import Store
from pipeline.wire.acks import Stamp
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


class StampLog:
    """A stream's stamps: loaded on construction, durable as soon as `append` returns.

    Raises:
        StorageError: a part is damaged or cannot be read.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._entries: list[StampEntry] = []
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
        data = json.dumps([_to_json(e) for e in entries], sort_keys=True, separators=(",", ":")).encode()
        while not self._store.put_new(_part_name(self._parts), data):
            self._load()  # a part of another process (one that everyone took for dead) comes first
        self._entries += entries
        self._parts += 1

    def set_aside(self, span: Span, stage: str) -> None:
        """Let `stage` pass the frames of `span` on unprocessed; before and after them nothing changes."""

        def aside(stamp: Stamp) -> Stamp:
            return replace(stamp, set_aside=tuple(sorted({*stamp.set_aside, stage})))

        inside = [e for e in self._entries if e.epoch == span.epoch and span.start <= e.seq < span.stop]
        entries = [StampEntry(epoch=span.epoch, seq=span.start, stamp=aside(self.at(span.epoch, span.start)))]
        entries += [replace(e, stamp=aside(e.stamp)) for e in inside if e.seq > span.start]
        entries.append(StampEntry(epoch=span.epoch, seq=span.stop, stamp=self.at(span.epoch, span.stop)))
        self.append(entries)

    def at(self, epoch: int, seq: int, stage: str = ALL) -> Stamp:
        """Return the stamp that holds for a frame; the default one where nothing was stamped."""
        stamp, best = Stamp(), (-1, -1)
        for entry in self._entries:
            place = (entry.epoch, entry.seq)
            if entry.stage in (ALL, stage) and best <= place <= (epoch, seq):
                stamp, best = entry.stamp, place
        return stamp

    def _load(self) -> None:
        known = set(self._store.list("stamps/part-"))
        while _part_name(self._parts) in known:
            name = _part_name(self._parts)
            try:
                self._entries += [_from_json(e) for e in json.loads(self._store.get(name))]
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
        "set_aside": list(s.set_aside),
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
            set_aside=tuple(str(s) for s in found["set_aside"]),
        ),
    )
