"""One stream's epochs one after the other: a new one starts when all of the last is durable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Generic

from pipeline.flow.boxes import Box
from pipeline.flow.epoch import EpochFlow
from pipeline.flow.signals import (
    Action,
    Arrived,
    Completed,
    Entry,
    EpochDone,
    OpenSource,
    Position,
    Ref,
    Signal,
    SourceEnded,
    SourceLost,
    TakeApart,
)
from pipeline.wire.ids import StreamId

Aside = tuple[str, int, int]


class StreamFlow(Generic[Ref]):
    """The machine of one stream.

    Args:
        stream: whose.
        boxes: the physical plan.
        singles: the same graph, each node its own box: what a chain is taken apart into.
        position: where to take the stream up; None is its beginning.
        queue_bytes: as for EpochFlow.
        set_aside: per epoch (node, start, stop) that stamps have recorded.
    """

    def __init__(
        self,
        stream: StreamId,
        boxes: Sequence[Box],
        singles: Sequence[Box],
        *,
        position: Position | None = None,
        queue_bytes: int,
        set_aside: Mapping[int, Iterable[Aside]] | None = None,
    ) -> None:
        self._stream = stream
        self._boxes, self._singles = tuple(boxes), tuple(singles)
        self._queue_bytes = queue_bytes
        self._aside = {epoch: tuple(spans) for epoch, spans in (set_aside or {}).items()}
        self._next: Entry[Ref] | None = None
        self._ended = False
        self._position = position
        self.epoch = self._make(position.epoch if position else 0, position)

    def start(self) -> list[Action[Ref]]:
        """Return the first actions."""
        at = self._position
        opened = OpenSource(epoch=at.epoch if at else 0, packet=at.packet if at else 0)
        return [opened, *self._after(self.epoch.start())]

    def on(self, signal: Signal[Ref]) -> list[Action[Ref]]:
        """Take a signal; return what is to be done, in order."""
        match signal:
            case Arrived(entry=entry) if entry.span.epoch > self.epoch.epoch:
                self._next = entry
                return self._after(self.epoch.on(SourceEnded()))
            case SourceEnded():
                self._ended = True
            case SourceLost() if self._next is not None:
                return [OpenSource(epoch=self._next.span.epoch, packet=self._next.span.stop)]
        return self._after(self.epoch.on(signal))

    def _after(self, actions: list[Action[Ref]]) -> list[Action[Ref]]:
        """Add what follows from the epoch's end or from a chain that has to be taken apart."""
        out: list[Action[Ref]] = []
        for action in actions:
            out.append(action)
            match action:
                case TakeApart(position=position):
                    pulling = self.epoch.pulling
                    packets, ended = self.epoch.hand_over()
                    self.epoch = self._make(
                        position.epoch, position, self._singles, packets=packets, ended=ended, pulling=pulling
                    )
                    out += self._after(self.epoch.start())
                case EpochDone() if self._next is not None:
                    entry, self._next = self._next, None
                    self.epoch = self._make(entry.span.epoch, None, packets=[entry], ended=self._ended)
                    out += self._after(self.epoch.start())
                case EpochDone():
                    out.append(Completed())
        return out

    def _make(
        self,
        epoch: int,
        position: Position | None,
        boxes: Sequence[Box] | None = None,
        *,
        packets: Sequence[Entry[Ref]] = (),
        ended: bool = False,
        pulling: bool = False,
    ) -> EpochFlow[Ref]:
        known = getattr(self, "epoch", None)
        aside = known.set_aside if known is not None and known.epoch == epoch else self._aside.get(epoch, ())
        # A position without checkpoints is the epoch's beginning.
        at = position if position is not None and position.checkpoint else None
        return EpochFlow(
            self._stream,
            epoch,
            boxes or self._boxes,
            position=at,
            queue_bytes=self._queue_bytes,
            set_aside=aside,
            first_ticket=known.next_ticket if known is not None else 0,
            packets=packets,
            source_ended=ended,
            pulling=pulling,
        )
