"""Connections that live protocols are read through, and that another thread can end at any time.

FFmpeg's own network code cannot be interrupted but by a deadline, looks names up again after they were checked, and
follows an RTSP server's redirect wherever it leads. So we connect, to the address that was checked, and with TLS where
the scheme asks for it; MPEG-TS is read from the socket, and RTMP and RTSP, which FFmpeg has to speak itself, go through
a `Relay`: FFmpeg connects to a port of this machine behind which is that one connection.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Sequence

from pipeline.errors import SourceError, Unreachable
from pipeline.media import tls
from pipeline.media.address import Address, addresses
from pipeline.media.rtsp_guard import RtspGuard
from pipeline.media.source_base import SourceOptions

_LOOK_S = 0.1  # how often a wait looks whether it is still wanted
_CHUNK_BYTES = 64 << 10


def dial(address: Address, *, options: SourceOptions, stop: threading.Event, where: str) -> socket.socket:
    """Return a connection to where `address` leads, within `open_timeout_s`.

    Raises:
        Refused: it may not be reached.
        Unreachable: it does not answer, its certificate is not trusted, or `stop` was set.
    """
    deadline_s = time.monotonic() + options.open_timeout_s
    ips = addresses(address, options=options, timeout_s=options.open_timeout_s, where=where, stop=stop)
    context = tls.context(options) if address.scheme in tls.SCHEMES else None
    try:
        sock = _connected_to_one(ips, address.port, deadline_s, stop)
        return sock if context is None else _secured(sock, context, address.host, deadline_s, stop)
    except TimeoutError as error:
        raise Unreachable(
            "the server does not answer in time", where=where, hint="check the address and the network"
        ) from error
    except ssl.SSLError as error:
        raise tls.refused(error, where=where) from error
    except OSError as error:
        said = error.strerror or str(error)
        raise Unreachable(
            f"no connection: {said}", where=where, hint="check that the server runs, and its port"
        ) from error


def _connected_to_one(ips: Sequence[str], port: int, deadline_s: float, stop: threading.Event) -> socket.socket:
    """A connection to the first address that takes one; each gets an equal part of the time that is left."""
    for left in range(len(ips), 1, -1):
        now_s = time.monotonic()
        with contextlib.suppress(OSError):
            return _connected(ips[-left], port, now_s + (deadline_s - now_s) / left, stop)
    return _connected(ips[-1], port, deadline_s, stop)


def _connected(ip: str, port: int, deadline_s: float, stop: threading.Event) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        code = sock.connect_ex((ip, port))
        if code not in (0, errno.EINPROGRESS):  # no route, for one: such a socket looks like a connected one below
            raise OSError(code, os.strerror(code))
        _wait([], [sock], deadline_s, stop)
        if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, os.strerror(error))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(True)
    except OSError:
        sock.close()
        raise
    return sock


def _secured(
    sock: socket.socket, context: ssl.SSLContext, host: str, deadline_s: float, stop: threading.Event
) -> socket.socket:
    sock.setblocking(False)
    secured = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
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
                    # Not the TLS layer's own shutdown: behind that one the thread would send in the clear.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

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
                if data is None:
                    continue
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
    def _received(sock: socket.socket) -> bytes | None:
        """What has come, b"" at the end; None where it was nothing for us: TLS's own, or a part of a record."""
        if not isinstance(sock, ssl.SSLSocket):
            return sock.recv(_CHUNK_BYTES)
        # Never waited for: a server that has sent its session tickets says no more until the client has spoken.
        sock.setblocking(False)
        try:
            data = sock.recv(_CHUNK_BYTES)
            while sock.pending():  # select does not see what TLS has read already
                data += sock.recv(sock.pending())
            return data
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        finally:
            sock.setblocking(True)
