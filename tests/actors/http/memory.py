"""The service without a cluster: streams are records, nothing is processed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.config import Settings
from pipeline.errors import (
    CapacityError,
    ConfigError,
    Conflict,
    ModelFormatError,
    ModelRejected,
    NotFound,
    Refused,
    SignatureError,
)
from pipeline.request import StreamRequest
from pipeline.store.redact import redact
from pipeline.wire.status import (
    ENDED,
    QUEUED,
    Capacity,
    Quantiles,
    StageStatus,
    StreamStatus,
    Verdict,
)
from pipeline.wire.trials import Swap

BETTER, WORSE, FOREIGN = b"better", b"worse", b"foreign"
"""What stands for a model that is taken, one that is no better, and one that somebody else has signed."""

CPUS = 4.0
A_STREAM = 1.0


class MemoryService:
    """Each stream takes a core of four; hosts named `inner.…` are refused."""

    def __init__(self, cpus: float = CPUS) -> None:
        self._cpus = cpus
        self.requests: dict[str, StreamRequest] = {}
        self.statuses: dict[str, StreamStatus] = {}
        self.pushed: dict[str, int] = {}
        self.key_frames: list[str] = []
        self.reason = ""
        self.failure: Exception | None = None
        self._stages = {"enhance": _stage("enhance"), "bicubic": _stage("bicubic")}

    async def create(self, request: StreamRequest, *, dry_run: bool) -> tuple[StreamStatus | Verdict, bool]:
        if self.failure is not None:
            raise self.failure
        request.settings(Settings(), live=False)
        if "inner." in request.source.uri:
            raise Refused("this address is private", where=redact(request.source.uri), hint="allow its network")
        name = request.id or f"stream-{len(self.requests) + 1}"
        known = self.requests.get(name)
        if known is not None and not dry_run:
            if known.model_copy(update={"id": name}) != request.model_copy(update={"id": name}):
                raise Conflict(f"there is a stream '{name}' with another request", where=name, hint="take another id")
            return self.statuses[name], False
        room = await self.capacity()
        fits = room.room_cpus >= A_STREAM
        reason = "" if fits else f"it takes {A_STREAM:g} cores, {room.room_cpus:g} are free"
        if dry_run:
            verdict = Verdict(
                fits=fits, wanted_cpus=A_STREAM, room_cpus=room.room_cpus, reason=reason, retry_after_s=7.5
            )
            return verdict, False
        if not fits:
            raise CapacityError(reason, retry_after_s=7.5)
        self.requests[name] = request
        self.statuses[name] = StreamStatus(
            id=name,
            source=redact(request.source.uri),
            state=QUEUED,
            labels=request.labels,
            priority=request.priority,
            max_lag_s=request.slo.max_lag_s,
        )
        return self.statuses[name], True

    async def streams(self) -> Sequence[StreamStatus]:
        return list(self.statuses.values())

    async def show(self, stream: str) -> StreamStatus:
        if stream not in self.statuses:
            raise NotFound(f"there is no stream '{stream}'", where=stream)
        return self.statuses[stream]

    async def patch(self, stream: str, changes: Mapping[str, Any]) -> StreamStatus:
        status = await self.show(stream)
        labels = {**status.labels, **changes.get("labels", {})}
        self.statuses[stream] = replace(
            status,
            labels={key: value for key, value in labels.items() if value is not None},
            priority=changes.get("priority", status.priority),
            max_lag_s=(changes.get("slo") or {"max_lag_s": status.max_lag_s})["max_lag_s"],
        )
        return self.statuses[stream]

    async def delete(self, stream: str, *, data: bool = False) -> None:  # what streams wrote is not its
        await self.show(stream)
        del self.statuses[stream], self.requests[stream]

    async def push_model(self, stream: str, data: bytes) -> Swap:
        await self.show(stream)
        if data == FOREIGN:
            raise SignatureError("the signature is not by this key", where="model")
        if data == WORSE:
            figures = {"psnr_before": 31.0, "psnr_after": 30.5, "version": 3}
            raise ModelRejected("30.500 dB against 31.000 dB", where="model", hint="train on", figures=figures)
        if data != BETTER:
            raise ModelFormatError("no safetensors file", where="model", hint="give a model file")
        version = self.pushed[stream] = self.pushed.get(stream, 2) + 1
        return Swap(model=f"m@{version}", version=version, epoch=0, seq=96, psnr_before_db=31.0, psnr_after_db=31.5)

    async def roll_back(self, stream: str) -> Swap:
        await self.show(stream)
        if stream not in self.pushed:
            raise ModelRejected("the generic model is in use: there is none before it", where="model")
        del self.pushed[stream]
        return Swap(model="m@2", version=2, epoch=0, seq=128)

    async def key_frame_came(self, stream: str) -> None:
        await self.show(stream)
        self.key_frames.append(stream)

    async def stages(self) -> Sequence[StageStatus]:
        return list(self._stages.values())

    async def patch_stage(
        self, name: str, *, min: int | None, max: int | None, target_utilisation: float | None
    ) -> StageStatus:
        if name not in self._stages:
            raise NotFound(f"there is no stage '{name}'", where=name)
        wanted = {"min": min, "max": max, "target_utilisation": target_utilisation}
        changed = replace(self._stages[name], **{key: value for key, value in wanted.items() if value is not None})
        if changed.min > changed.max:
            raise ConfigError(f"min {changed.min} is above max {changed.max}", where="body.min")
        self._stages[name] = changed
        return changed

    async def capacity(self) -> Capacity:
        running = sum(status.state not in ENDED for status in self.statuses.values())
        used = running * A_STREAM
        return Capacity(cpus=self._cpus, gpus=0.0, used_cpus=used, streams=running, room_cpus=self._cpus - used)

    async def ready(self) -> str:
        return self.reason

    def become(self, stream: str, **changes: Any) -> None:
        self.statuses[stream] = replace(self.statuses[stream], **changes)


def _stage(name: str) -> StageStatus:
    return StageStatus(
        streams=1,
        name=name,
        workers=1,
        min=0,
        max=4,
        pending=0,
        queue=0,
        arrival_hz=0.0,
        service_s=0.0,
        utilisation=0.0,
        target_utilisation=0.7,
        latency_s=Quantiles(),
    )
