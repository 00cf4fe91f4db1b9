"""Every metric of the service in one table, and the text that Prometheus reads (exposition format 0.0.4).

Base units (seconds, cores as a number, frames a second), counters end in `_total`. Labels are ids, names of stages and
causes: never a URL, an error's text or anything else that could hold a secret or grow without bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pipeline.wire.status import STATES, Capacity, Quantiles, StageStatus, StreamStatus

T = TypeVar("T")
Sample = tuple[tuple[str, ...], float]
"""The values of a metric's labels, and its value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric(Generic[T]):
    """One metric and where it comes from.

    Attributes:
        name: with unit, of [a-z_].
        type: "gauge" or "counter".
        unit: in words, for the documentation.
        help: what it says, one sentence.
        labels: their names.
        of: a status → samples.
    """

    name: str
    type: str
    unit: str
    help: str
    labels: tuple[str, ...] = ()
    of: Callable[[T], Iterable[Sample]]


def _one(value: Callable[[T], float], *names: Callable[[T], str]) -> Callable[[T], Iterable[Sample]]:
    return lambda status: ((tuple(name(status) for name in names), value(status)),)


def _quantiles(labels: tuple[str, ...], found: Quantiles) -> Iterable[Sample]:
    return (((*labels, q), value) for q, value in (("0.5", found.p50), ("0.95", found.p95), ("0.99", found.p99)))


def _stream(value: Callable[[StreamStatus], float]) -> Callable[[StreamStatus], Iterable[Sample]]:
    return _one(value, lambda s: s.id)


def _stage(value: Callable[[StageStatus], float]) -> Callable[[StageStatus], Iterable[Sample]]:
    return _one(value, lambda s: s.name)


OF_STREAMS: tuple[Metric[StreamStatus], ...] = (
    Metric(
        name="limpid_stream_info",
        type="gauge",
        unit="1",
        help="A stream that the service has, its state, and what enhances it.",
        labels=("stream", "state", "model", "runtime"),
        of=lambda s: (((s.id, s.state, s.model, s.runtime), 1.0),),
    ),
    Metric(
        name="limpid_stream_input_frames_per_second",
        type="gauge",
        unit="frames/s",
        help="Frames that arrive from the source, over the last seconds.",
        labels=("stream",),
        of=_stream(lambda s: s.fps_in),
    ),
    Metric(
        name="limpid_stream_output_frames_per_second",
        type="gauge",
        unit="frames/s",
        help="Frames that reach the output's files, over the last seconds.",
        labels=("stream",),
        of=_stream(lambda s: s.fps_out),
    ),
    Metric(
        name="limpid_stream_lag_seconds",
        type="gauge",
        unit="s",
        help="From a frame's arrival until it is in the output's file: quantiles of the last minute.",
        labels=("stream", "quantile"),
        of=lambda s: _quantiles((s.id,), s.lag_s),
    ),
    Metric(
        name="limpid_stream_lag_target_seconds",
        type="gauge",
        unit="s",
        help="The lag above which work is made lighter.",
        labels=("stream",),
        of=_stream(lambda s: s.max_lag_s),
    ),
    Metric(
        name="limpid_stream_stage_latency_seconds",
        type="gauge",
        unit="s",
        help="From a frame's arrival until a stage is done with it: quantiles of the last minute.",
        labels=("stream", "stage", "quantile"),
        of=lambda s: (sample for name in sorted(s.latency_s) for sample in _quantiles((s.id, name), s.latency_s[name])),
    ),
    Metric(
        name="limpid_stream_rung",
        type="gauge",
        unit="0 to 5",
        help="Rung of the overload ladder: 0 full work, 4 no network, 5 also a lighter encoder.",
        labels=("stream",),
        of=_stream(lambda s: s.rung),
    ),
    Metric(
        name="limpid_stream_frames_total",
        type="counter",
        unit="frames",
        help="Frames that are durable in every output.",
        labels=("stream",),
        of=_stream(lambda s: s.frames),
    ),
    Metric(
        name="limpid_stream_epochs_total",
        type="counter",
        unit="epochs",
        help="Epochs begun: one more than the discontinuities in the output.",
        labels=("stream",),
        of=_stream(lambda s: s.epoch + 1),
    ),
    Metric(
        name="limpid_stream_occurrences_total",
        type="counter",
        unit="1",
        help="Restarts, retries, replays, batches set aside, events and whatever else is counted, by cause.",
        labels=("stream", "cause"),
        of=lambda s: (((s.id, cause), float(n)) for cause, n in sorted(s.counts.items()) if not cause.endswith("_max")),
    ),
    Metric(
        name="limpid_stream_longest_interruption_seconds",
        type="gauge",
        unit="s",
        help="The longest time without progress that the death of a process has cost.",
        labels=("stream",),
        of=_stream(lambda s: s.counts.get("gap_ms_max", 0) / 1000),
    ),
    Metric(
        name="limpid_stream_width_pixels",
        type="gauge",
        unit="pixels",
        help="Width of the source's pictures, 0 until it is known.",
        labels=("stream",),
        of=_stream(lambda s: s.width),
    ),
    Metric(
        name="limpid_stream_height_pixels",
        type="gauge",
        unit="pixels",
        help="Height of the source's pictures, 0 until it is known.",
        labels=("stream",),
        of=_stream(lambda s: s.height),
    ),
    Metric(
        name="limpid_stream_created_timestamp_seconds",
        type="gauge",
        unit="s",
        help="Unix time at which the stream was created.",
        labels=("stream",),
        of=_stream(lambda s: s.created_at),
    ),
    Metric(
        name="limpid_stream_updated_timestamp_seconds",
        type="gauge",
        unit="s",
        help="Unix time of the stream's last report.",
        labels=("stream",),
        of=_stream(lambda s: s.updated_at),
    ),
)

OF_STAGES: tuple[Metric[StageStatus], ...] = (
    Metric(
        name="limpid_stage_workers",
        type="gauge",
        unit="workers",
        help="Workers of a pooled stage.",
        labels=("stage",),
        of=_stage(lambda s: s.workers),
    ),
    Metric(
        name="limpid_stage_pending_workers",
        type="gauge",
        unit="workers",
        help="Workers that are wanted and not there yet: starting, or without room.",
        labels=("stage",),
        of=_stage(lambda s: s.pending),
    ),
    Metric(
        name="limpid_stage_min_workers",
        type="gauge",
        unit="workers",
        help="The least that scaling may set.",
        labels=("stage",),
        of=_stage(lambda s: s.min),
    ),
    Metric(
        name="limpid_stage_max_workers",
        type="gauge",
        unit="workers",
        help="The most that scaling may set.",
        labels=("stage",),
        of=_stage(lambda s: s.max),
    ),
    Metric(
        name="limpid_stage_queue_batches",
        type="gauge",
        unit="batches",
        help="Batches that wait for a worker.",
        labels=("stage",),
        of=_stage(lambda s: s.queue),
    ),
    Metric(
        name="limpid_stage_arrival_batches_per_second",
        type="gauge",
        unit="batches/s",
        help="Batches that the stage is given, over the last seconds.",
        labels=("stage",),
        of=_stage(lambda s: s.arrival_hz),
    ),
    Metric(
        name="limpid_stage_service_seconds",
        type="gauge",
        unit="s",
        help="Work of one batch, mean of the last seconds.",
        labels=("stage",),
        of=_stage(lambda s: s.service_s),
    ),
    Metric(
        name="limpid_stage_utilisation_ratio",
        type="gauge",
        unit="0 to 1",
        help="Share of the workers' time that is used.",
        labels=("stage",),
        of=_stage(lambda s: s.utilisation),
    ),
    Metric(
        name="limpid_stage_target_utilisation_ratio",
        type="gauge",
        unit="0 to 1",
        help="What scaling aims at.",
        labels=("stage",),
        of=_stage(lambda s: s.target_utilisation),
    ),
    Metric(
        name="limpid_stage_latency_seconds",
        type="gauge",
        unit="s",
        help="From asking the stage to its answer: quantiles of the last minute.",
        labels=("stage", "quantile"),
        of=lambda s: _quantiles((s.name,), s.latency_s),
    ),
)

OF_CAPACITY: tuple[Metric[Capacity], ...] = (
    Metric(name="limpid_cpus", type="gauge", unit="cores", help="Cores of the cluster.", of=_one(lambda c: c.cpus)),
    Metric(name="limpid_gpus", type="gauge", unit="GPUs", help="GPUs of the cluster.", of=_one(lambda c: c.gpus)),
    Metric(
        name="limpid_used_cpus",
        type="gauge",
        unit="cores",
        help="Cores that the running streams use, measured.",
        of=_one(lambda c: c.used_cpus),
    ),
    Metric(
        name="limpid_room_cpus",
        type="gauge",
        unit="cores",
        help="Cores that a further stream may take.",
        of=_one(lambda c: c.room_cpus),
    ),
    Metric(
        name="limpid_running_streams",
        type="gauge",
        unit="streams",
        help="Streams that run.",
        of=_one(lambda c: c.streams),
    ),
)

OF_ALL_STREAMS: tuple[Metric[Sequence[StreamStatus]], ...] = (
    Metric(
        name="limpid_streams",
        type="gauge",
        unit="streams",
        help="Streams that the service has, by state.",
        labels=("state",),
        of=lambda streams: (((state,), float(sum(s.state == state for s in streams))) for state in STATES),
    ),
)


def render(streams: Sequence[StreamStatus], stages: Sequence[StageStatus], capacity: Capacity) -> str:
    """Return all metrics as text. Metrics without a sample are left out."""
    groups = (
        *_groups(OF_CAPACITY, [capacity]),
        *_groups(OF_ALL_STREAMS, [streams]),
        *_groups(OF_STAGES, stages),
        *_groups(OF_STREAMS, streams),
    )
    return "".join(line + "\n" for group in groups for line in group)


def describe() -> str:
    """Return the table as Markdown: docs/metrics.md holds it."""
    rows = [*_rows(OF_CAPACITY), *_rows(OF_ALL_STREAMS), *_rows(OF_STAGES), *_rows(OF_STREAMS)]
    return "\n".join(("| metric | type | unit | labels | meaning |", "|---|---|---|---|---|", *rows)) + "\n"


def _rows(metrics: Sequence[Metric[T]]) -> Iterable[str]:
    for m in metrics:
        labels = ", ".join(f"`{each}`" for each in m.labels)
        yield f"| `{m.name}` | {m.type} | {m.unit} | {labels} | {m.help} |"


def _groups(metrics: Sequence[Metric[T]], statuses: Sequence[T]) -> Iterable[list[str]]:
    for metric in metrics:
        lines = [_line(metric, *sample) for status in statuses for sample in metric.of(status)]
        if lines:
            words = metric.help.replace("\\", r"\\").replace("\n", r"\n")
            yield [f"# HELP {metric.name} {words}", f"# TYPE {metric.name} {metric.type}", *lines]


def _line(metric: Metric[T], values: tuple[str, ...], value: float) -> str:
    pairs = ",".join(f'{name}="{_escaped(text)}"' for name, text in zip(metric.labels, values, strict=True))
    return f"{metric.name}{{{pairs}}} {_number(value)}" if pairs else f"{metric.name} {_number(value)}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
