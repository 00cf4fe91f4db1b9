"""Events as rows of the table `events`: those of the content and those of the run."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from pipeline.store.objects import Store
from pipeline.store.parquet import SCHEMAS, encode, operational_count, operational_name
from pipeline.wire.events import Event


def event_table(
    events: Sequence[Event],
    *,
    captured_ns: Sequence[int | None],
    pts: Sequence[int | None],
    t_s: Sequence[float | None],
) -> pa.Table:
    """Return events as rows; None where an event has no place on the timeline.

    Args:
        events: N events.
        captured_ns: N Unix times.
        pts: N ticks of the source.
        t_s: N seconds from the stream's start.
    """
    return pa.table(
        {
            "stream_id": [str(e.stream) for e in events],
            "epoch": [e.epoch for e in events],
            "seq": [e.seq for e in events],
            "pts": list(pts),
            "t_s": list(t_s),
            "captured_at": [None if ns is None else ns // 1000 for ns in captured_ns],
            "event_id": [e.event_id for e in events],
            "type": [e.type for e in events],
            "data": [e.data_json() for e in events],
        },
        schema=SCHEMAS["events"],
    )


def write_events(
    store: Store, events: Sequence[Event], *, captured_ns: int, pts: int | None = None, t_s: float | None = None
) -> str | None:
    """Write events of the run (state changes, gaps, failures) as a part of their own; return its name.

    They are no function of the content, so their parts are numbered, and two runs may differ in them.

    Args:
        store: the stream's.
        events: in order; none gives no part, and None.
        captured_ns: Unix time at which they were raised.
        pts, t_s: where in the stream, where that is known.

    Raises:
        StorageError: it cannot be written.
    """
    if not events:
        return None
    n = len(events)
    data = encode(event_table(events, captured_ns=[captured_ns] * n, pts=[pts] * n, t_s=[t_s] * n), {})
    number = operational_count(store, "events")
    while not store.put_new(operational_name("events", number), data):
        number += 1
    return operational_name("events", number)
