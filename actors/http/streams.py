"""Streams: create, list, show, change, delete."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from actors.http.links import LINK_S, sign, with_sig
from actors.http.problem import RETRY_AFTER_S, Problem, kind_of
from actors.http.service import Context, Here
from pipeline.errors import CapacityError
from pipeline.request import Id, Label, Part, StreamRequest
from pipeline.store.redact import redact
from pipeline.wire.status import StreamStatus, Verdict

router = APIRouter(tags=["streams"])

StreamPath = Annotated[Id, Path(alias="id", description="The stream's id.")]
State = Literal["queued", "connecting", "running", "degraded", "reconnecting", "completed", "failed", "stopped"]


class SloPatch(Part):
    """What the stream is to keep."""

    max_lag_s: Annotated[float, Field(gt=0, le=600)]


class StreamPatch(Part):
    """What of a stream's request can be changed while it runs; what is left out stays, a label of null goes."""

    labels: Annotated[dict[Label, Label | None], Field(default_factory=dict, max_length=32)]
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    slo: SloPatch | None = None


class Page(Part):
    """Some of the streams, by id; `next_cursor` gives those that follow, null where there are none."""

    items: list[StreamStatus]
    next_cursor: str | None = None


@router.post(
    "/v1/streams",
    status_code=201,
    summary="Run a stream",
    description=(
        "201 with `Location` for a stream that is begun; 200 where this id has this very request already. "
        "`dry_run=true` begins nothing: 200 with the verdict where it fits, else 503 with `Retry-After`."
    ),
    responses={
        200: {"model": StreamStatus | Verdict, "description": "It runs already; or the verdict of a dry run"},
        201: {"headers": {"Location": {"schema": {"type": "string"}, "description": "Path of the stream"}}},
    },
)
async def create(
    here: Here, request: StreamRequest, response: Response, dry_run: bool = False
) -> StreamStatus | Verdict:
    """Run a stream, or say whether it fits."""
    found, new = await here.service.create(request, dry_run=dry_run)
    if isinstance(found, Verdict):
        response.status_code = 200
        if not found.fits:
            raise _no_room(found)
        return found
    response.status_code = 201 if new else 200
    if new:
        response.headers["Location"] = f"/v1/streams/{found.id}"
    return shown(here, found)


@router.get("/v1/streams", summary="List streams", description="By id; filters are joined by *and*.")
async def listing(
    here: Here,
    label: Annotated[
        list[Annotated[str, Field(pattern="^[^:]+:.+$", max_length=129)]] | None,
        Query(description="`key:value`; several: all of them."),
    ] = None,
    state: Annotated[list[State] | None, Query(description="Several: any of them.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str, Query(pattern="^[a-z0-9-]{0,64}$", description="`next_cursor` of the page before.")] = "",
) -> Page:
    """List streams."""
    wanted = [text.partition(":")[::2] for text in label or ()]
    found = [
        stream
        for stream in sorted(await here.service.streams(), key=lambda stream: stream.id)
        if stream.id > cursor
        and (not state or stream.state in state)
        and all(stream.labels.get(key) == value for key, value in wanted)
    ]
    more = len(found) > limit
    found = found[:limit]
    return Page(items=[shown(here, one) for one in found], next_cursor=found[-1].id if more else None)


@router.get("/v1/streams/{id}", summary="Show a stream")
async def show(here: Here, stream: StreamPath) -> StreamStatus:
    """Show a stream."""
    return shown(here, await here.service.show(stream))


@router.patch(
    "/v1/streams/{id}", summary="Change a stream", description="A merge (RFC 7396) of labels, priority and slo."
)
async def patch(here: Here, stream: StreamPath, changes: StreamPatch) -> StreamStatus:
    """Change a stream."""
    return shown(here, await here.service.patch(stream, changes.model_dump(exclude_unset=True)))


@router.delete(
    "/v1/streams/{id}",
    status_code=204,
    summary="Stop and forget a stream",
    description="From every state. What it has written stays readable in the store; `data=true` removes that too.",
)
async def delete(here: Here, stream: StreamPath, data: bool = False) -> None:
    """Stop and forget a stream."""
    await here.service.delete(stream, data=data)


def shown(here: Context, status: StreamStatus) -> StreamStatus:
    """Return a status as it may be answered: without secrets, with links (signed where tokens are on)."""
    base = f"/v1/streams/{status.id}"
    sig = None
    if here.link_key is not None:
        sig = sign(here.link_key, status.id, expires_s=int(time.time()) + LINK_S)
    links = {
        "self": base,
        "hls": with_sig(f"/hls/{status.id}/index.m3u8", sig),
        "snapshot": with_sig(f"{base}/snapshot.jpg", sig),
        "live": with_sig(f"{base}/live", sig),
        "events": f"{base}/events",
        "frames": f"{base}/frames",
        "quality": f"{base}/quality",
    }
    return replace(
        status,
        source=redact(status.source),
        reason=redact(status.reason),
        last_error=redact(status.last_error),
        links=links,
    )


def _no_room(verdict: Verdict) -> Problem:
    return Problem(
        kind_of(CapacityError(verdict.reason)),
        verdict.reason,
        headers={"Retry-After": str(max(1, math.ceil(verdict.retry_after_s or RETRY_AFTER_S)))},
        extra={"wanted_cpus": verdict.wanted_cpus, "room_cpus": verdict.room_cpus},
    )
