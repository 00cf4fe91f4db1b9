"""Weights of a stream: pushed by its publisher, tried on its key frames, taken back."""

from __future__ import annotations

import time

from anyio import to_thread
from fastapi import APIRouter, Request

from actors.http.service import Here
from actors.http.streams import StreamPath
from pipeline.request import Part
from pipeline.store import keyframes
from pipeline.store.modelhistory import ModelEntry, State, load_history, version_of
from pipeline.wire.trials import Swap

router = APIRouter(tags=["models"])

_BYTES = {
    "required": True,
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}


class Taken(Part):
    """A model that holds from frame `seq` of `epoch` on; PSNR-Y in dB on the key frames captured last.

    `psnr_before` is that of the model before it; both are null where nothing was measured (a rollback).
    """

    model: str
    version: int
    psnr_before: float | None
    psnr_after: float | None
    epoch: int
    seq: int


class Model(Part):
    """A model that a stream has or had.

    `at`: Unix seconds at which it was tried (0: the generic one); `gain`: dB over the generic one; `epoch`, `seq`: the
    first frame that it held for, −1 where it held for none; `before`: what a rollback leads to.
    """

    model: str
    version: int
    state: State
    at: float
    psnr_before: float | None
    psnr_after: float | None
    gain: float | None
    parent: str | None
    publisher: str
    before: str
    epoch: int
    seq: int
    reason: str


class Models(Part):
    """A stream's models, the generic one first, then as they were tried."""

    items: list[Model]


@router.put(
    "/v1/streams/{id}/models/f-edsr",
    summary="Push a model",
    description=(
        "The body is a model file, signed by a publisher of the stream. It is tried on the key frames captured last: "
        "better than the model in use, it holds from frame `seq` on; else 409 with both figures. 403: nobody of the "
        "stream signed it; 422: no model, damaged, or none for this stream; 413: over 32 MiB."
    ),
    openapi_extra={"requestBody": _BYTES},
)
async def push(here: Here, stream: StreamPath, request: Request) -> Taken:
    """Push a model."""
    return _taken(await here.service.push_model(stream, await request.body()))


@router.post(
    "/v1/streams/{id}/models/rollback",
    summary="Go back to the model before",
    description="In the end to the generic one; 409 where that is in use.",
)
async def rollback(here: Here, stream: StreamPath) -> Taken:
    """Go back to the model before."""
    return _taken(await here.service.roll_back(stream))


@router.get("/v1/streams/{id}/models", summary="List a stream's models")
async def listing(here: Here, stream: StreamPath) -> Models:
    """List a stream's models."""
    status = await here.service.show(stream)
    found = await to_thread.run_sync(load_history, here.stream_store(stream))
    if not found and status.model:
        generic = ModelEntry(model=status.model, version=version_of(status.model), state="current", epoch=0, seq=0)
        found = (generic,)
    return Models(items=[_shown(entry) for entry in found])


@router.put(
    "/v1/streams/{id}/key-frames",
    status_code=204,
    summary="Send a key frame",
    description=(
        "A frame's true crops and what the stream shows in their place (docs/formats.md); models are tried on the ones "
        f"captured last. The last {keyframes.KEPT} are kept."
    ),
    openapi_extra={"requestBody": _BYTES},
)
async def key_frame(here: Here, stream: StreamPath, request: Request) -> None:
    """Keep a key frame."""
    await here.service.show(stream)
    body = await request.body()
    await to_thread.run_sync(lambda: keyframes.keep(here.stream_store(stream), body, now_ns=time.time_ns()))
    await here.service.key_frame_came(stream)


def _taken(swap: Swap) -> Taken:
    return Taken(
        model=swap.model,
        version=swap.version,
        psnr_before=swap.psnr_before_db,
        psnr_after=swap.psnr_after_db,
        epoch=swap.epoch,
        seq=swap.seq,
    )


def _shown(entry: ModelEntry) -> Model:
    return Model(
        model=entry.model,
        version=entry.version,
        state=entry.state,
        at=entry.at_s,
        psnr_before=entry.psnr_before_db,
        psnr_after=entry.psnr_after_db,
        gain=entry.gain_db,
        parent=entry.parent,
        publisher=entry.publisher,
        before=entry.before,
        epoch=entry.epoch,
        seq=entry.seq,
        reason=entry.reason,
    )
