"""Live sources against servers in this process: what arrives is given once, what goes comes back, nothing leaks."""

from __future__ import annotations

import contextlib
import functools
import http.server
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, Refused, Unreachable, UnsupportedMedia
from pipeline.media.source import SourceOptions, is_live, open_source
from pipeline.media.source_live import Backoff, LiveSource
from pipeline.wire.packets import Track
from tests.live_peers import STREAM, Reader, TsServer, decoded, free_port, open_files, reading, until
from tests.media_files import audio_only, encode

QUICK = SourceOptions(open_timeout_s=10, read_timeout_s=10, reconnect_initial_s=0.01, reconnect_max_s=0.05)
SHOWN = 28  # of 30 frames in MPEG-TS: FFmpeg holds back two until more comes, or the end


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """30 frames of 96×64, a key frame each 10, with sound."""
    return encode(tmp_path_factory.mktemp("clip") / "a.ts", audio=True).read_bytes()


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return encode(tmp_path_factory.mktemp("clip") / "b.ts", width=128, height=96, audio=True).read_bytes()


def check_positions(reader: Reader) -> None:
    """Packets are numbered without holes, and epochs begin with key frames."""
    at = (reader.batches[0].span.epoch, 0)
    for batch in reader.batches:
        if batch.span.epoch != at[0]:
            assert batch.span.epoch > at[0]
            at = (batch.span.epoch, 0)
        assert batch.span.start == at[1] and 1 <= len(batch) <= 16
        if batch.span.start == 0:
            assert batch.packets[0].key and batch.packets[0].track is Track.VIDEO
        at = (at[0], batch.span.stop)


@pytest.mark.parametrize(
    ("uri", "mode", "live"),
    [
        ("rtmp://h/live/a", "auto", True),
        ("rtmps://h/live/a", "auto", True),
        ("rtmp+listen://127.0.0.1:1935/live/a", "auto", True),
        ("RTSP://h/a", "file", True),
        ("udp://@:1234", "auto", True),
        ("tcp://h:1234", "auto", True),
        ("https://h/a/index.m3u8?token=x", "auto", True),
        ("https://h/a/index.m3u8", "file", False),
        ("https://h/a.mp4", "auto", False),
        ("https://h/a.ts", "live", True),
        ("/a/b.m3u8", "auto", False),
        ("synthetic://camera", "live", False),
        ("srt://h:1", "auto", False),
    ],
)
def test_what_counts_as_live(uri: str, mode: str, live: bool) -> None:
    assert is_live(uri, mode) is live


@pytest.mark.parametrize("uri", ["srt://h:9000", "whep://h/a", "rist://h:1", "rtp://h:1"])
def test_what_needs_a_server_in_front_is_told_so(uri: str) -> None:
    with pytest.raises(UnsupportedMedia) as error:
        open_source(uri)
    assert "not supported" in error.value.what and error.value.hint


@pytest.mark.parametrize("uri", ["tcp://127.0.0.1", "udp://127.0.0.1:0", "rtmp:///live/a"])
def test_no_address(uri: str) -> None:
    with pytest.raises((ConfigError, Refused)):
        open_source(uri)


def test_pauses_double_up_to_the_longest_each_up_to_half_shorter() -> None:
    backoff = Backoff(initial_s=1, max_s=30, rng=random.Random(1))
    for failed, longest_s in ((0, 1), (1, 2), (4, 16), (5, 30), (1_000_000, 30)):
        pauses = [backoff.pause_s(failed) for _ in range(200)]
        assert all(longest_s / 2 <= p <= longest_s for p in pauses) and len(set(pauses)) > 100


def test_server_that_hangs_up_begins_an_epoch_and_says_why(clip: bytes) -> None:
    with TsServer(clip) as server, reading(open_source(server.uri, options=QUICK), server) as reader:
        reader.wait_video(0, SHOWN)
        assert reader.source.info.live and reader.source.info.container == "mpegts"
        assert reader.source.state.connected
        now_ns = time.time_ns()
        assert all(0 <= now_ns - b.arrived_ns < 60e9 for b in reader.batches)
        server.drop()
        reader.wait_video(1, SHOWN)
        server.drop()
        reader.wait_video(2, SHOWN)
        assert len(reader.video(0)) == len(reader.video(1)) == decoded(reader, 0) == decoded(reader, 1) == 30
        assert any(p.track is Track.AUDIO for p in reader.packets(1))
        gap = reader.source.gap_before(1)
        assert gap is not None and gap.reason == "the source was away: the other side ended the stream"
        assert reader.source.gap_before(0) is None
        check_positions(reader)


def test_a_pass_yields_none_while_nothing_comes(clip: bytes) -> None:
    with TsServer(clip) as server, reading(open_source(server.uri, options=QUICK), server) as reader:
        reader.wait_video(0, SHOWN)
        idle = reader.idle
        until(lambda: reader.idle >= idle + 2)


def test_positions_in_the_log_are_given_again(clip: bytes) -> None:
    """What becomes of others is test_packet_log's: two passes at once would race for it here."""
    with TsServer(clip) as server, reading(open_source(server.uri, options=QUICK), server) as reader:
        reader.wait_video(0, SHOWN)
        whole = reader.packets(0)
        with contextlib.closing(reader.source.batches(packet=7, stream=STREAM)) as batches:
            again = next(batches)
            assert again is not None and again.span.start == 7
            assert list(again.packets) == whole[7 : 7 + len(again)]


def test_silence_behind_which_time_goes_on_is_no_gap(clip: bytes) -> None:
    """The first 15 frames, 5 s in which nothing comes, the other 15: all that was sent has arrived."""
    skipped_ns = [0]
    half = len(clip) // 2 // 188 * 188
    with TsServer(clip[:half]) as server:
        source = LiveSource(server.uri, options=QUICK, now_ns=lambda: time.time_ns() + skipped_ns[0])
        with reading(source, server) as reader:
            reader.wait_video(0, 10)
            skipped_ns[0] = 5 * 10**9
            server.send(clip[half:])
            reader.wait_video(0, SHOWN)
            assert reader.epochs == [0]


def test_silence_in_which_something_was_lost_begins_an_epoch(tmp_path: Path, clip: bytes) -> None:
    """5 s later the sender is 6 s further: what it sent meanwhile has not arrived."""
    late = encode(
        tmp_path / "late.ts", audio=False, shift=lambda number, packet: round(6 / packet.time_base)
    ).read_bytes()
    first = encode(tmp_path / "first.ts").read_bytes()
    skipped_ns = [0]
    with TsServer(first) as server:
        source = LiveSource(server.uri, options=QUICK, now_ns=lambda: time.time_ns() + skipped_ns[0])
        with reading(source, server) as reader:
            reader.wait_video(0, SHOWN)
            skipped_ns[0] = 5 * 10**9
            server.send(late)
            reader.wait_video(1, SHOWN)
            gap = source.gap_before(1)
            assert gap is not None and gap.reason == "the source was silent" and 5 <= gap.seconds < 10
            check_positions(reader)


def test_publisher_that_begins_anew_in_one_connection_begins_an_epoch(clip: bytes) -> None:
    with TsServer(clip + clip) as server, reading(open_source(server.uri, options=QUICK), server) as reader:
        reader.wait_video(1, SHOWN)
        assert len(reader.video(0)) == decoded(reader, 0) == 30 and reader.epochs == [0, 1]
        gap = reader.source.gap_before(1)
        assert gap is not None and gap.reason == "the publisher began anew"


def test_change_of_size_begins_an_epoch_with_nothing_missing(clip: bytes, tmp_path: Path) -> None:
    later = encode(
        tmp_path / "b.ts", width=128, height=96, shift=lambda number, packet: round(1.2 / packet.time_base)
    ).read_bytes()
    small = encode(tmp_path / "a.ts").read_bytes()
    with TsServer(small + later) as server, reading(open_source(server.uri, options=QUICK), server) as reader:
        reader.wait_video(1, SHOWN)
        assert decoded(reader, 0) == 30 and decoded(reader, 1) >= SHOWN
        gap = reader.source.gap_before(1)
        assert gap is not None and "size or coding" in gap.reason and gap.seconds == 0
        sizes = {b.span.epoch: str(b.video.size) for b in reader.batches}
        assert sizes == {0: "96×64", 1: "128×96"}


def test_udp_with_two_percent_loss_goes_on(tmp_path: Path) -> None:
    """Only frames of which nothing usable has arrived are missing."""
    data = encode(tmp_path / "a.ts", frames=250, width=320, height=180, gop=25, audio=True).read_bytes()
    rng = random.Random(7)
    port = free_port(socket.SOCK_DGRAM)
    with reading(open_source(f"udp://127.0.0.1:{port}", options=QUICK)) as reader:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sent = threading.Event()
            for _ in range(3):  # a loop of 10 s each: the publisher begins anew
                for at in range(0, len(data), 7 * 188):
                    sent.wait(0.001)
                    if rng.random() >= 0.02:
                        sock.sendto(data[at : at + 7 * 188], ("127.0.0.1", port))
            reader.wait_video(0, 150)
            until(lambda: reader.idle > 2)
            assert reader.ended is False and reader.source.state.connected
        for epoch in reader.epochs:
            assert decoded(reader, epoch) >= 0.9 * len(reader.video(epoch)) > 200
        check_positions(reader)


def test_rtmp_listener_takes_one_publisher_after_the_other(tmp_path: Path) -> None:
    flv = encode(tmp_path / "a.flv", audio=True, frames=100)
    port = free_port()
    push = (
        "import av, sys, time\n"
        "src = av.open(sys.argv[1]); out = av.open(sys.argv[2], 'w', format='flv')\n"
        "tracks = {s.index: out.add_stream_from_template(s) for s in src.streams}\n"
        "begun = time.monotonic()\n"
        "for p in src.demux():\n"
        "    if p.dts is None: continue\n"
        "    while time.monotonic() - begun < p.dts * p.time_base / 4: pass\n"
        "    p.stream = tracks[p.stream_index]; out.mux(p)\n"
        "out.close()\n"
    )
    uri = f"rtmp+listen://127.0.0.1:{port}/live/a"
    with reading(open_source(uri, options=QUICK)) as reader:
        for epoch in range(2):
            for _ in range(100):  # until the listener is there
                done = subprocess.run(
                    [sys.executable, "-c", push, str(flv), f"rtmp://127.0.0.1:{port}/live/a"],
                    capture_output=True,
                    timeout=60,
                    check=False,
                )
                if done.returncode == 0:
                    break
            reader.wait_video(epoch, 100)
            assert decoded(reader, epoch) == len(reader.video(epoch)) == 100
        assert reader.epochs == [0, 1]
        check_positions(reader)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[int]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def playlist(folder: Path, segments: int, *, ended: bool) -> None:
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", "#EXT-X-MEDIA-SEQUENCE:0"]
    for i in range(segments):
        lines += ["#EXTINF:1.0,", f"{i}.ts"]
    text = "\n".join([*lines, *(["#EXT-X-ENDLIST"] if ended else [])]) + "\n"
    (folder / "next.m3u8").write_text(text)
    (folder / "next.m3u8").rename(folder / "index.m3u8")


def segments(folder: Path, count: int) -> None:
    for i in range(count):
        encode(
            folder / f"{i}.ts",
            frames=25,
            gop=25,
            first=25 * i,
            shift=lambda number, packet, i=i: round(i / packet.time_base),  # type: ignore[misc]
        )


def test_recorded_playlist_is_read_like_a_file_and_ends(tmp_path: Path) -> None:
    segments(tmp_path, 4)
    playlist(tmp_path, 4, ended=True)
    with served(tmp_path) as port, reading(open_source(f"http://127.0.0.1:{port}/index.m3u8", options=QUICK)) as reader:
        until(lambda: reader.ended is not False)
        assert reader.ended is True and not reader.source.info.live
        assert len(reader.video(0)) == decoded(reader, 0) == 100
        rest = list(reader.source.batches(packet=90, stream=STREAM))
        assert [p for b in rest if b for p in b.packets] == reader.packets(0)[90:]


def test_live_playlist_is_followed_to_the_end_that_it_gets(tmp_path: Path) -> None:
    segments(tmp_path, 4)
    playlist(tmp_path, 3, ended=False)
    with served(tmp_path) as port, reading(open_source(f"http://127.0.0.1:{port}/index.m3u8", options=QUICK)) as reader:
        reader.wait_video(0, 50)
        assert reader.source.info.live
        playlist(tmp_path, 4, ended=True)
        until(lambda: reader.ended is not False)
        assert reader.ended is True and reader.epochs == [0]
        assert decoded(reader, 0) == len(reader.video(0))
        assert reader.video(0)[-1].data in (tmp_path / "3.ts").read_bytes() or len(reader.video(0)) >= 90


def test_live_playlist_that_was_silent_for_too_long_goes_on_where_it_was_read_to(tmp_path: Path) -> None:
    segments(tmp_path, 6)
    playlist(tmp_path, 3, ended=False)
    options = SourceOptions(read_timeout_s=1, reconnect_initial_s=0.01, reconnect_max_s=0.05)
    address = "http://127.0.0.1:{}/index.m3u8"
    with served(tmp_path) as port, reading(open_source(address.format(port), options=options)) as reader:
        reader.wait_video(0, 75)
        until(lambda: reader.source.state.attempts >= 1)  # two target durations, and as long again
        playlist(tmp_path, 6, ended=True)
        until(lambda: reader.ended is not False)
        assert reader.ended is True and reader.epochs == [0, 1]
        gap = reader.source.gap_before(1)
        assert gap is not None and gap.seconds == 0 and "no new segment" in gap.reason
        assert [decoded(reader, epoch) for epoch in (0, 1)] == [75, 75]


def test_endless_answer_over_http(clip: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nConnection: close\r\n\r\n"
    with TsServer(clip, head=head) as server:
        options = SourceOptions(reconnect_initial_s=0.01, mode="live")
        with reading(open_source(f"http://127.0.0.1:{server.port}/a.ts", options=options), server) as reader:
            reader.wait_video(0, SHOWN)
            server.drop()
            reader.wait_video(1, SHOWN)
            assert decoded(reader, 0) == 30 and reader.source.gap_before(1) is not None


@pytest.mark.parametrize("scheme", ["tcp", "rtmp", "rtsp", "http", "udp", "rtmp+listen", "dead"])
def test_close_ends_what_hangs(scheme: str) -> None:
    """The deadlines are two minutes away: the thread ends because it is told to."""
    with contextlib.ExitStack() as stack:
        if scheme == "dead":  # nobody takes connections: the ones behind the first stay unanswered
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
            port = listener.getsockname()[1]
            for _ in range(3):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.1", port))
            uri = f"tcp://127.0.0.1:{port}"
        elif scheme in ("udp", "rtmp+listen"):
            uri = f"{scheme}://127.0.0.1:{free_port()}/live/a"
        else:
            server = stack.enter_context(TsServer(b""))
            uri = f"{scheme}://127.0.0.1:{server.port}/live/a.ts"
        source = open_source(uri, options=SourceOptions(open_timeout_s=120, read_timeout_s=120, mode="live"))
        assert isinstance(source, LiveSource)
        if scheme not in ("udp", "rtmp+listen", "dead"):
            until(lambda: server.connections > 0)
        reader = Reader(source)
        until(lambda: reader.idle > 0)
        source.close()
        reader.join()
        until(lambda: not source._thread.is_alive())


def test_dead_address_is_given_up_after_so_many_tries_and_leaves_nothing() -> None:
    port = free_port()
    options = SourceOptions(reconnect_initial_s=0.001, reconnect_max_s=0.002, reconnect_attempts=30)
    before = open_files(), threading.active_count()
    for scheme in ("tcp", "rtmp", "rtsp"):
        with contextlib.closing(open_source(f"{scheme}://127.0.0.1:{port}/live/a", options=options)) as source:
            with pytest.raises(Unreachable) as error:
                list(source.batches(stream=STREAM))
            assert "refused" in error.value.what
            assert source.state.attempts == 30 and not source.state.connected
            with pytest.raises(Unreachable):
                _ = source.info
    until(lambda: (open_files(), threading.active_count()) <= before)


def test_thirty_reconnects_leave_nothing(clip: bytes) -> None:
    before = open_files(), threading.active_count()
    with TsServer(clip, hang_up=True) as server, reading(open_source(server.uri, options=QUICK), server) as reader:
        until(lambda: server.connections >= 5)
        while_running = open_files(), threading.active_count()
        until(lambda: server.connections >= 35, within_s=18)
        assert open_files() <= while_running[0] + 2 and threading.active_count() <= while_running[1] + 2
        for epoch in reader.epochs[1:-1]:
            assert decoded(reader, epoch) == 30
        check_positions(reader)
    until(lambda: open_files() <= before[0] and threading.active_count() <= before[1])


def test_source_without_video_is_given_up_with_its_reason(tmp_path: Path) -> None:
    data = audio_only(tmp_path / "a.m4a").read_bytes()
    with TsServer(data, head=b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", hang_up=True) as server:
        options = SourceOptions(reconnect_initial_s=0.01, mode="live")
        server.go.set()
        source = open_source(f"http://127.0.0.1:{server.port}/a", options=options)
        with contextlib.closing(source), pytest.raises(UnsupportedMedia, match="no video"):
            list(source.batches(stream=STREAM))


def test_private_address_is_refused_and_nobody_is_asked(clip: bytes) -> None:
    with TsServer(clip) as server:
        for scheme in ("tcp", "rtmp", "rtsp"):
            uri = f"{scheme}://127.0.0.1:{server.port}/live/a"
            source = open_source(uri, options=SourceOptions(allow_private=False))
            with contextlib.closing(source), pytest.raises(Refused):
                list(source.batches(stream=STREAM))
        assert server.connections == 0
        allowed = SourceOptions(allow_private=False, networks=("127.0.0.0/8",))
        with reading(open_source(server.uri, options=allowed), server) as reader:
            reader.wait_video(0, SHOWN)


def test_redirect_of_an_rtsp_server_is_not_followed() -> None:
    with TsServer(b"") as target:
        target.go.set()
        answer = f"RTSP/1.0 302 Found\r\nCSeq: 1\r\nLocation: rtsp://127.0.0.1:{target.port}/a\r\n\r\n".encode()
        with TsServer(answer) as server:
            server.go.set()
            source = open_source(f"rtsp://127.0.0.1:{server.port}/a", options=SourceOptions(reconnect_attempts=1))
            with contextlib.closing(source), pytest.raises(Unreachable, match="redirects"):
                list(source.batches(stream=STREAM))
        assert target.connections == 0
