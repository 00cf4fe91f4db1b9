"""What a run is asked for, says while it goes on, and ends with; the same in this process and on Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipeline.config import Settings
from pipeline.errors import LimpidError
from pipeline.media.source import is_live
from pipeline.wire.ids import StreamId
from pipeline.wire.status import Gap, Quantiles, SourceState


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One stream to process: from `source` (a URI or path) into the directory `store` (a path or URL).

    `rung`: of the overload ladder that a live stream begins at.
    `overwrite`: begin anew, even where the store holds an earlier run; else that is taken up where it stopped.
    """

    stream: StreamId
    source: str
    store: str
    settings: Settings
    overwrite: bool = False
    rung: int = 0

    @property
    def live(self) -> bool:
        """Whether the source passes whether it is read or not."""
        return is_live(self.source, self.settings.source.mode)


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a stream is.

    Attributes:
        state: "connecting", "running", "completed", "stopped", "failed".
        frames_done: frames that are durable in every sink, over all epochs.
        fps: frames made durable a second of wall time since the start.
        epoch, seq: everything before this frame is durable.
        width, height: of the epoch's pictures; 0 before the first.
        fps_in, fps_out: frames a second that arrive, and that the last stage is done with, in the last seconds.
        lag_s: from a frame's arrival until the last stage is done with it.
        settling: lags still tell of what arrived while processes started.
        latency_s: per box from a frame's arrival until the box is done with it.
        cpu_cores: that the stream's processes use for it.
        rung: of the overload ladder.
        source: how the source is doing.
        model, runtime: what enhances.
        gain_db: what the model was measured to gain over the generic one; None: not measured.
        gaps: the last of a live stream.
        counts: as in Outcome.
    """

    stream: StreamId
    state: str
    frames_done: int
    fps: float
    epoch: int = 0
    seq: int = 0
    width: int = 0
    height: int = 0
    fps_in: float = 0.0
    fps_out: float = 0.0
    lag_s: Quantiles = field(default_factory=Quantiles)
    settling: bool = False
    latency_s: Mapping[str, Quantiles] = field(default_factory=dict)
    cpu_cores: float = 0.0
    rung: int = 0
    source: SourceState = field(default_factory=SourceState)
    model: str = ""
    runtime: str = ""
    gain_db: float | None = None
    gaps: tuple[Gap, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)


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
