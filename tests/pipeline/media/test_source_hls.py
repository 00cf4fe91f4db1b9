"""HLS over a real server on loopback: recordings, live playlists that grow, wrap, lose and break, and hostile ones."""

from __future__ import annotations

import io
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import av
import pytest
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from pipeline.errors import CorruptMedia, LimpidError, Refused, Unreachable, UnsupportedMedia
from pipeline.media.fetch import Client
from pipeline.media.source_base import SourceOptions
from pipeline.media.source_hls import HlsStream, Place, is_playlist, open_hls
from tests.pipeline.media import hls_clips as clips
from tests.web_server import Page, Web, serving, trap

QUICK = SourceOptions(open_timeout_s=5, read_timeout_s=3)
SILENT = SourceOptions(open_timeout_s=5, read_timeout_s=1)  # two target durations, that is
TICKS = 3600  # of 90 kHz, a frame at 25 fps
BREAK = "#EXT-X-DISCONTINUITY"


@pytest.fixture
def web() -> Iterator[Web]:
    with serving(Web()) as server:
        yield server


def put_ts(web: Web, count: int) -> None:
    web.pages |= {f"/{i}.ts": Page(data) for i, data in enumerate(clips.ts(count))}


def times(stream: HlsStream) -> list[list[int]]:
    """Of each session: the times of its frames, as numbers of frames."""
    out = []
    more = True
    while more:
        with av.open(stream, format=stream.format) as container:
            ticks = container.streams.video[0].time_base * 25
            out.append([round(p.pts * ticks) for p in container.demux(video=0) if p.size])
        if stream.failure is not None:
            raise stream.failure
        more = stream.next_session()
    stream.close()
    return out


def read_all(stream: HlsStream) -> bytes:
    return b"".join(iter(lambda: stream.read(1 << 16), b""))


def encrypted(data: bytes, key: bytes, iv: bytes) -> bytes:
    padder = padding.PKCS7(128).padder()
    cipher = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return cipher.update(padder.update(data) + padder.finalize()) + cipher.finalize()


# ---- recordings ---------------------------------------------------------------------------------------------------


def test_recording_of_ts_is_read_once_from_its_start(web: Web) -> None:
    put_ts(web, 5)
    web.pages["/a.m3u8"] = Page(clips.playlist([f"{i}.ts" for i in range(5)]))
    stream = open_hls(web.url("/a.m3u8"), QUICK)
    assert (stream.format, stream.live) == ("mpegts", False)
    assert times(stream) == [list(range(50))]
    assert web.paths() == ["/a.m3u8", *(f"/{i}.ts" for i in range(5))]
    assert not stream.problems


def test_recording_of_mp4_gets_its_header_first(web: Web) -> None:
    init, segments = clips.mp4(4)
    web.pages |= {f"/{i}.m4s": Page(data) for i, data in enumerate(segments)}
    web.pages["/init.mp4"] = Page(init)
    web.pages["/a.m3u8"] = Page(clips.playlist([f"{i}.m4s" for i in range(4)], before=['#EXT-X-MAP:URI="init.mp4"']))
    stream = open_hls(web.url("/a.m3u8"), QUICK)
    assert stream.format == "mp4"
    assert read_all(stream) == init + b"".join(segments)
    assert web.paths().count("/init.mp4") == 1


@pytest.mark.parametrize("ranges", [True, False])
def test_byte_ranges_of_one_file(web: Web, ranges: bool) -> None:
    init, segments = clips.mp4(3)
    web.pages["/all.mp4"] = Page(init + b"".join(segments), ranges=ranges)
    names = [f"#EXT-X-BYTERANGE:{len(s)}\nall.mp4" for s in segments]
    names[0] = f"#EXT-X-BYTERANGE:{len(segments[0])}@{len(init)}\nall.mp4"
    head = f'#EXT-X-MAP:URI="all.mp4",BYTERANGE="{len(init)}@0"'
    web.pages["/a.m3u8"] = Page(clips.playlist(names, before=[head]))
    assert read_all(open_hls(web.url("/a.m3u8"), QUICK)) == init + b"".join(segments)


def test_byte_range_behind_the_end_is_damage(web: Web) -> None:
    web.pages["/all.ts"] = Page(clips.ts(1)[0])
    web.pages["/a.m3u8"] = Page(clips.playlist(["#EXT-X-BYTERANGE:1000000@0\nall.ts"]))
    with pytest.raises(CorruptMedia, match="shorter than its playlist says"):
        open_hls(web.url("/a.m3u8"), QUICK)


@pytest.mark.parametrize("iv", [None, bytes(range(16))])
def test_aes_128_is_decrypted(web: Web, iv: bytes | None) -> None:
    key, data = b"0123456789abcdef", clips.ts(3)
    for i, segment in enumerate(data):
        vector = iv if iv is not None else (i + 7).to_bytes(16)
        web.pages[f"/{i}.ts"] = Page(encrypted(segment, key, vector))
    web.pages["/k"] = Page(key)
    tag = '#EXT-X-KEY:METHOD=AES-128,URI="k"' + (f",IV=0x{iv.hex()}" if iv else "")
    web.pages["/a.m3u8"] = Page(clips.playlist([f"{i}.ts" for i in range(3)], first=7, before=[tag]))
    assert read_all(open_hls(web.url("/a.m3u8"), QUICK)) == b"".join(data)
    assert web.paths().count("/k") == 1


@pytest.mark.parametrize(
    ("key", "says"), [(Page(b"x" * 16), "decrypted"), (Page(b"x"), "16 bytes"), (Page(status=403), "403")]
)
def test_wrong_key_is_said(web: Web, key: Page, says: str) -> None:
    web.pages["/0.ts"] = Page(encrypted(clips.ts(1)[0], b"0123456789abcdef", bytes(16)))
    web.pages["/k"] = key
    web.pages["/a.m3u8"] = Page(clips.playlist(["0.ts"], before=['#EXT-X-KEY:METHOD=AES-128,URI="k"']))
    with pytest.raises(LimpidError, match=says):
        open_hls(web.url("/a.m3u8"), QUICK)


def test_protected_stream_is_said_with_a_hint(web: Web) -> None:
    web.pages["/a.m3u8"] = Page(clips.playlist(["0.ts"], before=['#EXT-X-KEY:METHOD=SAMPLE-AES,URI="skd://k"']))
    with pytest.raises(UnsupportedMedia, match="protected") as caught:
        open_hls(web.url("/a.m3u8"), QUICK)
    assert "DRM" in caught.value.hint


def test_discontinuity_begins_a_session(web: Web) -> None:
    put_ts(web, 4)
    web.pages["/a.m3u8"] = Page(clips.playlist(["0.ts", "1.ts", f"{BREAK}\n2.ts", "3.ts"]))
    assert times(open_hls(web.url("/a.m3u8"), QUICK)) == [list(range(20)), list(range(20, 40))]


def test_other_header_begins_a_session_and_the_same_one_does_not(web: Web) -> None:
    (small, segments), (large, others) = clips.mp4(2), clips.mp4(1, width=128)
    web.pages |= {"/i0": Page(small), "/i1": Page(small), "/i2": Page(large), "/2": Page(others[0])}
    web.pages |= {f"/{i}": Page(data) for i, data in enumerate(segments)}
    names = [f'#EXT-X-MAP:URI="i{i}"\n{i}' for i in range(3)]
    web.pages["/a.m3u8"] = Page(clips.playlist(names))
    stream = open_hls(web.url("/a.m3u8"), QUICK)
    assert read_all(stream) == small + b"".join(segments)
    assert stream.next_session()
    assert read_all(stream) == large + others[0]
    assert not stream.next_session()


def test_change_from_ts_to_mp4_begins_a_session(web: Web) -> None:
    init, segments = clips.mp4(1)
    web.pages |= {"/0.ts": Page(clips.ts(1)[0]), "/i": Page(init), "/1": Page(segments[0])}
    web.pages["/a.m3u8"] = Page(clips.playlist(["0.ts", '#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI="i"\n1']))
    stream = open_hls(web.url("/a.m3u8"), QUICK)
    assert times(stream) == [list(range(10)), list(range(10))]
    assert stream.format == "mp4"


# ---- master playlists ---------------------------------------------------------------------------------------------

MASTER = b"""#EXTM3U
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="a",URI="sound.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=100000,RESOLUTION=96x64
low/a.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=200000,RESOLUTION=192x128,AUDIO="a"
high/a.m3u8
"""


def test_best_variant_is_taken_and_sound_apart_is_told(web: Web) -> None:
    web.pages |= {"/m.m3u8": Page(MASTER), "/high/0.ts": Page(clips.ts(1)[0])}
    web.pages["/high/a.m3u8"] = Page(clips.playlist(["0.ts"]))
    stream = open_hls(web.url("/m.m3u8"), QUICK)
    assert read_all(stream) == clips.ts(1)[0]
    assert stream.problems == {"audio_apart": 1}


def test_next_variant_is_taken_where_the_best_is_gone(web: Web) -> None:
    web.pages |= {"/m.m3u8": Page(MASTER), "/low/0.ts": Page(clips.ts(1)[0])}
    web.pages["/low/a.m3u8"] = Page(clips.playlist(["0.ts"]))
    assert read_all(open_hls(web.url("/m.m3u8"), QUICK)) == clips.ts(1)[0]


def test_redirected_playlist_names_its_segments_from_where_it_lies(web: Web) -> None:
    web.pages |= {"/x/a.m3u8": Page(clips.playlist(["0.ts"])), "/x/0.ts": Page(clips.ts(1)[0])}
    web.pages["/a.m3u8"] = Page(status=302, headers={"Location": "/x/a.m3u8"})
    assert read_all(open_hls(web.url("/a.m3u8"), QUICK)) == clips.ts(1)[0]


# ---- live ---------------------------------------------------------------------------------------------------------


@dataclass
class Live:
    """A live playlist that shows one of its `windows` at each load, then the last one; each is (first, stop, ended)."""

    windows: list[tuple[int, int, bool]]
    names: Callable[[int], str] = lambda i: f"{i}.ts"
    asked_s: list[float] = field(default_factory=list)

    def page(self) -> Page:
        self.asked_s.append(time.monotonic())
        first, stop, ended = self.windows.pop(0) if len(self.windows) > 1 else self.windows[0]
        return Page(clips.playlist([self.names(i) for i in range(first, stop)], first=first, ended=ended))


def live(web: Web, *windows: tuple[int, int, bool], segments: int = 12) -> Live:
    put_ts(web, segments)
    playlist = Live(list(windows))
    web.pages["/a.m3u8"] = playlist.page
    return playlist


def test_live_begins_at_the_last_segment_but_two_and_reads_each_once(web: Web) -> None:
    playlist = live(web, (0, 5, False), (1, 6, False), (1, 6, False), (3, 8, True))
    stream = open_hls(web.url("/a.m3u8"), QUICK)
    assert stream.live
    assert times(stream) == [list(range(20, 80))]
    assert [p for p in web.paths() if p.endswith(".ts")] == [f"/{i}.ts" for i in range(2, 8)]
    assert not stream.problems
    # RFC 8216 §6.3.4: a target duration (1 s) after a load that brought something, half of it after one that did not.
    pauses_s = [b - a for a, b in itertools.pairwise(playlist.asked_s)]
    assert [p > least_s for p, least_s in zip(pauses_s, [0.95, 0.95, 0.45], strict=True)] == [True] * 3


def test_segments_that_went_unread_are_counted(web: Web) -> None:
    live(web, (0, 3, False), (6, 8, True))
    stream = open_hls(web.url("/a.m3u8"), QUICK)
    assert times(stream) == [[*range(30), *range(60, 80)]]
    assert stream.problems == {"segments_expired": 3}


def test_missing_segment_is_passed_over_and_counted(web: Web) -> None:
    live(web, (0, 3, True))
    web.pages["/1.ts"] = Page(status=404)
    stream = open_hls(web.url("/a.m3u8"), QUICK)
    assert times(stream) == [[*range(10), *range(20, 30)]]
    assert stream.problems == {"segments_missing": 1}


def test_gap_in_the_list_is_not_asked_for(web: Web) -> None:
    put_ts(web, 3)
    web.pages["/a.m3u8"] = Page(clips.playlist(["0.ts", "#EXT-X-GAP\n1.ts", "2.ts"]))
    assert times(open_hls(web.url("/a.m3u8"), QUICK)) == [[*range(10), *range(20, 30)]]
    assert "/1.ts" not in web.paths()


def short(data: bytes) -> Callable[[BinaryIO], None]:
    """An answer that breaks off in the middle."""

    def write(out: BinaryIO) -> None:
        out.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data[: len(data) // 2])

    return write


def test_segment_that_breaks_off_is_fetched_again(web: Web) -> None:
    live(web, (0, 3, True))
    good = clips.ts(3)[1]
    answers = iter([Page(raw=short(good)), Page(good)])
    web.pages["/1.ts"] = lambda: next(answers)
    stream = open_hls(web.url("/a.m3u8"), QUICK)
    assert times(stream) == [list(range(30))]
    assert not stream.problems


@pytest.mark.parametrize("page", [Page(b"<html>Sorry"), Page(status=500), Page(b"\x13\x37" * 400)])
def test_segment_that_stays_broken_is_given_up_live_and_counted(web: Web, page: Page) -> None:
    live(web, (0, 3, False), (0, 4, True))
    web.pages["/1.ts"] = page
    stream = open_hls(web.url("/a.m3u8"), QUICK)
    assert times(stream) == [[*range(10), *range(20, 40)]]
    assert stream.problems == {"segments_lost": 1}


def test_segment_of_a_recording_that_stays_broken_is_an_error(web: Web) -> None:
    live(web, (0, 3, True))
    web.pages["/1.ts"] = Page(status=500)
    with pytest.raises(Unreachable, match="500"):
        times(open_hls(web.url("/a.m3u8"), QUICK))


def test_garbage_instead_of_a_playlist_is_passed_over(web: Web) -> None:
    playlist = live(web, (0, 3, False), (1, 4, True))
    bad = {1: Page(b"#RKGZ3H\n"), 2: Page(status=502)}
    loads = itertools.count()
    web.pages["/a.m3u8"] = lambda: bad.get(next(loads)) or playlist.page()
    stream = open_hls(web.url("/a.m3u8"), QUICK)
    assert times(stream) == [list(range(40))]
    assert stream.problems == {"reload_failed": 2}


def test_publisher_that_begins_anew_begins_a_session(web: Web) -> None:
    live(web, (7, 10, False), (0, 2, False), (0, 2, False), (0, 2, True))
    stream = open_hls(web.url("/a.m3u8"), QUICK)
    assert times(stream) == [list(range(70, 100)), list(range(20))]
    assert stream.problems == {"sequence_reset": 1}


def test_old_copy_of_the_playlist_brings_nothing_twice(web: Web) -> None:
    live(web, (0, 3, False), (2, 5, False), (0, 3, False), (0, 3, False), (0, 3, False), (2, 6, True))
    stream = open_hls(web.url("/a.m3u8"), QUICK)
    assert times(stream) == [list(range(60))]
    assert not stream.problems


def test_server_that_is_away_for_a_moment_is_waited_for() -> None:
    first = Web()
    playlist = live(first, (0, 3, False), (1, 4, False), (2, 6, True))
    with serving(first):
        stream = open_hls(first.url("/a.m3u8"), SourceOptions(open_timeout_s=5, read_timeout_s=10))
        data = stream.read(1 << 20)
    got: list[bytes] = [data]
    reader = threading.Thread(target=lambda: got.append(read_all(stream)))
    reader.start()
    assert reader.is_alive()
    second = Web(pages=first.pages)
    with serving(second, port=first.port):
        reader.join(20)
    assert b"".join(got) == b"".join(clips.ts(12)[:6])
    assert stream.problems["segments_lost"] == 0 and playlist.windows[0][2]


def test_playlist_that_stands_still_is_given_up(web: Web) -> None:
    live(web, (0, 3, False))
    stream = open_hls(web.url("/a.m3u8"), SourceOptions(open_timeout_s=5, read_timeout_s=2))
    with pytest.raises(Unreachable, match="no new segment for 2 s"):
        times(stream)
    with pytest.raises(Unreachable):  # it stays so
        stream.read(1)


# ---- hostile ------------------------------------------------------------------------------------------------------


def hung(web: Web) -> Page:
    return Page(raw=lambda out: web.over.wait(20) and None)


def dripping(web: Web, head: bytes) -> Page:
    """One byte every now and then, for ever."""

    def write(out: BinaryIO) -> None:
        out.write(head)
        while not web.over.wait(0.2):
            out.write(b"x")

    return Page(raw=write)


def endless(head: bytes, block: bytes) -> Page:
    def write(out: BinaryIO) -> None:
        out.write(head)
        while True:
            out.write(block)

    return Page(raw=write)


OK = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize("what", ["playlist", "segment", "waiting", "dripping"])
def test_close_wakes_whoever_reads(web: Web, what: str) -> None:
    live(web, (0, 3, False))
    if what == "segment":
        web.pages["/1.ts"] = hung(web)
    if what == "dripping":
        web.pages["/1.ts"] = dripping(web, OK)
    options = SourceOptions(open_timeout_s=60, read_timeout_s=60)
    stream = open_hls(web.url("/a.m3u8"), options)
    if what == "playlist":
        web.pages["/a.m3u8"] = hung(web)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(read_all(stream)))
    reader.start()
    wanted = {"playlist": 5, "segment": 3, "waiting": 4, "dripping": 3}[what]
    deadline_s = time.monotonic() + 10
    while len(web.asked) < wanted and time.monotonic() < deadline_s:
        web.over.wait(0.01)
    assert reader.is_alive()
    stream.close()
    reader.join(2)
    assert not reader.is_alive() and got
    assert stream.read(1) == b""


def test_opening_ends_when_its_client_is_closed(web: Web) -> None:
    web.pages["/a.m3u8"] = hung(web)
    client = Client(SourceOptions())
    said: list[Exception] = []

    def opening() -> None:
        try:
            open_hls(web.url("/a.m3u8"), SourceOptions(open_timeout_s=60), client=client)
        except Unreachable as error:
            said.append(error)

    thread = threading.Thread(target=opening)
    thread.start()
    deadline_s = time.monotonic() + 10
    while not web.asked and time.monotonic() < deadline_s:
        web.over.wait(0.01)
    client.close()
    thread.join(2)
    assert not thread.is_alive() and "closed" in str(said[0])


@pytest.mark.parametrize(
    ("page", "kind", "says"),
    [
        (Page(b"#EXTM3U\n" + b"#x\n" * (3 << 20)), UnsupportedMedia, "longer than"),
        (endless(OK, b"#EXTM3U\n" * 8192), UnsupportedMedia, "longer than"),
        (endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000), Unreachable, "broke off"),
        (endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), Unreachable, "broke off"),
        (Page(b"#EXTM3U\n#EXT-X-ENDLIST\n"), UnsupportedMedia, "without segments"),
        (Page(b"PK\x03\x04" * 99), CorruptMedia, "no HLS playlist"),
        (Page(clips.playlist(["0.ts"]), headers={"Content-Encoding": "gzip"}), UnsupportedMedia, "compressed"),
    ],
)
def test_hostile_playlist_ends_with_its_reason(web: Web, page: Page, kind: type[LimpidError], says: str) -> None:
    web.pages["/a.m3u8"] = page
    with pytest.raises(kind, match=says):
        open_hls(web.url("/a.m3u8"), QUICK)


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nX: ", OK, OK + b"#EXTM3U\n"])
def test_slow_playlist_ends_at_the_deadline(web: Web, head: bytes) -> None:
    web.pages["/a.m3u8"] = dripping(web, head)
    with pytest.raises(Unreachable, match="in time"):
        open_hls(web.url("/a.m3u8"), SourceOptions(open_timeout_s=1, read_timeout_s=1))


def test_endless_segment_stops_at_the_limit(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.media.hls_parts.MAX_SEGMENT_BYTES", 1 << 20)
    web.pages |= {"/a.m3u8": Page(clips.playlist(["0.ts"])), "/0.ts": endless(OK, b"G" + bytes(187))}
    with pytest.raises(UnsupportedMedia, match="longer than 1,048,576 bytes"):
        open_hls(web.url("/a.m3u8"), QUICK)


@pytest.mark.parametrize(
    ("segment", "says"),
    [(b"ID3\4" + bytes(400), "sound only"), (b"WEBVTT\n", "subtitles"), (b"<html>", "web page"), (b"", "is empty")],
)
def test_segments_without_video_are_said(web: Web, segment: bytes, says: str) -> None:
    web.pages |= {"/a.m3u8": Page(clips.playlist(["0"])), "/0": Page(segment)}
    with pytest.raises(UnsupportedMedia, match=says):
        open_hls(web.url("/a.m3u8"), QUICK)


def test_mp4_without_its_header_is_said(web: Web) -> None:
    web.pages |= {"/a.m3u8": Page(clips.playlist(["0"])), "/0": Page(clips.mp4(1)[1][0])}
    with pytest.raises(CorruptMedia, match="without EXT-X-MAP"):
        open_hls(web.url("/a.m3u8"), QUICK)


def test_later_segment_at_a_refused_address_ends_the_stream() -> None:
    """The first segments may be fine, and the address of a later one be where nobody may go."""
    options = SourceOptions(open_timeout_s=5, read_timeout_s=3, allow_private=False, networks=("127.0.0.2/32",))
    with trap("127.0.0.1") as inner, serving(Web(host="127.0.0.2")) as web:
        put_ts(web, 3)
        names = ["0.ts", "1.ts", f"http://127.0.0.1:{inner.port}/2.ts"]
        web.pages["/a.m3u8"] = Page(clips.playlist(names, ended=False))
        stream = open_hls(web.url("/a.m3u8"), options)
        with pytest.raises(Refused, match="private address"):
            times(stream)
    assert inner.connections == 0


# ---- what is a playlist -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "page", "so"),
    [
        ("/a.m3u8?x=1", None, True),
        ("/A.M3U8", None, True),
        ("/a.mp4", None, False),
        ("/live?a.m3u8", Page(b"#EXTM3U\n"), True),
        ("/live", Page(b"#EXTM3U\n"), True),
        ("/live", Page(b"x", headers={"Content-Type": "application/vnd.apple.mpegurl; charset=utf-8"}), True),
        ("/live", Page(clips.ts(1)[0]), False),
        ("/live", Page(status=404), False),
    ],
)
def test_playlists_are_told_by_name_type_or_first_bytes(web: Web, path: str, page: Page | None, so: bool) -> None:
    if page is not None:
        web.pages[path.partition("?")[0]] = page
    assert is_playlist(web.url(path), QUICK) is so
    assert len(web.asked) == (page is not None)


def test_connections_are_given_back(web: Web) -> None:
    live(web, (0, 3, True))
    before = len(_sockets())
    for _ in range(5):
        stream = open_hls(web.url("/a.m3u8"), QUICK)
        with av.open(io.BytesIO(read_all(stream))) as container:
            assert container.format.name == "mpegts"
        stream.close()
    assert len(_sockets()) <= before + 1  # the server may be about to close its last one


def _sockets() -> list[socket.socket]:
    import gc

    gc.collect()
    return [o for o in gc.get_objects() if issubclass(type(o), socket.socket) and o.fileno() >= 0]


# ---- from one connection to the next --------------------------------------------------------------------------------


def broke_off(web: Web, playlist: Live) -> Place:
    """Read a live stream until its publisher has been silent for too long; return its place."""
    stream = open_hls(web.url("/a.m3u8"), SILENT)
    with pytest.raises(Unreachable, match="no new segment"):
        times(stream)
    assert playlist.windows == [playlist.windows[0]]
    return stream.place


def test_next_connection_goes_on_behind_what_was_read(web: Web) -> None:
    playlist = live(web, (0, 3, False))
    place = broke_off(web, playlist)
    assert place.following == 3 and place.whole
    playlist.windows[:] = [(0, 3, False), (1, 6, True)]  # nothing yet, and then more
    stream = open_hls(web.url("/a.m3u8"), SILENT, place=place)
    assert stream.live and stream.resumed
    assert times(stream) == [list(range(30, 60))]
    assert not stream.problems


def test_next_connection_waits_like_reading_does(web: Web) -> None:
    place = broke_off(web, live(web, (0, 3, False)))
    asked = len([p for p in web.paths() if p.endswith(".ts")])
    with pytest.raises(Unreachable, match="no new segment"):
        open_hls(web.url("/a.m3u8"), SILENT, place=place)
    assert len([p for p in web.paths() if p.endswith(".ts")]) == asked


def test_what_is_left_of_a_stream_that_has_ended_meanwhile_is_read(web: Web) -> None:
    playlist = live(web, (0, 3, False))
    place = broke_off(web, playlist)
    playlist.windows[:] = [(0, 5, True)]
    stream = open_hls(web.url("/a.m3u8"), SILENT, place=place)
    assert stream.live and times(stream) == [list(range(30, 50))]
    assert not open_hls(web.url("/a.m3u8"), SILENT, place=stream.place).live  # nothing is left


@pytest.mark.parametrize(
    ("window", "renamed", "first"),
    [((0, 2, False), False, 0), ((2, 8, False), True, 5), ((5, 9, False), False, 6)],
    ids=["numbers began anew", "other segments", "all unread ones have gone"],
)
def test_a_playlist_that_does_not_go_on_is_begun_like_any_other(
    web: Web, window: tuple[int, int, bool], renamed: bool, first: int
) -> None:
    playlist = live(web, (0, 3, False))
    place = broke_off(web, playlist)
    playlist.windows[:] = [window, (window[0], window[1], True)]
    if renamed:
        playlist.names = lambda i: f"{i}.ts?x=1".replace(".ts?", "-other.ts?")
        web.pages |= {f"/{i}-other.ts": web.pages[f"/{i}.ts"] for i in range(12)}
    stream = open_hls(web.url("/a.m3u8"), SILENT, place=place)
    assert not stream.resumed
    assert times(stream)[0][0] == 10 * first
