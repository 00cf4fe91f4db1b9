"""Reading a stream's source in a process that outlives decode: packets from any place on, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.config import SourceSettings
from pipeline.errors import LimpidError
from pipeline.media.source import Source, SourceOptions, open_source
from pipeline.wire.ids import StreamId
from pipeline.wire.packets import PacketBatch


class Ingest:
    """The source of one stream, opened when it is first read."""

    def __init__(self, stream: StreamId, uri: str, settings: SourceSettings) -> None:
        self._stream, self._uri = stream, uri
        self._options = SourceOptions(
            open_timeout_s=settings.open_timeout_s,
            read_timeout_s=settings.read_timeout_s,
            allow_private=settings.allow_private,
        )
        self._source: Source | None = None
        self._batches: Iterator[PacketBatch] | None = None
        self._at = (0, 0)

    def seek(self, epoch: int, packet: int) -> None:
        """Have the next batch begin at a packet."""
        self._at = (epoch, packet)
        self._batches = None

    def next(self) -> PacketBatch | None:
        """Return the next batch; None at the end.

        Raises:
            SourceError: it cannot be opened or read; another call tries again.
        """
        if self._batches is None:
            if self._source is None:
                self._source = open_source(self._uri, options=self._options)
            epoch, packet = self._at
            self._batches = self._source.batches(epoch=epoch, packet=packet, stream=self._stream)
        try:
            batch = next(self._batches, None)
        except LimpidError:
            self._batches = None
            raise
        if batch is not None:
            self._at = (batch.span.epoch, batch.span.stop)
        return batch

    def close(self) -> None:
        """Let go of the source."""
        if self._source is not None:
            self._source.close()
            self._source = None
