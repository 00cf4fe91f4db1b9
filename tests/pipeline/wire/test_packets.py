from __future__ import annotations

import pickle
from fractions import Fraction

import pytest

from pipeline.wire.frames import Size
from pipeline.wire.ids import Span, StreamId
from pipeline.wire.items import Item
from pipeline.wire.packets import Codec, Packet, PacketBatch, Track

VIDEO = Codec(name="h264", extradata=b"\1", time_base=Fraction(1, 90000), size=Size(width_px=3, height_px=1))
PACKETS = (
    Packet(track=Track.VIDEO, pts=0, dts=None, duration=3003, key=True, data=b"abc"),
    Packet(track=Track.AUDIO, pts=None, dts=0, duration=0, key=True, data=b"de"),
)


def batch(start: int, stop: int) -> PacketBatch:
    span = Span(stream=StreamId("a"), epoch=0, start=start, stop=stop)
    return PacketBatch(span=span, video=VIDEO, audio=None, packets=PACKETS, arrived_ns=1)


def test_the_span_counts_the_packets_of_both_tracks() -> None:
    assert len(batch(7, 9)) == 2
    for start, stop in ((7, 8), (7, 10), (7, 7)):
        with pytest.raises(ValueError, match="2 packets are not"):
            batch(start, stop)


def test_a_batch_costs_its_bytes() -> None:
    found = batch(0, 2)
    assert isinstance(found, Item)
    assert found.nbytes == 5


def test_a_batch_travels_between_processes() -> None:
    assert pickle.loads(pickle.dumps(batch(0, 2))) == batch(0, 2)


def test_a_cut_has_the_packets_of_its_numbers() -> None:
    found = batch(7, 9)
    assert found.cut(7, 9) is found
    part = found.cut(8, 9)
    assert (part.span.start, part.span.stop, part.packets) == (8, 9, PACKETS[1:])
    assert (part.video, part.arrived_ns) == (found.video, found.arrived_ns)
    assert len(found.cut(8, 8)) == 0
    for start, stop in ((6, 8), (8, 10)):
        with pytest.raises(ValueError, match="is not inside"):
            found.cut(start, stop)
