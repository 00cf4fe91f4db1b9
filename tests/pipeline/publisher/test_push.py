"""The push: into a real RTMP server that is killed and started again, and into one that hangs."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipeline.media.degrade import Picture
from pipeline.media.live_encode import LiveEncoder
from pipeline.media.push import LivePacket
from pipeline.media.source import SourceOptions, open_source
from pipeline.publisher.push import Pusher
from pipeline.wire.frames import ColorSpec, Size
from tests.live_peers import decoded, reading, until
from tests.media_files import picture
from tests.service.test_live_sources import Nginx

SIZE = Size(width_px=96, height_px=64)
OPTIONS = SourceOptions(reconnect_initial_s=0.1, reconnect_max_s=0.3)
RATE = 20


class Quick(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return 0.2


@pytest.fixture(scope="module")
def packets() -> list[LivePacket]:
    """30 s, a key frame every 2."""
    encoder = LiveEncoder(size=SIZE, rate=Fraction(RATE), bitrate_bps=200_000, color=ColorSpec())
    pictures = [Picture.grey(np.ascontiguousarray(picture(i, 96, 64)[..., 0])) for i in range(RATE)]
    return [encoder.encode(pictures[i % RATE], i * 1000 // RATE) for i in range(30 * RATE)]


@contextlib.contextmanager
def fed(pusher: Pusher, packets: list[LivePacket], *, every_s: float = 1 / RATE) -> Iterator[threading.Event]:
    """Put packets at live speed while the block runs."""
    stop = threading.Event()

    def run() -> None:
        for packet in packets:
            if stop.wait(every_s):
                return
            pusher.put(packet)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(5)


def test_a_file_gets_all(tmp_path: Path, packets: list[LivePacket]) -> None:
    pusher = Pusher(str(tmp_path / "out.flv"), size=SIZE)
    for packet in packets[:100]:
        pusher.put(packet)
    pusher.close(within_s=20)
    state = pusher.state()
    assert (state.pushed, state.dropped, state.connections, state.reason) == (100, 0, 1, "closed")
    with contextlib.closing(open_source(str(tmp_path / "out.flv"))) as source:
        assert sum(len(batch) for batch in source.batches(stream="s") if batch is not None) == 100  # type: ignore[arg-type]


def test_a_server_that_is_killed_and_comes_back_is_pushed_to_again(tmp_path: Path, packets: list[LivePacket]) -> None:
    nginx = Nginx(tmp_path)
    pusher = Pusher(nginx.uri, size=SIZE, rng=Quick())
    try:
        with fed(pusher, packets), reading(open_source(nginx.uri, options=OPTIONS)) as reader:
            with nginx.running() as server:
                reader.wait_video(0, 20)
                server.end()
            until(lambda: not pusher.state().connected)
            with nginx.running():
                reader.wait_video(1, 20, within_s=20)
                state = pusher.state()
                assert state.connected and state.connections == 2
            for epoch in reader.epochs:
                assert decoded(reader, epoch) == len(reader.video(epoch))
    finally:
        pusher.close()


def test_no_server_fills_the_buffer_and_blocks_nobody(packets: list[LivePacket]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    pusher = Pusher(f"rtmp://127.0.0.1:{port}/live/a", size=SIZE, rng=Quick(), buffer_s=4)
    for packet in packets:
        pusher.put(packet)
    until(lambda: pusher.state().reason.startswith("cannot be pushed to"))
    state = pusher.state()
    assert not state.connected and state.pushed == 0 and state.connections == 0
    assert state.waiting_s <= 4 and state.dropped >= 26 * RATE - 2 * RATE
    pusher.close()


def test_a_server_that_hangs_is_left(packets: list[LivePacket]) -> None:
    """It takes the connection and never says a word: FFmpeg would wait for ever."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        pusher = Pusher(f"rtmp://127.0.0.1:{silent.getsockname()[1]}/live/a", size=SIZE, rng=Quick(), hung_s=0.5)
        pusher.put(packets[0])
        until(lambda: pusher.state().reason == "the server has taken nothing for 0.5 s")
        pusher.close()
        assert pusher.state().pushed == 0


def test_the_bitrate_is_that_of_the_last_two_seconds(tmp_path: Path) -> None:
    """1,000 bytes in 2 s: 4 kb/s; nothing more once they are past."""
    now = [10.0]
    pusher = Pusher(str(tmp_path / "out.flv"), size=SIZE, clock=lambda: now[0])
    pusher.put(LivePacket(pts_ms=0, key=False, data=bytes(1000)))  # no key frame: it is counted, not pushed
    assert pusher.video_bps() == 4000
    now[0] = 12.5
    assert pusher.video_bps() == 0
    pusher.close()
