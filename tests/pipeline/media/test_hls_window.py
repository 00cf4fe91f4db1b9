from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.media import hls, mux
from pipeline.media.entries import avc_entry
from pipeline.stages.audio import Audio, AudioConfig
from pipeline.stages.encode import Encode, EncodeConfig
from pipeline.store.objects import LocalStore
from pipeline.wire.frames import ColorSpec, Size
from tests.pipeline.media import made

TARGET_S = 2
KEEP_S = Fraction(10)
INIT = mux.init_segment(
    avc_entry(b"\0\0\1\x67\x42\xc0\x1fS\0\0\1\x68P", size=Size(width_px=64, height_px=48), color=ColorSpec()),
    ticks_a_second=1000,
)


def segment(number: int, *, epoch: int = 0, s: int = 2) -> hls.Segment:
    return hls.Segment(epoch=epoch, first=number * 50, stop=number * 50 + 50, duration_s=Fraction(s), kbps=100)


def window(store: LocalStore, folder: str = hls.MAIN) -> hls.Playlist:
    found = hls.read(store, folder)
    assert found is not None
    return found


def write(store: LocalStore, what: hls.Segment, now_ms: int) -> None:
    store.put_new(f"{hls.MAIN}/init-{what.epoch}.mp4", INIT)
    store.put_new(f"{hls.MAIN}/{what.name}", b"x")
    hls.move_on(store, hls.MAIN, what, target_s=TARGET_S, keep_s=KEEP_S, now_ms=now_ms)


def media(store: LocalStore) -> list[str]:
    return [name.rpartition("/")[2] for name in store.list("hls/main/") if name.endswith((".m4s", ".mp4"))]


def test_a_window_is_written_as_rfc_8216_has_it(tmp_path: Path) -> None:
    """7 segments of 2 s, 10 s are kept: 2 to 6 stay, 0 and 1 left; the first tag of a window is no EVENT.

    0 left a playlist of 10 s at 5 s: until 5 + 10 + 2 s; 1 the next one at 6 s.
    """
    store = LocalStore(tmp_path)
    for number in range(7):
        write(store, segment(number), number * 1000)
    assert store.get("hls/main/index.m3u8").decode() == (
        "#EXTM3U\n"
        "#EXT-X-VERSION:7\n"
        "#EXT-X-TARGETDURATION:2\n"
        "#EXT-X-MEDIA-SEQUENCE:2\n"
        "#EXT-X-INDEPENDENT-SEGMENTS\n"
        "#LIMPID-LEFT:17000,000000-0000000000-0000000050.m4s\n"
        "#LIMPID-LEFT:18000,000000-0000000050-0000000100.m4s\n"
        '#EXT-X-MAP:URI="init-0.mp4"\n'
        + "".join(f"#EXT-X-BITRATE:100\n#EXTINF:2.0,\n{segment(n).name}\n" for n in range(2, 7))
    )


def test_a_window_is_read_as_it_was_written() -> None:
    whole = hls.Playlist(
        target_s=2,
        segments=(segment(7, epoch=3), segment(0, epoch=4)),
        window=True,
        sequence=70,
        left=(hls.Left(name=segment(6, epoch=3).name, until_ms=12345),),
    )
    assert hls.Playlist.parse(whole.text()) == whole


def test_no_window_is_shorter_than_three_target_durations(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for number in range(9):
        hls.move_on(store, hls.MAIN, segment(number), target_s=TARGET_S, keep_s=Fraction(1), now_ms=0)
    assert [s.first // 50 for s in window(store).segments] == [6, 7, 8]


def test_an_epoch_without_segments_takes_its_initialisation_segment_along(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    write(store, segment(0), 0)
    for number in range(20):
        write(store, segment(number, epoch=1), (number + 1) * 2000)
    assert "init-0.mp4" not in media(store) and "init-1.mp4" in media(store)
    assert "#EXT-X-DISCONTINUITY-SEQUENCE:1\n" in window(store).text()
    assert "#EXT-X-DISCONTINUITY\n" not in window(store).text()


def test_a_segment_in_front_of_the_window_is_not_made_again(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for number in range(20):
        write(store, segment(number), number * 2000)
    before, there = window(store), media(store)
    hls.write_segment(store, hls.MAIN, segment(3), data=b"x", init=INIT, target_s=TARGET_S, keep_s=KEEP_S)
    assert (window(store), media(store)) == (before, there)


def test_a_replaced_segment_is_deleted_in_its_time_and_one_that_is_made_again_is_not(tmp_path: Path) -> None:
    """Segments 0, 1, 2; then 1 comes back shorter, and 2 as it was."""
    store = LocalStore(tmp_path)
    for number in range(3):
        write(store, segment(number), 0)
    short = hls.Segment(epoch=0, first=50, stop=60, duration_s=Fraction(1), kbps=100)
    write(store, short, 1000)
    assert [s.name for s in window(store).segments] == [segment(0).name, short.name]
    for number in range(2, 5):
        write(store, segment(number), 10_000)
    assert window(store).sequence == 0
    assert segment(1).name not in media(store)  # until 1 + 6 + 2 s
    assert segment(2).name in media(store)


def test_an_ended_window_keeps_its_sequence(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for number in range(9):
        write(store, segment(number), number * 2000)
    live = store.get("hls/main/index.m3u8")
    hls.close_playlists(store)
    assert store.get("hls/main/index.m3u8") == live + b"#EXT-X-ENDLIST\n"
    hls.reopen(store, hls.MAIN)
    assert store.get("hls/main/index.m3u8") == live


class Killed(Exception):
    """The process dies here."""


class Mortal(LocalStore):
    """Dies at its n-th change."""

    def __init__(self, root: Path, changes: int) -> None:
        super().__init__(root)
        self._left = changes

    def _step(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Killed

    def put(self, name: str, data: bytes) -> None:
        self._step()
        super().put(name, data)

    def put_new(self, name: str, data: bytes) -> bool:
        self._step()
        return super().put_new(name, data)

    def delete(self, name: str) -> None:
        self._step()
        super().delete(name)


@given(
    epochs=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    durations=st.lists(st.integers(1, 3), min_size=60, max_size=60),
    kills=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 15)), max_size=6),
)
def test_restarts_anywhere_keep_sequence_numbers_and_segments_right(
    tmp_path_factory: pytest.TempPathFactory,
    epochs: list[int],
    durations: list[int],
    kills: list[tuple[int, int]],
) -> None:
    """A writer is killed at its n-th change, and goes on up to 15 segments earlier, time and again.

    Invariants: a segment has one media sequence number for ever, its place in the content; its discontinuity sequence
    is its epoch; neither the first sequence nor the end goes back; all that the last two windows of content named is
    there; what is stored is bounded by it.
    """
    content = [(e, n) for e, count in enumerate(epochs) for n in range(count)]
    line = [segment(n, epoch=e, s=durations[i]) for i, (e, n) in enumerate(content)]
    starts = [sum(durations[:i]) * 1000 for i in range(len(line) + 1)]
    root = tmp_path_factory.mktemp("window")
    place = {s.name: i for i, s in enumerate(line)}
    at, first_seen, newest = 0, 0, -1
    plan = [*kills, None]
    for kill in plan:
        store = LocalStore(root) if kill is None else Mortal(root, kill[0])
        try:
            while at < len(line):
                write(store, line[at], max(starts[at + 1], starts[newest + 1]))
                at += 1
                newest = max(newest, at - 1)
                found = window(LocalStore(root))
                assert [place[s.name] for s in found.segments] == list(
                    range(found.sequence, found.sequence + len(found.segments))
                )
                assert first_seen <= found.sequence and place[found.segments[-1].name] == newest
                first_seen = found.sequence
                assert found.duration_s >= min(KEEP_S, sum(s.duration_s for s in line[: newest + 1]))
                there = set(media(LocalStore(root)))
                assert {s.name for s in found.segments} <= there
                assert {f"init-{s.epoch}.mp4" for s in found.segments} <= there
                assert f"#EXT-X-DISCONTINUITY-SEQUENCE:{found.segments[0].epoch}\n" in found.text() or not (
                    found.segments[0].epoch
                )
                # Whoever read the list a window ago may still ask for what it named then.
                kept_ms = starts[newest + 1] - int(KEEP_S) * 1000
                assert {s.name for s in line[: newest + 1] if starts[place[s.name] + 1] > kept_ms - 10_000} <= there
                assert len(there) <= 2 * (13 + 3) + len(epochs) + 15
        except Killed:
            assert kill is not None
            at = max(0, at - kill[1])
    assert newest == len(line) - 1


def test_video_and_audio_move_on_alike(tmp_path: Path) -> None:
    """8 s of both in segments of 1 s, 3 s kept."""
    video = made.opened(Encode(EncodeConfig(segment_s=1.0, keep_s=3.0)), tmp_path)
    made.feed(video, made.frames(range(0, 8000, 40)))
    video.finish()
    audio = made.opened(Audio(AudioConfig(segment_s=1.0, keep_s=3.0)), tmp_path)
    facts, packets = made.sound("aac", start=0, seconds=8.0)
    made.feed(audio, made.packets(facts, packets))
    audio.finish()
    for folder in (hls.MAIN, hls.AUDIO):
        found = window(LocalStore(tmp_path), folder)
        assert found.window and found.sequence >= 5
        assert len(found.segments) <= 4
        assert found.duration_s >= 3
    store = LocalStore(tmp_path)
    hls.write_master(store)
    assert b"TYPE=AUDIO" in store.get(hls.MASTER)


@pytest.mark.parametrize("keep_s", [-1.0, float("nan"), float("inf")])
def test_a_wrong_window_is_named(keep_s: float) -> None:
    with pytest.raises(ConfigError, match="cannot be kept"):
        EncodeConfig(keep_s=keep_s)
    with pytest.raises(ConfigError, match="cannot be kept"):
        AudioConfig(keep_s=keep_s)
