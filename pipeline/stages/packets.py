"""Packets: keep what the source gave, so that the run can be replayed when the source cannot be read again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.stage import Resources, StageConfig, StageEnv, StageSpec, StreamStage, Work
from pipeline.store.objects import Store, open_store
from pipeline.store.packets import encode_packets, packets_name
from pipeline.wire.acks import Snapshot
from pipeline.wire.ids import Span
from pipeline.wire.packets import PacketBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class PacketsConfig(StageConfig):
    """How packets are kept."""

    part_packets: int = 512
    """Packets a part, 1 to 1,000,000; both tracks counted."""

    def __post_init__(self) -> None:
        if not 1 <= self.part_packets <= 1_000_000:
            raise ConfigError(
                f"part_packets is {self.part_packets}", where="packets.part_packets", hint="use 1 to 1,000,000"
            )


class Packets(StreamStage[PacketsConfig, PacketBatch, PacketBatch]):
    """A sink in units of packets: parts of `part_packets`, on a grid of packet numbers."""

    spec = StageSpec(
        name="packets", version=1, takes=(PacketBatch,), gives=None, resources=Resources(cpus=0.1), latency_target_s=0.5
    )
    Config = PacketsConfig

    def open(self, env: StageEnv) -> None:
        """Open the stream's store. Raises StorageError."""
        super().open(env)
        self._store: Store = open_store(env.store)
        self._held: list[PacketBatch] = []
        self._at = 0

    def process(self, work: Work[PacketBatch]) -> Sequence[PacketBatch]:
        """Keep the batch; write the parts that it completes. Raises StorageError."""
        batch = work.item
        while batch.span.stop >= (border := self._at + self.config.part_packets):
            self._write([*self._held, batch.cut(batch.span.start, border)])
            self._held = []
            if batch.span.stop == border:
                return ()
            batch = batch.cut(border, batch.span.stop)
        self._held.append(batch)
        return ()

    def finish(self) -> Sequence[PacketBatch]:
        """Write the short last part. Raises StorageError."""
        if self._held:
            self._write(self._held)
            self._held = []
        return ()

    def snapshot(self) -> Snapshot:
        """Return the start of the part that is not complete."""
        return Snapshot(after=self._at, resume_from=self._at)

    def restore(self, snapshot: Snapshot) -> None:
        """Go on with the part that starts at the snapshot."""
        self._at = snapshot.resume_from

    def bypass(self, work: Work[PacketBatch]) -> Sequence[PacketBatch]:
        """Keep the batch as well: a packet that kills others is worth keeping."""
        return self.process(work)

    def _write(self, batches: Sequence[PacketBatch]) -> None:
        span: Span = batches[0].span.part(self._at, batches[-1].span.stop)
        self._store.put_new(packets_name(span), encode_packets(batches, {"packets": self.spec.version}))
        self._at = span.stop
