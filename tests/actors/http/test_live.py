from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from actors.http import live
from pipeline.stages.encode import Encode, EncodeConfig
from pipeline.store.objects import LocalStore, Store
from pipeline.wire.frames import Size
from pipeline.wire.status import RUNNING, STOPPED, StreamStatus
from tests.actors.http.memory import MemoryService
from tests.actors.http.serving import served
from tests.pipeline.media import made

STREAM = "gate"
DEADLINE_S = 20.0


@pytest.fixture
def folder(store: Store, service: MemoryService) -> Path:
    """The directory of a stream that runs."""
    service.statuses[STREAM] = StreamStatus(id=STREAM, source="rtsp://camera/1", state=RUNNING)
    assert isinstance(store, LocalStore)
    return store.part(f"streams/{STREAM}").root


@pytest.fixture
def address(app: FastAPI, folder: Path) -> Iterator[str]:
    with served(app, websockets=True) as url:
        yield url.removeprefix("http://")


class Encoder:
    """Writes frames 40 ms apart, in segments of 8."""

    def __init__(self, folder: Path, epoch: int = 0, size: Size | None = None, *, noise: bool = False) -> None:
        self._batch = made.frames(range(0, 200 * 40, 40), epoch=epoch, size=size)
        if noise:
            pixels = np.random.default_rng(0).integers(16, 235, self._batch.data.shape, np.uint8)
            self._batch = replace(self._batch, data=pixels)
        self.stage = made.opened(Encode(EncodeConfig(segment_s=0.32, live=True, max_kbps=0)), folder, epoch)
        self.fed = 0

    def feed(self, frames: int) -> None:
        """The newest frame is shown with the next one, so one fewer than what was fed is there."""
        made.feed(self.stage, self._batch, start=self.fed, stop=self.fed + frames)
        self.fed += frames


def watch(address: str, query: str = "", **more: Any) -> ClientConnection:
    return connect(f"ws://{address}/v1/streams/{STREAM}/live{query}", max_size=None, **more)


def text(socket: ClientConnection) -> dict[str, Any]:
    message = socket.recv(DEADLINE_S)
    assert isinstance(message, str), f"{len(message)} bytes in place of a text"
    found: dict[str, Any] = json.loads(message)
    return found


def binary(socket: ClientConnection) -> bytes:
    message = socket.recv(DEADLINE_S)
    assert isinstance(message, bytes), message
    return message


def pts(init: bytes, *fragments: bytes) -> list[int | None]:
    return [p.pts for p in made.demuxed(init, *fragments)]


def test_a_viewer_gets_the_start_and_then_each_frame(address: str, folder: Path) -> None:
    encoder = Encoder(folder)
    encoder.feed(12)
    with watch(address) as socket:
        told = text(socket)
        assert told == {"type": "epoch", "epoch": 0, "codecs": told["codecs"], "width": 64, "height": 48}
        assert told["codecs"].startswith("avc1.")
        init = binary(socket)
        found = [binary(socket) for _ in range(3)]
        assert pts(init, *found) == [320, 360, 400]  # from the newest segment's start
        for i in range(11, 30):
            encoder.feed(1)
            found.append(binary(socket))
            assert pts(init, found[-1]) == [i * 40]
        assert all(b"moof" in fragment[:80] for fragment in found)


def test_a_frame_is_on_its_way_within_a_fraction_of_a_segment(address: str, folder: Path) -> None:
    """No duration is asserted, but that each frame comes before the next is made: nothing waits for a segment's end."""
    encoder = Encoder(folder)
    encoder.feed(2)
    with watch(address) as socket:
        text(socket), binary(socket), binary(socket)
        for _ in range(5):
            encoder.feed(1)
            binary(socket)
            with pytest.raises(TimeoutError):
                socket.recv(0.05)


def test_who_comes_before_the_first_frame_waits_for_it(address: str, folder: Path) -> None:
    with watch(address) as socket:
        with pytest.raises(TimeoutError):
            socket.recv(0.1)
        Encoder(folder).feed(3)
        assert text(socket)["type"] == "epoch"
        assert len(binary(socket)) > 100


def test_another_epoch_is_told_with_its_own_start(address: str, folder: Path) -> None:
    first = Encoder(folder)
    first.feed(3)
    with watch(address) as socket:
        text(socket)
        binaries = [binary(socket) for _ in range(3)]
        first.stage.finish()
        assert pts(binaries[0], binary(socket)) == [80]
        Encoder(folder, 1, Size(width_px=32, height_px=32)).feed(3)
        told = text(socket)
        assert (told["type"], told["epoch"], told["width"], told["height"]) == ("epoch", 1, 32, 32)
        assert pts(binary(socket), binary(socket), binary(socket)) == [0, 40]


def test_an_encoder_that_is_killed_and_followed_goes_unnoticed(address: str, folder: Path) -> None:
    """Killed in segment 1 with 13 frames in; the next one makes 8 to 12 again, and goes on."""
    first = Encoder(folder)
    first.feed(5)
    with watch(address) as socket:
        text(socket)
        init = binary(socket)
        found = [binary(socket) for _ in range(4)]
        first.feed(8)
        snapshot = first.stage.snapshot()
        found += [binary(socket) for _ in range(8)]
        first.stage.close()
        second = Encoder(folder)
        second.stage.restore(snapshot)
        second.fed = snapshot.resume_from
        assert second.fed == 8
        second.feed(10)
        found += [binary(socket) for _ in range(5)]
        assert pts(init, *found) == [i * 40 for i in range(17)]


@pytest.mark.parametrize("state", [STOPPED])
def test_the_end_is_told_behind_the_last_frame(
    address: str, folder: Path, service: MemoryService, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "STATE_S", 0.05)
    encoder = Encoder(folder)
    encoder.feed(5)
    service.become(STREAM, state=state)
    with watch(address) as socket:
        text(socket)
        for _ in range(1 + 4):
            binary(socket)
        assert text(socket) == {"type": "ended"}
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(DEADLINE_S)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1000


def test_a_stream_that_is_deleted_is_told(
    address: str, folder: Path, service: MemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "STATE_S", 0.05)
    Encoder(folder).feed(2)
    with watch(address) as socket:
        text(socket), binary(socket), binary(socket)
        del service.statuses[STREAM]
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(DEADLINE_S)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (live.NO_STREAM, "the stream was deleted")


def test_an_unknown_stream_is_told(address: str) -> None:
    with connect(f"ws://{address}/v1/streams/other/live") as socket, pytest.raises(ConnectionClosed) as closed:
        socket.recv(DEADLINE_S)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == live.NO_STREAM


def test_a_damaged_file_is_told(address: str, folder: Path) -> None:
    tap = folder / "live" / "main"
    Encoder(folder).feed(1)
    (tap / "0-0.frag").write_bytes(b"\0\0\0\1junk")
    with watch(address) as socket:
        text(socket), binary(socket)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(DEADLINE_S)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == live.BROKEN and "damaged" in closed.value.rcvd.reason
    assert str(folder) not in closed.value.rcvd.reason


def test_a_slow_viewer_skips_to_the_newest_segment_and_is_told(address: str, folder: Path) -> None:
    """A window is full within the first segment; the encoder goes on for 6 more; then the viewer takes again."""
    encoder = Encoder(folder, size=Size(width_px=320, height_px=240), noise=True)
    encoder.feed(8)
    with watch(address, "?window=65536") as socket:
        text(socket)
        init = binary(socket)
        size, found = len(init), []
        while size < 65536:
            found.append(binary(socket))
            size += len(found[-1])
        with pytest.raises(TimeoutError):
            socket.recv(0.2)
        encoder.feed(52)
        socket.send(json.dumps({"type": "taken", "bytes": size}))
        while not isinstance(message := socket.recv(DEADLINE_S), str):
            found.append(message)
            size += len(message)
            socket.send(json.dumps({"type": "taken", "bytes": size}))
        told = json.loads(message)
        assert told["type"] == "skipped" and told["segments"] >= 2
        assert pts(init, *found) == [i * 40 for i in range(len(found))]
        assert len(found) <= 7
        assert pts(init, binary(socket)) == [56 * 40]


@pytest.mark.parametrize("message", ["", "x", "[]", '{"type": "taken", "bytes": -1}', '{"type": "taken"}', "1e999"])
def test_odd_messages_are_ignored(address: str, folder: Path, message: str) -> None:
    encoder = Encoder(folder)
    encoder.feed(2)
    with watch(address, "?window=65536") as socket:
        socket.send(message)
        socket.send(message.encode())
        text(socket), binary(socket), binary(socket)
        encoder.feed(1)
        assert binary(socket)


def test_the_source_s_picture_has_a_view_of_its_own(address: str, folder: Path) -> None:
    Encoder(folder).feed(2)
    with watch(address, "?view=input") as socket, pytest.raises(TimeoutError):
        socket.recv(0.2)
    with pytest.raises(InvalidStatus), watch(address, "?view=../../x"):
        pass


def test_many_viewers_get_the_same(address: str, folder: Path) -> None:
    encoder = Encoder(folder)
    encoder.feed(2)
    with ExitStack() as all_of_them:
        sockets = [all_of_them.enter_context(watch(address)) for _ in range(8)]
        found: list[list[str | bytes]] = [[s.recv(DEADLINE_S) for _ in range(3)] for s in sockets]
        for _ in range(20):
            encoder.feed(1)
            for socket, messages in zip(sockets, found, strict=True):
                messages.append(socket.recv(DEADLINE_S))
    assert all(messages == found[0] for messages in found)


def test_a_viewer_that_goes_leaves_no_task_and_no_file(address: str, folder: Path) -> None:
    encoder = Encoder(folder)
    encoder.feed(2)

    def open_files() -> int:
        return sum("live" in str(p.resolve()) for p in Path("/proc/self/fd").iterdir() if p.is_symlink())

    before = open_files()
    for _ in range(3):
        with watch(address) as socket:
            text(socket), binary(socket), binary(socket)
    deadline = time.monotonic() + DEADLINE_S
    while open_files() > before:
        assert time.monotonic() < deadline
        with watch(address) as socket:
            text(socket)


def test_with_tokens_a_signed_link_opens_it_and_nothing_else_does(
    guarded: FastAPI, service: MemoryService, folder: Path, token: Callable[..., dict[str, str]]
) -> None:
    Encoder(folder).feed(2)
    headers = token("read")
    with served(guarded, websockets=True) as url:
        address = url.removeprefix("http://")
        with pytest.raises(InvalidStatus) as refused, watch(address):
            pass
        assert refused.value.response.status_code in (401, 403)
        with watch(address, additional_headers=headers) as socket:
            assert text(socket)["type"] == "epoch"
        status = asyncio.run(service.show(STREAM))
        from actors.http.streams import shown

        link = shown(guarded.state.context, replace(status)).links["live"]
        with connect(f"ws://{address}{link}") as socket:
            assert text(socket)["type"] == "epoch"
