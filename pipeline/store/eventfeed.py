"""What is new in the events that streams write into their own directories, behind a cursor.

A cursor says: content events before (epoch, seq) and the first `skip` behind it are taken, operational parts before
`ops` and the first `ops_skip` events of that one. It relies on what is promised elsewhere: parts of content appear in
order, and overlapping ones have the same events (pipeline/stages/record.py).
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.errors import NotFound, StorageError
from pipeline.store.objects import Store
from pipeline.store.parquet import Part, decode, operational_count, operational_name, part_name, parts
from pipeline.wire.ids import StreamId


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedEvent:
    """An event in the log.

    Attributes:
        number: its place, from 1; rises, none is left out or used twice.
        type, stream, epoch, seq, event_id, data: as in the stream's own table `events`.
        t_s: seconds from the stream's start; None where it has no place there.
        captured_ns: Unix time.
    """

    number: int
    type: str
    stream: str
    epoch: int
    seq: int
    t_s: float | None
    captured_ns: int
    event_id: str
    data: Mapping[str, Any] = field(default_factory=dict)


class Cursor(NamedTuple):
    """How far a stream's events are taken."""

    epoch: int = 0
    seq: int = -1
    skip: int = 0
    ops: int = 0
    ops_skip: int = 0


class NewEvent(NamedTuple):
    """An event that is not in the log yet, and the cursor behind it: of content or of the run, the other half is 0."""

    event: LoggedEvent
    content: tuple[int, int, int] | None
    run: tuple[int, int] | None

    def behind(self, cursor: Cursor) -> Cursor:
        """Return the stream's cursor moved behind this event."""
        if self.content is not None:
            epoch, seq, skip = self.content
            return cursor._replace(epoch=epoch, seq=seq, skip=skip)
        assert self.run is not None
        return cursor._replace(ops=self.run[0], ops_skip=self.run[1])


class EventFeed:
    """Reads the event parts of streams below a service's store.

    It remembers which parts reach behind the cursor and hold nothing more, so as not to read them again.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._barren: dict[str, set[Part]] = {}

    def forget(self, stream: str | None = None) -> None:
        """Forget what is known of the parts of a stream whose directory may be another one by now; None: of all."""
        if stream is None:
            self._barren = {}
        else:
            self._barren.pop(stream, None)

    def new(self, streams: Sequence[StreamId], cursors: Mapping[str, Cursor]) -> Iterator[NewEvent]:
        """Yield what is new in the streams' directories: each one's in its order, all together by time."""
        rows = [_rising(each) for each in self._feeds(streams, cursors)]
        return (new for _, new in heapq.merge(*rows, key=lambda row: row[0]))

    def _feeds(self, streams: Sequence[StreamId], cursors: Mapping[str, Cursor]) -> Iterator[Iterator[NewEvent]]:
        for stream in streams:
            cursor = cursors.get(stream, Cursor())
            yield self._content(stream, cursor)
            yield self._of_the_run(stream, cursor)

    def _content(self, stream: StreamId, cursor: Cursor) -> Iterator[NewEvent]:
        at, skip = (cursor.epoch, cursor.seq), cursor.skip
        view = self._store.part(f"streams/{stream}")
        barren = self._barren.setdefault(stream, set())
        for part in self._new_parts(view, at, barren):
            if (part.epoch, part.stop) <= at:
                continue  # another part had these frames
            events = [e for e in _events_of(view, part_name("events", part)) if (e.epoch, e.seq) >= at][skip:]
            # A cursor inside a part: of its events from `at` on, `done` are taken.
            for done, event in enumerate(events, start=skip + 1):
                last = done == skip + len(events)
                yield NewEvent(event, (part.epoch, part.stop, 0) if last else (*_inside(part, at), done), None)
            if events:
                at, skip = (part.epoch, part.stop), 0
            else:
                barren.add(part)

    def _new_parts(self, view: Store, at: tuple[int, int], barren: set[Part]) -> list[Part]:
        """Return the parts of content that reach behind a cursor, in order.

        A listing that runs beside a writer may show a part and not an earlier one. All that were there before the last
        one of a first look are in a second look.
        """

        def look() -> list[Part]:
            return [p for p in parts(view, "events") if (p.epoch, p.stop) > at and p not in barren]

        seen = look()
        return [part for part in look() if part <= seen[-1]] if seen else []

    def _of_the_run(self, stream: StreamId, cursor: Cursor) -> Iterator[NewEvent]:
        view = self._store.part(f"streams/{stream}")
        for number in range(cursor.ops, operational_count(view, "events")):
            skip = cursor.ops_skip if number == cursor.ops else 0
            events = _events_of(view, operational_name("events", number))[skip:]
            for done, event in enumerate(events, start=skip + 1):
                last = done == skip + len(events)
                yield NewEvent(event, None, (number + 1, 0) if last else (number, done))


def _rising(events: Iterator[NewEvent]) -> Iterator[tuple[int, NewEvent]]:
    """Yield events and the time to sort them by: a clock that was set back must not change the order in a stream."""
    latest = 0
    for new in events:
        latest = max(latest, new.event.captured_ns)
        yield latest, new


def _inside(part: Part, at: tuple[int, int]) -> tuple[int, int]:
    """Return where counting begins inside a part: at the cursor, or at the part's start if that lies behind it."""
    return max(at, (part.epoch, part.first))


def _events_of(view: Store, name: str) -> list[LoggedEvent]:
    """Return the events of a stream's part; none where it has just been replaced or deleted, or is damaged."""
    try:
        data = view.get(name)
    except NotFound:
        return []
    try:
        table = decode(data, name)
        return [_of_row(row) for row in _with_us(table).to_pylist()]
    except (StorageError, KeyError, ValueError, pa.ArrowException):
        return []  # its stream's readers are told; one stream's damage must not hold up the events of all


def _with_us(table: pa.Table) -> pa.Table:
    """Return the rows with the time as microseconds: a datetime would have to be taken apart again."""
    index = table.schema.get_field_index("captured_at")
    return table.set_column(index, "captured_at", table["captured_at"].cast(pa.int64()))


def _of_row(row: Mapping[str, Any]) -> LoggedEvent:
    return LoggedEvent(
        number=0,
        type=row["type"],
        stream=row["stream_id"],
        epoch=row["epoch"],
        seq=row["seq"],
        t_s=row["t_s"],
        captured_ns=(row["captured_at"] or 0) * 1000,
        event_id=row["event_id"],
        data=json.loads(row["data"]),
    )
