from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import StorageError
from pipeline.store import eventlog, parquet
from pipeline.store.objects import Store, open_store
from pipeline.store.parquet import SCHEMAS, Part, part_name, read_table
from pipeline.wire.events import Event
from pipeline.wire.ids import StreamId


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def frames(epoch: int, first: int, stop: int) -> pa.Table:
    n = stop - first
    columns: dict[str, list[object]] = {name: [None] * n for name in SCHEMAS["frames"].names}
    columns |= {"stream_id": ["a"] * n, "epoch": [epoch] * n, "seq": list(range(first, stop))}
    columns["captured_at"] = [1_700_000_000_000_000] * n
    return pa.table(columns, schema=SCHEMAS["frames"])


def put(store: Store, epoch: int, first: int, stop: int) -> None:
    data = parquet.encode(frames(epoch, first, stop), {"record": 1})
    assert store.put_new(part_name("frames", Part(epoch, first, stop)), data)


def test_the_same_rows_have_the_same_bytes_whatever_their_chunks() -> None:
    whole = frames(0, 0, 10)
    pieces = pa.concat_tables([whole.slice(0, 3), whole.slice(3, 7)])
    assert pieces["seq"].num_chunks == 2
    assert parquet.encode(pieces, {"b": 2, "a": 1}) == parquet.encode(whole, {"a": 1, "b": 2})


def test_a_part_says_which_stages_made_it(store: Store) -> None:
    store.put(part_name("frames", Part(0, 0, 2)), parquet.encode(frames(0, 0, 2), {"record": 3}, {"end": "1/2"}))
    assert parquet.metadata(store, "frames", Part(0, 0, 2)) == {"stages": '{"record": 3}', "end": "1/2"}


def test_parts_are_read_in_the_order_of_the_stream_not_of_their_names(store: Store) -> None:
    """As text "part-0-1000" sorts before "part-0-250", and "part-10" before "part-2"."""
    for epoch, first, stop in ((10, 0, 1), (2, 0, 1), (0, 250, 1000), (0, 1000, 1001), (0, 0, 250)):
        put(store, epoch, first, stop)
    rows = read_table(store, "frames")
    places = list(zip(rows["epoch"].to_pylist(), rows["seq"].to_pylist(), strict=True))
    assert places == [*((0, s) for s in range(1001)), (2, 0), (10, 0)]


def test_frames_of_overlapping_parts_are_taken_once(store: Store) -> None:
    for first, stop in ((0, 10), (10, 13), (10, 20), (18, 22)):
        put(store, 0, first, stop)
    assert read_table(store, "frames")["seq"].to_pylist() == list(range(22))


def test_an_absent_table_is_empty_and_an_unknown_one_is_refused(store: Store) -> None:
    assert read_table(store, "quality").num_rows == 0
    assert read_table(store, "quality").schema == SCHEMAS["quality"]
    with pytest.raises(StorageError, match=r"no table 'qualty'.*frames, quality, events"):
        read_table(store, "qualty")


@pytest.mark.parametrize("data", [b"", b"PAR1", b"not parquet at all"])
def test_damaged_parts_are_named(store: Store, data: bytes) -> None:
    store.put(part_name("frames", Part(0, 0, 2)), data)
    with pytest.raises(StorageError, match=r"part-0-0-2\.parquet.*no readable Parquet"):
        read_table(store, "frames")


def test_events_of_the_run_come_after_those_of_the_content_in_the_order_of_writing(store: Store) -> None:
    def event(kind: str, seq: int) -> Event:
        return Event(type=kind, stream=StreamId("a"), epoch=0, seq=seq, data={"b": 1, "a": "ü"})

    assert eventlog.write_events(store, [], captured_ns=0) is None
    for seq in range(11):
        name = eventlog.write_events(store, [event("gap", seq)], captured_ns=1_500_000_000_123_456_789, t_s=2.5)
        assert name == f"tables/events/part-ops-{seq}.parquet"
    content = eventlog.event_table([event("quality.degraded", 3)], captured_ns=[1], pts=[7], t_s=[0.5])
    store.put(part_name("events", Part(0, 0, 8)), parquet.encode(content, {}))
    rows = read_table(store, "events").to_pylist()
    assert [r["seq"] for r in rows] == [3, *range(11)]
    assert rows[0]["event_id"] == "a-0-3-quality.degraded" and (rows[0]["pts"], rows[0]["t_s"]) == (7, 0.5)
    assert (rows[1]["pts"], rows[1]["t_s"], rows[1]["data"]) == (None, 2.5, '{"a":"\\u00fc","b":1}')
    assert rows[1]["captured_at"].timestamp() == pytest.approx(1_500_000_000.123456)
