"""What a run is asked for, says while it goes on, and ends with; the same in this process and on Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipeline.config import Settings
from pipeline.errors import LimpidError
from pipeline.wire.ids import StreamId


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One stream to process: from `source` (a URI or path) into the directory `store` (a path or URL).

    `overwrite`: begin anew, even where the store holds an earlier run; else that is taken up where it stopped.
    """

    stream: StreamId
    source: str
    store: str
    settings: Settings
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a stream is.

    Attributes:
        state: "connecting", "running", "completed", "stopped", "failed".
        frames_done: frames that are durable in every sink, over all epochs.
        fps: frames made durable a second of wall time since the start.
    """

    stream: StreamId
    state: str
    frames_done: int
    fps: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a stream ended.

    Attributes:
        state: "completed", "stopped" (on request; playable, can be taken up again) or "failed".
        frames: durable in every sink, over all epochs.
        epochs: that the content has.
        seconds: of wall time.
        error: why it failed.
        counts: what is worth knowing, by cause ("restarts.encode", "set_aside.enhance", "retries"); "gap_ms_max" is the
            longest time between two batches that reached a sink, from the first durable frame on.
    """

    stream: StreamId
    state: str
    frames: int
    epochs: int
    seconds: float
    error: LimpidError | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


OnProgress = Callable[[Progress], None]
