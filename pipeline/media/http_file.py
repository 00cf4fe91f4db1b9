"""A file behind HTTP as a readable, seekable object, with our own limits instead of FFmpeg's HTTP client.

FFmpeg follows redirects, resolves names again after any check, and waits as long as the server likes. This reader
connects to the address that was checked, follows nothing, and bounds each read. With Range support it is seekable;
without, it reads forwards only.

FFmpeg calls `read` and `seek` from inside, where an exception of ours would get lost behind its own. So what goes wrong
there is kept in `failure` and looks like the end of the file; who opened the container asks for it.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import time
from urllib.parse import urlsplit

from pipeline.errors import ConfigError, Unreachable
from pipeline.media import hostile
from pipeline.media.source_base import SourceOptions

_HEAD_BYTES = 4096
_SKIP_BYTES = 1 << 20  # a seek this far ahead is read over instead of asking anew
_TRIES = 3  # connections for one read: a dropped one is taken up where it broke


class HttpFile(io.RawIOBase):
    """Reads `uri` (http or https) from byte 0.

    Raises:
        ConfigError: `uri` is no address.
        Unreachable: the first request fails.
    """

    def __init__(self, uri: str, *, where: str, options: SourceOptions) -> None:
        super().__init__()
        self.name = where
        self._where = where
        self._options = options
        try:
            parts = urlsplit(uri)
            self._https = parts.scheme == "https"
            self._host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigError(f"is no address: {error}", where=where) from error
        if not self._host or parts.username is not None:
            raise ConfigError("needs a host, and no user or password", where=where, hint="write http://host/path")
        self._port = port or (443 if self._https else 80)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if any(ord(c) <= 32 or ord(c) > 126 for c in self._target):
            raise ConfigError("holds characters that an address must not", where=where, hint="percent-encode them")
        self._deadline_s: float | None = time.monotonic() + options.open_timeout_s
        self._at = 0
        self._size: int | None = None
        self._ranges = False
        self._first = b""
        self.failure: Unreachable | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._response: http.client.HTTPResponse | None = None
        self._connect(0)

    # --- what a file object does ------------------------------------------------------------------------------------

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._ranges and self._size is not None

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; the server is asked again only at the next read. Returns -1 where that cannot be."""
        if whence == io.SEEK_END:
            if self._size is None:
                return -1
            offset += self._size
        elif whence == io.SEEK_CUR:
            offset += self._at
        if offset < 0 or (offset != self._at and not self.seekable()):
            return -1
        ahead = offset - self._at
        if self._response is not None and 0 < ahead <= _SKIP_BYTES:
            while self._at < offset and self.read(offset - self._at):
                pass
        if offset != self._at:
            self._drop()
            self._at = offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes; b"" at the end, or with `failure` set."""
        wanted = 1 << 16 if size is None or size < 0 else size
        if self.failure is not None or (self._size is not None and self._at >= self._size):
            return b""
        try:
            data = self._some(wanted)
        except Unreachable as error:
            self.failure = error
            return b""
        if self._at < _HEAD_BYTES and self._at == len(self._first):
            self._first += data[: _HEAD_BYTES - self._at]
        self._at += len(data)
        return data

    def _some(self, wanted: int) -> bytes:
        """The next bytes, from another connection if the one there is breaks. Raises Unreachable."""
        for attempt in range(1, _TRIES + 1):
            try:
                if self._response is None:
                    self._connect(self._at)
                assert self._response is not None
                data = self._response.read1(wanted)
                self._check_deadline()
                if data or self._size is None:
                    return data
                raise http.client.IncompleteRead(b"")
            except Unreachable:
                raise
            except (OSError, http.client.HTTPException) as error:
                self._drop()
                if not self._ranges or attempt == _TRIES or isinstance(error, TimeoutError):
                    raise self._failed(error) from error
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        self._drop()
        super().close()

    # --- what the source needs --------------------------------------------------------------------------------------

    def opened(self) -> None:
        """Say that the container is open: from here on each read has its own deadline."""
        self._deadline_s = None

    def why_no_pictures(self) -> Unreachable | None:
        """Return what keeps FFmpeg from reading on: a failure, or that it would have to go back, which cannot be."""
        at_end = self._size is None or self._at >= self._size
        if self.failure is None and not self.seekable() and at_end and self._at > 0:
            return self._forward_only()
        return self.failure

    def head(self) -> bytes:
        """Return the first bytes (up to 4 KiB) that were read."""
        return self._first

    # --- the connection ---------------------------------------------------------------------------------------------

    def _check_deadline(self) -> None:
        if self._deadline_s is not None and time.monotonic() > self._deadline_s:
            raise TimeoutError("the deadline for opening has passed")

    def _connect(self, start: int) -> None:
        options = self._options
        address = hostile.checked_address(
            str(self._host), self._port, allow_private=options.allow_private, where=self._where
        )
        timeout_s = options.read_timeout_s
        if self._deadline_s is not None:
            timeout_s = min(timeout_s, max(0.01, self._deadline_s - time.monotonic()))
        connection = http.client.HTTPConnection(str(self._host), self._port, timeout=timeout_s)
        try:
            sock: socket.socket = socket.create_connection(address, timeout=timeout_s)
            if self._https:
                sock = ssl.create_default_context().wrap_socket(sock, server_hostname=str(self._host))
            connection.sock = sock
            self._connection = connection
            connection.request("GET", self._target, headers={"Range": f"bytes={start}-", "Accept-Encoding": "identity"})
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self._drop()
            raise self._failed(error) from error
        self._response = response
        self._judge(response, start)

    def _judge(self, response: http.client.HTTPResponse, start: int) -> None:
        status = response.status
        if status == 206:
            self._ranges = True
            total = response.headers.get("Content-Range", "").rpartition("/")[2]
            self._size = int(total) if total.isdigit() else self._size
            return
        if status == 200:
            self._ranges = False
            length = response.headers.get("Content-Length", "")
            self._size = int(length) if length.isdigit() else None
            if start:
                self._drop()
                raise self._forward_only()
            return
        self._drop()
        if status == 416 and start == 0:  # no range of an empty file is satisfiable
            self._size = 0
            return
        if 300 <= status < 400:
            raise Unreachable(
                f"the server redirects ({status}), which is not followed",
                where=self._where,
                hint=f"use {hostile.without_secrets(response.headers.get('Location', 'the address it leads to'))}",
            )
        raise Unreachable(f"the server answers {status} {response.reason}", where=self._where, hint="check the address")

    def _drop(self) -> None:
        for part in (self._response, self._connection):
            if part is not None:
                with contextlib.suppress(OSError):
                    part.close()
        self._response = self._connection = None

    def _failed(self, error: Exception) -> Unreachable:
        if isinstance(error, Unreachable):
            return error
        if isinstance(error, TimeoutError):
            return Unreachable(
                "the server does not answer in time", where=self._where, hint="check the network, or raise the timeout"
            )
        if isinstance(error, ssl.SSLError):
            return Unreachable(f"no secure connection: {error.reason}", where=self._where, hint="check its certificate")
        if isinstance(error, http.client.HTTPException):
            return Unreachable("the server broke off", where=self._where, hint="try again")
        return Unreachable(f"no connection: {error}", where=self._where, hint="check the address and the network")

    def _forward_only(self) -> Unreachable:
        return Unreachable(
            "the server sends the file only from its start (no Range requests), but its index lies at the end",
            where=self._where,
            hint="download it first, or put the index in front (MP4 'faststart')",
        )
