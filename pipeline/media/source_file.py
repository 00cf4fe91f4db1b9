"""Files of any container, local or behind HTTP: probed once, then demuxed anew from the start for each pass.

A playlist of a recording is a file in several sessions, each with tracks of its own; each begins an epoch.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import av
import av.error

from pipeline.errors import CorruptMedia, LimpidError, SourceError, Unreachable
from pipeline.media import hostile
from pipeline.media.decode import MEDIA_ERRORS
from pipeline.media.feeds import HlsFeed
from pipeline.media.http_file import HttpFile
from pipeline.media.placing import Placing, choose_noting, demuxed
from pipeline.media.source_base import Source, SourceOptions, batched
from pipeline.media.source_hls import is_playlist, open_hls
from pipeline.media.timeline import Placed
from pipeline.media.tracks import Chosen, choose, source_info
from pipeline.wire.ids import StreamId
from pipeline.wire.packets import PacketBatch


class FileSource(Source):
    """A file: the best video track (largest area × rate that can be decoded) and the best audio track of it."""

    def __init__(self, uri: str, *, remote: bool, options: SourceOptions) -> None:
        self._uri = uri
        self._where = hostile.without_secrets(uri)
        self._options = options
        self._path = None if remote else hostile.local_path(uri)
        self._closed = False
        self._passes: set[_Opened] = set()  # what is open now
        self.problems = Counter()
        with self._opened() as opened:
            try:
                self._chosen = choose(opened.container, self._where)
            except CorruptMedia:
                opened.check(no_pictures=True)
                raise
            self.info = source_info(opened.container, self._chosen, self._where)

    def batches(self, *, epoch: int = 0, packet: int = 0, stream: StreamId) -> Generator[PacketBatch]:
        """Demux from the start, leaving out what lies before the position: the timeline's state is then the same."""
        self.problems = Counter()
        try:
            with self._opened() as opened:
                yield from self._sessions(opened, epoch=epoch, packet=packet, stream=stream)
        except SourceError:
            if not self._closed:
                raise

    def close(self) -> None:
        # A container that is closed under its demuxer brings the process down: the pass closes it itself.
        self._closed = True
        for opened in tuple(self._passes):
            opened.interrupt()

    def _sessions(self, opened: _Opened, *, epoch: int, packet: int, stream: StreamId) -> Generator[PacketBatch]:
        chosen, read = self._chosen, list[Any]()
        placing = Placing(opened.container, chosen, where=self._where, problems=self.problems)
        while True:
            placed = self._placed(opened, chosen, read, placing)
            with contextlib.closing(placed):
                yield from batched(placed, stream=stream, audio=chosen.audio_codec, epoch=epoch, packet=packet)
            if self._closed or not opened.next_session():
                return
            chosen, read = choose_noting(opened.container, self._where)
            placing = Placing(opened.container, chosen, where=self._where, problems=self.problems, first=placing.epoch)

    def _placed(self, opened: _Opened, chosen: Chosen, read: list[Any], placing: Placing) -> Generator[Placed]:
        for track, packet in demuxed(
            opened.container,
            chosen,
            read=read,
            where=self._where,
            read_timeout_s=self._options.read_timeout_s,
            problems=self.problems,
            check=lambda error: opened.check(),
            closed=lambda: self._closed,
        ):
            yield from placing.push(track, packet)
        yield from placing.flush()

    @contextlib.contextmanager
    def _opened(self) -> Iterator[_Opened]:
        opened = _Opened(self._uri, self._where, self._path, self._options)
        self._passes.add(opened)
        try:
            yield opened
        finally:
            self._passes.discard(opened)
            opened.close()


class _Opened:
    """A container and what it reads from; closes both."""

    def __init__(self, uri: str, where: str, path: Path | None, options: SourceOptions) -> None:
        self._file: HttpFile | None = None
        self._playlist: HlsFeed | None = None
        self.container: Any = None
        limits = {"format_whitelist": ",".join(_demuxers())}
        try:
            if path is None and is_playlist(uri, options):
                self._playlist = HlsFeed(open_hls(uri, options), where=where)
                self._open_session()
            elif path is None:
                self._file = HttpFile(uri, where=where, options=options)
                self.container = av.open(self._file, mode="r", options=limits, buffer_size=64 << 10)
                self.check()
                self._file.opened()
            else:
                assert path is not None
                self.container = av.open(
                    f"file:{path.resolve()}",
                    mode="r",
                    options={**limits, "protocol_whitelist": "file"},
                    timeout=(options.open_timeout_s, options.read_timeout_s),
                )
        except LimpidError:
            self.close()
            raise
        except (av.error.ExitError, TimeoutError) as error:
            self.close()
            raise Unreachable(
                f"did not open within {options.open_timeout_s:g} s", where=where, hint="check the network"
            ) from error
        except MEDIA_ERRORS as error:
            head = self._file.head() if self._file is not None else _head(path)
            failure = self._failure()
            self.close()
            raise failure or hostile.why_not_media(head, where=where) from error

    def next_session(self) -> bool:
        """Go on to what follows a playlist's session, in another container; False where nothing does.

        Raises:
            Unreachable: reading failed.
            CorruptMedia: what follows cannot be read.
        """
        if self._playlist is None or not self._playlist.stream.next_session():
            return False
        self.container.close()
        try:
            self._open_session()
        except MEDIA_ERRORS as error:
            raise self._failure() or hostile.why_not_media(b"", where=self._playlist.name) from error
        return True

    def _open_session(self) -> None:
        assert self._playlist is not None
        self.container = av.open(self._playlist, mode="r", format=self._playlist.stream.format, buffer_size=64 << 10)
        self.check()

    def _failure(self) -> SourceError | None:
        feed = self._playlist or self._file
        return feed.failure if feed is not None else None

    def check(self, *, no_pictures: bool = False) -> None:
        """Raise what went wrong below the container (which sees an end there)."""
        failure = self._file.why_no_pictures() if no_pictures and self._file is not None else self._failure()
        if failure is not None:
            raise failure

    def interrupt(self) -> None:
        """Have whoever waits for the network go on at once, with an error. From any thread."""
        for feed in (self._file, self._playlist):
            if feed is not None:
                feed.interrupt()

    def close(self) -> None:
        if self.container is not None:
            self.container.close()
        for feed in (self._file, self._playlist):
            if feed is not None:
                feed.close()


def _head(path: Path | None) -> bytes:
    assert path is not None
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError:
        return b""


def _demuxers() -> tuple[str, ...]:
    # FFmpeg compares a demuxer's whole name list with each entry, so all aliases of a demuxer have to be named.
    return (*hostile.CONTAINERS.split(","), "mp4", "m4a", "3gp", "3g2", "mj2", "webm")
