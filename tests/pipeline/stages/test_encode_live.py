from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import av
import pytest

from pipeline.errors import StorageError
from pipeline.media.boxes import boxes
from pipeline.stages.encode import Encode, EncodeConfig
from pipeline.stages.original import Original, OriginalConfig
from pipeline.store import livetap
from pipeline.store.livetap import Began, Fragments, LiveReader, LiveWriter, Skipped
from pipeline.wire.frames import FrameBatch, Size
from tests.pipeline.media import made

NTP_OF_1970 = 2_208_988_800


def batch(**more: Any) -> FrameBatch:
    """20 frames, 40 ms apart; with segments of 0.32 s: 8, 8 and 4."""
    return made.frames(range(0, 800, 40), **more)


def opened(folder: Path, **more: Any) -> Encode:
    stage: Encode = made.opened(Encode(EncodeConfig(segment_s=0.32, **more)), folder)
    return stage


def tap(folder: Path, view: str = "main") -> Path:
    return folder / "live" / view


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def heard(reader: LiveReader) -> tuple[list[bytes], list[bytes], int]:
    """All that a reader finds now: initialisation segments, fragments, segments skipped."""
    inits: list[bytes] = []
    fragments: list[bytes] = []
    skipped = 0
    while (found := reader.read()) is not None:
        match found:
            case Began(init=init):
                inits.append(init)
            case Fragments(data=data):
                fragments += data
            case Skipped(segments=segments):
                skipped += segments
    return inits, fragments, skipped


def test_each_frame_is_there_when_the_next_one_has_come(tmp_path: Path) -> None:
    stage = opened(tmp_path, live=True)
    reader = LiveReader(tap(tmp_path))
    assert heard(reader) == ([], [], 0)
    for i in range(20):
        made.feed(stage, batch(), start=i, stop=i + 1)
        inits, fragments, skipped = heard(reader)
        assert (len(inits), len(fragments), skipped) == (int(i == 0), int(i > 0), 0)
    stage.finish()
    assert len(heard(reader)[1]) == 1
    reader.close()


def test_fragments_decode_to_the_frames_and_times_of_the_segments(tmp_path: Path) -> None:
    stage = opened(tmp_path, live=True)
    reader = LiveReader(tap(tmp_path))
    init, fragments = b"", []
    for i in range(20):
        made.feed(stage, batch(), start=i, stop=i + 1)
        inits, found, _ = heard(reader)
        init, fragments = init or inits[0], fragments + found
    stage.finish()
    fragments += heard(reader)[1]
    live = list(made.demuxed(init, *fragments))
    main = tmp_path / "hls" / "main"
    segments = list(made.demuxed((main / "init-0.mp4").read_bytes(), *(p.read_bytes() for p in main.glob("*.m4s"))))
    assert [(p.pts, p.duration, p.is_keyframe) for p in live] == [(at, 40, at % 320 == 0) for at in range(0, 800, 40)]
    assert sorted((p.pts, bytes(p)) for p in segments) == [(p.pts, bytes(p)) for p in live]
    decoder = av.CodecContext.create("h264", "r")
    decoder.extradata = live[0].stream.codec_context.extradata
    assert sum(len(decoder.decode(p)) for p in live) + len(decoder.decode(None)) == 20


@pytest.mark.parametrize(("duration", "last"), [(0, 50), (33, 33)])
def test_a_fragment_lasts_until_the_next_begins(tmp_path: Path, duration: int, last: int) -> None:
    stage = opened(tmp_path, live=True)
    made.feed(stage, made.frames([0, 40, 90], duration=duration))
    stage.finish()
    inits, fragments, _ = heard(LiveReader(tap(tmp_path)))
    assert [p.duration for p in made.demuxed(inits[0], *fragments)] == [40, 50, last]


def test_a_fragment_says_when_its_frame_was_captured(tmp_path: Path) -> None:
    """Frame i is captured i ms behind …:20.123; the time is NTP's, 32.32 bits, beside the media time."""
    stage = opened(tmp_path, live=True)
    made.feed(stage, batch())
    stage.finish()
    _, fragments, _ = heard(LiveReader(tap(tmp_path)))
    assert len(fragments) == 4
    for i, fragment in enumerate(fragments, 16):
        (found,) = boxes(fragment, b"prft")
        assert (found[:4], int.from_bytes(found[4:8])) == (b"\1\0\0\x18", 1)
        unix_s = int.from_bytes(found[8:16]) / 2**32 - NTP_OF_1970
        assert unix_s == pytest.approx(1_700_000_000.123 + i / 1000, abs=1e-6)
        assert int.from_bytes(found[16:24]) == i * 40
    unknown = batch()
    unknown.captured_ns[:] = 0
    other = opened(tmp_path / "unknown", live=True)
    made.feed(other, unknown)
    _, fragments, _ = heard(LiveReader(tap(tmp_path / "unknown")))
    assert fragments and not any(boxes(fragment, b"prft") for fragment in fragments)


def test_the_tap_changes_no_segment(tmp_path: Path) -> None:
    for name, live in (("with", True), ("without", False)):
        stage = opened(tmp_path / name, live=live)
        made.feed(stage, batch())
        stage.finish()
    assert files(tmp_path / "with" / "hls") == files(tmp_path / "without" / "hls")
    assert not (tmp_path / "without" / "live").exists()


@pytest.mark.parametrize("at", range(21))
@pytest.mark.parametrize("later", [0, 9])
def test_a_reader_does_not_notice_that_the_encoder_was_killed(tmp_path: Path, at: int, later: int) -> None:
    """Snapshot behind any frame, killed there or 9 frames later, in the middle of a fragment."""
    whole = opened(tmp_path / "whole", live=True)
    reader = LiveReader(tap(tmp_path / "whole"))
    expected: list[bytes] = []
    for i in range(20):
        made.feed(whole, batch(), start=i, stop=i + 1)
        expected += heard(reader)[1]
    whole.finish()
    expected += heard(reader)[1]
    first = opened(tmp_path, live=True)
    reader = LiveReader(tap(tmp_path))
    found: list[bytes] = []

    def step(stage: Encode, i: int) -> None:
        made.feed(stage, batch(), start=i, stop=i + 1)
        inits, fragments, skipped = heard(reader)
        assert (len(inits) <= 1, skipped) == (True, 0)
        found.extend(fragments)

    for i in range(at):
        step(first, i)
    snapshot = first.snapshot()
    for i in range(at, min(20, at + later)):
        step(first, i)
    first.close()
    newest = max(tap(tmp_path).glob("*.frag"), default=None, key=lambda p: int(p.stem.split("-")[1]))
    if newest is not None:
        with newest.open("ab") as half:
            half.write(b"\0\0\1\0moof")
        assert heard(reader) == ([], [], 0)
    second = opened(tmp_path, live=True)
    second.restore(snapshot)
    for i in range(snapshot.resume_from, 20):
        step(second, i)
    second.finish()
    found += heard(reader)[1]
    assert found == expected and len(found) == 20
    assert {p.name for p in tap(tmp_path).iterdir()} == {"0-init.mp4", "0-0.frag", "0-1.frag", "0-2.frag"}


def test_who_comes_late_starts_at_the_newest_segment(tmp_path: Path) -> None:
    stage = opened(tmp_path, live=True)
    made.feed(stage, batch(), stop=12)
    inits, fragments, skipped = heard(LiveReader(tap(tmp_path)))
    assert [p.pts for p in made.demuxed(inits[0], *fragments)] == [320, 360, 400]
    assert skipped == 0


def test_who_falls_behind_is_told_and_goes_on_at_the_newest_segment(tmp_path: Path) -> None:
    """Read up to frame 2; when frame 18 comes the reader is in segment 0, the newest is 2, which begins at frame 16."""
    stage = opened(tmp_path, live=True)
    made.feed(stage, batch(), stop=3)
    reader = LiveReader(tap(tmp_path))
    (init,), _, _ = heard(reader)
    made.feed(stage, batch(), start=3, stop=19)
    inits, more, skipped = heard(reader)
    assert (inits, skipped) == ([], 2)
    assert [p.pts for p in made.demuxed(init, *more)] == [640, 680]


def test_who_is_one_segment_behind_misses_nothing(tmp_path: Path) -> None:
    stage = opened(tmp_path, live=True)
    made.feed(stage, batch(), stop=3)
    reader = LiveReader(tap(tmp_path))
    first = heard(reader)[1]
    made.feed(stage, batch(), start=3, stop=12)
    _, more, skipped = heard(reader)
    assert (len(first) + len(more), skipped) == (11, 0)


def test_an_epoch_of_another_size_begins_with_its_own_start(tmp_path: Path) -> None:
    stage = opened(tmp_path, live=True)
    made.feed(stage, batch(), stop=5)
    reader = LiveReader(tap(tmp_path))
    assert len(heard(reader)[1]) == 4
    stage.finish()
    second = made.opened(Encode(EncodeConfig(segment_s=0.32, live=True)), tmp_path, 1)
    made.feed(second, batch(epoch=1, size=Size(width_px=32, height_px=32)), stop=5)
    inits, fragments, _ = heard(reader)
    assert (len(inits), len(fragments)) == (1, 1 + 4)
    with av.open(str(tap(tmp_path) / "1-init.mp4")) as start:
        assert start.streams.video[0].width == 32


def test_files_that_nobody_writes_to_are_removed(tmp_path: Path) -> None:
    stage = opened(tmp_path, live=True)
    made.feed(stage, batch(), stop=9)
    old = 1_700_000_000
    os.utime(tap(tmp_path) / "0-0.frag", (old, old))
    made.feed(stage, batch(), start=9, stop=17)
    assert {p.name for p in tap(tmp_path).iterdir()} == {"0-init.mp4", "0-1.frag", "0-2.frag"}
    for name in ("0-1.frag", "0-2.frag"):
        os.utime(tap(tmp_path) / name, (old, old))
    second = made.opened(Encode(EncodeConfig(segment_s=0.32, live=True)), tmp_path, 1)
    made.feed(second, batch(epoch=1), stop=2)
    assert {p.name for p in tap(tmp_path).iterdir()} == {"1-init.mp4", "1-0.frag"}


def test_a_stream_that_is_begun_anew_is_followed(tmp_path: Path) -> None:
    writer = LiveWriter(tmp_path)
    mdat = b"\0\0\0\x0amdat"
    writer.begin(3, 7, b"old")
    writer.append(mdat + b"aa")
    reader = LiveReader(tmp_path)
    assert heard(reader) == ([b"old"], [mdat + b"aa"], 0)
    for path in tmp_path.iterdir():
        path.unlink()
    LiveWriter(tmp_path).begin(0, 0, b"new")
    assert heard(reader) == ([b"new"], [], 0)


def test_a_damaged_file_is_our_error(tmp_path: Path) -> None:
    LiveWriter(tmp_path).begin(0, 0, b"init")
    (tmp_path / "0-0.frag").write_bytes(b"\0\0\0\1junk")
    reader = LiveReader(tmp_path)
    assert isinstance(reader.read(), Began)
    with pytest.raises(StorageError, match="damaged"):
        reader.read()


def test_what_cannot_be_written_is_our_error(tmp_path: Path) -> None:
    (tmp_path / "live").write_bytes(b"a file")
    with pytest.raises(StorageError, match="live view"):
        made.feed(opened(tmp_path, live=True), batch())


def test_a_fragment_larger_than_a_read_arrives_whole(tmp_path: Path) -> None:
    writer = LiveWriter(tmp_path)
    writer.begin(0, 0, b"init")
    size = 5 << 20
    fragment = size.to_bytes(4) + b"mdat" + bytes(size - 8)
    writer.append(fragment)
    writer.append(fragment)
    assert [len(f) for f in heard(LiveReader(tmp_path))[1]] == [size, size]


def test_the_source_s_picture_is_a_rendition_of_its_own(tmp_path: Path) -> None:
    stage = made.opened(Original(OriginalConfig(segment_s=0.32, live=True)), tmp_path)
    made.feed(stage, batch())
    stage.finish()
    assert {p.name for p in (tmp_path / "hls").iterdir()} == {"input"}
    assert len(heard(LiveReader(tap(tmp_path, "input")))[1]) == 4
    assert livetap.KEEP_S == 10
