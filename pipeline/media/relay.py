"""Connections that live protocols are read through, and that another thread can end at any time.

FFmpeg's own network code cannot be interrupted but by a deadline, looks names up again after they were checked, and
follows an RTSP server's redirect wherever it leads. So we connect, to the address that was checked, and with TLS where
the scheme asks for it; MPEG-TS is read from the socket, and RTMP and RTSP, which FFmpeg has to speak itself, go through
a `Relay`: FFmpeg connects to a port of this machine behind which is that one connection.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
import time

from pipeline.errors import SourceError, Unreachable
from pipeline.media.address import Address, reachable
from pipeline.media.rtsp_guard import RtspGuard
from pipeline.media.source_base import SourceOptions

_LOOK_S = 0.1  # how often a wait looks whether it is still wanted
_CHUNK_BYTES = 64 << 10
_TLS = ("rtmps", "rtsps")


def dial(address: Address, *, options: SourceOptions, stop: threading.Event, where: str) -> socket.socket:
    """Return a connection to where `address` leads, within `open_timeout_s`.

    Raises:
        Refused: it may not be reached.
        Unreachable: it does not answer, or `stop` was set.
    """
    deadline_s = time.monotonic() + options.open_timeout_s
    ip = reachable(address, options=options, timeout_s=options.open_timeout_s, where=where, stop=stop)
    failure: OSError | None = None
    for candidate in _candidates(address, ip, options):
        try:
            sock = _connected(candidate, address.port, deadline_s, stop)
        except OSError as error:
            failure = error
            continue
        try:
            return _secured(sock, address.host, deadline_s, stop) if address.scheme in _TLS else sock
        except OSError as error:
            sock.close()
            failure = error
    if isinstance(failure, TimeoutError):
        raise Unreachable("the server does not answer in time", where=where, hint="check the address and the network")
    if isinstance(failure, ssl.SSLError):
        raise Unreachable(f"no secure connection: {failure.reason}", where=where, hint="check its certificate")
    said = failure.strerror or str(failure) if failure is not None else "no address"
    raise Unreachable(f"no connection: {said}", where=where, hint="check that the server runs, and its port")


def _candidates(address: Address, ip: str, options: SourceOptions) -> list[str]:
    """The checked address; where nothing is refused all those of the name, for "localhost" has one too many."""
    if not options.allow_private or address.ip is not None:
        return [ip]
    with contextlib.suppress(OSError):
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys([ip, *(str(entry[4][0]) for entry in found)]))
    return [ip]


def _connected(ip: str, port: int, deadline_s: float, stop: threading.Event) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect_ex((ip, port))
        _wait([], [sock], deadline_s, stop)
        if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, os.strerror(error))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(True)
    except OSError:
        sock.close()
        raise
    return sock


def _secured(sock: socket.socket, host: str, deadline_s: float, stop: threading.Event) -> socket.socket:
    sock.setblocking(False)
    secured = ssl.create_default_context().wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    try:
        while True:
            try:
                secured.do_handshake()
                secured.setblocking(True)
                return secured
            except ssl.SSLWantReadError:
                _wait([secured], [], deadline_s, stop)
            except ssl.SSLWantWriteError:
                _wait([], [secured], deadline_s, stop)
    except OSError:
        secured.close()
        raise


def _wait(readers: list[socket.socket], writers: list[socket.socket], deadline_s: float, stop: threading.Event) -> None:
    while True:
        left_s = deadline_s - time.monotonic()
        if stop.is_set() or left_s <= 0:
            raise TimeoutError("closed" if stop.is_set() else "timed out")
        if any(select.select(readers, writers, [], min(_LOOK_S, left_s))):
            return


class Relay:
    """Carries bytes between FFmpeg, which connects to `port` of 127.0.0.1 (once), and the server behind `server`.

    `failure` says why the relay broke off, if it did.
    """

    def __init__(self, server: socket.socket, *, guard: RtspGuard | None) -> None:
        self._guard = guard
        self._server = server
        self._client: socket.socket | None = None
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1)
        self._stop = threading.Event()
        self.port: int = self._listener.getsockname()[1]
        self.failure: SourceError | None = None
        self._thread = threading.Thread(target=self._run, name="limpid-relay", daemon=True)
        self._thread.start()

    def interrupt(self) -> None:
        """End both connections: whoever reads or writes gets an end or an error. From any thread."""
        self._stop.set()
        for sock in (self._client, self._server):
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of everything."""
        self.interrupt()
        self._thread.join()

    def _run(self) -> None:
        try:
            with self._listener, self._server:
                _wait([self._listener], [], float("inf"), self._stop)
                self._client, _ = self._listener.accept()
                self._listener.close()
                with self._client:
                    self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._pump(self._client)
        except OSError:
            pass  # an end like any other: FFmpeg sees it on its connection

    def _pump(self, client: socket.socket) -> None:
        while not self._stop.is_set():
            for sock in select.select([client, self._server], [], [])[0]:
                data = self._received(sock)
                if not data:
                    return
                if sock is client:
                    self._server.sendall(data)
                    continue
                if self._guard is not None:
                    try:
                        data = self._guard.passed(data)
                    except SourceError as error:
                        self.failure = error
                        return
                client.sendall(data)

    @staticmethod
    def _received(sock: socket.socket) -> bytes:
        data = sock.recv(_CHUNK_BYTES)
        while isinstance(sock, ssl.SSLSocket) and sock.pending():  # select does not see what TLS has read already
            data += sock.recv(sock.pending())
        return data
