from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import SourceSettings
from pipeline.errors import NotFound, StorageError
from pipeline.flow.sources import KEPT, PacketReader
from pipeline.stage import StageEnv, Work
from pipeline.stages.packets import Packets, PacketsConfig
from pipeline.store.objects import open_store
from pipeline.wire.frames import Size
from pipeline.wire.ids import Span, StreamId
from pipeline.wire.packets import Codec, Packet, PacketBatch, Track

GATE = StreamId("gate")
VIDEO = Codec(
    name="h264",
    extradata=b"\x01\x02",
    time_base=Fraction(1, 90_000),
    size=Size(width_px=64, height_px=36),
    pix_fmt="yuv420p",
    frame_rate=Fraction(30_000, 1001),
)
AUDIO = Codec(name="aac", extradata=b"\x12", time_base=Fraction(1, 48_000), sample_rate_hz=48_000, channels=2)


def batches(count: int, size: int, epoch: int = 0) -> list[PacketBatch]:
    packets = [
        Packet(
            track=Track.AUDIO if i % 3 == 2 else Track.VIDEO,
            pts=None if i % 5 == 4 else 3000 * i,
            dts=3000 * i - 100,
            duration=3000,
            key=i % 7 == 0,
            discard=i % 13 == 1,
            data=bytes([i % 256]) * (i % 11),
        )
        for i in range(count)
    ]
    return [
        PacketBatch(
            span=Span(stream=GATE, epoch=epoch, start=i, stop=min(i + size, count)),
            video=VIDEO,
            audio=AUDIO,
            packets=tuple(packets[i : i + size]),
            arrived_ns=1_000 + i,
        )
        for i in range(0, count, size)
    ]


def keep(path: Path, given_batches: list[PacketBatch], *, part: int, restart_at: int = -1) -> None:
    def stage() -> Packets:
        made = Packets(PacketsConfig(part_packets=part))
        made.open(StageEnv(stream=GATE, store=str(path)))
        return made

    keeper = stage()
    for number, batch in enumerate(given_batches):
        if number == restart_at:
            snapshot = keeper.snapshot()
            keeper = stage()
            keeper.restore(snapshot)
            for earlier in given_batches[:number]:
                if earlier.span.stop > snapshot.resume_from:
                    again = earlier.cut(max(earlier.span.start, snapshot.resume_from), earlier.span.stop)
                    keeper.process(Work(item=again, span=again.span))
        keeper.process(Work(item=batch, span=batch.span))
    keeper.finish()


def read(path: Path, *, epoch: int = 0, packet: int = 0) -> list[PacketBatch]:
    reader = PacketReader(GATE, f"{KEPT}{path}", SourceSettings())
    reader.seek(epoch, packet)
    return list(iter(reader.next, None))


def packets_of(found: list[PacketBatch]) -> list[Packet]:
    return [packet for batch in found for packet in batch.packets]


@settings(max_examples=25)
@given(
    count=st.integers(1, 60),
    size=st.integers(1, 16),
    part=st.integers(1, 40),
    at=st.integers(0, 5),
    skip=st.integers(0, 59),
)
def test_what_is_kept_comes_back_whatever_the_batches_were(
    tmp_path_factory: pytest.TempPathFactory, count: int, size: int, part: int, at: int, skip: int
) -> None:
    path = tmp_path_factory.mktemp("kept")
    given_batches = batches(count, size)
    keep(path, given_batches, part=part, restart_at=at)
    found = read(path)
    assert packets_of(found) == packets_of(given_batches)
    assert found[0].video == VIDEO
    assert found[0].audio == AUDIO
    skip = min(skip, count - 1)
    rest = read(path, packet=skip)
    assert rest[0].span.start == skip
    assert packets_of(rest) == packets_of(given_batches)[skip:]


def test_epochs_follow_each_other(tmp_path: Path) -> None:
    keep(tmp_path, batches(20, 7), part=8)
    keep(tmp_path, batches(5, 7, epoch=1), part=8)
    spans = [(b.span.epoch, b.span.start, b.span.stop) for b in read(tmp_path, packet=16)]
    assert spans == [(0, 16, 20), (1, 0, 5)]


def test_a_missing_part_is_told_before_anything_is_made(tmp_path: Path) -> None:
    keep(tmp_path, batches(20, 7), part=8)
    store = open_store(str(tmp_path))
    store.delete(store.list("packets/")[1])
    with pytest.raises(StorageError, match="packets are missing"):
        read(tmp_path)


def test_a_directory_without_packets_says_how_they_are_kept(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"outputs\.packets"):
        read(tmp_path)
