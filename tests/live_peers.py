"""Servers and publishers that live sources are tested against, each on a free port of 127.0.0.1, each ended by pid."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import pytest

from pipeline.media.source import Source
from pipeline.stage import StageEnv, Work
from pipeline.stages.decode import Decode, DecodeConfig
from pipeline.wire.ids import StreamId
from pipeline.wire.packets import Packet, PacketBatch, Track

STREAM = StreamId("s")


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    """Wait until the condition holds, or fail."""
    waiting = threading.Event()
    for _ in range(round(within_s / 0.02)):
        if condition():
            return
        waiting.wait(0.02)
    raise AssertionError("what was waited for has not come")


class Reader:
    """Reads a source in a thread of its own and keeps what it gives."""

    def __init__(self, source: Source, epoch: int = 0, packet: int = 0) -> None:
        self.source = source
        self.batches: list[PacketBatch] = []
        self.idle = 0
        self.ended: BaseException | bool = False
        self._at = (epoch, packet)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        epoch, packet = self._at
        try:
            for batch in self.source.batches(epoch=epoch, packet=packet, stream=STREAM):
                if batch is None:
                    self.idle += 1
                else:
                    self.batches.append(batch)
            self.ended = True
        except BaseException as error:  # noqa: BLE001  # the test looks at it
            self.ended = error

    def packets(self, epoch: int) -> list[Packet]:
        return [p for b in list(self.batches) if b.span.epoch == epoch for p in b.packets]

    def video(self, epoch: int) -> list[Packet]:
        return [p for p in self.packets(epoch) if p.track is Track.VIDEO]

    @property
    def epochs(self) -> list[int]:
        return sorted({b.span.epoch for b in list(self.batches)})

    def wait_video(self, epoch: int, count: int, within_s: float = 10.0) -> None:
        with contextlib.suppress(AssertionError):
            until(lambda: len(self.video(epoch)) >= count or self.ended is not False, within_s)
        assert len(self.video(epoch)) >= count, (self.ended, self.epochs, self.source.state)

    def join(self) -> None:
        self._thread.join(5)
        assert not self._thread.is_alive()


def decoded(reader: Reader, epoch: int) -> int:
    """How many pictures an epoch's packets give."""
    stage = Decode(DecodeConfig())
    stage.open(StageEnv(stream=STREAM, epoch=epoch))
    frames = 0
    for batch in list(reader.batches):
        if batch.span.epoch == epoch:
            frames += sum(len(b) for b in stage.process(Work(item=batch, span=batch.span)))
    return frames + sum(len(b) for b in stage.finish())


@contextlib.contextmanager
def reading(source: Source, server: TsServer | None = None) -> Iterator[Reader]:
    """Read a source while the block runs, and close it; the server begins when the reader waits for it."""
    try:
        reader = Reader(source)
        if server is not None:
            until(lambda: reader.idle > 0)
            server.go.set()
        yield reader
    finally:
        source.close()
        reader.join()


class TsServer:
    """Sends bytes to whoever connects once `go` is set, then waits or hangs up."""

    def __init__(self, data: bytes, *, hang_up: bool = False, head: bytes = b"") -> None:
        self.data, self.hang_up, self.head = data, hang_up, head
        self.connections = 0
        self.go = threading.Event()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def uri(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def __enter__(self) -> TsServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.go.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()
        self._thread.join(5)
        self.drop()

    def drop(self) -> None:
        """Hang up on everybody."""
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self._open.clear()

    def send(self, data: bytes) -> None:
        """Send more to whoever is connected."""
        for sock in self._open:
            sock.sendall(data)

    def _run(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self.go.wait(30)
            with contextlib.suppress(OSError):
                if self.head:
                    sock.recv(65536)
                sock.sendall(self.head + self.data)
            if self.hang_up:
                sock.close()
            else:
                self._open.append(sock)


class Process:
    """A program that is ended with the block; its output is kept for the failure's sake."""

    def __init__(self, *command: str, log: Path) -> None:
        self._log = log.open("ab")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self, *, kill: bool = True) -> None:
        """End it, at once."""
        if self.process.poll() is None:
            self.process.kill() if kill else self.process.terminate()
        self.process.wait(10)
        self._log.close()


def program(name: str, package: str) -> str:
    """The path of a program; skips the test where it is not installed."""
    found = shutil.which(name) or shutil.which(f"/usr/sbin/{name}")
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: {package})")
    return found


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
