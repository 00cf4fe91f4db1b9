"""Pages of a stream's tables: rows from a place on, in the order of the stream, without reading what lies before.

Parts are read one by one. Which parts are skipped follows from their names alone for a place, and from a search by
halves for a time: time rises along the parts, so about log2(parts) of them are looked at.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import StorageError
from pipeline.store.objects import Store
from pipeline.store.parquet import SCHEMAS, Part, parts, read_part


class Place(NamedTuple):
    """A frame: places sort in the order of the stream."""

    epoch: int
    seq: int


class Rows(NamedTuple):
    """A page: its rows (schema of the table), and the place that the next page begins at; None: that was the last."""

    table: pa.Table
    next: Place | None


def read_rows(
    store: Store,
    table: str,
    *,
    start: Place | None = None,
    from_s: float | None = None,
    to_s: float | None = None,
    limit: int,
) -> Rows:
    """Return up to `limit` rows of a stream's table with one row a frame.

    Args:
        store: the stream's.
        table: "frames" or "quality".
        start: the first frame that is wanted; None: the first there is.
        from_s, to_s: only rows whose t_s lies in [from_s, to_s); None: no bound.
        limit: at least 1.

    Raises:
        StorageError: no such table, or a part is damaged.
    """
    if table not in SCHEMAS:
        raise StorageError(f"there is no table '{table}'", hint=f"tables are {', '.join(SCHEMAS)}")
    place = start or Place(0, 0)
    wanted = [part for part in _apart(parts(store, table)) if (part.epoch, part.stop) > place]
    if from_s is not None:
        # One part before the first that begins later: rows from from_s on may lie inside it.
        begins = bisect.bisect_right(wanted, from_s, key=lambda part: _first_s(store, table, part))
        wanted = wanted[max(0, begins - 1) :]
    pieces = [SCHEMAS[table].empty_table()]
    count = 0
    for part in wanted:
        rows = _cut(read_part(store, table, _stored(part)), part, place)
        past = to_s is not None and rows.num_rows > 0 and (rows["t_s"][-1].as_py() or 0.0) >= to_s
        rows = _between(rows, from_s, to_s)
        count += rows.num_rows
        pieces.append(rows)
        if count > limit or past:
            break
    found = pa.concat_tables(pieces).combine_chunks()
    if found.num_rows <= limit:
        return Rows(found, None)
    return Rows(found.slice(0, limit), Place(found["epoch"][limit].as_py(), found["seq"][limit].as_py()))


class _Piece(NamedTuple):
    """The frames [first, stop) of a part that begins at `stored`, which may lie before (what overlaps is read once)."""

    epoch: int
    first: int
    stop: int
    stored: int


def _apart(found: list[Part]) -> Iterator[_Piece]:
    """Give the parts so that each frame lies in one of them: a stopped run's short last part is in a longer one."""
    for epoch, group in itertools.groupby(found, key=lambda part: part.epoch):
        seen = 0
        for part in sorted(group, key=lambda part: (part.first, -part.stop)):
            if part.stop > seen:
                yield _Piece(epoch, max(part.first, seen), part.stop, part.first)
                seen = part.stop


def _stored(piece: _Piece) -> Part:
    return Part(piece.epoch, piece.stored, piece.stop)


def _first_s(store: Store, table: str, piece: _Piece) -> float:
    rows = read_part(store, table, _stored(piece))
    first = rows["t_s"][0].as_py() if rows.num_rows else None
    return -1.0 if first is None else float(first)


def _cut(rows: pa.Table, piece: _Piece, place: Place) -> pa.Table:
    first = max(piece.first, place.seq) if piece.epoch == place.epoch else piece.first
    return rows if first <= piece.stored else rows.filter(pc.greater_equal(rows["seq"], first))


def _between(rows: pa.Table, from_s: float | None, to_s: float | None) -> pa.Table:
    if from_s is not None:
        rows = rows.filter(pc.greater_equal(rows["t_s"], from_s))
    if to_s is not None:
        rows = rows.filter(pc.less(rows["t_s"], to_s))
    return rows
