"""Batches have borders that follow from the packets alone."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from pipeline.media.source_base import SourceInfo, batched
from pipeline.media.timeline import Placed
from pipeline.wire.frames import Size
from pipeline.wire.ids import StreamId
from pipeline.wire.packets import Codec, Packet, PacketBatch, Track

VIDEO = Codec(name="h264", extradata=b"", time_base=Fraction(1, 25), size=Size(width_px=8, height_px=6))


def placed(sizes: Sequence[int], epoch: int = 0) -> list[Placed]:
    return [
        Placed(
            epoch=epoch,
            video=VIDEO,
            packet=Packet(track=Track.VIDEO, pts=i, dts=i, duration=1, key=True, data=bytes(size)),
        )
        for i, size in enumerate(sizes)
    ]


def batches(items: Sequence[Placed], epoch: int = 0, packet: int = 0, first: int = 0) -> list[PacketBatch]:
    return list(
        batched(items, stream=StreamId("s"), audio=None, epoch=epoch, packet=packet, first=first, now_ns=lambda: 5)
    )


def spans(found: Sequence[PacketBatch]) -> list[tuple[int, int, int]]:
    return [(b.span.epoch, b.span.start, b.span.stop) for b in found]


def test_batch_ends_after_16_packets_or_256_kib() -> None:
    assert spans(batches(placed([1] * 35))) == [(0, 0, 16), (0, 16, 32), (0, 32, 35)]
    assert spans(batches(placed([100 << 10] * 7))) == [(0, 0, 3), (0, 3, 6), (0, 6, 7)]
    assert spans(batches(placed([1 << 20] * 2))) == [(0, 0, 1), (0, 1, 2)]
    assert batches([]) == []


def test_epoch_ends_a_batch_and_counts_from_0() -> None:
    found = batches([*placed([1] * 3), *placed([1] * 2, epoch=1)])
    assert spans(found) == [(0, 0, 3), (1, 0, 2)]
    assert {b.arrived_ns for b in found} == {5}


def test_position_inside_a_batch_gives_its_rest() -> None:
    items = [*placed([1] * 20), *placed([1] * 20, epoch=1)]
    assert spans(batches(items, packet=5)) == [(0, 5, 16), (0, 16, 20), (1, 0, 16), (1, 16, 20)]
    assert spans(batches(items, epoch=1, packet=16)) == [(1, 16, 20)]
    assert spans(batches(items, epoch=1, packet=20)) == []
    assert spans(batches(items, epoch=2)) == []


def test_numbers_may_start_later() -> None:
    assert spans(batches(placed([1] * 20), first=100)) == [(0, 100, 116), (0, 116, 120)]
    assert spans(batches(placed([1] * 20), first=100, packet=110)) == [(0, 110, 116), (0, 116, 120)]


@given(sizes=st.lists(st.sampled_from([1, 1000, 90_000, 300_000]), max_size=60), data=st.data())
def test_any_position_gives_the_same_packets_and_borders(sizes: list[int], data: st.DataObject) -> None:
    items = placed(sizes)
    whole = batches(items)
    at = data.draw(st.integers(0, len(sizes)))
    rest = batches(items, packet=at)
    assert [p for b in rest for p in b.packets] == [i.packet for i in items[at:]]
    assert {b.span.stop for b in rest} == {b.span.stop for b in whole if b.span.stop > at}


def test_shown_size_is_the_coded_one_turned() -> None:
    def info(rotation_deg: int) -> SourceInfo:
        codec = Codec(name="h264", extradata=b"", time_base=Fraction(1, 25), size=VIDEO.size, rotation_deg=rotation_deg)
        return SourceInfo(uri="a", container="mov", tracks=(), video=codec, audio=None, duration_s=None)

    assert [str(info(deg).size) for deg in (0, 90, 180, 270)] == ["8×6", "6×8", "8×6", "6×8"]
