"""What the registry knows of one stream, and how it looks to users."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from actors.sizes import running_of, wanted_of
from pipeline.config import Settings
from pipeline.errors import ConfigError, StorageError
from pipeline.flow.job import Outcome, Progress
from pipeline.media.source import is_live
from pipeline.plan.admit import Running
from pipeline.request import StreamRequest
from pipeline.store.objects import Store
from pipeline.wire.status import (
    CONNECTING,
    DEGRADED,
    ENDED,
    QUEUED,
    RECONNECTING,
    RUNNING,
    STATES,
    StreamStatus,
)

STEADY_S = 10.0  # after which a stream's use of CPU counts as measured

FOLDER = "service/streams/"


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One stream.

    Attributes:
        request: with whatever secrets its address holds: it never leaves the store and the registry.
        state, reason: as in StreamStatus.
        rung: of the overload ladder that it began at.
        progress: the last that was heard.
        counts, last_error: of an ended stream.
        deleting: it is being stopped, and then forgotten; with `delete_data` what it has written is removed too.
    """

    id: str
    request: StreamRequest
    created_at: float
    updated_at: float
    state: str = QUEUED
    reason: str = ""
    rung: int = 0
    progress: Progress | None = None
    counts: Mapping[str, int] | None = None
    last_error: str = ""
    deleting: bool = False
    delete_data: bool = False

    @staticmethod
    def new(request: StreamRequest, stream: str, now_s: float, *, rung: int = 0) -> Record:
        """Return the record of a stream that has just been asked for."""
        return Record(
            id=stream,
            request=request.model_copy(update={"id": stream}) if request.id is None else request,
            created_at=now_s,
            updated_at=now_s,
            rung=rung,
        )

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.state in ENDED

    @property
    def runs(self) -> bool:
        """Whether it is to be worked on."""
        return not self.ended and not self.deleting

    @property
    def live(self) -> bool:
        """Whether its source passes whether it is read or not."""
        return is_live(self.request.source.uri, self.request.source.mode)

    def running(self, base: Settings) -> Running:
        """Return it as admission sees it."""
        wanted = wanted_of(self.request.settings(base, live=self.live), live=self.live)
        steady = self.updated_at - self.created_at > STEADY_S
        return running_of(wanted, self.progress, rung=self.rung, steady=steady)

    def heard(self, progress: Progress, now_s: float) -> Record:
        """Return the record after news of its run."""
        state, reason = _state_of(progress, self.request.slo.max_lag_s if self.live else math.inf)
        return replace(self, progress=progress, state=state, reason=reason, updated_at=now_s)

    def finished(self, outcome: Outcome, now_s: float) -> Record:
        """Return the record after the end of its run."""
        error = str(outcome.error) if outcome.error is not None else ""
        return replace(
            self,
            state=outcome.state,
            reason=error,
            last_error=error,
            counts=dict(outcome.counts),
            updated_at=now_s,
        )

    def changed(self, changes: Mapping[str, Any]) -> Record:
        """Return the record with labels, priority and slo merged (RFC 7396). Raises ConfigError."""
        merged = _merge(self.request.model_dump(mode="json"), changes)
        try:
            return replace(self, request=StreamRequest.model_validate(merged))
        except ValidationError as error:
            fault = error.errors()[0]
            path = ".".join(str(part) for part in fault["loc"])
            raise ConfigError(f"{fault['input']!r}: {fault['msg']}", where=path, hint="see /docs") from error

    def status(self) -> StreamStatus:
        """Return what users see; the source is still to be redacted."""
        known = self.progress
        status = StreamStatus(
            id=self.id,
            source=self.request.source.uri,
            state=self.state,
            labels=dict(self.request.labels),
            priority=self.request.priority,
            reason=self.reason,
            created_at=self.created_at,
            updated_at=self.updated_at,
            max_lag_s=self.request.slo.max_lag_s,
            last_error=self.last_error,
            counts=dict(self.counts or {}),
        )
        if known is None:
            return status
        status = replace(
            status,
            width=known.width,
            height=known.height,
            epoch=known.epoch,
            seq=known.seq,
            frames=known.frames_done,
            model=known.model,
            runtime=known.runtime,
            gain_db=known.gain_db,
            gaps=known.gaps,
            counts=dict(self.counts or known.counts),
        )
        if self.ended:
            return status
        return replace(
            status,
            fps_in=known.fps_in,
            fps_out=known.fps_out,
            lag_s=known.lag_s,
            latency_s=dict(known.latency_s),
            rung=known.rung,
        )

    def save(self, store: Store) -> None:
        """Make the record durable. Raises StorageError."""
        kept = {
            "id": self.id,
            "request": self.request.model_dump(mode="json"),
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "state": self.state,
            "reason": self.reason,
            "rung": self.rung,
            "counts": dict(self.counts or {}),
            "last_error": self.last_error,
        }
        store.put(f"{FOLDER}{self.id}.json", json.dumps(kept, sort_keys=True).encode())

    def delete(self, store: Store) -> None:
        """Take it out of the store. Raises StorageError."""
        store.delete(f"{FOLDER}{self.id}.json")

    def delete_output(self, store: Store) -> None:
        """Remove what the stream has written. Raises StorageError."""
        for name in store.list(f"streams/{self.id}/"):
            store.delete(name)


def load_records(store: Store) -> dict[str, Record]:
    """Return the records of a service's store by id.

    Raises:
        StorageError: one is damaged; it names the file.
    """
    found: dict[str, Record] = {}
    for name in store.list(FOLDER):
        try:
            kept = json.loads(store.get(name))
            record = Record(
                id=kept["id"],
                request=StreamRequest.model_validate(kept["request"]),
                created_at=kept["created_at"],
                updated_at=kept["updated_at"],
                state=kept["state"],
                reason=kept["reason"],
                rung=kept["rung"],
                counts=kept["counts"],
                last_error=kept["last_error"],
            )
            if record.state not in STATES:
                raise ValueError(f"unknown state {record.state}")
        except (ValueError, KeyError, TypeError) as error:
            where = f"{store.url}/{name}"
            raise StorageError(
                f"the record of a stream is damaged: {error}", where=where, hint="remove the file; the stream is lost"
            ) from error
        found[record.id] = record
    return found


def _state_of(progress: Progress, max_lag_s: float) -> tuple[str, str]:
    """Return the state that a run's progress amounts to, and why."""
    source = progress.source
    if not source.connected:
        tries = f" ({source.attempts} tries)" if source.attempts > 1 else ""
        begun = progress.frames_done > 0 or progress.fps_out > 0
        return RECONNECTING if begun else CONNECTING, f"{source.reason or 'the source is opened'}{tries}"
    if progress.rung:
        return DEGRADED, f"rung {progress.rung} of the overload ladder"
    if progress.lag_s.p95 > max_lag_s and not progress.settling:
        return DEGRADED, f"lag is {progress.lag_s.p95:.1f} s, above {max_lag_s:g} s"
    return RUNNING, ""


def _merge(old: Any, changes: Any) -> Any:
    if not isinstance(changes, Mapping):
        return changes
    merged = dict(old) if isinstance(old, Mapping) else {}
    for key, value in changes.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged
