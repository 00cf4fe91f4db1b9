"""Any source becomes packets on one timeline, the same from any position; what is none is refused with a reason."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError, CorruptMedia, LimpidError, SourceError, Unreachable, UnsupportedMedia
from pipeline.media.source import Source, open_source
from pipeline.stage import StageEnv, Work
from pipeline.stages.decode import Decode, DecodeConfig
from pipeline.wire.ids import StreamId
from pipeline.wire.packets import PacketBatch, Track
from tests import media_files as made

STREAM = StreamId("s")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("source")


@pytest.fixture(scope="module")
def sounding(folder: Path) -> Path:
    return made.encode(folder / "sounding.mp4", frames=50, options=made.B_FRAMES, audio=True)


def read(path: Path | str) -> tuple[Source, list[PacketBatch]]:
    source = open_source(str(path))
    batches = list(source.batches(stream=STREAM))
    source.close()
    return source, batches


def frames(batches: Sequence[PacketBatch]) -> list[tuple[int, int, str]]:
    """(epoch, pts, size) of every decoded frame."""
    out, current = [], None
    for batch in [*batches, None]:
        if current is not None and (batch is None or batch.span.epoch != current.env.epoch):
            out += [(b.span.epoch, int(p), str(b.size)) for b in current.finish() for p in b.pts]
            current = None
        if batch is None:
            break
        if current is None:
            current = Decode(DecodeConfig())
            current.open(StageEnv(stream=STREAM, epoch=batch.span.epoch))
        given = current.process(Work(item=batch, span=batch.span))
        out += [(b.span.epoch, int(p), str(b.size)) for b in given for p in b.pts]
    return out


# --- what comes out -------------------------------------------------------------------------------------------------


def test_info_says_what_the_file_is(sounding: Path) -> None:
    source, batches = read(sounding)
    info = source.info
    assert info.container.startswith("mov")
    assert (info.video.name, str(info.size), info.frame_rate) == ("h264", "96×64", 25)
    assert info.audio is not None and (info.audio.name, info.audio.sample_rate_hz) == ("aac", 48000)
    assert info.duration_s == pytest.approx(2.0, abs=0.05)
    assert [(t.kind, t.chosen) for t in info.tracks] == [("video", True), ("audio", True)]
    assert not info.live and not source.problems
    assert batches[0].video == info.video and batches[0].audio == info.audio


def test_packets_come_as_the_container_has_them(sounding: Path) -> None:
    _, batches = read(sounding)
    got = [p for b in batches for p in b.packets]
    with made.av.open(str(sounding)) as container:
        expected = [p for p in container.demux(video=0, audio=0) if p.size]
        assert [(p.pts, p.dts, p.data) for p in got] == [(p.pts, p.dts, bytes(p)) for p in expected]
        assert [p.track is Track.VIDEO for p in got] == [p.stream.type == "video" for p in expected]
        assert [p.key for p in got] == [p.is_keyframe for p in expected]


def test_batches_tile_the_epoch_and_are_bounded(sounding: Path) -> None:
    _, batches = read(sounding)
    assert [b.span.start for b in batches[1:]] == [b.span.stop for b in batches[:-1]]
    assert batches[0].span.start == 0
    assert all(len(b) == 16 for b in batches[:-1])


@pytest.mark.parametrize("name", ["sounding", "synthetic", "two_epochs"])
def test_any_position_gives_the_packets_of_an_uninterrupted_pass(name: str, sounding: Path, folder: Path) -> None:
    uri = {
        "sounding": str(sounding),
        "synthetic": "synthetic://street?width=64&height=48&fps=5&seconds=5&persons=2&vehicles=1",
        "two_epochs": str(jumping(folder)),
    }[name]
    _, batches = read(uri)
    whole = [(b.span.epoch, b.span.start + i, p) for b in batches for i, p in enumerate(b.packets)]
    source = open_source(uri)
    for epoch, number, _ in whole[:: max(1, len(whole) // 6)] + whole[-1:]:
        rest = list(source.batches(epoch=epoch, packet=number, stream=STREAM))
        got = [(b.span.epoch, b.span.start + i, p) for b in rest for i, p in enumerate(b.packets)]
        assert got == [w for w in whole if (w[0], w[1]) >= (epoch, number)]
        assert {b.span.stop for b in rest} <= {b.span.stop for b in batches}
    assert list(source.batches(epoch=whole[-1][0], packet=whole[-1][1] + 1, stream=STREAM)) == []
    source.close()


def jumping(folder: Path) -> Path:
    path = folder / "jump.mp4"
    if not path.exists():
        made.encode(
            path,
            frames=60,
            audio=True,
            options=made.B_FRAMES,
            shift=lambda number, p: int((100 if p.pts * p.time_base >= 1.2 else 0) / p.time_base),
        )
    return path


def test_jump_becomes_an_epoch_and_loses_no_frame(folder: Path) -> None:
    source, batches = read(jumping(folder))
    assert frames(batches) == [(0, i * 512, "96×64") for i in range(30)] + [
        (1, i * 512 + 1_280_000, "96×64") for i in range(30, 60)
    ]
    assert source.problems["jump"] == 1 and source.problems["audio_off_clock"] == 0
    sound = [(b.span.epoch, p.pts) for b in batches for p in b.packets if p.track is Track.AUDIO and p.pts is not None]
    assert {epoch for epoch, pts in sound if pts < 40 * 48000} == {0}
    assert {epoch for epoch, pts in sound if pts > 40 * 48000} == {1}


@pytest.mark.parametrize("at", [25, 33, 47])
def test_jump_inside_a_group_of_pictures_loses_no_frame(tmp_path: Path, at: int) -> None:
    """The encoder itself is given the jump: no key frame marks it, and frames around it are reordered."""
    pts = [i * 512 + (0 if i < at else 40 * 25 * 512) for i in range(60)]
    path = made.encode(tmp_path / "a.mkv", frames=60, options=made.B_FRAMES, gop=1000, pts=pts)
    reference = made.pyav_pass(path)
    source, batches = read(path)
    got = frames(batches)
    assert [p for _, p, _ in got] == [p for p, _ in reference]
    assert [e for e, _, _ in got] == [0] * at + [1] * (60 - at)
    assert source.problems["jump"] == 1


def test_change_of_size_becomes_an_epoch(tmp_path: Path) -> None:
    first = made.encode(tmp_path / "a.ts", frames=20, options=made.B_FRAMES)
    second = made.encode(tmp_path / "b.ts", frames=20, width=128, height=80, shift=lambda n, p: 20 * 3600)
    _, batches = read(made.joined(tmp_path / "c.ts", first, second))
    got = frames(batches)
    assert [(e, s) for e, _, s in got] == [(0, "96×64")] * 20 + [(1, "128×80")] * 20
    assert batches[-1].video.size is not None and str(batches[-1].video.size) == "128×80"


def test_wrap_of_33_bits_is_no_jump(tmp_path: Path) -> None:
    """From 70 s before the wrap on, a frame a second; FFmpeg repairs the first wrap, Timeline every other one."""
    path = made.encode(tmp_path / "a.ts", frames=90, rate=1, shift=lambda n, p: int((2**33 / 90000 - 70) / p.time_base))
    _, batches = read(path)
    pts = [p for _, p, _ in frames(batches)]
    assert len(pts) == 90
    assert pts[0] < 2**33 < pts[-1]
    assert set(np.diff(pts)) == {90000}
    assert {b.span.epoch for b in batches} == {0}


def test_best_video_track_is_the_largest_area_times_rate(tmp_path: Path) -> None:
    """64×48 at 25, 160×96 at 25, 192×112 at 5: the second one moves most pixels."""
    source, batches = read(made.several_tracks(tmp_path / "a.mkv"))
    assert str(source.info.size) == "160×96"
    assert [t.chosen for t in source.info.tracks] == [False, True, False]
    assert len(frames(batches)) == 25


def test_edit_list_hides_what_it_cuts(shared_data: Path, tmp_path: Path) -> None:
    """An MP4 whose edit list starts at 0.5 s, inside a group of pictures: the frames before are decoded, not shown."""
    plain = made.encode(tmp_path / "a.mp4", frames=40, gop=1000)
    path = made.with_edit(tmp_path / "b.mp4", plain, start_ticks=12 * 512)
    reference = made.pyav_pass(path)
    assert 20 <= len(reference) < 40
    _, batches = read(path)
    assert [p for _, p, _ in frames(batches)] == [p for p, _ in reference]


def test_endless_scene_streams_from_anywhere() -> None:
    source = open_source("synthetic://street?width=64&height=48&fps=10&seconds=inf&persons=1&vehicles=1&audio=0")
    assert source.info.duration_s is None
    with contextlib.closing(source.batches(packet=100_003, stream=STREAM)) as batches:
        first = next(batches)
    assert first.span.start == 100_003
    assert first.packets[0].pts == 100_003 * 512
    source.close()


def test_scene_at_a_bitrate_is_smaller() -> None:
    size = {}
    for rate in ("", "&bitrate=30k"):
        _, batches = read(f"synthetic://street?width=160&height=96&fps=5&seconds=2&audio=0{rate}")
        size[rate] = sum(b.nbytes for b in batches)
    assert size["&bitrate=30k"] < size[""] / 2


def test_scene_with_odd_sides_is_coded_as_it_is() -> None:
    source, batches = read("synthetic://street?width=65&height=49&fps=5&seconds=1&audio=0")
    assert str(source.info.size) == "65×49"
    assert {s for _, _, s in frames(batches)} == {"65×49"}


# --- what is refused ------------------------------------------------------------------------------------------------


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


HTML = b"<!DOCTYPE html><html><body>Sign in to go on</body></html>"
BAD: dict[str, tuple[Callable[[Path], Path | str], type[SourceError], str]] = {
    "missing": (lambda d: d / "none.mp4", Unreachable, "no such file"),
    "directory": (lambda d: d, Unreachable, "is a directory"),
    "pipe": (lambda d: os.mkfifo(d / "fifo") or d / "fifo", Unreachable, "no regular file"),  # type: ignore[func-returns-value]
    "empty": (lambda d: write(d / "a.mp4", b""), UnsupportedMedia, "is empty"),
    "html": (lambda d: write(d / "a.mp4", HTML), UnsupportedMedia, "web page"),
    "noise": (lambda d: write(d / "a.mp4", random.Random(1).randbytes(20_000)), UnsupportedMedia, "no video"),
    "text": (lambda d: write(d / "a.ts", b"just some words " * 500), UnsupportedMedia, "no video"),
    "one_byte": (lambda d: write(d / "a.mp4", b"\x00"), UnsupportedMedia, "no video"),
    "truncated": (
        lambda d: made.truncated(d / "b.mp4", made.encode(d / "a.mp4"), 0.7), CorruptMedia, "index (moov)",
    ),
    "audio_only": (lambda d: made.audio_only(d / "a.m4a"), UnsupportedMedia, "holds no video (audio)"),
    "too_large": (
        lambda d: made.encode(d / "a.avi", frames=1, width=8208, height=16, codec="mjpeg", pix_fmt="yuvj420p"),
        UnsupportedMedia,
        "limit of 8192×4320",
    ),
    "playlist": (
        lambda d: write(d / "a.m3u8", b"#EXTM3U\n#EXTINF:4,\nfile:///x\n"), UnsupportedMedia, "points elsewhere",
    ),
    "list": (lambda d: write(d / "a.txt", b"ffconcat version 1.0\nfile a.mp4\n"), UnsupportedMedia, "points elsewhere"),
    "concat": (lambda d: f"concat:{d}/a.mp4|{d}/b.mp4", Unreachable, "'concat:' is not allowed"),
    "subfile": (lambda d: f"subfile,,start,0,end,9,,:{d}/a.mp4", Unreachable, "no such file"),
    "subfile_scheme": (lambda d: f"subfile:{d}/a.mp4", Unreachable, "'subfile:' is not allowed"),
    "srt": (lambda d: "srt://127.0.0.1:9000", UnsupportedMedia, "srt: is not supported directly"),
    "nul": (lambda d: "a\0b.mp4", Unreachable, "is no path"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(BAD))
def test_what_is_no_video_is_refused_with_its_reason(name: str, tmp_path: Path) -> None:
    make, kind, reason = BAD[name]
    uri = str(make(tmp_path))
    with pytest.raises(kind) as caught:
        open_source(uri)
    assert reason in caught.value.what
    assert caught.value.where
    assert kind is not Unreachable or caught.value.hint or name == "nul"


def test_playlist_named_like_a_video_opens_nothing_else(tmp_path: Path) -> None:
    """Not even a playlist that points at a good local file."""
    made.encode(tmp_path / "good.ts")
    write(tmp_path / "a.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\ngood.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(UnsupportedMedia, match="points elsewhere"):
        open_source(str(tmp_path / "a.mp4"))


def test_file_whose_name_looks_like_a_scheme_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.encode(tmp_path / "concat:x.mp4")
    monkeypatch.chdir(tmp_path)
    source, _ = read("concat:x.mp4")
    assert source.info.video.name == "h264"


def test_file_url_is_opened(sounding: Path, tmp_path: Path) -> None:
    assert open_source(f"file://{sounding}").info.video.name == "h264"
    odd = tmp_path / "a b%03d:?é.mp4"
    odd.write_bytes(sounding.read_bytes())
    assert open_source(str(odd)).info.video.name == "h264"
    assert open_source(odd.as_uri()).info.video.name == "h264"


def test_scene_with_a_misspelt_key_is_wrong_use() -> None:
    with pytest.raises(ConfigError, match="widht"):
        open_source("synthetic://street?widht=64")
    with pytest.raises(ConfigError, match="bitrate=fast"):
        open_source("synthetic://street?bitrate=fast")


def test_largest_picture_is_processed(tmp_path: Path) -> None:
    """Both sides at their limit would take a second to make; one at its limit is the same check."""
    path = made.encode(tmp_path / "a.avi", frames=1, width=8192, height=16, codec="mjpeg", pix_fmt="yuvj420p")
    _, batches = read(path)
    assert [s for _, _, s in frames(batches)] == ["8192×16"]


def test_picture_that_grows_beyond_the_limit_in_mid_stream_is_refused(tmp_path: Path) -> None:
    first = made.encode(tmp_path / "a.mjpeg", frames=3, codec="mjpeg", pix_fmt="yuvj420p", container="mjpeg")
    second = made.encode(
        tmp_path / "b.mjpeg", frames=1, width=8208, height=16, codec="mjpeg", pix_fmt="yuvj420p", container="mjpeg"
    )
    path = made.joined(tmp_path / "c.mjpeg", first, second)
    source = open_source(str(path))
    with pytest.raises(UnsupportedMedia, match="limit of 8192×4320"):
        list(source.batches(stream=STREAM))
    source.close()


def test_closing_ends_a_pass_and_may_be_repeated(sounding: Path) -> None:
    source = open_source(str(sounding))
    batches = source.batches(stream=STREAM)
    next(batches)
    source.close()
    assert len(list(batches)) <= 1  # what had been read already
    source.close()


@pytest.mark.parametrize("suffix", ["ts", "mp4", "mkv", "flv", "avi"])
def test_damage_gives_frames_or_our_errors_and_nothing_else(suffix: str, tmp_path: Path) -> None:
    """40 damaged copies a container: bytes flipped in 0.1 to 5 %, or cut short."""
    codec = "mpeg4" if suffix == "avi" else "libx264"
    good = made.encode(tmp_path / f"good.{suffix}", frames=20, codec=codec, audio=True)
    rng, outcomes = np.random.default_rng(7), []
    for number in range(40):
        path = tmp_path / f"bad.{suffix}"
        if number % 4 == 3:
            made.truncated(path, good, float(rng.uniform(0.05, 0.95)))
        else:
            made.flipped(path, good, share=float(10 ** rng.uniform(-3, -1.3)), seed=number)
        try:
            _, batches = read(path)
            outcomes.append(len(frames(batches)))
        except LimpidError:
            outcomes.append(-1)
    assert max(outcomes) > 0, "some copies must be readable"
    assert len(set(outcomes)) > 1
