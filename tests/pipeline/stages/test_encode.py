from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipeline.errors import ConfigError, Conflict
from pipeline.media import hls
from pipeline.stage import Work
from pipeline.stages.encode import Encode, EncodeConfig
from pipeline.store.objects import LocalStore
from pipeline.wire.acks import Stamp
from pipeline.wire.frames import FrameBatch, Size
from tests.pipeline.media import made


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def encode(folder: Path, batch: FrameBatch, **config: Any) -> dict[str, bytes]:
    """The files of an undisturbed run."""
    stage = made.opened(Encode(EncodeConfig(**config)), folder, batch.span.epoch)
    made.feed(stage, batch)
    stage.finish()
    stage.close()
    hls.close_playlists(LocalStore(folder))
    return files(folder)


def lines(folder: Path) -> list[tuple[int, int, Fraction]]:
    playlist = hls.read(LocalStore(folder), hls.MAIN)
    assert playlist is not None
    return [(s.first, s.stop, s.duration_s) for s in playlist.segments]


def read_back(folder: Path) -> tuple[list[int], Fraction]:
    with av.open(str(folder / "hls" / "index.m3u8")) as source:
        stream = source.streams.video[0]
        assert stream.time_base is not None
        return [f.pts for f in source.decode(stream)], stream.time_base


def test_a_segment_holds_the_frames_of_its_time(tmp_path: Path) -> None:
    """Frames every 300 ms from 500 on, 1 s segments: times since the first 0 300 600 900 | 1200 … 1800 | 2100."""
    encode(tmp_path, made.frames(range(500, 2900, 300)), segment_s=1.0)
    assert lines(tmp_path) == [(0, 4, Fraction(12, 10)), (4, 7, Fraction(9, 10)), (7, 8, Fraction(3, 10))]


def test_a_border_belongs_to_the_later_segment_exactly(tmp_path: Path) -> None:
    """30000/1001 Hz: 0.2 s are 5.99 frames; 1.001 s are 30 frames, without rounding."""
    encode(tmp_path, made.frames(range(0, 62 * 1001, 1001), time_base=Fraction(1, 30000)), segment_s=1.001)
    assert [(a, b) for a, b, _ in lines(tmp_path)] == [(0, 30), (30, 60), (60, 62)]
    assert lines(tmp_path)[0][2] == Fraction(1001, 1000)


def test_a_pause_leaves_segments_out(tmp_path: Path) -> None:
    encode(tmp_path, made.frames([0, 40, 7000, 7040]), segment_s=1.0)
    assert lines(tmp_path) == [(0, 2, Fraction(7)), (2, 4, Fraction(8, 100))]
    assert read_back(tmp_path)[0] == [0, 40, 7000, 7040]


@pytest.mark.parametrize(
    ("pts", "duration", "last_s"),
    [
        ([0, 40, 90], 0, Fraction(50, 1000)),  # as long as the one before it
        ([0, 40, 90], 33, Fraction(33, 1000)),  # as the source says
        ([0, 40, 1010], 0, Fraction(970, 1000)),  # alone in its segment: the one before it is in another
        ([7], 0, Fraction(40, 1000)),  # nothing is known: 1/25 s
    ],
)
def test_the_last_frame_of_an_epoch_has_a_duration(
    tmp_path: Path, pts: list[int], duration: int, last_s: Fraction
) -> None:
    encode(tmp_path, made.frames(pts, duration=duration), segment_s=1.0)
    total = sum((d for *_, d in lines(tmp_path)), Fraction(0))
    assert total == Fraction(pts[-1] - pts[0], 1000) + last_s


@pytest.mark.parametrize(
    ("pts", "time_base"),
    [
        ([0, 40, 81, 119, 1007, 1040, 2500], Fraction(1, 1000)),
        ([-3003, -2002, -1001, 0, 30030, 31031], Fraction(1, 30000)),
        ([9 * 10**9, 9 * 10**9 + 1501, 9 * 10**9 + 90000], Fraction(1, 90000)),
        ([0, 3, 4, 61], Fraction(1001, 60000)),
    ],
)
def test_pts_are_kept_to_the_tick(tmp_path: Path, pts: list[int], time_base: Fraction) -> None:
    encode(tmp_path, made.frames(pts, time_base=time_base), segment_s=1.0)
    found, ticks = read_back(tmp_path)
    assert [p * ticks for p in found] == [p * time_base for p in pts]


def test_odd_sizes_come_out_rounded_up_to_even(tmp_path: Path) -> None:
    encode(tmp_path, made.frames([0, 40], size=Size(width_px=63, height_px=47)))
    with av.open(str(tmp_path / "hls" / "index.m3u8")) as source:
        frame = next(source.decode(video=0))
    assert (frame.width, frame.height) == (64, 48)
    assert b"RESOLUTION=64x48" in (tmp_path / "hls" / "index.m3u8").read_bytes()


def test_batches_of_any_size_give_the_same_files(tmp_path: Path) -> None:
    batch = made.frames(range(0, 800, 40))
    whole = encode(tmp_path / "whole", batch, segment_s=0.3)
    stage = made.opened(Encode(EncodeConfig(segment_s=0.3)), tmp_path / "cut")
    made.feed(stage, batch, cuts=range(1, 20))
    stage.finish()
    hls.close_playlists(LocalStore(tmp_path / "cut"))
    assert files(tmp_path / "cut") == whole


@pytest.mark.parametrize("at", range(21))
@pytest.mark.parametrize("later", [0, 9])
def test_a_restored_object_makes_the_same_files(tmp_path: Path, at: int, later: int) -> None:
    """20 frames, segments of 8: snapshot behind any frame, killed there or 9 frames later."""
    batch = made.frames(range(0, 800, 40))
    whole = encode(tmp_path / "whole", batch, segment_s=0.32)
    config, folder = EncodeConfig(segment_s=0.32), tmp_path / "killed"
    first = made.opened(Encode(config), folder)
    each = range(1, 20)
    made.feed(first, batch, cuts=each[:at], stop=at)
    snapshot = first.snapshot()
    made.feed(first, batch, cuts=each, start=at, stop=min(20, at + later))
    first.close()
    assert snapshot.resume_from == snapshot.after == (at // 8 * 8 if at % 8 else max(0, at - 8) if at else 0)
    second = made.opened(Encode(config), folder)
    second.restore(snapshot)
    made.feed(second, batch, start=snapshot.resume_from)
    second.finish()
    hls.close_playlists(LocalStore(folder))
    assert files(folder) == whole


def test_frames_are_durable_once_their_segment_is_complete(tmp_path: Path) -> None:
    """Segments of 8 frames: the first is complete when frame 8 comes; at the end all are."""
    batch = made.frames(range(0, 800, 40))
    stage = made.opened(Encode(EncodeConfig(segment_s=0.32)), tmp_path)
    assert (stage.snapshot().after, stage.snapshot().resume_from) == (0, 0)
    made.feed(stage, batch, stop=8)
    assert stage.snapshot().after == 0
    made.feed(stage, batch, start=8, stop=9)
    assert stage.snapshot().after == stage.snapshot().resume_from == 8
    assert lines(tmp_path) == [(0, 8, Fraction(32, 100))]
    made.feed(stage, batch, start=9)
    stage.finish()
    assert stage.snapshot().after == 20


def test_what_is_written_plays_before_the_stream_has_ended(tmp_path: Path) -> None:
    stage = made.opened(Encode(EncodeConfig(segment_s=0.32)), tmp_path)
    made.feed(stage, made.frames(range(0, 400, 40)))
    hls.close_playlists(LocalStore(tmp_path))  # a stop: what is complete is closed
    assert read_back(tmp_path)[0] == list(range(0, 320, 40))


def test_going_on_after_a_stop_gives_what_an_undisturbed_run_gives(tmp_path: Path) -> None:
    batch = made.frames(range(0, 800, 40))
    whole = encode(tmp_path / "whole", batch, segment_s=0.32)
    folder = tmp_path / "stopped"
    first = made.opened(Encode(EncodeConfig(segment_s=0.32)), folder)
    made.feed(first, batch, stop=13)
    snapshot = first.snapshot()
    first.close()
    hls.close_playlists(LocalStore(folder))
    second = made.opened(Encode(EncodeConfig(segment_s=0.32)), folder)
    assert b"ENDLIST" not in (folder / "hls" / "main" / "index.m3u8").read_bytes()
    second.restore(snapshot)
    made.feed(second, batch, start=snapshot.resume_from)
    second.finish()
    hls.close_playlists(LocalStore(folder))
    assert files(folder) == whole


def test_an_epoch_of_another_size_follows_behind_a_discontinuity(tmp_path: Path) -> None:
    encode(tmp_path, made.frames(range(0, 200, 40)))
    encode(tmp_path, made.frames(range(90_000, 90_200, 40), epoch=1, size=Size(width_px=32, height_px=32)))
    playlist = (tmp_path / "hls" / "main" / "index.m3u8").read_text()
    assert playlist.count("#EXT-X-DISCONTINUITY\n") == 1
    assert '#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI="init-1.mp4"\n' in playlist
    assert "RESOLUTION=64x48" in (tmp_path / "hls" / "index.m3u8").read_text()
    main = tmp_path / "hls" / "main"
    found = made.demuxed((main / "init-1.mp4").read_bytes(), (main / "000001-0000000000-0000000005.m4s").read_bytes())
    assert [p.pts for p in found] == list(range(90_000, 90_200, 40))


def test_the_date_is_that_of_the_first_frame_of_each_segment(tmp_path: Path) -> None:
    """Frames are captured 1 ms apart from …:20.123 on; segments begin at frames 0 and 8."""
    encode(tmp_path, made.frames(range(0, 400, 40)), segment_s=0.32)
    playlist = (tmp_path / "hls" / "main" / "index.m3u8").read_text()
    dates = [line for line in playlist.splitlines() if "DATE-TIME" in line]
    assert dates == [f"#EXT-X-PROGRAM-DATE-TIME:2023-11-14T22:13:20.{ms}Z" for ms in (123, 131)]


def test_unknown_capture_times_leave_the_date_out(tmp_path: Path) -> None:
    batch = made.frames(range(0, 400, 40))
    batch.captured_ns[:] = 0
    encode(tmp_path, batch)
    assert b"DATE-TIME" not in (tmp_path / "hls" / "main" / "index.m3u8").read_bytes()


def test_read_only_frames_are_taken(tmp_path: Path) -> None:
    batch = made.frames(range(0, 400, 40))
    batch.data.flags.writeable = False  # as Ray's object store gives them
    encode(tmp_path, batch)
    assert len(read_back(tmp_path)[0]) == 10


def test_other_settings_do_not_go_on_in_an_epoch(tmp_path: Path) -> None:
    encode(tmp_path, made.frames(range(0, 400, 40)), preset="superfast")
    with pytest.raises(Conflict, match="other settings"):
        encode(tmp_path, made.frames(range(0, 400, 40)), preset="ultrafast")


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"segment_s": 0}, "segment_s"),
        ({"segment_s": 31}, "segment_s"),
        ({"segment_s": float("nan")}, "segment_s"),
        ({"crf": 52}, "crf"),
        ({"preset": "placebo"}, "preset"),
        ({"max_kbps": -1}, "max_kbps"),
        ({"threads": 0}, "threads"),
        ({"threads": 2}, "max_kbps to 0"),
    ],
)
def test_wrong_settings_are_named(config: dict[str, Any], names: str) -> None:
    with pytest.raises(ConfigError) as caught:
        EncodeConfig(**config)
    assert names in str(caught.value)


def test_several_threads_are_taken_without_a_cap() -> None:
    assert EncodeConfig(threads=2, max_kbps=0).threads == 2


def test_pictures_come_out_as_they_went_in(tmp_path: Path) -> None:
    batch = made.frames(range(0, 400, 40))
    encode(tmp_path, batch, crf=10)
    with av.open(str(tmp_path / "hls" / "index.m3u8")) as source:
        found = np.stack([f.to_ndarray().reshape(-1) for f in source.decode(video=0)])
    assert np.sqrt(np.mean((found.astype(float) - batch.data) ** 2)) < 3


def test_a_segment_is_encoded_as_the_stamp_of_its_first_frame_says(tmp_path: Path) -> None:
    """Lighter from frame 4 on, in the middle of a segment: the next one is the first."""
    batch = made.frames(range(0, 1000, 100))
    lighter = Stamp(lighter=("encode",))
    found = {}
    for name, from_ in (("never", 10), ("from 4", 4), ("always", 0)):
        stage = made.opened(Encode(EncodeConfig(segment_s=0.5)), tmp_path / name, 0)
        for i in range(10):
            part = batch.cut(i, i + 1)
            stage.process(Work(item=part, span=part.span, stamp=lighter if i >= from_ else Stamp()))
        stage.finish()
        segments = {n: d for n, d in files(tmp_path / name).items() if n.endswith((".m4s", ".mp4"))}
        found[name] = [data for _, data in sorted(segments.items())]
    first, second, init = found["from 4"]
    assert [first, init] == [found["never"][0], found["never"][2]] and init == found["always"][2]
    assert second == found["always"][1] != found["never"][1]
