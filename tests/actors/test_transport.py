"""Items through shared memory: equal, without a copy, and given back when nobody looks at them any more."""

from __future__ import annotations

import gc
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from actors.calls import Lent, Parcel, packed, unpacked
from actors.slab import Custody, Reader, Slab
from actors.transport import Held, Inbox, Outbox
from pipeline.wire.frames import ColorSpec, FrameBatch, Size
from pipeline.wire.ids import Span, StreamId
from pipeline.wire.packets import Codec, Packet, PacketBatch, Track

SPAN = Span(stream=StreamId("s"), epoch=0, start=0, stop=2)


def frames() -> FrameBatch:
    size = Size(width_px=200, height_px=100)
    n = len(SPAN)
    data = np.arange(n * size.frame_bytes, dtype=np.uint32).astype(np.uint8).reshape(n, -1)
    ticks = np.arange(n, dtype=np.int64)
    return FrameBatch(
        span=SPAN,
        size=size,
        color=ColorSpec(),
        time_base=Fraction(1, 25),
        pts=ticks,
        duration=ticks * 0 + 1,
        captured_ns=ticks,
        keyframe=ticks == 0,
        data=data,
    )


def packets(nbytes: int) -> PacketBatch:
    packet = Packet(track=Track.VIDEO, pts=0, dts=0, duration=1, key=True, data=b"p" * nbytes)
    codec = Codec(name="h264", extradata=b"", time_base=Fraction(1, 25))
    return PacketBatch(span=SPAN, video=codec, audio=None, packets=(packet, packet), arrived_ns=0)


def send(slab: Slab, item: FrameBatch | PacketBatch) -> Parcel:
    sent, beside = Outbox(slab, Reader()).send({"n": [item]})
    assert beside == ()
    (one,) = unpacked(packed(sent))["n"]
    assert (one.span, one.nbytes) == (item.span, item.nbytes)
    parcel: Parcel = one.where
    return parcel


def test_pictures_lie_in_one_block_and_come_back_equal(tmp_path: Path) -> None:
    parcel = send(Slab("s", [tmp_path]), frames())
    assert [b.nbytes for b in parcel.blocks] == [2 * 30_000]
    taken = Inbox(Reader()).take(Lent(loan=1, where=parcel), ())
    assert isinstance(taken, FrameBatch)
    assert np.array_equal(taken.data, frames().data)
    assert not taken.data.flags.writeable


def test_large_packets_lie_in_a_block_and_small_ones_in_the_message(tmp_path: Path) -> None:
    slab = Slab("s", [tmp_path])
    assert send(slab, packets(10)).blocks == ()
    parcel = send(slab, packets(20_000))
    assert parcel.head == b""
    assert Inbox(Reader()).take(Lent(loan=1, where=parcel), ()) == packets(20_000)


def test_a_loan_is_returned_once_and_only_when_the_last_cut_is_gone(tmp_path: Path) -> None:
    inbox = Inbox(Reader())
    taken = inbox.take(Lent(loan=7, where=send(Slab("s", [tmp_path]), frames())), ())
    assert isinstance(taken, FrameBatch)
    rest = taken.cut(1, 2)
    del taken
    gc.collect()
    assert inbox.returned() == ()
    del rest
    gc.collect()
    assert inbox.returned() == (7,)
    assert inbox.returned() == ()


def test_what_nobody_refers_to_goes_back_to_its_maker(tmp_path: Path) -> None:
    custody = Custody()
    parcel = send(Slab("h1", [tmp_path]), frames())
    held = Held(parcel, custody)
    again = held
    del held
    assert custody.freed("h1") == ()
    del again
    assert custody.freed("h1") == parcel.blocks


def test_what_goes_out_as_it_came_in_stays_where_it_is(tmp_path: Path) -> None:
    made = send(Slab("h1", [tmp_path]), frames())
    reader, slab = Reader(), Slab("h2", [tmp_path])
    inbox, outbox = Inbox(reader), Outbox(slab, reader)
    taken = inbox.take(Lent(loan=1, where=made), ())
    assert isinstance(taken, FrameBatch)
    renamed = replace(taken, pts=taken.pts + 5)  # what is small changes, the pictures do not
    (same,) = outbox.send({"n": [renamed]})[0]["n"]
    (part,) = outbox.send({"n": [taken.cut(1, 2)]})[0]["n"]
    assert isinstance(same.where, Parcel)
    assert isinstance(part.where, Parcel)
    assert same.where.blocks == made.blocks
    assert [b.maker for b in part.where.blocks] == ["h2"]
    again = Inbox(Reader()).take(Lent(loan=2, where=same.where), ())
    assert isinstance(again, FrameBatch)
    assert np.array_equal(again.data, frames().data)
    assert again.pts.tolist() == [5, 6]
    del taken, renamed
    gc.collect()
    assert inbox.returned() == (1,)
