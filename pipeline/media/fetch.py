"""HTTP for addresses that others give: one GET at a time, to the address that was checked, within limits.

Why not a library: they resolve names again after any check, follow redirects anywhere, and bound the silence between
two bytes rather than the whole. Here each hop is split, resolved, checked and connected to by its numeric address; an
answer's head has a deadline and a size, its body a deadline for each read and a lowest rate; `Client.close` from
another thread ends whatever is under way. Proxies of the environment are not used: they would resolve names anew.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import re
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import urljoin

from pipeline.errors import Refused, SourceError, Unreachable, UnsupportedMedia
from pipeline.media import tls
from pipeline.media.address import Address, addresses, split, without_secrets
from pipeline.media.source_base import SourceOptions

MAX_REDIRECTS = 5
_HEAD_BYTES = 128 << 10  # of a status line and headers, with what of the body comes along
_AROUND_BYTES = 256 << 10  # that a read may cost on top of what it gives: chunk sizes, trailers
_SLOW_BYTES = 4096  # a server that sends less in the time in which it may be silent is treated as silent
_BUFFER_BYTES = 64 << 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


class Client:
    """Asks servers, one question at a time. `close` may come from any thread, all else from one."""

    def __init__(self, options: SourceOptions) -> None:
        self._options = options
        self._stop = threading.Event()
        self._lock = threading.Lock()  # a socket that is made while close() runs is closed by one of the two
        self._socket: socket.socket | None = None
        self._context: ssl.SSLContext | None = None

    def get(self, uri: str, *, timeout_s: float, start: int | None = None, stop: int | None = None) -> Answer:
        """Ask for `uri`, or its bytes [start, stop), following redirects; the last answer's head has come.

        Args:
            timeout_s: until then, redirects included.
            start, stop: None for start asks for all; None for stop for the rest. A server may answer with all anyway.

        Raises:
            ConfigError: `uri` is no http or https address.
            Refused: it, or a redirect, leads where that is not allowed.
            Unreachable: no connection, no answer in time, more than 5 redirects, or the client was closed.
            UnsupportedMedia: the answer is compressed although that was not asked for.
        """
        deadline_s = time.monotonic() + timeout_s
        where = without_secrets(uri)
        address = _http(uri)
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._ask(address, where, deadline_s, (start, stop))
            if answer.status not in _REDIRECTS:
                return answer.judged()
            answer.close()
            uri, address = _redirected(uri, address, answer.header("Location"), where)
        raise Unreachable(
            f"the server redirects more than {MAX_REDIRECTS} times", where=where, hint="check the address"
        )

    def wait(self, timeout_s: float) -> bool:
        """Wait for `timeout_s`; return True at once where the client is closed before."""
        return self._stop.wait(timeout_s)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._stop.is_set()

    def close(self) -> None:
        """End what is under way, at once, and refuse more. Safe to call twice."""
        with self._lock:
            self._stop.set()
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # Not the TLS layer's own shutdown: that one would take the layer away under a reading thread.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _ask(self, address: Address, where: str, deadline_s: float, part: tuple[int | None, int | None]) -> Answer:
        sock: socket.socket | None = None
        try:
            ips = addresses(address, options=self._options, timeout_s=_left(deadline_s), where=where, stop=self._stop)
            if address.scheme in tls.SCHEMES and self._context is None:
                self._context = tls.context(self._options)
            sock = self._connected_to_one(ips, address.port, deadline_s)
            if address.scheme in tls.SCHEMES:
                assert self._context is not None
                secured = self._context.wrap_socket(sock, server_hostname=address.host, do_handshake_on_connect=False)
                sock = self._held(secured)
                sock.settimeout(_left(deadline_s))
                secured.do_handshake()
            sock.sendall(_request(address, *part))
            wire = _Wire(sock, timeout_s=self._options.read_timeout_s, deadline_s=deadline_s)
            response = http.client.HTTPResponse(wire, method="GET")  # type: ignore[arg-type]  # it only calls makefile
            response.begin()
            wire.deadline_s = None
        except SourceError:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            if sock is not None:
                sock.close()
            raise self.failed(error, where) from error
        return Answer(self, response, wire, address.at(address.host), where, part[0] or 0)

    def _connected_to_one(self, ips: Sequence[str], port: int, deadline_s: float) -> socket.socket:
        """A connection to the first address that takes one; each gets an equal part of the time that is left."""
        for left in range(len(ips), 1, -1):
            with contextlib.suppress(OSError):
                return self._connected(ips[-left], port, _left(deadline_s) / left)
        return self._connected(ips[-1], port, _left(deadline_s))

    def _connected(self, ip: str, port: int, timeout_s: float) -> socket.socket:
        sock = self._held(socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM))
        try:
            sock.settimeout(timeout_s)
            sock.connect((ip, port))
        except OSError:
            sock.close()
            raise
        return sock

    def _held(self, sock: socket.socket) -> socket.socket:
        with self._lock:
            if self._stop.is_set():
                sock.close()
                raise ConnectionAbortedError("closed")
            self._socket = sock
        return sock

    def failed(self, error: Exception, where: str) -> Unreachable:
        """Return what an error of the connection means, in words."""
        if self._stop.is_set():
            return Unreachable("was closed while it was read", where=where)
        if isinstance(error, TimeoutError):
            return Unreachable(
                "the server does not answer in time", where=where, hint="check the network, or raise the timeout"
            )
        if isinstance(error, ssl.SSLError):
            return tls.refused(error, where=where)
        if isinstance(error, http.client.HTTPException | ConnectionResetError | BrokenPipeError):
            return Unreachable("the server broke off", where=where, hint="try again")
        if isinstance(error, OSError):
            return Unreachable(f"no connection: {error}", where=where, hint="check the address and the network")
        return Unreachable("the server does not speak HTTP", where=where, hint="check the address")


class Answer:
    """An answer whose head has come; its body is read by `read`.

    Attributes:
        uri: where it comes from, after redirects.
        status: HTTP's, never a redirect's.
        size: bytes of the whole file, None where the server does not say.
        ranged: whether it begins where it was asked to (206) rather than at the file's start.
        broken: set when a read failed because the connection did, so that asking anew may help.
    """

    def __init__(
        self, client: Client, response: http.client.HTTPResponse, wire: _Wire, uri: str, where: str, start: int
    ) -> None:
        self.uri = uri
        self.status = response.status
        self.ranged = response.status == 206
        self.broken = False
        self.size: int | None = None
        self._client, self._response, self._wire, self._where, self._start = client, response, wire, where, start
        self._left: int | None = response.length

    def header(self, name: str) -> str:
        """Return a header's value, "" where it is absent."""
        return str(self._response.headers.get(name, ""))

    @property
    def media_type(self) -> str:
        """The content type without parameters, lower-case."""
        return self.header("Content-Type").partition(";")[0].strip().lower()

    def judged(self) -> Answer:
        """Take over what the headers say of the body. Raises Unreachable, UnsupportedMedia, and closes then."""
        encoding = self.header("Content-Encoding").strip().lower()
        if encoding not in {"", "identity"} and self.status < 300:
            self.close()
            raise UnsupportedMedia(
                "the server sends it compressed, though asked not to", where=self._where, hint="turn that off there"
            )
        if self.ranged:
            found = _RANGE.fullmatch(self.header("Content-Range").strip())
            if (0 if found is None else int(found[1])) != self._start:
                self.close()
                raise Unreachable("the server sends another part than asked for", where=self._where, hint="try again")
            self.size = int(found[3]) if found is not None and found[3].isdigit() else None
        elif self.status == 200:
            self.size = self._left
        return self

    def require(self) -> Answer:
        """Return itself if there is content (200 or 206). Raises Unreachable otherwise, and closes then."""
        if self.status in {200, 206}:
            return self
        self.close()
        known = self.status in set(HTTPStatus)
        phrase = f" {HTTPStatus(self.status).phrase}" if known else ""
        raise Unreachable(f"the server answers {self.status}{phrase}", where=self._where, hint="check the address")

    def read(self, size: int) -> bytes:
        """Return 1 to `size` bytes as they come, b"" at the end.

        Raises:
            Unreachable: silence for `read_timeout_s`, or hardly more than that, or the connection broke (`broken`).
        """
        self._wire.budget = size + _AROUND_BYTES
        try:
            data = self._response.read1(size)
            if not data and (self._left or self._client.closed):  # closed: what looks like its end may be none
                raise http.client.IncompleteRead(b"", self._left)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.broken = not isinstance(error, TimeoutError) and not self._client.closed
            self.close()
            raise self._client.failed(error, self._where) from error
        if self._left is not None:
            self._left -= len(data)
        if not data:
            self.close()
        return data

    def read_all(self, *, limit: int, timeout_s: float | None = None) -> bytes:
        """Return the rest of the body, and close.

        Args:
            limit: bytes it may have at most.
            timeout_s: for all of it; None: each read has its own deadline alone.

        Raises:
            UnsupportedMedia: it is longer than `limit`.
            Unreachable: as `read`, or it did not end in time.
        """
        self._wire.deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        parts, length = [], 0
        try:
            while data := self.read(_BUFFER_BYTES):
                parts.append(data)
                length += len(data)
                if length > limit:
                    raise UnsupportedMedia(f"is longer than {limit:,} bytes, the limit", where=self._where)
        finally:
            self.close()
        return b"".join(parts)

    def close(self) -> None:
        """Let go of the connection."""
        with contextlib.suppress(OSError):
            self._response.close()
        self._wire.hang_up()


class _Wire(io.RawIOBase):
    """A socket's bytes, with a deadline for each read and for all of them, a budget of bytes and a lowest rate."""

    def __init__(self, sock: socket.socket, *, timeout_s: float, deadline_s: float | None) -> None:
        self._sock = sock
        self._timeout_s = timeout_s
        self.deadline_s = deadline_s
        self.budget = _HEAD_BYTES
        self._waited_s, self._got = 0.0, 0

    def makefile(self, *_: Any) -> io.BufferedReader:
        """What http.client asks of a socket."""
        return io.BufferedReader(self, _BUFFER_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.budget <= 0:
            raise http.client.HTTPException("more around the content than a server needs")
        began_s = time.monotonic()
        timeout_s = self._timeout_s
        if self.deadline_s is not None:
            timeout_s = min(timeout_s, self.deadline_s - began_s)
            if timeout_s <= 0:
                raise TimeoutError("the deadline has passed")
        self._sock.settimeout(timeout_s)
        got = self._sock.recv_into(memoryview(buffer)[: self.budget])
        self.budget -= got
        self._waited_s += time.monotonic() - began_s
        self._got += got
        if self._waited_s > self._timeout_s:
            if self._got < _SLOW_BYTES:
                raise TimeoutError("too slow")
            self._waited_s, self._got = 0.0, 0
        return got

    def hang_up(self) -> None:
        self._sock.close()


def _http(uri: str) -> Address:
    scheme = uri.partition(":")[0].lower()
    if scheme not in {"http", "https"}:
        raise Refused("is no http(s) address, and others are not allowed here", where=without_secrets(uri))
    return split(uri)


def _redirected(uri: str, address: Address, location: str, where: str) -> tuple[str, Address]:
    """Where a redirect leads. Raises Refused, Unreachable."""
    if not location:
        raise Unreachable("the server redirects, but does not say where to", where=where, hint="check the address")
    try:
        uri = urljoin(uri, location)
        following = _http(uri)
    except (ValueError, Refused) as error:  # ConfigError is a ValueError
        raise Refused("the server redirects to what is no http(s) address", where=where) from error
    if address.scheme == "https" and following.scheme != "https":
        raise Refused("the server redirects from https to http", where=where, hint="give the http address itself")
    return uri, following


def _request(address: Address, start: int | None, stop: int | None) -> bytes:
    target = address.rest if address.rest.startswith("/") else f"/{address.rest}"
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {address.authority}",
        "User-Agent: limpid",
        "Accept: */*",
        "Accept-Encoding: identity",
        "Connection: close",
    ]
    if start is not None:
        lines.append(f"Range: bytes={start}-{'' if stop is None else stop - 1}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def _left(deadline_s: float) -> float:
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("the deadline has passed")
    return left_s
