"""A file behind HTTP as a readable, seekable object, with our own limits instead of FFmpeg's HTTP client.

FFmpeg follows redirects anywhere, resolves names again after any check, and waits as long as the server likes. This
reader asks through `fetch`, which does none of that. With Range support it is seekable; without, it reads forwards
only.

FFmpeg calls `read` and `seek` from inside, where an exception of ours would get lost behind its own. So what goes wrong
there is kept in `failure` and looks like the end of the file; who opened the container asks for it.
"""

from __future__ import annotations

import io
import time

from pipeline.errors import SourceError, Unreachable
from pipeline.media.fetch import Answer, Client
from pipeline.media.source_base import SourceOptions

_HEAD_BYTES = 4096
_SKIP_BYTES = 1 << 20  # a seek this far ahead is read over instead of asking anew
_TRIES = 3  # connections for one read: a dropped one is taken up where it broke


class HttpFile(io.RawIOBase):
    """Reads `uri` (http or https) from byte 0. Closing `client` from another thread ends the opening as well.

    Raises:
        ConfigError: `uri` is no address.
        Refused: it, or what it redirects to, is not allowed.
        Unreachable: the first request fails.
    """

    def __init__(self, uri: str, *, where: str, options: SourceOptions, client: Client | None = None) -> None:
        super().__init__()
        self.name = where
        self._uri = uri
        self._where = where
        self._options = options
        self._client = client or Client(options)
        self._deadline_s: float | None = time.monotonic() + options.open_timeout_s
        self._at = 0
        self._size: int | None = None
        self._ranges = False
        self._first = b""
        self.failure: SourceError | None = None
        self._answer: Answer | None = None
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
        if self._answer is not None and 0 < ahead <= _SKIP_BYTES:
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
        except SourceError as error:
            self.failure = error
            return b""
        if self._at < _HEAD_BYTES and self._at == len(self._first):
            self._first += data[: _HEAD_BYTES - self._at]
        self._at += len(data)
        return data

    def _some(self, wanted: int) -> bytes:
        """The next bytes, from another connection if the one there is breaks. Raises SourceError."""
        for attempt in range(1, _TRIES + 1):
            if self._answer is None:
                self._connect(self._at)
            if self._answer is None:
                return b""  # an empty file
            answer = self._answer
            try:
                data = answer.read(wanted)
            except Unreachable:
                self._drop()
                if not answer.broken or not self._ranges or attempt == _TRIES:
                    raise
                continue
            self._check_deadline()
            return data
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()
        self._drop()
        super().close()

    def interrupt(self) -> None:
        """End a read that is under way in another thread, at once, with `failure` set."""
        self._client.close()

    # --- what the source needs --------------------------------------------------------------------------------------

    def opened(self) -> None:
        """Say that the container is open: from here on each read has its own deadline."""
        self._deadline_s = None

    def why_no_pictures(self) -> SourceError | None:
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
            raise Unreachable("the server does not answer in time", where=self._where, hint="raise the timeout")

    def _connect(self, start: int) -> None:
        timeout_s = self._options.read_timeout_s
        if self._deadline_s is not None:
            timeout_s = min(timeout_s, max(0.01, self._deadline_s - time.monotonic()))
        answer = self._client.get(self._uri, start=start, timeout_s=timeout_s)
        if answer.status == 416 and start == 0:  # no range of an empty file is satisfiable
            answer.close()
            self._size = 0
            return
        answer.require()
        self._ranges = answer.ranged
        if answer.ranged:
            self._size = answer.size if answer.size is not None else self._size
        else:
            self._size = answer.size
            if start:
                answer.close()
                raise self._forward_only()
        self._answer = answer

    def _drop(self) -> None:
        if self._answer is not None:
            self._answer.close()
        self._answer = None

    def _forward_only(self) -> Unreachable:
        return Unreachable(
            "the server sends the file only from its start (no Range requests), but its index lies at the end",
            where=self._where,
            hint="download it first, or put the index in front (MP4 'faststart')",
        )
