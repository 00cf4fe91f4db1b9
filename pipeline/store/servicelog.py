"""The service's one ordered log of events: each event of every stream once, under a number, whatever is killed.

Theory of operation. Events reach the log in two ways: `collect` takes them from the event parts that streams write into
their own directories, `append` takes one that belongs to no run. Both add one object,

    service/events/part-<number of its first event>.json     {format, version, events, cursors}

with `put_new`: which events there are and how far each stream has been taken (*cursors*) become durable in one step.
A part's number is where the part before it ends, so of two collectors at once one loses, reads what the other wrote and
looks again; one that dies has either written its part or not. That is all that "once" rests on; no lock, no leader.

Parts are small and many, so every BLOCK_EVENTS numbers become a block, an object of the same form,

    service/events/blocks/<k>.json     numbers k·BLOCK_EVENTS + 1 … (k + 1)·BLOCK_EVENTS

whose parts are then deleted (no part reaches over a block's end, so a block is a function of its parts, whoever makes
it). What a block covers lies in blocks only: a part below the end of the highest block means nothing. For a collector
that was held up for long may, after the deletion, write one whose name has become free; so it looks for the block after
writing, and a reader looks after reading. Blocks older than `keep_events` are deleted; numbers are never used again.

What a cursor is, and what is new behind it: pipeline/store/eventfeed.py.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, replace
from typing import ClassVar, NamedTuple

from pipeline.errors import NotFound, StorageError
from pipeline.store.eventfeed import Cursor, EventFeed, LoggedEvent
from pipeline.store.objects import Store
from pipeline.wire.events import Event
from pipeline.wire.ids import StreamId

__all__ = ["LoggedEvent", "ServiceLog"]

FOLDER = "service/events"
_BLOCKS_CACHED = 8
_BLOCK = re.compile(rf"{FOLDER}/blocks/(\d+)\.json")
_PART = re.compile(rf"{FOLDER}/part-(\d+)\.json")


class _Piece(NamedTuple):
    """A part or a block."""

    events: tuple[LoggedEvent, ...]
    cursors: dict[str, Cursor]


class ServiceLog:
    """The log below a service's store; every process that reads or writes has one of its own. Safe between threads.

    Args:
        store: the service's root store.
        keep_events: that are kept at least; blocks beyond them are deleted.
    """

    BLOCK_EVENTS: ClassVar[int] = 1000

    def __init__(self, store: Store, *, keep_events: int = 100_000) -> None:
        self._store = store
        self._keep_blocks = max(-(-keep_events // self.BLOCK_EVENTS), 1)
        self._lock = threading.Lock()
        self._border = 0  # numbers up to it lie in blocks
        self._tail: list[LoggedEvent] = []  # those behind it
        self._cursors: dict[str, Cursor] = {}
        self._at_end: dict[int, dict[str, Cursor]] = {}  # block → cursors at its end, until it is made
        self._cache: OrderedDict[int, tuple[LoggedEvent, ...]] = OrderedDict()
        self._kinds: dict[int, frozenset[tuple[str, str]]] = {}  # block → (stream, type) in it: what may be skipped
        self._first_block = 0
        self._feed = EventFeed(store)

    # --- reading -------------------------------------------------------------------------------------------------

    def read(
        self,
        after: int,
        *,
        stream: str | None = None,
        types: Collection[str] | None = None,
        limit: int = 1000,
        fresh: bool = True,
    ) -> list[LoggedEvent]:
        """Return the events whose number is above `after`, in order; [] if there are none yet.

        Args:
            after: 0 gives the log from its start, as far back as it is kept (see `first`).
            stream: only of this one.
            types: only of these.
            limit: at most so many.
            fresh: False: of those up to the number that `last` gave, without asking the store what is new.

        Raises:
            StorageError: the log cannot be read.
        """
        with self._lock:
            if fresh:
                self._refresh()
            found: list[LoggedEvent] = []
            for event in self._scan(after, stream, types):
                if len(found) >= limit:
                    break
                found.append(event)
            return found

    def first(self) -> int:
        """Return the number of the first event that is kept, or will be. Raises StorageError."""
        with self._lock:
            self._refresh()
            return self._first_block * self.BLOCK_EVENTS + 1

    def last(self) -> int:
        """Return the number of the last event, 0 where there is none. Raises StorageError."""
        with self._lock:
            self._refresh()
            return self._last

    # --- writing -------------------------------------------------------------------------------------------------

    def collect(self, streams: Iterable[StreamId]) -> int:
        """Take the new events of these streams' directories into the log; return how many this call has taken.

        Whichever process calls it, and however often: an event is taken once. A stream that has ended need not be
        named any more once a call after its end returned.

        Raises:
            StorageError: something cannot be read or written; what is in the log stays, a later call goes on.

        It lists each stream's event parts twice, three times if there are new ones: on S3 name the streams that are
        known to have written some, not all of them every second.
        """
        streams = list(streams)
        taken = 0
        with self._lock:
            while True:
                self._refresh()
                self._compact()
                room = self._border + self.BLOCK_EVENTS - self._last
                new = list(itertools.islice(self._feed.new(streams, self._cursors), room))
                if not new:
                    return taken
                cursors = dict(self._cursors)
                for each in new:
                    name = each.event.stream
                    cursors[name] = each.behind(cursors.get(name, Cursor()))
                if self._written([each.event for each in new], cursors):
                    taken += len(new)

    def append(self, event: Event, captured_ns: int, *, forget: bool = False) -> int:
        """Put an event that belongs to no run (a stream was queued, was deleted) into the log; return its number.

        Repeated with the same event and time, after a crash say, it changes nothing and returns the same number.

        Args:
            event: its `occurrence` 0 is replaced by the time, for a run's own events count theirs from 1.
            captured_ns: Unix time, the same when it is repeated: so keep it with what is told.
            forget: the stream's directory is new, or gone: its cursor goes back to the start in the same step.

        Raises:
            StorageError: it cannot be written.
        """
        event = event if event.occurrence else replace(event, occurrence=captured_ns)
        logged = LoggedEvent(
            number=0,
            type=event.type,
            stream=str(event.stream),
            epoch=event.epoch,
            seq=event.seq,
            t_s=None,
            captured_ns=captured_ns,
            event_id=event.event_id,
            data=json.loads(event.data_json()),
        )
        with self._lock:
            while True:
                self._refresh()
                self._compact()
                for known in self._scan(0, logged.stream, (logged.type,)):
                    if known.event_id == logged.event_id:
                        return known.number
                cursors = dict(self._cursors)
                if forget:
                    cursors.pop(logged.stream, None)
                if self._written([logged], cursors):
                    return self._last

    # --- the log itself ------------------------------------------------------------------------------------------

    @property
    def _last(self) -> int:
        return self._border + len(self._tail)

    def _refresh(self) -> None:
        """Read what others have written since."""
        while True:
            piece = self._piece(self._part_name(self._last + 1))
            # Only now: a part that was read before its block came into being was a true one.
            blocks = self._blocks()
            self._trim(blocks)
            if blocks and blocks[-1] >= self._last // self.BLOCK_EVENTS:
                self._jump(blocks)
            elif piece is None:
                return
            else:
                self._take(piece)

    def _jump(self, blocks: list[int]) -> None:
        """Go to the end of the highest block."""
        piece = self._piece(self._block_name(blocks[-1]))
        if piece is None:
            return  # so old that it has been deleted meanwhile: the caller looks again
        self._border = (blocks[-1] + 1) * self.BLOCK_EVENTS
        self._tail, self._at_end = [], {}
        self._feed.forget()  # a directory may have been made anew in what was jumped over
        self._keep(blocks[-1], piece.events)
        self._follow(piece.cursors)

    def _trim(self, blocks: list[int]) -> None:
        """Let go of what lies in blocks by now, and of what is known of blocks that are gone."""
        while blocks and blocks[-1] >= self._border // self.BLOCK_EVENTS and len(self._tail) >= self.BLOCK_EVENTS:
            number = self._border // self.BLOCK_EVENTS
            self._keep(number, tuple(self._tail[: self.BLOCK_EVENTS]))
            del self._tail[: self.BLOCK_EVENTS], self._at_end[number]
            self._border += self.BLOCK_EVENTS
        self._first_block = blocks[0] if blocks else 0
        for number in [n for n in self._kinds if n < self._first_block]:
            del self._kinds[number]

    def _take(self, piece: _Piece) -> None:
        self._tail += piece.events
        self._follow(piece.cursors)
        if self._last % self.BLOCK_EVENTS == 0:
            self._at_end[self._last // self.BLOCK_EVENTS - 1] = piece.cursors

    def _follow(self, cursors: dict[str, Cursor]) -> None:
        for stream in self._cursors.keys() - cursors.keys():
            self._feed.forget(stream)
        self._cursors = cursors

    def _written(self, events: list[LoggedEvent], cursors: dict[str, Cursor]) -> bool:
        """Write the next part; say whether the log ends with it. If not, others were faster: refresh and look."""
        first = self._last + 1
        piece = _Piece(tuple(replace(e, number=first + i) for i, e in enumerate(events)), cursors)
        if not self._store.put_new(self._part_name(first), _encode(piece)):
            return False
        blocks = self._blocks()
        if blocks and blocks[-1] >= (first - 1) // self.BLOCK_EVENTS:
            # Either the part was in time and is in the block already, or its name had become free and it is nothing:
            # the cursors there say which, so nothing is to be decided here.
            return False
        self._take(piece)
        return True

    def _compact(self) -> None:
        """Make blocks of what is complete, and delete what they make superfluous."""
        while len(self._tail) >= self.BLOCK_EVENTS:
            number = self._border // self.BLOCK_EVENTS
            piece = _Piece(tuple(self._tail[: self.BLOCK_EVENTS]), self._at_end[number])
            self._store.put_new(self._block_name(number), _encode(piece))
            self._trim(self._blocks())
            self._sweep()

    def _sweep(self) -> None:
        """Delete what blocks have made superfluous, and the blocks that nobody wants any more."""
        for name in self._store.list(f"{FOLDER}/part-"):
            match = _PART.fullmatch(name)
            if match and int(match[1]) <= self._border:
                self._store.delete(name)
        for number in self._blocks()[: -self._keep_blocks]:
            self._store.delete(self._block_name(number))

    # --- looking through it --------------------------------------------------------------------------------------

    def _scan(self, after: int, stream: str | None, types: Collection[str] | None) -> Iterator[LoggedEvent]:
        for number in range(max(after // self.BLOCK_EVENTS, self._first_block), self._border // self.BLOCK_EVENTS):
            kinds = self._kinds.get(number)
            if kinds is not None and not any(
                (stream is None or stream == s) and (types is None or t in types) for s, t in kinds
            ):
                continue
            yield from _wanted(self._block(number), after, stream, types)
        yield from _wanted(self._tail[max(after - self._border, 0) :], after, stream, types)

    def _block(self, number: int) -> tuple[LoggedEvent, ...]:
        """Return a block's events; none where it is not kept any more."""
        if number not in self._cache:
            piece = self._piece(self._block_name(number))
            if piece is None:
                return ()
            self._keep(number, piece.events)
        self._cache.move_to_end(number)
        return self._cache[number]

    def _keep(self, number: int, events: tuple[LoggedEvent, ...]) -> None:
        self._cache[number] = events
        self._kinds[number] = frozenset((event.stream, event.type) for event in events)
        while len(self._cache) > _BLOCKS_CACHED:
            self._cache.popitem(last=False)

    def _piece(self, name: str) -> _Piece | None:
        try:
            return _decode(self._store.get(name), name)
        except NotFound:
            return None

    def _blocks(self) -> list[int]:
        found = (_BLOCK.fullmatch(name) for name in self._store.list(f"{FOLDER}/blocks/"))
        return sorted(int(match[1]) for match in found if match)

    @staticmethod
    def _part_name(first: int) -> str:
        return f"{FOLDER}/part-{first}.json"

    @staticmethod
    def _block_name(number: int) -> str:
        return f"{FOLDER}/blocks/{number}.json"


def _wanted(
    events: Iterable[LoggedEvent], after: int, stream: str | None, types: Collection[str] | None
) -> Iterator[LoggedEvent]:
    for event in events:
        if event.number > after and stream in (None, event.stream) and (types is None or event.type in types):
            yield event


def _encode(piece: _Piece) -> bytes:
    content = {
        "format": "limpid-events",
        "version": 1,
        "events": [asdict(event) for event in piece.events],
        "cursors": piece.cursors,
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _decode(data: bytes, where: str) -> _Piece:
    try:
        content = json.loads(data)
        events = tuple(LoggedEvent(**event) for event in content["events"])
        return _Piece(events, {name: Cursor(*values) for name, values in content["cursors"].items()})
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"this is no part of the event log ({error})",
            where=where,
            hint="the last part of the log may be deleted: its events are then taken again",
        ) from error
