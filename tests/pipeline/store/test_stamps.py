from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.store.objects import Store, open_store
from pipeline.store.stamps import Aside, StampEntry, StampLog
from pipeline.wire.acks import Stamp, stamp_at
from pipeline.wire.ids import Span, StreamId

ONE, TWO = Stamp(model="m@1", runtime="torch", threads=2), Stamp(model="m@2", runtime="torch", threads=2)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def span(epoch: int, start: int, stop: int) -> Span:
    return Span(stream=StreamId("a"), epoch=epoch, start=start, stop=stop)


def test_a_stamp_holds_from_its_frame_on_until_the_next(store: Store) -> None:
    log = StampLog(store)
    assert log.at(0, 0) == Stamp()
    log.append([StampEntry(epoch=0, seq=0, stamp=ONE)])
    log.append([StampEntry(epoch=1, seq=8, stamp=TWO)])
    for got in (log, StampLog(store)):
        assert [got.at(0, 0), got.at(0, 999), got.at(1, 7), got.at(1, 8), got.at(5, 0)] == [ONE, ONE, ONE, TWO, TWO]


def test_the_last_appended_of_two_for_one_frame_holds(store: Store) -> None:
    log = StampLog(store)
    log.append([StampEntry(epoch=0, seq=8, stamp=ONE)])
    log.append([StampEntry(epoch=0, seq=8, stamp=TWO)])
    assert log.at(0, 8) == StampLog(store).at(0, 8) == TWO


def test_a_stamp_for_one_stage_does_not_concern_the_others(store: Store) -> None:
    log = StampLog(store)
    log.append([StampEntry(epoch=0, seq=0, stamp=ONE), StampEntry(epoch=0, seq=0, stage="enhance", stamp=TWO)])
    assert log.at(0, 3, "enhance") == TWO
    assert log.at(0, 3, "encode") == log.at(0, 3) == ONE


def test_setting_a_batch_aside_is_durable_and_said_once(store: Store) -> None:
    log = StampLog(store)
    log.append([StampEntry(epoch=0, seq=0, stamp=ONE)])
    for _ in range(2):
        log.set_aside(span(0, 16, 24), "enhance")
    for got in (log, StampLog(store)):
        assert got.asides() == (Aside(epoch=0, start=16, stop=24, stage="enhance"),)
        assert got.at(0, 16) == ONE


def test_a_part_of_another_writer_is_kept_and_read(store: Store) -> None:
    late, current = StampLog(store), StampLog(store)
    late.append([StampEntry(epoch=0, seq=0, stamp=ONE)])
    current.append([StampEntry(epoch=0, seq=8, stamp=TWO)])
    assert current.entries == StampLog(store).entries
    assert len(current.entries) == 2


def test_damaged_stamps_say_what_to_do(store: Store) -> None:
    store.put("stamps/part-000000.json", b'[{"epoch": 0}]')
    with pytest.raises(StorageError, match=r"stamps are damaged.*--overwrite"):
        StampLog(store)


def test_a_schedule_says_what_holds_from_a_frame_on_and_forgets_what_held_before(store: Store) -> None:
    log = StampLog(store)
    places = ((0, 0, ONE), (0, 16, TWO), (1, 8, ONE), (1, 24, TWO), (1, 24, ONE), (1, 40, TWO), (2, 0, ONE))
    log.append([StampEntry(epoch=epoch, seq=seq, stamp=stamp) for epoch, seq, stamp in places])
    assert log.schedule(0) == ((0, ONE), (16, TWO))
    assert log.schedule(1) == ((0, TWO), (8, ONE), (24, ONE), (40, TWO))
    assert log.schedule(1, since=24) == ((0, ONE), (40, TWO))
    for seq in range(24, 60):
        assert stamp_at(log.schedule(1, since=24), seq) == log.at(1, seq) == stamp_at(log.schedule(1), seq)
