"""What was found of each frame: rows of a stream's tables as JSON or as an Arrow stream; and a picture of it."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import pyarrow as pa
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import JSONResponse

from actors.http.problem import Problem, kind_of
from actors.http.service import Here
from actors.http.streams import StreamPath
from pipeline.errors import NotFound
from pipeline.media.snapshot import snapshot
from pipeline.store.tables import Place, Rows, read_rows

router = APIRouter(tags=["results"])

ARROW = "application/vnd.apache.arrow.stream"

_decoders = CapacityLimiter(2)  # pictures that are decoded at once in a process: streams come first

Seconds = Annotated[float | None, Query(ge=0, le=1e9, description="Seconds from the stream's start.")]
Limit = Annotated[int, Query(ge=1, le=100_000, description="Rows at most.")]
Cursor = Annotated[str, Query(pattern="^([0-9]{1,9}-[0-9]{1,18})?$", description="`next_cursor` of the page before.")]
Accept = Annotated[str, Header(description=f"`{ARROW}` for Arrow, else JSON.")]

_ROWS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Rows in the order of the stream; `Link: …; rel=next` leads to those that follow",
        "headers": {"Link": {"schema": {"type": "string"}, "description": "The next page, if there is one"}},
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["items", "next_cursor"],
                    "properties": {
                        "items": {"type": "array", "items": {"type": "object"}},
                        "next_cursor": {"type": ["string", "null"]},
                    },
                }
            },
            ARROW: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.get("/v1/streams/{id}/frames", summary="A row a frame", responses=_ROWS, response_class=Response)
async def frames(
    here: Here,
    stream: StreamPath,
    from_s: Seconds = None,
    to_s: Seconds = None,
    limit: Limit = 1000,
    cursor: Cursor = "",
    accept: Accept = "application/json",
) -> Response:
    """Return rows of the table frames."""
    return await _rows(here, stream, "frames", from_s, to_s, limit, cursor, accept)


@router.get("/v1/streams/{id}/quality", summary="Each frame's quality", responses=_ROWS, response_class=Response)
async def quality(
    here: Here,
    stream: StreamPath,
    from_s: Seconds = None,
    to_s: Seconds = None,
    limit: Limit = 1000,
    cursor: Cursor = "",
    accept: Accept = "application/json",
) -> Response:
    """Return rows of the table quality."""
    return await _rows(here, stream, "quality", from_s, to_s, limit, cursor, accept)


@router.get(
    "/v1/streams/{id}/snapshot.jpg",
    summary="A picture of the output",
    description="The newest there is, or the one that is shown at `t_s`. A signed link will do.",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def picture(here: Here, stream: StreamPath, t_s: Seconds = None) -> Response:
    """Return a picture as JPEG."""
    await here.service.show(stream)
    store = here.stream_store(stream)
    data = await to_thread.run_sync(lambda: snapshot(store, t_s=t_s), limiter=_decoders)
    if data is None:
        raise Problem(kind_of(NotFound("")), "there is no picture of this stream yet")
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=1"})


async def _rows(
    here: Here,
    stream: str,
    table: Literal["frames", "quality"],
    from_s: float | None,
    to_s: float | None,
    limit: int,
    cursor: str,
    accept: str,
) -> Response:
    await here.service.show(stream)
    store, start = here.stream_store(stream), _place(cursor)
    arrow = ARROW in accept.lower()

    def made() -> tuple[Rows, bytes | dict[str, Any]]:
        rows = read_rows(store, table, start=start, from_s=from_s, to_s=to_s, limit=limit)
        return rows, _arrow(rows.table) if arrow else _json(rows)

    rows, content = await to_thread.run_sync(made)
    headers = {"Vary": "Accept"}
    if rows.next is not None:
        query = {"from_s": from_s, "to_s": to_s, "limit": limit, "cursor": _cursor(rows.next)}
        given = urlencode({name: value for name, value in query.items() if value is not None})
        headers["Link"] = f'</v1/streams/{stream}/{table}?{given}>; rel="next"'
    if isinstance(content, bytes):
        return Response(content, media_type=ARROW, headers=headers)
    return JSONResponse(content, headers=headers)


def _arrow(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _json(rows: Rows) -> dict[str, Any]:
    items = [{name: _value(value) for name, value in row.items()} for row in rows.table.to_pylist()]
    return {"items": items, "next_cursor": None if rows.next is None else _cursor(rows.next)}


def _value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no such number
    if isinstance(value, list):
        return [_value(one) for one in value]
    return value


def _cursor(place: Place) -> str:
    return f"{place.epoch}-{place.seq}"


def _place(cursor: str) -> Place | None:
    if not cursor:
        return None
    epoch, _, seq = cursor.partition("-")
    return Place(int(epoch), int(seq))
