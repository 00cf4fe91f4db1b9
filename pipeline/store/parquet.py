"""Tables of a stream: their columns, and Parquet bytes that are the same for the same rows.

A table is a folder of parts, tables/<name>/part-<epoch>-<first seq>-<stop seq>.parquet, each with the rows of frames
[first, stop); operational events, which no replay repeats, lie beside them as part-ops-<n>.parquet.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import NotFound, StorageError
from pipeline.store.objects import Store

SCENE_STATE_SIZE = 64
"""Length of `scene_state` (chosen; null until a fusing stage fills it)."""

_COMMON = (
    ("stream_id", pa.string()),
    ("epoch", pa.int32()),
    ("seq", pa.int64()),
    ("pts", pa.int64()),
    ("t_s", pa.float64()),
    ("captured_at", pa.timestamp("us", tz="UTC")),
)

SCHEMAS: Mapping[str, pa.Schema] = {
    "frames": pa.schema(
        [
            *_COMMON,
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("key_frame", pa.bool_()),
            ("enhanced", pa.bool_()),
            ("refined", pa.bool_()),
            ("model_version", pa.string()),
            ("scene_id", pa.int32()),
            ("scene_state", pa.list_(pa.float32(), SCENE_STATE_SIZE)),
        ]
    ),
    "quality": pa.schema(
        [
            *_COMMON,
            ("stability", pa.float32()),
            ("stable", pa.bool_()),
            ("exposure", pa.float32()),
            ("sharpness", pa.float32()),
            ("colour", pa.float32()),
            ("texture", pa.float32()),
            ("noise", pa.float32()),
            ("shake", pa.float32()),
            ("flash", pa.float32()),
            ("focus", pa.float32()),
            ("artefacts", pa.float32()),
            ("defect_blocks", pa.int32()),
            ("defect_cause", pa.string()),
            ("flags", pa.list_(pa.string())),
        ]
    ),
    "events": pa.schema([*_COMMON, ("event_id", pa.string()), ("type", pa.string()), ("data", pa.string())]),
}
"""Columns by table; docs/formats.md says what each means."""

WALL_CLOCK_COLUMNS = ("captured_at",)
"""Columns that two runs over the same packets may differ in."""


class Part(NamedTuple):
    """What a part's name says: the frames [first, stop) of an epoch. Sorts in the order of the stream."""

    epoch: int
    first: int
    stop: int


_PART = re.compile(r"part-(\d+)-(\d+)-(\d+)\.parquet")
_OPERATIONAL = re.compile(r"part-ops-(\d+)\.parquet")


def part_name(table: str, part: Part) -> str:
    """Return the object's name of a part: a function of the frames in it alone."""
    return f"tables/{table}/part-{part.epoch}-{part.first}-{part.stop}.parquet"


def operational_name(table: str, n: int) -> str:
    """Return the object's name of the n-th part that tells of the run."""
    return f"tables/{table}/part-ops-{n}.parquet"


def parts(store: Store, table: str) -> list[Part]:
    """Return the parts of a table that lie in the store, in order. Raises StorageError."""
    found = (_PART.fullmatch(name.rpartition("/")[2]) for name in store.list(f"tables/{table}/part-"))
    return sorted(Part(*(int(g) for g in match.groups())) for match in found if match)


def operational_count(store: Store, table: str) -> int:
    """Return the number after the highest operational part's. Raises StorageError."""
    found = (_OPERATIONAL.fullmatch(name.rpartition("/")[2]) for name in store.list(f"tables/{table}/part-ops-"))
    return max((int(match[1]) + 1 for match in found if match), default=0)


def encode(table: pa.Table, versions: Mapping[str, int], extra: Mapping[str, str] | None = None) -> bytes:
    """Return a table as zstd Parquet: the same rows, versions and extras give the same bytes (of one pyarrow release).

    Args:
        table: rows of one of SCHEMAS.
        versions: stage's name → version that made the rows; kept as metadata "limpid.stages".
        extra: further metadata, kept as "limpid.<key>".
    """
    metadata = {"limpid.stages": json.dumps(dict(versions), sort_keys=True)}
    metadata |= {f"limpid.{key}": value for key, value in sorted((extra or {}).items())}
    # Chunks would become pages: the same rows must not look different for having come in other batches.
    whole = table.combine_chunks().replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    pq.write_table(whole, sink, compression="zstd", compression_level=3, row_group_size=1 << 20)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def decode(data: bytes, where: str = "") -> pa.Table:
    """Return the table in Parquet bytes. Raises StorageError where they are none."""
    try:
        # Not pq.read_table: its dataset's threads let go of `data` late, and abort a process that is ending just then.
        return pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise StorageError(f"this is no readable Parquet ({error})", where=where) from error


def metadata(store: Store, table: str, part: Part) -> dict[str, str]:
    """Return a part's metadata without the leading "limpid.". Raises NotFound, StorageError."""
    name = part_name(table, part)
    found = decode(store.get(name), name).schema.metadata or {}
    texts = {key.decode(): value.decode() for key, value in found.items()}
    return {key.removeprefix("limpid."): value for key, value in texts.items() if key.startswith("limpid.")}


def read_part(store: Store, table: str, part: Part) -> pa.Table:
    """Return the rows of a part of one of SCHEMAS. Raises NotFound; StorageError where it is damaged."""
    return _read(store, part_name(table, part), SCHEMAS[table])


def read_table(store: Store, table: str) -> pa.Table:
    """Return all rows of a stream's table in the order of the stream, then the operational ones; empty if none.

    Where parts overlap (the short last part of a run that was stopped, and the whole one of the run that went on),
    each frame's rows are taken once.

    Raises:
        StorageError: the table has no such name, or a part is damaged.
    """
    if table not in SCHEMAS:
        raise StorageError(f"there is no table '{table}'", hint=f"tables are {', '.join(SCHEMAS)}")
    schema = SCHEMAS[table]
    pieces = [schema.empty_table()]
    for epoch, group in itertools.groupby(parts(store, table), key=lambda part: part.epoch):
        seen = 0
        for part in sorted(group, key=lambda part: (part.first, -part.stop)):
            if part.stop <= seen:
                continue
            rows = read_part(store, table, Part(epoch, part.first, part.stop))
            if part.first < seen:
                rows = rows.filter(pc.greater_equal(rows["seq"], seen))
            pieces.append(rows)
            seen = part.stop
    for n in range(operational_count(store, table)):
        name = operational_name(table, n)
        try:
            pieces.append(_read(store, name, schema))
        except NotFound:
            continue  # numbers may be left out
    return pa.concat_tables(pieces).combine_chunks()


def _read(store: Store, name: str, schema: pa.Schema) -> pa.Table:
    rows = decode(store.get(name), name).replace_schema_metadata(None)
    if rows.schema != schema:
        raise StorageError("its columns are not those of the table", where=f"{store.url}/{name}")
    return rows
