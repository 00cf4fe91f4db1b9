"""record: a sink that keeps the facts of each frame as rows of the tables frames, quality and events.

A part holds the rows of `part_frames` frames, and its borders are multiples of that, whatever the batches were; only an
epoch's (or a stopped run's) last part is shorter. Parts are named by their frames, and what exists wins, so writing one
again changes nothing. Rows are functions of the content and the stamps, but for `captured_at`, which is wall-clock.

`t_s`, seconds from the stream's start: inside an epoch (pts − first pts) × time base; an epoch begins where the one
before it ended (its last pts plus that frame's duration; where the source does not say it, the interval before it).
The end is kept in each part of `frames` as metadata "limpid.end", and read from there: so the flow has to finish an
epoch's sinks before it feeds those of the next.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.stage import StageConfig, StageEnv, StageSpec, StreamStage, Work
from pipeline.store import parquet
from pipeline.store.eventlog import event_table
from pipeline.store.objects import open_store
from pipeline.store.parquet import SCHEMAS, Part
from pipeline.vision.alerts import Alerts, Change, Limits, Row
from pipeline.wire.acks import Snapshot
from pipeline.wire.events import Event
from pipeline.wire.frames import FrameBatch
from pipeline.wire.ids import StreamId
from pipeline.wire.items import cut
from pipeline.wire.results import GuardReport, QualityReport, RefineReport


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordConfig(StageConfig):
    """How rows are grouped, and when a picture counts as degraded (events quality.degraded, quality.recovered)."""

    part_frames: int = 100  # frames a part, 1 to 100,000; smaller: rows are durable sooner, more files
    stable_from: float = 0.5  # stability (0 to 1) from which a frame is `stable`; guard's own threshold
    picture_hold_s: float = 1.0  # for so long black or frozen until the event, > 0
    score_hold_s: float = 2.0  # for so long below or above a level until the event, > 0
    exposure_degraded: float = 0.3  # below it: degraded (0 to 1)
    exposure_recovered: float = 0.4  # from it on: recovered (exposure_degraded to 1)
    sharpness_degraded: float = 0.25  # below it: degraded (0 to 1); a picture blurred with σ = 4 px has 0.2
    sharpness_recovered: float = 0.3  # from it on: recovered (sharpness_degraded to 1)

    def __post_init__(self) -> None:
        self._check("part_frames", 1, 100_000)
        self._check("stable_from", 0, 1)
        self._check("picture_hold_s", 0.001, 3600)
        self._check("score_hold_s", 0.001, 3600)
        for name in ("exposure", "sharpness"):
            self._check(f"{name}_degraded", 0, 1)
            self._check(f"{name}_recovered", getattr(self, f"{name}_degraded"), 1)

    def _check(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if not low <= value <= high:
            raise ConfigError(f"{name} is {value!r}", where=f"record.{name}", hint=f"use {low:,} to {high:,}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rows:
    """Columns of consecutive frames: copies, so that no picture is kept alive by them."""

    start: int
    columns: Mapping[str, NDArray[Any]]

    @property
    def stop(self) -> int:
        return self.start + len(self.columns["pts"])


class Record(StreamStage[RecordConfig, FrameBatch, None]):
    """Write rows; frames before the start of the unfinished part are durable."""

    spec = StageSpec(
        name="record",
        version=1,
        takes=(FrameBatch,),
        gives=None,
        optional=(QualityReport, GuardReport, RefineReport),
        batch_frames=8,
        latency_target_s=0.05,
    )
    Config = RecordConfig

    def open(self, env: StageEnv) -> None:
        """See Stage. Raises StorageError."""
        super().open(env)
        assert env.stream is not None
        self._stream: StreamId = env.stream
        self._store = open_store(env.store)
        self._start = 0  # of the unfinished part; all below but _pending and _next is the state at this border
        self._timeline: _Timeline | None = None
        self._alert_state: Mapping[str, Any] | None = None
        self._pending: list[_Rows] = []
        self._next = 0
        self._short_parts: dict[str, list[Part]] | None = None

    def process(self, work: Work[FrameBatch]) -> Sequence[None]:
        """Take the facts of the next frames; write the parts that they complete. Raises StorageError."""
        frames, side = work.item, work.side
        if frames.span.stop <= self._next:
            return ()
        if frames.span.start < self._next:
            stop = frames.span.stop
            frames, side = frames.cut(self._next, stop), tuple(cut(item, self._next, stop) for item in side)
        assert frames.span.start == self._next, f"{frames.span} does not begin at {self._next}"
        quality = next((item for item in side if isinstance(item, QualityReport)), None)
        guard = next((item for item in side if isinstance(item, GuardReport)), None)
        self._time_base = frames.time_base
        refine = next((item for item in side if isinstance(item, RefineReport)), None)
        self._pending.append(_Rows(start=self._next, columns=_columns(frames, quality, guard, refine)))
        self._next = frames.span.stop
        while (border := self._border()) <= self._next:
            self._write(border)
        return ()

    def finish(self) -> Sequence[None]:
        """Write the last, shorter part. Raises StorageError."""
        if self._next > self._start:
            self._write(self._next)
        return ()

    def snapshot(self) -> Snapshot:
        """Return the state at the start of the unfinished part; its rows are made again from there."""
        state = b""
        if self._timeline is not None:
            content = {"timeline": self._timeline.to_json(), "alerts": self._alert_state}
            state = json.dumps(content, sort_keys=True).encode()
        return Snapshot(after=self._start, resume_from=self._start, state=state)

    def restore(self, snapshot: Snapshot) -> None:
        """See StreamStage."""
        self._start = self._next = snapshot.after
        if snapshot.state:
            content = json.loads(snapshot.state)
            self._timeline = _Timeline.from_json(content["timeline"])
            self._alert_state = content["alerts"]

    def _border(self) -> int:
        size = self.config.part_frames
        return (self._start // size + 1) * size

    def _write(self, stop: int) -> None:
        """Make the rows of [self._start, stop) durable and move the border there."""
        part = Part(self.env.epoch, self._start, stop)
        columns = self._take(stop)
        timeline = self._timeline or _Timeline(
            first_pts=int(columns["pts"][0]), offset_s=self._earlier_epochs_s(), interval=0, end_pts=0
        )
        timeline = timeline.after(columns["pts"], columns["duration"])
        t_s = [timeline.seconds(int(pts), self._time_base) for pts in columns["pts"]]
        end_s = timeline.end_s(self._time_base)
        alerts = Alerts(self._limits())
        if self._alert_state is not None:
            alerts.restore(self._alert_state)
        changes = [change for row in _alert_rows(part.first, columns) for change in alerts.on(row)]

        common = self._common(part, columns, t_s)
        self._put("frames", part, _frames_table(common, columns), {"end": str(end_s)})
        if columns["scored"].any() or columns["guarded"].any():
            self._put("quality", part, _quality_table(common, columns, self.config.stable_from), {})
        if changes:
            at = [change.seq - part.first for change in changes]
            table = event_table(
                [self._event(change, timeline) for change in changes],
                captured_ns=[int(columns["captured_ns"][i]) for i in at],
                pts=[int(columns["pts"][i]) for i in at],
                t_s=[t_s[i] for i in at],
            )
            self._put("events", part, table, {})
        self._start, self._timeline, self._alert_state = stop, timeline, alerts.state()

    def _take(self, stop: int) -> Mapping[str, NDArray[Any]]:
        """Return the pending columns up to frame `stop`; what lies behind it stays pending."""
        names = self._pending[0].columns.keys()
        whole = {name: np.concatenate([rows.columns[name] for rows in self._pending]) for name in names}
        n = stop - self._start
        rest = _Rows(start=stop, columns={name: column[n:] for name, column in whole.items()})
        self._pending = [rest] if rest.stop > stop else []
        return {name: column[:n] for name, column in whole.items()}

    def _put(self, table: str, part: Part, rows: pa.Table, extra: Mapping[str, str]) -> None:
        data = parquet.encode(rows, {self.spec.name: self.spec.version}, extra)
        self._store.put_new(parquet.part_name(table, part), data)
        # A run that was stopped left a short last part; once the whole one is there, its rows would be there twice.
        if self._short_parts is None:
            self._short_parts = {name: parquet.parts(self._store, name) for name in SCHEMAS}
        for other in self._short_parts[table]:
            inside = other.epoch == part.epoch and part.first <= other.first and other.stop <= part.stop
            if inside and other != part:
                self._store.delete(parquet.part_name(table, other))

    def _earlier_epochs_s(self) -> Fraction:
        earlier = [part for part in parquet.parts(self._store, "frames") if part.epoch < self.env.epoch]
        if not earlier:
            return Fraction(0)
        last = max(earlier, key=lambda part: (part.epoch, part.stop))
        return Fraction(parquet.metadata(self._store, "frames", last)["end"])

    def _limits(self) -> Limits:
        def ticks(seconds: float) -> int:
            return math.ceil(Fraction(str(seconds)) / self._time_base)

        c = self.config
        return Limits(
            picture_hold=ticks(c.picture_hold_s),
            score_hold=ticks(c.score_hold_s),
            exposure=(c.exposure_degraded, c.exposure_recovered),
            sharpness=(c.sharpness_degraded, c.sharpness_recovered),
        )

    def _event(self, change: Change, timeline: _Timeline) -> Event:
        causes = change.causes
        return Event(
            type="quality.degraded" if change.degraded else "quality.recovered",
            stream=self._stream,
            epoch=self.env.epoch,
            seq=change.seq,
            data={
                "causes": sorted(causes),
                "since_seq": {name: seq for name, (seq, _) in causes.items()},
                "since_s": {name: timeline.seconds(pts, self._time_base) for name, (_, pts) in causes.items()},
                "active": list(change.active),
            },
        )

    def _common(self, part: Part, columns: Mapping[str, NDArray[Any]], t_s: Sequence[float]) -> dict[str, Any]:
        n = part.stop - part.first
        return {
            "stream_id": [str(self._stream)] * n,
            "epoch": np.full(n, part.epoch, np.int32),
            "seq": np.arange(part.first, part.stop, dtype=np.int64),
            "pts": columns["pts"],
            "t_s": t_s,
            "captured_at": columns["captured_ns"] // 1000,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Timeline:
    """Where an epoch lies in its stream, as far as it is written; pts and interval in ticks."""

    first_pts: int
    offset_s: Fraction
    interval: int
    end_pts: int

    def after(self, pts: NDArray[np.int64], duration: NDArray[np.int64]) -> _Timeline:
        """Return the timeline behind further frames."""
        interval = self.interval
        if len(pts) > 1:
            interval = int(pts[-1] - pts[-2])
        end = int(pts[-1]) + (int(duration[-1]) or interval)
        return _Timeline(first_pts=self.first_pts, offset_s=self.offset_s, interval=interval, end_pts=end)

    def seconds(self, pts: int, time_base: Fraction) -> float:
        """Return a frame's time from the stream's start, exact but for the one rounding to float."""
        return float(self.offset_s + (pts - self.first_pts) * time_base)

    def end_s(self, time_base: Fraction) -> Fraction:
        """Return the end of the last frame, from the stream's start."""
        return self.offset_s + (self.end_pts - self.first_pts) * time_base

    def to_json(self) -> list[Any]:
        return [self.first_pts, str(self.offset_s), self.interval, self.end_pts]

    @staticmethod
    def from_json(found: Sequence[Any]) -> _Timeline:
        first_pts, offset_s, interval, end_pts = found
        return _Timeline(first_pts=first_pts, offset_s=Fraction(offset_s), interval=interval, end_pts=end_pts)


def _columns(
    frames: FrameBatch, quality: QualityReport | None, guard: GuardReport | None, refine: RefineReport | None
) -> dict[str, NDArray[Any]]:
    n = len(frames)
    unknown, no = np.full(n, np.nan, np.float32), np.zeros(n, np.bool_)
    return {
        "pts": frames.pts.copy(),
        "duration": frames.duration.copy(),
        "captured_ns": frames.captured_ns.copy(),
        "keyframe": frames.keyframe.copy(),
        "width": np.full(n, frames.size.width_px, np.int32),
        "height": np.full(n, frames.size.height_px, np.int32),
        "scored": np.full(n, quality is not None),
        "exposure": unknown if quality is None else quality.exposure.copy(),
        "sharpness": unknown if quality is None else quality.sharpness.copy(),
        "noise": unknown if quality is None else quality.noise.copy(),
        "black": no if quality is None else quality.black.copy(),
        "frozen": no if quality is None else quality.frozen.copy(),
        "guarded": np.full(n, guard is not None),
        "enhanced": no if guard is None else guard.enhanced.copy(),
        "stability": unknown if guard is None else guard.stability.copy(),
        "refined": no if refine is None else refine.refined.copy(),
        "model": np.full(n, None if guard is None else guard.model_version or None, np.object_),
    }


def _alert_rows(first: int, columns: Mapping[str, NDArray[Any]]) -> list[Row]:
    names = ("pts", "black", "frozen", "exposure", "sharpness")
    values = zip(*(columns[name].tolist() for name in names), strict=True)
    return [
        Row(seq=first + i, pts=pts, black=black, frozen=frozen, exposure=exposure, sharpness=sharpness)
        for i, (pts, black, frozen, exposure, sharpness) in enumerate(values)
    ]


def _frames_table(common: Mapping[str, Any], columns: Mapping[str, NDArray[Any]]) -> pa.Table:
    n = len(columns["pts"])
    return pa.table(
        {
            **common,
            "width": columns["width"],
            "height": columns["height"],
            "key_frame": columns["keyframe"],
            "enhanced": columns["enhanced"],
            "refined": columns["refined"],
            "model_version": columns["model"],
            "scene_id": [None] * n,
            "scene_state": [None] * n,
        },
        schema=SCHEMAS["frames"],
    )


def _quality_table(common: Mapping[str, Any], columns: Mapping[str, NDArray[Any]], stable_from: float) -> pa.Table:
    n = len(columns["pts"])
    stability = columns["stability"]
    unknown = np.isnan(stability)
    unprocessed = columns["scored"] & np.isnan(columns["exposure"])
    flags = [
        [name for name, is_set in (("black", b), ("frozen", f), ("unprocessed", u)) if is_set]
        for b, f, u in zip(columns["black"], columns["frozen"], unprocessed, strict=True)
    ]
    filled: dict[str, Any] = {
        "stability": pa.array(stability, pa.float32(), from_pandas=True),
        "stable": pa.array(stability >= stable_from, pa.bool_(), mask=unknown),
        "flags": flags,
    }
    for name in ("exposure", "sharpness", "noise"):
        filled[name] = pa.array(columns[name], pa.float32(), from_pandas=True)  # NaN becomes null
    schema = SCHEMAS["quality"]
    return pa.table({**{name: [None] * n for name in schema.names}, **common, **filled}, schema=schema)
