from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest

from pipeline.errors import ConfigError
from pipeline.media import hls
from pipeline.media.entries import adts_header_bytes
from pipeline.stages.audio import Audio, AudioConfig
from pipeline.stages.encode import Encode, EncodeConfig
from pipeline.store.objects import LocalStore
from pipeline.wire.packets import Codec, Packet, PacketBatch, Track
from tests.pipeline.media import made

RAW = Codec(name="aac", extradata=b"\x11\x90", time_base=Fraction(1, 1000), sample_rate_hz=48000, channels=2)


def tones(times: Sequence[int | None], *, dts: Sequence[int | None] | None = None, duration: int = 0) -> list[Packet]:
    """Packets at these times (pts and dts), whose bytes say which they are; nothing decodes them."""
    stamps = dts or times
    return [
        Packet(track=Track.AUDIO, pts=t, dts=d, duration=duration, key=True, data=b"a%d" % i)
        for i, (t, d) in enumerate(zip(times, stamps, strict=True))
    ]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def passed(folder: Path, batch: PacketBatch, *, segment_s: float = 2.0, cuts: Sequence[int] = ()) -> Audio:
    stage = made.opened(Audio(AudioConfig(segment_s=segment_s)), folder, batch.span.epoch)
    made.feed(stage, batch, cuts=cuts)
    stage.finish()
    hls.close_playlists(LocalStore(folder))
    assert isinstance(stage, Audio)
    return stage


def lines(folder: Path) -> list[tuple[int, int, Fraction]]:
    playlist = hls.read(LocalStore(folder), hls.AUDIO)
    assert playlist is not None
    return [(s.first, s.stop, s.duration_s) for s in playlist.segments]


def read_back(folder: Path, epoch: int = 0) -> list[av.Packet]:
    audio = folder / "hls" / "audio"
    segments = [p.read_bytes() for p in sorted(audio.glob(f"{epoch:06d}-*.m4s"))]
    return list(made.demuxed((audio / f"init-{epoch}.mp4").read_bytes(), *segments))


@pytest.mark.parametrize("name", ["aac", "libmp3lame", "libopus", "ac3"])
def test_packets_pass_through_unchanged(tmp_path: Path, name: str) -> None:
    codec, source = made.sound(name)
    stage = passed(tmp_path, made.packets(codec, source))
    assert stage.problems == ()
    found = read_back(tmp_path)
    assert [bytes(p) for p in found] == [p.data for p in source]
    assert [(p.pts, p.time_base) for p in found] == [(p.pts, codec.time_base) for p in source]
    assert len(lines(tmp_path)) == 3  # 5 s in segments of 2 s


@pytest.mark.parametrize("name", ["aac", "libmp3lame", "libopus", "ac3"])
def test_what_passed_through_decodes_as_the_source_does(tmp_path: Path, name: str) -> None:
    codec, source = made.sound(name, seconds=1.0)
    passed(tmp_path, made.packets(codec, source))
    found = read_back(tmp_path)
    frames = [f for p in found for f in p.decode()]
    assert frames[0].sample_rate == 48000
    assert sum(f.samples for f in frames) >= 47_000


def test_aac_from_mpeg_ts_loses_its_adts_headers_and_nothing_else(tmp_path: Path) -> None:
    codec, source = made.sound("aac", container="mpegts")
    assert not codec.extradata and adts_header_bytes(source[0].data) == 7
    stage = passed(tmp_path, made.packets(codec, source))
    found = read_back(tmp_path)
    assert [bytes(p) for p in found] == [p.data[7:] for p in source]
    assert [p.pts for p in found] == [p.pts for p in source]
    assert sum(f.samples for p in found for f in p.decode()) >= 5 * 47_000
    assert stage.problems == ()


def test_segments_are_cut_by_pts_and_named_by_packet(tmp_path: Path) -> None:
    """Every third audio packet has a video packet in front: audio packets are numbers 1 2 3 | 5 6 7 | 9."""
    passed(tmp_path, made.packets(RAW, tones([0, 500, 999, 1000, 1500, 2600, 2700])), segment_s=1.0)
    assert lines(tmp_path) == [
        (1, 4, Fraction(1000, 1000)),
        (5, 7, Fraction(1600, 1000)),
        (7, 10, Fraction(200, 1000)),
    ]


def test_times_before_zero_count_to_the_first_segment(tmp_path: Path) -> None:
    passed(tmp_path, made.packets(RAW, tones([-21, 0, 21, 1001])), segment_s=1.0)
    assert [(a, b) for a, b, _ in lines(tmp_path)] == [(1, 4), (5, 6)]
    assert [p.pts for p in read_back(tmp_path)] == [-21, 0, 21, 1001]


def test_packets_that_step_back_are_left_out_and_told(tmp_path: Path) -> None:
    source = tones([0, 20, 20, 10, 40, 60], dts=[0, 20, 30, 40, 15, 60])
    stage = passed(tmp_path, made.packets(RAW, source))
    assert [p.pts for p in read_back(tmp_path)] == [0, 20, 60]
    assert stage.problems == ("3 audio packets were damaged or out of order and are left out",)


def test_damaged_adts_packets_are_left_out_and_told(tmp_path: Path) -> None:
    codec, source = made.sound("aac", container="mpegts", seconds=1.0)
    source[5] = replace(source[5], data=b"\0" + source[5].data[1:])
    stage = passed(tmp_path, made.packets(codec, source))
    assert [p.pts for p in read_back(tmp_path)] == [p.pts for i, p in enumerate(source) if i != 5]
    assert stage.problems == ("1 audio packets were damaged or out of order and are left out",)


def test_missing_pts_are_taken_from_dts_or_go_on_as_before(tmp_path: Path) -> None:
    passed(tmp_path, made.packets(RAW, tones([0, None, None, 60], dts=[0, 20, None, 60])))
    assert [p.pts for p in read_back(tmp_path)] == [0, 20, 40, 60]


@pytest.mark.parametrize(("duration", "last_s"), [(0, Fraction(30, 1000)), (25, Fraction(25, 1000))])
def test_the_last_packet_has_a_duration(tmp_path: Path, duration: int, last_s: Fraction) -> None:
    passed(tmp_path, made.packets(RAW, tones([0, 20, 50], duration=duration)))
    assert lines(tmp_path)[0][2] == Fraction(50, 1000) + last_s


def test_a_lone_packet_lasts_a_fiftieth_of_a_second(tmp_path: Path) -> None:
    passed(tmp_path, made.packets(RAW, tones([5])))
    assert lines(tmp_path)[0][2] == Fraction(20, 1000)


def test_a_source_that_starts_inside_a_packet_has_audio_from_the_next_on(tmp_path: Path) -> None:
    codec, source = made.sound("aac", container="mpegts", seconds=1.0)
    source[0] = replace(source[0], data=source[0].data[40:])
    stage = passed(tmp_path, made.packets(codec, source))
    assert [p.pts for p in read_back(tmp_path)] == [p.pts for p in source[1:]]
    assert stage.problems == ("1 audio packets were damaged or out of order and are left out",)


def test_a_configuration_that_no_packet_says_is_given_up(tmp_path: Path) -> None:
    stage = passed(tmp_path, made.packets(replace(RAW, extradata=b""), tones(range(0, 2000, 20))))
    assert files(tmp_path) == {}
    assert "configuration" in stage.problems[0]


@pytest.mark.parametrize("codec", [None, replace(RAW, name="vorbis"), replace(RAW, name="pcm_s16le")])
def test_audio_that_cannot_be_carried_leaves_nothing_and_fails_nothing(tmp_path: Path, codec: Codec | None) -> None:
    stage = passed(tmp_path, made.packets(codec, tones([0, 20, 40])))
    assert files(tmp_path) == {}
    assert stage.snapshot().after == 4
    if codec is None:
        assert stage.problems == ()
    else:
        assert len(stage.problems) == 1 and codec.name in stage.problems[0]


def test_packets_are_durable_once_their_segment_is_complete(tmp_path: Path) -> None:
    """Packets v0 a1 a2 a3 v4 a5; the segment of a1 … a3 is complete when a5 comes."""
    batch = made.packets(RAW, tones([0, 20, 40, 1000]))
    stage = made.opened(Audio(AudioConfig(segment_s=1.0)), tmp_path)
    made.feed(stage, batch, stop=1)
    assert (stage.snapshot().after, stage.snapshot().resume_from) == (1, 1)
    made.feed(stage, batch, start=1, stop=5)
    assert (stage.snapshot().after, stage.snapshot().resume_from) == (1, 1)
    made.feed(stage, batch, start=5)
    assert (stage.snapshot().after, stage.snapshot().resume_from) == (5, 5)
    stage.finish()
    assert stage.snapshot().after == 6
    assert len(stage.snapshot().state) < 2000


@pytest.mark.parametrize("later", [0, 5])
def test_a_restored_object_makes_the_same_files(tmp_path: Path, later: int) -> None:
    """Killed behind each of 40 packets or 5 later, damaged and late ones among them."""
    codec, source = made.sound("aac", container="mpegts", seconds=0.6, start=-1800)
    source[7] = replace(source[7], data=b"damaged")
    source[11] = replace(source[11], pts=source[9].pts, dts=source[9].dts)
    batch = made.packets(codec, source)
    undisturbed = passed(tmp_path / "whole", batch, segment_s=0.2)
    whole = files(tmp_path / "whole")
    each = range(1, len(batch))
    for at in range(len(batch) + 1):
        folder = tmp_path / f"killed-{at}"
        first = made.opened(Audio(AudioConfig(segment_s=0.2)), folder)
        made.feed(first, batch, cuts=each, stop=at)
        snapshot = first.snapshot()
        json.loads(snapshot.state)
        made.feed(first, batch, cuts=each, start=at, stop=min(len(batch), at + later))
        first.close()
        second = made.opened(Audio(AudioConfig(segment_s=0.2)), folder)
        second.restore(snapshot)
        made.feed(second, batch, start=snapshot.resume_from)
        second.finish()
        hls.close_playlists(LocalStore(folder))
        assert files(folder) == whole, f"killed behind {at}"
        assert second.problems == undisturbed.problems


def test_ffmpeg_finds_both_renditions_in_the_master_and_they_are_in_step(tmp_path: Path) -> None:
    codec, source = made.sound("aac", seconds=2.0, start=-1024)
    passed(tmp_path, made.packets(codec, source))
    video = made.opened(Encode(EncodeConfig()), tmp_path)
    made.feed(video, made.frames(range(0, 2000, 40)))
    video.finish()
    hls.close_playlists(LocalStore(tmp_path))
    with av.open(str(tmp_path / "hls" / "index.m3u8")) as found:
        assert sorted(s.type for s in found.streams) == ["audio", "video"]
        first = {}
        for packet in found.demux():
            if packet.size:
                first.setdefault(packet.stream.type, packet.pts * packet.time_base)
    assert first == {"video": 0, "audio": Fraction(-1024, 48000)}


def test_a_second_epoch_follows_behind_a_discontinuity_in_every_rendition(tmp_path: Path) -> None:
    passed(tmp_path, made.packets(RAW, tones([0, 20])))
    passed(tmp_path, made.packets(RAW, tones([50_000, 50_020]), epoch=2))
    text = (tmp_path / "hls" / "audio" / "index.m3u8").read_text()
    assert text.count("#EXT-X-DISCONTINUITY\n") == 2
    assert [p.pts for p in read_back(tmp_path, epoch=2)] == [50_000, 50_020]


@pytest.mark.parametrize("segment_s", [0, -1, 31])
def test_wrong_settings_are_named(segment_s: float) -> None:
    with pytest.raises(ConfigError, match="segment"):
        AudioConfig(segment_s=segment_s)
