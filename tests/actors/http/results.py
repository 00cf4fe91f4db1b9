"""What a run leaves of a stream: HLS of moving stripes, tables, events."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from pipeline.media import hls
from pipeline.stages.encode import Encode, EncodeConfig
from pipeline.store import parquet
from pipeline.store.eventlog import write_events
from pipeline.store.objects import LocalStore, Store
from pipeline.store.parquet import SCHEMAS, Part, part_name
from pipeline.store.servicelog import ServiceLog
from pipeline.wire.events import Event
from pipeline.wire.ids import StreamId
from tests.pipeline.media import made

FPS = 10
CAPTURED_US = 1_700_000_000_000_000


def write_hls(store: Store, stream: str, *, frames: int = 25, epoch: int = 0) -> None:
    """Frames at 10 Hz in segments of 1 s."""
    part = store.part(f"streams/{stream}")
    assert isinstance(part, LocalStore)
    batch = made.frames(range(0, frames * 100, 100), duration=100, epoch=epoch)
    stage = made.opened(Encode(EncodeConfig(segment_s=1.0)), Path(part.root), epoch)
    made.feed(stage, batch)
    stage.finish()
    stage.close()
    hls.close_playlists(part)


def rows(stream: str, table: str, epoch: int, first: int, stop: int, *, start_s: float = 0.0) -> pa.Table:
    n = stop - first
    columns: dict[str, list[object]] = {name: [None] * n for name in SCHEMAS[table].names}
    seqs = list(range(first, stop))
    columns |= {"stream_id": [stream] * n, "epoch": [epoch] * n, "seq": list(seqs), "pts": [s * 100 for s in seqs]}
    columns |= {"t_s": [start_s + s / FPS for s in seqs], "captured_at": [CAPTURED_US + s * 100_000 for s in seqs]}
    if table == "quality":
        columns |= {"noise": [float("nan")] * n, "flags": [["frozen"]] * n}
    return pa.table(columns, schema=SCHEMAS[table])


def write_part(store: Store, stream: str, table: str, part: Part, *, start_s: float = 0.0) -> None:
    data = parquet.encode(rows(stream, table, *part, start_s=start_s), {"record": 1})
    assert store.part(f"streams/{stream}").put_new(part_name(table, part), data)


def say(store: Store, stream: str, *states: str, first: int = 1) -> None:
    """Let a stream's state change, and the log take it."""
    name = StreamId(stream)
    for occurrence, state in enumerate(states, start=first):
        event = Event(
            type="stream.state_changed", stream=name, epoch=0, seq=-1, data={"state": state}, occurrence=occurrence
        )
        write_events(store.part(f"streams/{stream}"), [event], captured_ns=CAPTURED_US * 1000 + occurrence)
    ServiceLog(store).collect([name])
