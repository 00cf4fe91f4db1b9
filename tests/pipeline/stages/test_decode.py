"""Decode gives what one PyAV pass gives, on a fixed grid, and the same again after any restart."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StageError
from pipeline.media.decode import VideoDecoder
from pipeline.media.picture import Picture
from pipeline.media.source import open_source
from pipeline.stage import MOST_HELD, StageEnv, Work
from pipeline.stages import decode as decode_stage
from pipeline.stages.decode import Decode, DecodeConfig
from pipeline.wire.acks import Snapshot
from pipeline.wire.frames import FrameBatch
from pipeline.wire.ids import StreamId
from pipeline.wire.packets import Packet, PacketBatch
from tests import media_files as made

STREAM = StreamId("s")


def stage(epoch: int = 0) -> Decode:
    out = Decode(DecodeConfig())
    out.open(StageEnv(stream=STREAM, epoch=epoch))
    return out


def packets(path: Path | str) -> list[PacketBatch]:
    source = open_source(str(path))
    try:
        return list(source.batches(stream=STREAM))
    finally:
        source.close()


def decoded(batches: Sequence[PacketBatch], first: Decode | None = None) -> list[FrameBatch]:
    """All frames, epoch by epoch."""
    out: list[FrameBatch] = []
    current = first
    for batch in batches:
        if current is None or current.env.epoch != batch.span.epoch:
            if current is not None:
                out += current.finish()
            current = stage(batch.span.epoch)
        out += current.process(Work(item=batch, span=batch.span))
    if current is not None:
        out += current.finish()
    return out


def rest_of(whole: Sequence[PacketBatch], snapshot: Snapshot) -> list[PacketBatch]:
    """What a restored stage is fed."""
    start = snapshot.resume_from
    return [b.cut(max(b.span.start, start), b.span.stop) for b in whole if b.span.stop > start]


def frames(batches: Sequence[FrameBatch]) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
    for batch in batches:
        for i in range(len(batch)):
            yield int(batch.pts[i]), batch.data[i]


def assert_same(a: Sequence[FrameBatch], b: Sequence[FrameBatch]) -> None:
    assert [x.span for x in a] == [x.span for x in b]
    for x, y in zip(a, b, strict=True):
        assert (x.size, x.color, x.time_base) == (y.size, y.color, y.time_base)
        for name in ("pts", "duration", "keyframe", "data"):
            assert np.array_equal(getattr(x, name), getattr(y, name)), f"{name} of {x.span}"


Make = Callable[[Path], Path]
FILES: dict[str, Make] = {
    "plain": lambda d: made.encode(d / "a.mp4", frames=60),
    "b_frames": lambda d: made.encode(d / "a.mp4", frames=60, options=made.B_FRAMES, gop=12, audio=True),
    "open_gop": lambda d: made.encode(d / "a.mkv", frames=60, options=made.OPEN_GOP, gop=12),
    "hevc_open_gop": lambda d: made.encode(d / "a.mp4", frames=60, codec="libx265", options=made.X265_OPEN, gop=12),
    "variable_rate": lambda d: made.encode(
        d / "a.mp4",
        frames=60,
        options=made.B_FRAMES,
        pts=[int(p) for p in np.cumsum(np.random.default_rng(1).integers(1, 2000, 60))],
    ),
    "no_pts": lambda d: made.encode(d / "a.h264", frames=60, options=made.B_FRAMES, gop=12),
    "dts_only": lambda d: made.encode(d / "a.avi", frames=60, options=made.B_FRAMES, gop=12),
    "one_key_frame": lambda d: made.encode(d / "a.ts", frames=60, options=made.B_FRAMES, gop=1000),
    "only_key_frames": lambda d: made.encode(d / "a.mp4", frames=40, gop=1),
    "interlaced": lambda d: made.encode(
        d / "a.mp4", frames=40, interlaced=True, options=made.X264 | {"x264-params": "tff=1"}, gop=8
    ),
    "vp9": lambda d: made.encode(
        d / "a.webm", frames=40, codec="libvpx-vp9", options={"cpu-used": "8", "deadline": "realtime"}, gop=12
    ),
}


@pytest.fixture(scope="module", params=list(FILES))
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FILES[request.param](tmp_path_factory.mktemp(request.param))


def test_frames_are_those_of_one_pyav_pass(file: Path) -> None:
    reference = made.pyav_pass(file)
    got = list(frames(decoded(packets(file))))
    assert len(got) == len(reference)
    interlaced = reference[0][1].interlaced_frame
    trusted = file.suffix not in {".avi", ".h264"}  # there the pts are unknown, or in the order of coding
    for (pts, data), (expected_pts, expected) in zip(got, reference, strict=True):
        if trusted:
            assert pts == expected_pts
        if not interlaced:
            assert np.array_equal(data, made.i420(expected))


def test_batches_lie_on_the_grid_and_count_on(file: Path) -> None:
    batches = decoded(packets(file))
    assert [b.span.start for b in batches] == list(range(0, 8 * len(batches), 8))
    assert all(len(b) == 8 for b in batches[:-1])
    assert all(not b.data.flags.writeable for b in batches)
    pts = np.concatenate([b.pts for b in batches])
    assert np.all(np.diff(pts) > 0)


def test_every_snapshot_restores_to_the_same_output(file: Path) -> None:
    whole = packets(file)
    expected = decoded(whole)
    current, given = stage(), 0
    cuts = 0
    for batch in whole:
        given += sum(len(b) for b in current.process(Work(item=batch, span=batch.span)))
        snapshot = current.snapshot()
        assert snapshot.after == given and snapshot.after % 8 == 0
        assert len(snapshot.state) < 500
        again = stage()
        again.restore(snapshot)
        assert_same(decoded(rest_of(whole, snapshot), again), [b for b in expected if b.span.start >= given])
        cuts += 1
    assert cuts == len(whole)


def test_what_may_still_come_is_not_more_than_is_said(file: Path) -> None:
    """What comes at the end when nothing follows is what was held: no frame behind it can have been met."""
    whole = packets(file)
    reached = 0
    for stop in range(1, len(whole) + 1):
        current, given = stage(), 0
        for batch in whole[:stop]:
            given += sum(len(b) for b in current.process(Work(item=batch, span=batch.span)))
        held = current.held()
        assert sum(len(b) for b in current.finish()) <= held <= MOST_HELD + 8
        assert given + held >= reached
        reached = given + held


def test_snapshot_starts_late_where_key_frames_allow(tmp_path: Path) -> None:
    """60 frames, a key each 12: packets 0, 12, 24, 36, 48. Behind frame 32 the keys 12 and 24 have been given."""
    whole = packets(made.encode(tmp_path / "a.mp4", frames=60, gop=12))
    current = stage()
    for batch in whole:
        current.process(Work(item=batch, span=batch.span))
        if current.snapshot().after == 32:
            break
    assert (current.snapshot().after, current.snapshot().resume_from) == (32, 12)


def test_stream_with_one_key_frame_resumes_at_its_start(tmp_path: Path) -> None:
    current = stage()
    for batch in packets(made.encode(tmp_path / "a.mp4", frames=60, gop=1000)):
        current.process(Work(item=batch, span=batch.span))
    assert current.snapshot().after == 56
    assert current.snapshot().resume_from == 0


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_split_of_packets_and_any_restarts_give_the_same(data: st.DataObject, b_frame_file: Path) -> None:
    """Packets in batches of any size, the stage killed and restored between any two of them, several times."""
    whole = packets(b_frame_file)
    joined = PacketBatch(
        span=whole[0].span.part(0, whole[-1].span.stop),
        video=whole[0].video,
        audio=whole[0].audio,
        packets=tuple(p for b in whole for p in b.packets),
        arrived_ns=0,
    )
    current = stage()
    got: list[FrameBatch] = []
    at, kills = 0, 0
    while at < len(joined):
        size = data.draw(st.integers(1, 40))
        batch = joined.cut(at, min(len(joined), at + size))
        got += current.process(Work(item=batch, span=batch.span))
        at += size
        if kills < 4 and data.draw(st.booleans()):
            kills += 1
            snapshot = current.snapshot()
            current = stage()
            current.restore(snapshot)
            at = snapshot.resume_from
    got += current.finish()
    assert_same(got, decoded(whole))


@pytest.fixture(scope="module")
def b_frame_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FILES["b_frames"](tmp_path_factory.mktemp("split"))


def test_two_pictures_of_one_packet_restore_between_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Some codecs pack two pictures into a packet; a batch of 8 may end between the two."""

    class Twice(VideoDecoder):
        def decode(self, packet: Packet, number: int, arrived_ns: int = 0) -> Iterator[Picture]:
            for picture in super().decode(packet, number, arrived_ns):
                yield picture
                if number % 5 == 1:
                    assert picture.pts is not None
                    yield replace(picture, pts=picture.pts + 1)

    monkeypatch.setattr(decode_stage, "VideoDecoder", Twice)
    whole = packets(made.encode(tmp_path / "a.mp4", frames=40, gop=5))
    expected = decoded(whole)
    assert sum(len(b) for b in expected) == 48
    ends_inside = 0
    for stop in range(1, 41):
        part = [b.cut(b.span.start, min(stop, b.span.stop)) for b in whole if b.span.start < stop]
        current = stage()
        for batch in part:
            current.process(Work(item=batch, span=batch.span))
        snapshot = current.snapshot()
        ends_inside += b'"repeats": 1' in snapshot.state and json.loads(snapshot.state)["last_packet"] % 5 == 1
        again = stage()
        again.restore(snapshot)
        assert_same(decoded(rest_of(whole, snapshot), again), [b for b in expected if b.span.start >= snapshot.after])
    assert ends_inside


def test_turned_pictures_stand_upright(tmp_path: Path) -> None:
    plain = made.encode(tmp_path / "a.mp4", frames=3)
    upright = decoded(packets(plain))[0].planes()
    for clockwise in (90, 180, 270):
        batch = decoded(packets(made.rotated(tmp_path / f"{clockwise}.mp4", plain, clockwise)))[0]
        assert (batch.size.width_px, batch.size.height_px) == ((96, 64) if clockwise == 180 else (64, 96))
        for plane, expected in zip(batch.planes(), upright, strict=True):
            assert np.array_equal(plane[0], np.rot90(expected[0], -clockwise // 90))


@pytest.mark.parametrize(
    ("name", "pix_fmt", "codec", "width", "height"),
    [
        ("a.mp4", "yuv444p", "libx264", 97, 63),
        ("a.mp4", "yuv422p", "libx264", 96, 64),
        ("a.mp4", "yuv420p10le", "libx264", 96, 64),
        ("a.mov", "yuv422p10le", "prores_ks", 96, 64),
        ("a.avi", "yuvj420p", "mjpeg", 96, 64),
        ("a.mkv", "bgr0", "ffv1", 97, 63),
        ("a.mkv", "gray", "ffv1", 96, 64),
        ("a.mkv", "yuv420p", "ffv1", 1, 1),
        ("a.mkv", "yuv420p", "ffv1", 97, 63),
    ],
)
def test_any_pixel_format_becomes_8_bit_420(
    tmp_path: Path, name: str, pix_fmt: str, codec: str, width: int, height: int
) -> None:
    """The luma mean of what comes out is that of the picture made, within what coding costs."""
    path = made.encode(tmp_path / name, frames=2, width=width, height=height, pix_fmt=pix_fmt, codec=codec, gop=1)
    batch = decoded(packets(path))[0]
    assert len(batch) == 2
    assert (batch.size.width_px, batch.size.height_px) == (width, height)
    assert batch.color.full_range == (pix_fmt == "yuvj420p")
    rgb = made.picture(0, width, height).astype(np.float64)
    luma = rgb @ (0.299, 0.587, 0.114)  # BT.601
    if not batch.color.full_range:
        luma = 16 + luma * 219 / 255
    if pix_fmt == "gray":
        luma = rgb @ (0.299, 0.587, 0.114)
        assert batch.planes().u.min() == batch.planes().u.max() == 128
    assert abs(float(batch.planes().y[0].mean()) - float(luma.mean())) < 4
    again = decoded(packets(path))[0]
    assert np.array_equal(batch.data, again.data)


def test_interlaced_pictures_lose_their_comb(tmp_path: Path) -> None:
    """Woven lines of two instants differ from their neighbours; after deinterlacing they differ much less."""

    def comb(y: np.ndarray[Any, Any]) -> float:
        rows = y.astype(np.int32)
        return float(np.abs(2 * rows[1:-1] - rows[:-2] - rows[2:]).mean())

    path = FILES["interlaced"](tmp_path)
    raw = made.pyav_pass(path)
    batches = decoded(packets(path))
    assert sum(len(b) for b in batches) == len(raw) == 40
    woven = comb(made.i420(raw[12][1])[: 96 * 64].reshape(64, 96))
    assert comb(batches[1].planes().y[4]) < 0.6 * woven


def test_frames_of_another_size_are_scaled_and_counted(tmp_path: Path) -> None:
    """Packets that change size inside an epoch (a source that did not notice) come out in the epoch's size."""
    small = packets(made.encode(tmp_path / "a.h264", frames=8))
    large = packets(made.encode(tmp_path / "b.h264", frames=8, width=128, height=80))
    last = small[-1].span.stop
    moved = PacketBatch(
        span=small[0].span.part(last, last + large[0].span.stop),
        video=small[0].video,
        audio=None,
        packets=large[0].packets,
        arrived_ns=0,
    )
    current = stage()
    out = [b for x in (*small, moved) for b in current.process(Work(item=x, span=x.span))]
    out += current.finish()
    assert sum(len(b) for b in out) == 16
    assert {(b.size.width_px, b.size.height_px) for b in out} == {(96, 64)}
    assert current.problems["size_changed"] == 8


def test_damaged_packets_are_skipped_and_counted(tmp_path: Path) -> None:
    whole = packets(made.encode(tmp_path / "a.mp4", frames=40, gop=8))
    current = stage()
    out: list[FrameBatch] = []
    for batch in whole:
        broken = tuple(
            made.with_data(p, b"\xff" * len(p.data)) if batch.span.start + i in (9, 10) else p
            for i, p in enumerate(batch.packets)
        )
        bad = PacketBatch(span=batch.span, video=batch.video, audio=None, packets=broken, arrived_ns=0)
        out += current.process(Work(item=bad, span=bad.span))
    out += current.finish()
    assert current.problems["decode_error"] == 2
    assert sum(len(b) for b in out) == 38


def test_source_that_never_decodes_fails_in_the_end(tmp_path: Path) -> None:
    batch = packets(made.encode(tmp_path / "a.mp4", frames=10, gop=1))[0]
    noise = tuple(made.with_data(p, b"\xff" * 64) for p in batch.packets)
    whole = [
        PacketBatch(span=batch.span.part(i, i + 10), video=batch.video, audio=None, packets=noise, arrived_ns=0)
        for i in range(0, 1000, 10)
    ]
    with pytest.raises(StageError, match="300 packets in a row cannot be decoded"):
        decoded(whole)


def test_set_aside_packets_leave_a_gap_and_no_crash(tmp_path: Path) -> None:
    """Packets 16 to 31 passed over, a key each 8: frames 0–15 and 32–39 come, numbered without a gap."""
    whole = packets(made.encode(tmp_path / "a.mp4", frames=40, gop=8))
    assert [b.span.stop for b in whole] == [16, 32, 40]
    current = stage()
    out = list(current.process(Work(item=whole[0], span=whole[0].span)))
    assert current.bypass(Work(item=whole[1], span=whole[1].span)) == ()
    out += current.process(Work(item=whole[2], span=whole[2].span))
    out += current.finish()
    assert [(b.span.start, b.span.stop) for b in out] == [(0, 8), (8, 16), (16, 24)]
    assert [p // 512 for p, _ in frames(out)] == [*range(16), *range(32, 40)]
    assert current.problems["set_aside"] == 16


def test_repeated_pts_are_moved_to_increase(tmp_path: Path) -> None:
    whole = packets(made.encode(tmp_path / "a.mp4", frames=8, gop=1))
    stuck = tuple(made.with_pts(p, 1000 if i in (2, 3, 4) else i * 512) for i, p in enumerate(whole[0].packets))
    batch = PacketBatch(span=whole[0].span, video=whole[0].video, audio=None, packets=stuck, arrived_ns=0)
    current = stage()
    out = [*current.process(Work(item=batch, span=batch.span)), *current.finish()]
    assert [p for p, _ in frames(out)] == [0, 512, 1000, 1001, 1002, 2560, 3072, 3584]
    assert current.problems["pts_not_increasing"] == 2


def test_real_clips_give_the_frames_of_a_pyav_pass(shared_data: Path) -> None:
    clips = sorted((shared_data / "clips").glob("*/*.mp4"))
    assert len(clips) == 18
    for clip in clips:
        source = open_source(str(clip))
        track = next(t.index for t in source.info.tracks if t.chosen and t.kind == "video")
        reference = made.pyav_pass(clip, stream=track, limit=60)
        current, got = stage(), []
        for batch in source.batches(stream=STREAM):
            got += list(frames(current.process(Work(item=batch, span=batch.span))))
            if len(got) >= 60:
                break
        else:
            got += list(frames(current.finish()))
        source.close()
        assert len(got) >= len(reference), clip.name
        for i, ((pts, data), (expected_pts, expected)) in enumerate(zip(got, reference, strict=False)):
            assert pts == expected_pts, f"{clip.name} frame {i}"
            assert np.array_equal(data, made.i420(expected)), f"{clip.name} frame {i}"
