from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

import pytest

from pipeline.errors import Conflict, StorageError
from pipeline.media import hls, mux
from pipeline.media.entries import Entry, audio_entry, avc_entry
from pipeline.store.objects import LocalStore
from pipeline.wire.frames import ColorSpec, Size
from pipeline.wire.packets import Codec


def segment(first: int, stop: int, *, epoch: int = 0, s: float | Fraction = 2, kbps: int = 100) -> hls.Segment:
    return hls.Segment(epoch=epoch, first=first, stop=stop, duration_s=Fraction(s), kbps=kbps)


def picture(width_px: int = 64) -> Entry:
    return avc_entry(
        b"\0\0\1\x67\x42\xc0\x1fS\0\0\1\x68P", size=Size(width_px=width_px, height_px=48), color=ColorSpec()
    )


def tone() -> Entry:
    codec = Codec(name="aac", extradata=b"\x12\x10", time_base=Fraction(1, 44100), sample_rate_hz=44100, channels=2)
    return audio_entry(codec, b"")


def write(store: LocalStore, folder: str, what: hls.Segment, entry: Entry | None = None) -> None:
    init = mux.init_segment(entry or picture(), ticks_a_second=1000)
    hls.write_segment(store, folder, what, data=what.name.encode(), init=init, target_s=2)


def names(store: LocalStore, folder: str = hls.MAIN) -> list[str]:
    playlist = hls.read(store, folder)
    assert playlist is not None
    return [s.name for s in playlist.segments]


def test_a_playlist_is_written_as_rfc_8216_has_it(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    write(store, hls.MAIN, dataclasses.replace(segment(0, 60, s=Fraction(60 * 1001, 30000)), date_ms=1_700_000_000_123))
    write(store, hls.MAIN, segment(60, 75, s=Fraction(1, 3), kbps=7))
    write(store, hls.MAIN, segment(0, 5, epoch=1, s=10))
    hls.close_playlists(store)
    assert store.get("hls/main/index.m3u8").decode() == (
        "#EXTM3U\n"
        "#EXT-X-VERSION:7\n"
        "#EXT-X-TARGETDURATION:10\n"
        "#EXT-X-MEDIA-SEQUENCE:0\n"
        "#EXT-X-PLAYLIST-TYPE:EVENT\n"
        "#EXT-X-INDEPENDENT-SEGMENTS\n"
        '#EXT-X-MAP:URI="init-0.mp4"\n'
        "#EXT-X-PROGRAM-DATE-TIME:2023-11-14T22:13:20.123Z\n"
        "#EXT-X-BITRATE:100\n"
        "#EXTINF:2.002,\n"
        "000000-0000000000-0000000060.m4s\n"
        "#EXT-X-BITRATE:7\n"
        "#EXTINF:0.333333333,\n"
        "000000-0000000060-0000000075.m4s\n"
        "#EXT-X-DISCONTINUITY\n"
        '#EXT-X-MAP:URI="init-1.mp4"\n'
        "#EXT-X-BITRATE:100\n"
        "#EXTINF:10.0,\n"
        "000001-0000000000-0000000005.m4s\n"
        "#EXT-X-ENDLIST\n"
    )


def test_a_playlist_is_read_as_it_was_written() -> None:
    whole = hls.Playlist(
        target_s=3,
        segments=(
            dataclasses.replace(segment(0, 9, epoch=2), date_ms=1_600_000_000_001),
            segment(9, 20, epoch=2, s=Fraction("0.123456789")),
            segment(0, 3, epoch=5, s=Fraction("3.5")),
        ),
        ended=True,
    )
    assert hls.Playlist.parse(whole.text()) == whole


@pytest.mark.parametrize("text", ["", "#EXTM3U\n#EXT-X-TARGETDURATION:2\nother.ts\n", "#EXT-X-TARGETDURATION:x\n"])
def test_a_damaged_playlist_is_our_error(text: str) -> None:
    with pytest.raises(StorageError, match="playlist"):
        hls.Playlist.parse(text)


def test_the_discontinuity_sequence_of_a_segment_is_its_epoch() -> None:
    """Epochs 1 and 4 alone: the first begins at 1, and three discontinuities lead to 4 (RFC 8216 §4.3.3.3)."""
    text = hls.Playlist(target_s=2, segments=(segment(0, 5, epoch=1), segment(0, 5, epoch=4))).text()
    assert "#EXT-X-DISCONTINUITY-SEQUENCE:1\n" in text
    assert text.count("#EXT-X-DISCONTINUITY\n") == 3


@pytest.mark.parametrize(("segment_s", "target_s"), [(0.2, 1), (1.0, 1), (2.0, 2), (2.5, 3), (30, 30)])
def test_the_target_is_whole_seconds_and_never_zero(segment_s: float, target_s: int) -> None:
    assert hls.target_duration(segment_s) == target_s


def test_writing_again_from_a_segment_on_drops_what_is_behind_it(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for first in (0, 50, 100, 150):
        write(store, hls.MAIN, segment(first, first + 50))
    write(store, hls.MAIN, segment(0, 7, epoch=1))
    before = store.get("hls/main/index.m3u8")
    write(store, hls.MAIN, segment(100, 150))
    assert names(store) == [segment(f, f + 50).name for f in (0, 50, 100)]
    write(store, hls.MAIN, segment(150, 200))
    write(store, hls.MAIN, segment(0, 7, epoch=1))
    assert store.get("hls/main/index.m3u8") == before
    write(store, hls.MAIN, segment(0, 50))
    assert names(store) == [segment(0, 50).name]


def test_a_segment_that_exists_wins(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    write(store, hls.MAIN, segment(0, 50))
    init = store.get("hls/main/init-0.mp4")
    hls.write_segment(store, hls.MAIN, segment(0, 50), data=b"other", init=init, target_s=2)
    assert store.get(f"hls/main/{segment(0, 50).name}") == segment(0, 50).name.encode()


def test_an_epoch_goes_on_only_with_the_settings_that_it_was_begun_with(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    write(store, hls.MAIN, segment(0, 50))
    with pytest.raises(Conflict, match="other settings"):
        write(store, hls.MAIN, segment(50, 100), picture(128))
    assert names(store) == [segment(0, 50).name]


def test_going_on_takes_the_end_back(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    hls.reopen(store, hls.MAIN)  # nothing there: nothing happens
    write(store, hls.MAIN, segment(0, 50))
    live = store.get("hls/main/index.m3u8")
    hls.close_playlists(store)
    assert store.get("hls/main/index.m3u8") == live + b"#EXT-X-ENDLIST\n"
    hls.close_playlists(store)
    assert store.get("hls/main/index.m3u8") == live + b"#EXT-X-ENDLIST\n"
    hls.reopen(store, hls.MAIN)
    assert store.get("hls/main/index.m3u8") == live


def test_appending_to_an_ended_playlist_takes_the_end_back(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    write(store, hls.MAIN, segment(0, 50))
    hls.close_playlists(store)
    write(store, hls.MAIN, segment(50, 60))
    assert b"ENDLIST" not in store.get("hls/main/index.m3u8")
    assert names(store) == [segment(0, 50).name, segment(50, 60).name]


def test_a_finished_playlist_has_a_target_that_covers_a_pause(tmp_path: Path) -> None:
    """7.5 s rounds to 8 (RFC 8216 §4.3.3.1 compares rounded values)."""
    store = LocalStore(tmp_path)
    write(store, hls.MAIN, segment(0, 50, s=7.5))
    assert b"TARGETDURATION:2\n" in store.get("hls/main/index.m3u8")
    hls.close_playlists(store)
    assert b"TARGETDURATION:8\n" in store.get("hls/main/index.m3u8")


def test_there_is_no_master_before_there_is_video(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    hls.close_playlists(store)
    write(store, hls.AUDIO, segment(0, 50), tone())
    hls.close_playlists(store)
    assert not store.exists(hls.MASTER)


def test_the_master_names_what_there_is(tmp_path: Path) -> None:
    """Peak: 200 + 90 kbit/s; mean: (2 s of 200 + 3 s of 100) / 5 s + 90 = 140 + 90."""
    store = LocalStore(tmp_path)
    write(store, hls.MAIN, segment(0, 50, kbps=200))
    write(store, hls.MAIN, segment(0, 50, epoch=1, s=3, kbps=100), picture(128))
    hls.write_master(store)
    alone = store.get(hls.MASTER).decode()
    assert "AUDIO" not in alone
    write(store, hls.AUDIO, segment(1, 99, kbps=90), tone())
    hls.write_master(store)
    assert store.get(hls.MASTER).decode() == (
        "#EXTM3U\n"
        "#EXT-X-VERSION:7\n"
        "#EXT-X-INDEPENDENT-SEGMENTS\n"
        '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="audio",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="2",'
        'URI="audio/index.m3u8"\n'
        '#EXT-X-STREAM-INF:BANDWIDTH=290000,AVERAGE-BANDWIDTH=230000,CODECS="avc1.42c01f,mp4a.40.2",'
        'RESOLUTION=128x48,AUDIO="audio"\n'
        "main/index.m3u8\n"
    )


def test_audio_that_some_players_lack_is_no_part_of_one_variant(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    codec = Codec(name="mp3", extradata=b"", time_base=Fraction(1, 44100), sample_rate_hz=44100, channels=2)
    write(store, hls.MAIN, segment(0, 50, kbps=200))
    write(store, hls.AUDIO, segment(1, 99, kbps=90), audio_entry(codec, b""))
    hls.write_master(store)
    variants = [line for line in store.get(hls.MASTER).decode().splitlines() if "STREAM-INF" in line]
    assert variants == [
        (
            '#EXT-X-STREAM-INF:BANDWIDTH=290000,AVERAGE-BANDWIDTH=290000,CODECS="avc1.42c01f,mp4a.6b",RESOLUTION=64x48,'
            'AUDIO="audio"'
        ),
        '#EXT-X-STREAM-INF:BANDWIDTH=200000,AVERAGE-BANDWIDTH=200000,CODECS="avc1.42c01f",RESOLUTION=64x48',
    ]


def test_two_writers_of_the_master_end_with_both_renditions(tmp_path: Path) -> None:
    """The audio appears while the video's writer is between reading and writing: it looks again."""

    class Raced(LocalStore):
        raced = False

        def put(self, name: str, data: bytes) -> None:
            if name == hls.MASTER and not self.raced:
                self.raced = True
                write(LocalStore(tmp_path), hls.AUDIO, segment(1, 99), tone())
                hls.write_master(LocalStore(tmp_path))
            super().put(name, data)

    write(LocalStore(tmp_path), hls.MAIN, segment(0, 50))
    hls.write_master(Raced(tmp_path))
    assert b"TYPE=AUDIO" in LocalStore(tmp_path).get(hls.MASTER)
