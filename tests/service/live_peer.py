"""A live source for tests: MPEG-TS over TCP at the clip's own speed, to whoever connects, and again from its start."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path

from tests.media_files import encode

RATE = 25
_PIECE_S = 0.02


def transport_stream(path: Path, *, seconds: float, width: int = 128, height: int = 64) -> Path:
    """Write a clip with a random-access point a second; return its path."""
    return encode(path, frames=round(seconds * RATE), width=width, height=height, gop=RATE, container="mpegts")


class LiveServer:
    """Serves a clip as a camera would: paced, without end (the clip begins again), to each client from its start.

    Attributes:
        port: that it listens on, on 127.0.0.1.
        silent: while set nothing is sent, and connections stay open.
    """

    def __init__(self, clip: Path, seconds: float, *, port: int = 0) -> None:
        self._data, self._seconds = clip.read_bytes(), seconds
        self._server = socket.create_server(("127.0.0.1", port))
        self.port: int = self._server.getsockname()[1]
        self.silent = threading.Event()
        self._closed = threading.Event()
        self._clients: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End all connections and stop listening."""
        self._closed.set()
        for each in (self._server, *self._clients):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._closed.is_set():
                client, _ = self._server.accept()
                self._clients.append(client)
                threading.Thread(target=self._feed, args=(client,), daemon=True).start()

    def _feed(self, client: socket.socket) -> None:
        began_s, sent = time.monotonic(), 0
        with contextlib.suppress(OSError):
            while not self._closed.wait(_PIECE_S):
                due = round((time.monotonic() - began_s) / self._seconds * len(self._data))
                if self.silent.is_set():
                    sent = due  # what would have been sent is lost, as from a camera
                    continue
                while sent < due:
                    at = sent % len(self._data)
                    piece = self._data[at : min(at + due - sent, len(self._data))]
                    client.sendall(piece)
                    sent += len(piece)
