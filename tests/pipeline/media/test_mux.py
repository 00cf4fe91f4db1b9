from __future__ import annotations

import struct
from fractions import Fraction

import pytest

from pipeline.errors import StorageError
from pipeline.media import mux
from pipeline.media.boxes import box, boxes, full_box
from pipeline.media.encode import EncodeParameters, SegmentEncoder
from pipeline.media.entries import Entry
from pipeline.wire.frames import ColorSpec, Size
from tests.pipeline.media import made

SIZE = Size(width_px=64, height_px=48)


def video(n: int) -> tuple[Entry, list[tuple[bytes, bool]]]:
    """A sample entry and n coded frames."""
    how = EncodeParameters(crf=25, preset="ultrafast", max_kbps=0, threads=1)
    encoder = SegmentEncoder(how, size=SIZE, color=ColorSpec(), time_base=Fraction(1, 1000))
    for i, picture in enumerate(made.frames(range(n)).data):
        encoder.add(picture, i * 40)
    return encoder.entry(), [(c.data, c.key) for c in encoder.finish()]


def samples(times: list[int], until: int) -> tuple[Entry, list[mux.Sample]]:
    entry, coded = video(len(times))
    ends = [*times[1:], until]
    return entry, [
        mux.Sample(time=t, duration=min(e - t, mux.MAX_TICKS), key=k, data=d)
        for t, e, (d, k) in zip(times, ends, coded, strict=True)
    ]


def test_a_box_is_its_size_its_kind_and_its_content() -> None:
    assert box(b"free", b"ab", b"c") == b"\0\0\0\x0bfreeabc"
    assert full_box(b"tfdt", 1, 0x20, b"x") == b"\0\0\0\x0dtfdt\1\0\0\x20x"


def test_boxes_finds_all_of_a_path_in_order() -> None:
    data = box(b"aaaa", box(b"bbbb", b"1"), box(b"cccc", b"2"), box(b"bbbb", b"3")) + box(b"aaaa", box(b"bbbb", b"4"))
    assert boxes(data, b"aaaa", b"bbbb") == [b"1", b"3", b"4"]
    assert boxes(data, b"dddd") == []


@pytest.mark.parametrize("damaged", [b"\0\0\0\x20moofxx", b"\0\0\0\4moof", b"\0\0"])
def test_a_box_that_is_cut_off_is_our_error(damaged: bytes) -> None:
    with pytest.raises(StorageError, match="cut off"):
        boxes(damaged, b"moof")


@pytest.mark.parametrize(
    ("time_base", "want"),
    [(Fraction(1, 90000), (90000, 5)), (Fraction(1001, 30000), (30000, 5005)), (Fraction(2, 1), (1, 10))],
)
def test_a_track_carries_multiples_of_any_time_base(time_base: Fraction, want: tuple[int, int]) -> None:
    """5 ticks of n/d seconds are 5·n ticks of 1/d."""
    assert (mux.timescale(time_base), mux.ticks(5, time_base)) == want


def test_a_media_segment_says_number_decode_time_durations_sizes_and_flags() -> None:
    segment = mux.media_segment(
        [mux.Sample(time=7, duration=2, key=True, data=b"abc"), mux.Sample(time=9, duration=3, key=False, data=b"de")],
        number=4,
    )
    assert boxes(segment, b"moof", b"mfhd") == [struct.pack(">II", 0, 4 * 16 + 1)]
    assert boxes(segment, b"moof", b"traf", b"tfdt") == [struct.pack(">IQ", 1 << 24, 7)]
    moof = box(b"moof", *boxes(segment, b"moof"))
    run = struct.pack(">IIi", 1 << 24 | 0x701, 2, len(moof) + 8)
    run += struct.pack(">III", 2, 3, 0x02000000) + struct.pack(">III", 3, 2, 0x01010000)
    assert boxes(segment, b"moof", b"traf", b"trun") == [run]
    assert boxes(segment, b"mdat") == [b"abcde"]


@pytest.mark.parametrize("start", [0, 12_345, 2**40, -3000])
def test_ffmpeg_reads_every_time_to_the_tick(start: int) -> None:
    times = [start + t for t in (0, 40, 81, 120, 2000)]
    entry, made_of = samples(times, start + 2040)
    shift = max(0, -start)
    init = mux.init_segment(entry, ticks_a_second=1000, shift=shift)
    segment = mux.media_segment(made_of, number=0, shift=shift)
    found = list(made.demuxed(init, segment))
    assert [p.pts for p in found] == times
    assert [p.dts for p in found] == times
    assert [bytes(p) for p in found] == [s.data for s in made_of]
    assert [p.is_keyframe for p in found] == [True] + [False] * 4
    assert found[0].time_base == Fraction(1, 1000)
    assert mux.first_time_s(init, segment) == Fraction(start, 1000)


def test_any_segment_can_be_read_without_those_before_it() -> None:
    entry, first = samples([-50, 0, 50], 100)
    _, second = samples([100, 150], 200)
    init = mux.init_segment(entry, ticks_a_second=1000, shift=50)
    later = mux.media_segment(second, number=1, shift=50)
    assert [p.pts for p in made.demuxed(init, later)] == [100, 150]
    both = made.demuxed(init, mux.media_segment(first, number=0, shift=50), later)
    assert [p.pts for p in both] == [-50, 0, 50, 100, 150]


def test_a_pause_longer_than_a_sample_can_last_leaves_the_times_exact() -> None:
    times = [0, 10, 10 + 2**33]
    entry, made_of = samples(times, times[-1] + 10)
    segment = mux.media_segment(made_of, number=0)
    assert len(boxes(segment, b"moof")) == 2
    init = mux.init_segment(entry, ticks_a_second=1_000_000_000)
    assert [p.pts for p in made.demuxed(init, segment)] == times


def test_fragments_are_numbered_upwards_over_segments() -> None:
    _, made_of = samples([0, 10, 10 + 2**33], 2**34)
    found = [
        int.from_bytes(header[4:])
        for number in (0, 1, 2)
        for header in boxes(mux.media_segment(made_of, number=number), b"moof", b"mfhd")
    ]
    assert found == [1, 2, 17, 18, 33, 34]


def test_a_segment_without_samples_has_no_first_time() -> None:
    entry, _ = samples([0], 40)
    init = mux.init_segment(entry, ticks_a_second=1000)
    with pytest.raises(StorageError, match="no samples"):
        mux.first_time_s(init, box(b"styp"))
