"""What the service tells of streams, stages and capacity; as JSON these are the answers of the HTTP API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

QUEUED, CONNECTING, RUNNING, DEGRADED, RECONNECTING = "queued", "connecting", "running", "degraded", "reconnecting"
COMPLETED, FAILED, STOPPED = "completed", "failed", "stopped"
STATES = (QUEUED, CONNECTING, RUNNING, DEGRADED, RECONNECTING, COMPLETED, FAILED, STOPPED)
ENDED = frozenset({COMPLETED, FAILED, STOPPED})


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantiles:
    """Of the last minute's batches (of `lag_s`: the last five seconds'), seconds; all 0 where nothing was measured."""

    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """What is missing before an epoch of a live stream.

    Attributes:
        epoch, reason: the epoch behind it, and why.
        seconds: about how long; 0 where nothing is missing.
        slate: the epoch behind it shows a slate, no source.
    """

    epoch: int
    reason: str
    seconds: float
    slate: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceState:
    """How a source is doing: whether it is connected, why not, and how many tries in a row have failed."""

    connected: bool = True
    reason: str = ""
    attempts: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamStatus:
    """One stream as the service sees it.

    Attributes:
        source: without secrets.
        state, reason: one of STATES, and in words why, where that is not plain.
        created_at, updated_at: Unix seconds.
        fps_in, fps_out: frames a second that arrive, and that reach the output's files, in the last seconds.
        lag_s: from a frame's arrival until it is in the output's file.
        latency_s: per stage (box) from a frame's arrival until the stage is done with it.
        rung: of the overload ladder, 0 where nothing is made lighter.
        epoch, seq: everything before this frame is durable.
        frames: durable, over all epochs.
        model, runtime: what enhances.
        gain_db: dB of PSNR-Y that the model was measured to gain over the generic one; null where nothing was.
        counts: whatever is counted, by cause.
        gaps: the last 20.
        links: name → path of this API.
    """

    id: str
    source: str
    state: str
    labels: Mapping[str, str] = field(default_factory=dict)
    priority: int = 5
    reason: str = ""
    created_at: float = 0.0
    updated_at: float = 0.0
    width: int = 0
    height: int = 0
    fps_in: float = 0.0
    fps_out: float = 0.0
    lag_s: Quantiles = field(default_factory=Quantiles)
    max_lag_s: float = 1.0
    latency_s: Mapping[str, Quantiles] = field(default_factory=dict)
    rung: int = 0
    epoch: int = 0
    seq: int = 0
    frames: int = 0
    model: str = ""
    runtime: str = ""
    gain_db: float | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()
    last_error: str = ""
    links: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class StageStatus:
    """One pooled stage over all streams: what it is asked for, and what it has.

    Attributes:
        streams: that use it.
        workers, min, max: now, and the limits of scaling.
        pending: workers that are wanted and not there yet (starting, or no room).
        queue: batches that wait.
        arrival_hz, service_s: batches a second, seconds of one batch.
        utilisation, target_utilisation: share of the workers' time that is used; what scaling aims at.
        latency_s: from asking to answer.
    """

    name: str
    streams: int
    workers: int
    min: int
    max: int
    pending: int
    queue: int
    arrival_hz: float
    service_s: float
    utilisation: float
    target_utilisation: float
    latency_s: Quantiles


@dataclass(frozen=True, kw_only=True, slots=True)
class Capacity:
    """What the cluster has and what streams use of it, in cores; GPUs as Ray counts them.

    Attributes:
        cpus, gpus: of the cluster.
        used_cpus: measured, of the running streams.
        streams: that run.
        room_cpus: what a further stream may take.
    """

    cpus: float
    gpus: float
    used_cpus: float
    streams: int
    room_cpus: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether a stream fits: what it is expected to take, what there is, and when to ask again if it does not."""

    fits: bool
    wanted_cpus: float
    room_cpus: float
    reason: str
    retry_after_s: float = 0.0
