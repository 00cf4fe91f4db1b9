"""What users are told: one event of the ordered log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.wire.ids import StreamId

EVENT_TYPES = frozenset(
    {
        "stream.state_changed",
        "quality.degraded",
        "quality.recovered",
        "gap",
        "batch.set_aside",
        "stage.failed",
        "effort.changed",
        "model.promoted",
        "model.rejected",
        "model.rolled_back",
    }
)
"""The types that are raised today; docs/formats.md says what each carries."""

OPERATIONAL = frozenset(
    {
        "stream.state_changed",
        "stage.failed",
        "gap",
        "effort.changed",
        "model.promoted",
        "model.rejected",
        "model.rolled_back",
    }
)
"""Types that tell of the run, not of the content: a replay of the stream need not repeat them (design.md §5)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One thing that a user is told.

    Attributes:
        type: one of EVENT_TYPES.
        stream, epoch, seq: where in the content it happened (seq: first frame concerned; -1: none).
        data: JSON-able details.
        occurrence: of an event of the run, its number in the stream's log, for the same may happen again; else 0.
    """

    type: str
    stream: StreamId
    epoch: int
    seq: int
    data: Mapping[str, Any] = field(default_factory=dict)
    occurrence: int = 0

    def __post_init__(self) -> None:
        if self.type not in EVENT_TYPES:
            raise ValueError(f"unknown event type {self.type}")

    @property
    def event_id(self) -> str:
        """The event's name: the same occurrence has the same name after any restart."""
        name = f"{self.stream}-{self.epoch}-{self.seq}-{self.type}"
        return f"{name}-{self.occurrence}" if self.occurrence else name

    def data_json(self) -> str:
        """Return the details as canonical JSON."""
        return json.dumps(dict(self.data), sort_keys=True, separators=(",", ":"))
