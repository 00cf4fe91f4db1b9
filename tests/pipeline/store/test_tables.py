from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import StorageError
from pipeline.store import parquet, tables
from pipeline.store.objects import LocalStore, Store
from pipeline.store.parquet import SCHEMAS, Part, part_name
from pipeline.store.tables import Place, read_rows

PARTS = (Part(0, 0, 10), Part(0, 10, 13), Part(0, 10, 20), Part(0, 20, 25), Part(2, 0, 10), Part(2, 10, 15))
"""A stopped run's short part lies in a longer one; epoch 1 left none."""

ORDER = [Place(0, n) for n in range(25)] + [Place(2, n) for n in range(15)]


def _t_s(place: Place) -> float:
    """Ten frames a second; epoch 2 begins 1 s after the end of epoch 0."""
    return (place.seq + (35 if place.epoch else 0)) / 10


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = LocalStore(tmp_path_factory.mktemp("stream"))
    for part in PARTS:
        seqs = range(part.first, part.stop)
        columns: dict[str, list[object]] = {name: [None] * len(seqs) for name in SCHEMAS["frames"].names}
        columns |= {"epoch": [part.epoch] * len(seqs), "seq": list(seqs)}
        columns["t_s"] = [_t_s(Place(part.epoch, seq)) for seq in seqs]
        table = pa.table(columns, schema=SCHEMAS["frames"])
        made.put_new(part_name("frames", part), parquet.encode(table, {}))
    return made


def _places(rows: tables.Rows) -> list[Place]:
    columns = (rows.table[name].to_pylist() for name in ("epoch", "seq"))
    return [Place(*pair) for pair in zip(*columns, strict=True)]


@given(
    start=st.none() | st.builds(Place, st.integers(0, 3), st.integers(0, 30)),
    bounds=st.tuples(*[st.none() | st.sampled_from([n / 20 for n in range(110)])] * 2),
    limit=st.integers(1, 50),
)
def test_a_page_is_what_a_scan_of_all_rows_gives(
    start: Place | None, bounds: tuple[float | None, float | None], limit: int, store: Store
) -> None:
    from_s, to_s = bounds
    expected = [
        place
        for place in ORDER
        if (start is None or place >= start)
        and (from_s is None or _t_s(place) >= from_s)
        and (to_s is None or _t_s(place) < to_s)
    ]
    page = read_rows(store, "frames", start=start, from_s=from_s, to_s=to_s, limit=limit)
    assert _places(page) == expected[:limit]
    assert page.next == (expected[limit] if len(expected) > limit else None)
    assert page.table.schema == SCHEMAS["frames"]


def test_what_lies_before_is_not_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Part] = []
    real = tables.read_part

    def counting(store: Store, table: str, part: Part) -> pa.Table:
        read.append(part)
        return real(store, table, part)

    monkeypatch.setattr(tables, "read_part", counting)
    read_rows(store, "frames", start=Place(2, 10), limit=3)
    assert read == [Part(2, 10, 15)]


def test_a_table_that_is_none_is_told(store: Store) -> None:
    with pytest.raises(StorageError, match="there is no table 'secrets'"):
        read_rows(store, "secrets", limit=1)
