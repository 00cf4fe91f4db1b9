"""What a live source's log gives: each packet under one name, from the present on, epochs that only rise."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from pipeline.media.packet_log import ANEW, BEHIND, PacketLog
from pipeline.wire.frames import Size
from pipeline.wire.ids import StreamId
from pipeline.wire.packets import Codec, Packet, PacketBatch, Track

STREAM = StreamId("s")
VIDEO = Codec(name="h264", extradata=b"", time_base=Fraction(1, 25), size=Size(width_px=8, height_px=6))
S = 1_000_000_000


def put(log: PacketLog, number: int, *, key: bool, size: int = 1, at_s: float | None = None) -> None:
    packet = Packet(track=Track.VIDEO, pts=number, dts=number, duration=1, key=key, data=bytes(size))
    log.put(packet, video=VIDEO, audio=None, arrived_ns=round((number / 25 if at_s is None else at_s) * S))


def filled(count: int, *, gop: int = 5, log_s: float = 100, max_bytes: int = 1 << 20, size: int = 1) -> PacketLog:
    """Packets 0 … count - 1, each `gop`-th a key frame, 25 a second."""
    log = PacketLog(log_s=log_s, max_bytes=max_bytes)
    for i in range(count):
        put(log, i, key=i % gop == 0, size=size)
    return log


def taken(batch: PacketBatch | None) -> tuple[int, int, list[int | None]] | None:
    """Epoch, first packet, and which packets."""
    return None if batch is None else (batch.span.epoch, batch.span.start, [p.pts for p in batch.packets])


def test_first_reader_begins_at_the_newest_key_frame() -> None:
    log = filled(13)
    assert taken(log.take(0, 0, STREAM)) == (0, 0, [10, 11, 12])
    assert log.gap_before(0) is None
    assert log.take(0, 3, STREAM) is None
    put(log, 13, key=False)
    assert taken(log.take(0, 3, STREAM)) == (0, 3, [13])


def test_without_a_key_frame_nothing_is_given() -> None:
    log = PacketLog(log_s=10)
    assert log.take(0, 0, STREAM) is None
    put(log, 0, key=True)
    assert taken(log.take(0, 0, STREAM)) == (0, 0, [0])


def test_first_reader_that_waits_begins_at_the_first_key_frame_that_comes() -> None:
    log = PacketLog(log_s=10)
    assert log.take(3, 4, STREAM) is None
    for i in range(3):
        put(log, i, key=i % 2 == 0)
    log.begin("the source was away", 1.0)
    put(log, 3, key=True)
    assert taken(log.take(3, 4, STREAM)) == (4, 0, [0, 1, 2])
    assert taken(log.take(4, 3, STREAM)) == (5, 0, [3])
    gap = log.gap_before(5)
    assert gap is not None and (gap.epoch, gap.reason) == (5, "the source was away")


def test_a_position_gives_the_same_packets_again() -> None:
    log = filled(1)
    assert log.take(0, 0, STREAM) is not None
    for i in range(1, 40):
        put(log, i, key=i % 5 == 0)
    assert taken(log.take(0, 1, STREAM)) == (0, 1, list(range(1, 17)))
    assert taken(log.take(0, 1, STREAM)) == (0, 1, list(range(1, 17)))
    assert taken(log.take(0, 17, STREAM)) == (0, 17, list(range(17, 33)))
    assert taken(log.take(0, 30, STREAM)) == (0, 30, list(range(30, 40)))


def test_batch_ends_after_256_kib() -> None:
    log = filled(1)
    log.take(0, 0, STREAM)
    for i in range(1, 6):
        put(log, i, key=False, size=200_000)
    assert taken(log.take(0, 1, STREAM)) == (0, 1, [1, 2])


def test_a_new_process_begins_the_epoch_behind_the_one_asked_for() -> None:
    log = filled(13)
    assert taken(log.take(7, 500, STREAM)) == (8, 0, [10, 11, 12])
    gap = log.gap_before(8)
    assert gap is not None and (gap.epoch, gap.reason, gap.seconds) == (8, ANEW, 0.0)
    assert log.gap_before(7) is None
    log = filled(13)
    assert taken(log.take(7, 0, STREAM)) == (7, 0, [10, 11, 12])


def test_source_begins_epochs_and_says_why() -> None:
    log = filled(6)
    assert taken(log.take(0, 0, STREAM)) == (0, 0, [5])
    log.begin("the source was away", 2.5)
    put(log, 100, key=True)
    log.begin("again", 0.0)
    put(log, 200, key=True)
    put(log, 201, key=False)
    assert taken(log.take(0, 1, STREAM)) == (1, 0, [100])
    assert taken(log.take(1, 1, STREAM)) == (2, 0, [200, 201])
    assert taken(log.take(0, 0, STREAM)) == (0, 0, [5])
    gap = log.gap_before(1)
    assert gap is not None and (gap.epoch, gap.reason, gap.seconds) == (1, "the source was away", 2.5)


def test_reader_that_falls_behind_goes_on_at_the_newest_key_frame() -> None:
    """50 s at 25 packets a second with 2 s kept: packet 1 is gone; the newest key frame is 1245, 49.8 s behind 0."""
    log = filled(1, log_s=2)
    log.take(0, 0, STREAM)
    for i in range(1, 1248):
        put(log, i, key=i % 5 == 0)
    assert taken(log.take(0, 1, STREAM)) == (1, 0, [1245, 1246, 1247])
    gap = log.gap_before(1)
    assert gap is not None and (gap.reason, gap.seconds) == (BEHIND, 49.8)
    assert taken(log.take(0, 1, STREAM)) is None, "what was given as epoch 1 is not given under another name"
    put(log, 1250, key=True)
    assert taken(log.take(0, 1, STREAM)) == (2, 0, [1250])
    assert taken(log.take(1, 0, STREAM)) == (1, 0, [1245, 1246, 1247])


def test_what_is_kept_begins_with_a_key_frame() -> None:
    """1 s of 25 packets a second, in groups of 5: at packet 59 the group from 30 on is the youngest 1 s old."""
    log = filled(60, log_s=1)
    assert len(log) == 30
    log = filled(60, max_bytes=1000, size=30)  # 33 packets fit, and groups begin at 30, …
    assert len(log) == 30 and log.nbytes == 900


def test_a_group_that_is_too_large_leaves_the_reader_at_its_end_alone() -> None:
    log = filled(1, max_bytes=1000)
    log.take(0, 0, STREAM)
    for i in range(1, 200):
        put(log, i, key=False, size=100)
        assert taken(log.take(0, i, STREAM)) == (0, i, [i])
    assert log.nbytes <= 1000


steps = st.lists(
    st.tuples(
        st.sampled_from(["packet", "key", "begin", "read", "again", "elsewhere", "anew"]),
        st.integers(0, 3),
        st.integers(0, 30),
    ),
    max_size=120,
)


@given(steps=steps)
def test_no_packet_has_two_names_and_epochs_rise(steps: list[tuple[str, int, int]]) -> None:
    log = PacketLog(log_s=1, max_bytes=400)
    names: dict[tuple[int, int], int | None] = {}
    at = (0, 0)
    number = 0
    for kind, epoch, packet in steps:
        if kind in ("packet", "key"):
            put(log, number, key=kind == "key" or number == 0, size=1 + packet)
            number += 1
            continue
        if kind == "begin":
            log.begin("away", 0.0)
            put(log, number, key=True)
            number += 1
            continue
        asked = {"read": at, "again": (at[0], max(0, at[1] - packet)), "anew": (at[0] + epoch, packet)}.get(
            kind, (epoch, packet)
        )
        batch = log.take(*asked, STREAM)
        if batch is None:
            continue
        span = batch.span
        assert (span.epoch, span.start) == asked or (span.start == 0 and span.epoch >= asked[0])
        assert batch.packets[0].key or span.start > 0
        for i, one in enumerate(batch.packets):
            name = (span.epoch, span.start + i)
            assert names.setdefault(name, one.pts) == one.pts
        assert len(set(names.values())) == len(names), "a packet was given under two names"
        in_order = [pts for _, pts in sorted(names.items())]
        assert in_order == sorted(in_order, key=lambda p: p or 0), "a later name has a later packet"
        at = max(at, (span.epoch, span.stop))


def test_a_position_inside_an_epoch_that_was_not_given_is_of_another_log() -> None:
    log = filled(13)
    assert taken(log.take(0, 0, STREAM)) == (0, 0, [10, 11, 12])
    for epoch in range(1, 5):
        log.begin("the source was away", 1.0)
        for i in range(3):
            put(log, 20 + 3 * epoch + i, key=i == 0)
    assert taken(log.take(4, 2, STREAM)) == (5, 0, [32, 33, 34])


def test_a_position_of_an_earlier_process_stays_the_same_place_when_it_is_asked_for_again() -> None:
    """A flow that is taken up anew asks twice; the second time must not cost another gap."""
    log = filled(13)
    assert taken(log.take(2, 7, STREAM)) == (3, 0, [10, 11, 12])
    assert taken(log.take(2, 7, STREAM)) == (3, 0, [10, 11, 12])
    put(log, 13, key=False)
    assert taken(log.take(3, 3, STREAM)) == (3, 3, [13])
