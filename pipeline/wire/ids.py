"""Names of what moves: a stream, and a run of consecutive units of one of its epochs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

from pipeline.errors import ConfigError

StreamId = NewType("StreamId", str)

_STREAM_ID = re.compile(r"[a-z0-9-]{1,64}")


def stream_id(text: str) -> StreamId:
    """Return `text` as a stream's id.

    Raises:
        ConfigError: it is not 1 to 64 characters of a-z, 0-9 and "-".
    """
    if not _STREAM_ID.fullmatch(text):
        raise ConfigError(f"'{text}' is no stream id", where="id", hint="use 1 to 64 characters of a-z, 0-9 and '-'")
    return StreamId(text)


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Span:
    """The units [start, stop) of one epoch of one stream; the identity of every batch, ack, segment and part.

    Units are frames (counted from 0, contiguous, in presentation order), except on a `PacketBatch`,
    whose units are packets in the order in which the source gave them.
    """

    stream: StreamId
    epoch: int
    start: int
    stop: int

    def __post_init__(self) -> None:
        if self.epoch < 0 or self.start < 0 or self.stop < self.start:
            raise ValueError(f"not a span: epoch {self.epoch}, [{self.start}, {self.stop})")

    def __len__(self) -> int:
        return self.stop - self.start

    def __str__(self) -> str:
        return f"{self.stream}/{self.epoch}[{self.start}:{self.stop}]"

    def part(self, start: int, stop: int) -> Span:
        """Return the span [start, stop) of the same epoch; it need not lie inside this one."""
        return Span(stream=self.stream, epoch=self.epoch, start=start, stop=stop)

    def covers(self, other: Span) -> bool:
        """Say whether `other` lies inside this span, in the same epoch of the same stream."""
        same = self.stream == other.stream and self.epoch == other.epoch
        return same and self.start <= other.start and other.stop <= self.stop
