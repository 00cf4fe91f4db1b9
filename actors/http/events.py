"""Events as Server-Sent Events: the service's one ordered log, from any place on, each once.

`id:` is an event's number in the log; a client that comes back with it as `Last-Event-ID` (browsers do so by
themselves) gets what follows, whichever replica answers. `data:` is a CloudEvent (structured JSON, version 1.0).
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse

from actors.http.service import Context, Here
from actors.http.streams import StreamPath
from pipeline.config import nearest
from pipeline.errors import ConfigError, StorageError
from pipeline.store.redact import redact_all
from pipeline.store.servicelog import LoggedEvent
from pipeline.wire.events import EVENT_TYPES

router = APIRouter(tags=["events"])

HEARTBEAT_S = 15.0
"""Seconds without an event after which a comment is sent, so that proxies keep the connection (and we see its end)."""

_BATCH = 500  # events a read
_RETRY = b"retry: 1000\n\n"  # ms after which a browser comes back
_HEARTBEAT = b":\n\n"

Follow = Annotated[bool, Query(description="false: what there is, and then the end.")]
_TYPE = "|".join(re.escape(name) for name in sorted(EVENT_TYPES))
Types = Annotated[
    str,
    Query(
        max_length=2000,
        description="Comma-separated event types; else all.",
        json_schema_extra={"pattern": f"^(({_TYPE})(,({_TYPE}))*)?$"},  # not checked by it: ours names the nearest
    ),
]
LastEventId = Annotated[
    str, Header(pattern="^[0-9]{0,18}$", description="Number of the last event that the client has.")
]

_MESSAGE = {
    "type": "object",
    "required": ["id", "data"],
    "properties": {
        "id": {"type": "string", "description": "The event's number in the log"},
        "data": {"type": "string", "contentMediaType": "application/json", "description": "A CloudEvent"},
    },
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "CloudEvents, one an event of the stream",
        "content": {"text/event-stream": {"schema": _MESSAGE}},
    }
}


@router.get("/v1/streams/{id}/events", summary="A stream's events", responses=_STREAM, response_class=StreamingResponse)
async def of_stream(
    here: Here, stream: StreamPath, types: Types = "", follow: Follow = True, last_event_id: LastEventId = ""
) -> StreamingResponse:
    """Send the events of a stream."""
    await here.service.show(stream)
    return await _answer(here, stream, types, follow, last_event_id)


@router.get("/v1/events", summary="All events", responses=_STREAM, response_class=StreamingResponse)
async def of_all(
    here: Here, types: Types = "", follow: Follow = True, last_event_id: LastEventId = ""
) -> StreamingResponse:
    """Send the events of all streams."""
    return await _answer(here, None, types, follow, last_event_id)


def cloud_event(event: LoggedEvent) -> dict[str, Any]:
    """Return an event as a CloudEvent; `epoch`, `seq` and `streamtime` (seconds) are extension attributes."""
    content = {
        "specversion": "1.0",
        "id": event.event_id,
        "source": f"/v1/streams/{event.stream}",
        "type": event.type,
        "time": datetime.fromtimestamp(event.captured_ns / 1e9, UTC).isoformat(timespec="milliseconds"),
        "datacontenttype": "application/json",
        "stream": event.stream,
        "epoch": event.epoch,
        "seq": event.seq,
        "data": redact_all(dict(event.data)),
    }
    if event.t_s is not None:
        content["streamtime"] = event.t_s
    return content


async def _answer(here: Context, stream: str | None, types: str, follow: bool, last_event_id: str) -> StreamingResponse:
    wanted, after = _types(types), int(last_event_id or 0)
    first = await _read(here, after, stream, wanted, fresh=True)  # before the answer begins: an error has a status then
    return StreamingResponse(
        _events(here, first, after, stream, wanted, follow),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def _events(
    here: Context,
    events: Sequence[LoggedEvent],
    after: int,
    stream: str | None,
    types: frozenset[str] | None,
    follow: bool,
) -> AsyncIterator[bytes]:
    if follow:
        yield _RETRY
    told_s = time.monotonic()
    while True:
        if events:
            yield b"".join(_line(event) for event in events)
            after, told_s = max(after, events[-1].number), time.monotonic()
        elif not follow:
            return
        upto = after
        if follow:
            upto = await here.tail.beyond(after, told_s + HEARTBEAT_S - time.monotonic())
            if time.monotonic() - told_s >= HEARTBEAT_S:
                yield _HEARTBEAT
                told_s = time.monotonic()
            if upto <= after:
                events = ()
                continue
        try:
            events = await _read(here, after, stream, types, fresh=not follow)
        except StorageError:
            if not follow:
                raise
            events = ()  # the next look may find the store well again; nothing is lost meanwhile
            await asyncio.sleep(here.tail.every_s)
            continue
        if len(events) < _BATCH:
            after = max(after, upto)  # whatever lies before is of other streams or types


async def _read(
    here: Context, after: int, stream: str | None, types: frozenset[str] | None, *, fresh: bool
) -> Sequence[LoggedEvent]:
    return await to_thread.run_sync(lambda: here.log.read(after, stream=stream, types=types, limit=_BATCH, fresh=fresh))


def _line(event: LoggedEvent) -> bytes:
    return f"id: {event.number}\ndata: {json.dumps(cloud_event(event), separators=(',', ':'))}\n\n".encode()


def _types(text: str) -> frozenset[str] | None:
    wanted = frozenset(word.strip() for word in text.split(",") if word.strip())
    for word in sorted(wanted - EVENT_TYPES):
        raise ConfigError(f"there is no event type '{word}', {nearest(word, EVENT_TYPES)}", where="query.types")
    return wanted or None
