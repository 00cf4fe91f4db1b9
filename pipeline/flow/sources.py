"""Where a job's packets come from: a source of media, or what an earlier run has kept of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator

from pipeline.errors import NotFound, StorageError
from pipeline.flow.job import Job
from pipeline.media.source import Source, SourceInfo, SourceOptions, open_source
from pipeline.store.objects import open_store
from pipeline.store.packets import decode_packets, packet_parts, packets_name
from pipeline.wire.ids import Span, StreamId
from pipeline.wire.packets import PacketBatch

KEPT = "kept:"
"""Before the path or URL of a stream's directory: the packets in it are the source (`outputs.packets`)."""

_BATCH_PACKETS = 16


def open_job_source(job: Job) -> Source:
    """Open what a job names; raises what open_source raises."""
    if job.source.startswith(KEPT):
        return KeptPackets(job.source.removeprefix(KEPT))
    wanted = job.settings.source
    options = SourceOptions(
        open_timeout_s=wanted.open_timeout_s, read_timeout_s=wanted.read_timeout_s, allow_private=wanted.allow_private
    )
    return open_source(job.source, options=options)


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
