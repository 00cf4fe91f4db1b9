"""What is done about a span at which work fails: tried again, tried alone, set aside, or the end of the stream."""

from __future__ import annotations

from typing import Any, Final

from pipeline.errors import LimpidError, StageError
from pipeline.flow.boxes import Box
from pipeline.flow.signals import Fail, Report, SetAside
from pipeline.wire.events import Event
from pipeline.wire.ids import Span, StreamId

TRIES = 3
"""Of one span before it is set aside; the last one is made alone in a fresh process."""

TAKE_APART: Final = object()
"""Stands for signals.TakeApart, whose position only the epoch's machine knows."""


class Failures:
    """Counts failures by box and place, and says what follows.

    Args:
        stream, epoch: whose.
        aside: (node, start, stop) that pass unprocessed; added to here.
    """

    def __init__(self, stream: StreamId, epoch: int, aside: set[tuple[str, int, int]]) -> None:
        self._stream, self._epoch = stream, epoch
        self._aside = aside
        self._counts: dict[tuple[str, int], int] = {}

    def count(self, box: Box, span: Span) -> int:
        """Return how often in a row the box has failed at a span."""
        return self._counts.get((box.name, span.start), 0)

    def forget(self, box: Box, span: Span) -> None:
        """Note that the box has got past a span."""
        self._counts.pop((box.name, span.start), None)

    def failed(self, box: Box, span: Span, error: LimpidError | None, node: str) -> tuple[int, list[Any]]:
        """Count a failure; return how many there were, and the actions that follow (TAKE_APART among them).

        Args:
            box: that failed.
            span: of its driving input, at which it did.
            error: what it raised; None where its process died.
            node: the stage that raised it; "" where that is not known.
        """
        count = self._counts[box.name, span.start] = self.count(box, span) + 1
        where = node or box.name
        why = str(error) if error is not None else "its process died"
        actions: list[Any] = [self._report("stage.failed", box, span, {"stage": where, "try": count, "reason": why})]
        if count < TRIES - 1 or (count < TRIES and len(box.nodes) == 1):
            return count, actions
        if len(box.nodes) > 1:
            return count, [*actions, TAKE_APART]
        name = box.nodes[0].name
        if any(known == name and start == span.start for known, start, _ in self._aside):
            last = error or StageError(
                "its process dies even when the batch is passed over", stage=name, span=str(span)
            )
            return count, [*actions, Fail(error=last)]
        self.forget(box, span)
        self._aside.add((name, span.start, span.stop))
        told = self._report("batch.set_aside", box, span, {"stage": name, "reason": why})
        return count, [*actions, SetAside(node=name, span=span), told]

    def _report(self, kind: str, box: Box, span: Span, data: dict[str, Any]) -> Report:
        place = {"start": span.start, "stop": span.stop}
        seq = -1 if box.packets else span.start  # packets are no frames
        return Report(event=Event(type=kind, stream=self._stream, epoch=self._epoch, seq=seq, data=data | place))
