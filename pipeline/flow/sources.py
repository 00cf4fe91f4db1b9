"""Where a stream's packets come from: a source of media, or what an earlier run has kept of one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from pipeline.config import SourceSettings
from pipeline.errors import LimpidError, NotFound, StorageError
from pipeline.media.source import Source, SourceInfo, SourceOptions, is_live, open_source
from pipeline.store.objects import open_store
from pipeline.store.packets import decode_packets, packet_parts, packets_name
from pipeline.wire.ids import Span, StreamId
from pipeline.wire.packets import PacketBatch
from pipeline.wire.status import Gap, SourceState

KEPT = "kept:"
"""Before the path or URL of a stream's directory: the packets in it are the source (`outputs.packets`)."""

_BATCH_PACKETS = 16
_END = object()


def options_of(settings: SourceSettings) -> SourceOptions:
    """Return how settings have a source opened."""
    return SourceOptions(
        open_timeout_s=settings.open_timeout_s,
        read_timeout_s=settings.read_timeout_s,
        allow_private=settings.allow_private,
        local=settings.local,
        networks=settings.networks,
        ca_file=settings.ca_file,
        mode=settings.mode,
        reconnect_initial_s=settings.reconnect_initial_s,
        reconnect_max_s=settings.reconnect_max_s,
        reconnect_attempts=settings.reconnect_attempts,
        log_s=settings.log_s,
        slate_after_s=settings.slate_after_s,
        slate_text=settings.slate_text,
    )


def open_any(uri: str, settings: SourceSettings) -> Source:
    """Open what `uri` names, kept packets included where files are allowed; raises what open_source raises."""
    if uri.startswith(KEPT) and settings.local:
        return KeptPackets(uri.removeprefix(KEPT))
    return open_source(uri, options=options_of(settings))


@dataclass(frozen=True, kw_only=True, slots=True)
class Pause:
    """Nothing has come from a live source for a while."""

    state: SourceState


class PacketReader:
    """The source of one stream, opened when it is first read, and read batch by batch from any place on."""

    def __init__(self, stream: StreamId, uri: str, settings: SourceSettings) -> None:
        self._stream, self._uri, self._settings = stream, uri, settings
        self._source: Source | None = None
        self._batches: Iterator[PacketBatch | None] | None = None
        self._at = (0, 0)
        self._given_s, self._whole = 0.0, True  # when the last batch was given, and whether more was there

    def seek(self, epoch: int, packet: int) -> None:
        """Have the next batch begin at a packet."""
        self._at = (epoch, packet)
        self._batches = None

    @property
    def live(self) -> bool:
        """Whether what is not read is lost."""
        return is_live(self._uri, self._settings.mode)

    @property
    def state(self) -> SourceState:
        """How the source is doing."""
        return self._source.state if self._source is not None else SourceState(connected=False)

    def gap_before(self, epoch: int) -> Gap | None:
        """Return what is missing before an epoch of a live source."""
        return self._source.gap_before(epoch) if self._source is not None else None

    def next(self, *, pace_s: float = 0.0) -> PacketBatch | Pause | None:
        """Return the next batch; a pause where a live source gives nothing for a while; None at the end.

        Args:
            pace_s: seconds behind the batch before, unless more was there already: what comes meanwhile comes together.

        Raises:
            SourceError, StorageError: it cannot be opened or read; another call tries again.
        """
        if self._source is None:
            self._source = open_any(self._uri, self._settings)
        if self._batches is None:
            epoch, packet = self._at
            self._batches = self._source.batches(epoch=epoch, packet=packet, stream=self._stream)
        if pace_s and not self._whole:
            time.sleep(max(0.0, self._given_s + pace_s - time.monotonic()))
        try:
            batch = next(self._batches, _END)
        except LimpidError:
            self._batches = None
            raise
        if batch is None:
            return Pause(state=self._source.state)
        if isinstance(batch, PacketBatch):
            self._at = (batch.span.epoch, batch.span.stop)
            self._given_s, self._whole = time.monotonic(), len(batch) >= _BATCH_PACKETS
            return batch
        return None

    def close(self) -> None:
        """Let go of the source."""
        if self._source is not None:
            self._source.close()
            self._source = None


class KeptPackets(Source):
    """The packets in a stream's directory.

    Raises:
        NotFound: there are none.
        StorageError: they cannot be read, or a part is missing.
    """

    def __init__(self, url: str) -> None:
        self._store = open_store(url)
        self._parts = packet_parts(self._store)
        if not self._parts:
            raise NotFound(
                "no packets were kept here", where=self._store.url, hint="runs keep them with outputs.packets: true"
            )
        for (epoch, _, stop), (following, first, _) in zip(self._parts, self._parts[1:], strict=False):
            if first != (stop if following == epoch else 0):
                raise StorageError("kept packets are missing", where=f"{self._store.url}: epoch {epoch}, packet {stop}")
        first_batch = self._read(*self._parts[0], StreamId("kept"))
        self.info = SourceInfo(
            uri=f"{KEPT}{self._store.url}",
            container="packets",
            tracks=(),
            video=first_batch.video,
            audio=first_batch.audio,
            duration_s=None,
        )
        self.problems: Counter[str] = Counter()

    def batches(self, *, epoch: int = 0, packet: int = 0, stream: StreamId) -> Generator[PacketBatch, None, None]:
        """Yield the packets from a position on; see Source.batches. Raises StorageError."""
        for part in self._parts:
            if (part[0], part[2]) <= (epoch, packet):
                continue
            whole = self._read(*part, stream)
            low = max(part[1], packet) if part[0] == epoch else part[1]
            for start in range(part[1], part[2], _BATCH_PACKETS):
                stop = min(start + _BATCH_PACKETS, part[2])
                if stop > low:
                    yield whole.cut(max(start, low), stop)

    def close(self) -> None:
        """Nothing is held between reads."""

    def _read(self, epoch: int, first: int, stop: int, stream: StreamId) -> PacketBatch:
        name = packets_name(Span(stream=stream, epoch=epoch, start=first, stop=stop))
        return decode_packets(self._store.get(name), stream, epoch, first, where=f"{self._store.url}/{name}")
