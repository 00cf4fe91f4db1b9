"""Publishers: who may push a stream to the ingest server, which asks here about each one that comes."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated
from urllib.parse import parse_qs

from anyio import to_thread
from fastapi import APIRouter, Path, Request, Response
from pydantic import StringConstraints

from actors.http.problem import of_status
from actors.http.service import Here
from pipeline.request import Id, Part
from pipeline.store import tokens

router = APIRouter(tags=["publishers"])

_FORM = {
    "required": True,
    "content": {
        "application/x-www-form-urlencoded": {
            "schema": {
                "type": "object",
                "properties": {"app": {"type": "string"}, "name": {"type": "string"}, "key": {"type": "string"}},
            }
        }
    },
}
_MAX_FIELDS = 100

PublisherPath = Annotated[Id, Path(alias="id", description="The publisher's id.")]


class PublisherRequest(Part):
    """Who is to push which stream; `public_key`: Ed25519, base64 of its 32 bytes, by which its models are signed."""

    id: Id
    stream: Id
    public_key: Annotated[str, StringConstraints(pattern="^[A-Za-z0-9+/]{43}=$")]


class Publisher(Part):
    """A publisher; `created_at`: Unix seconds."""

    id: str
    stream: str
    public_key: str
    created_at: float


class NewPublisher(Publisher):
    """A publisher that was just made, with the key it pushes with, which is shown this once."""

    push_key: str


class Publishers(Part):
    """All publishers, by id."""

    items: list[Publisher]


@router.post("/v1/publishers", status_code=201, summary="Let somebody push a stream")
async def create(here: Here, request: PublisherRequest, response: Response) -> NewPublisher:
    """Make a publisher."""
    made, key = await to_thread.run_sync(
        lambda: tokens.new_publisher(
            here.store, id=request.id, stream=request.stream, public_key=request.public_key, now_s=time.time()
        )
    )
    response.headers["Location"] = f"/v1/publishers/{made.id}"
    return NewPublisher(**_shown(made).model_dump(), push_key=key)


@router.get("/v1/publishers", summary="List publishers")
async def listing(here: Here) -> Publishers:
    """List publishers."""
    found = await to_thread.run_sync(tokens.publishers, here.store)
    return Publishers(items=[_shown(one) for one in found])


@router.get("/v1/publishers/{id}", summary="Show a publisher")
async def show(here: Here, publisher: PublisherPath) -> Publisher:
    """Show a publisher."""
    return _shown(await to_thread.run_sync(tokens.publisher, here.store, publisher))


@router.delete("/v1/publishers/{id}", status_code=204, summary="Refuse a publisher from now on")
async def delete(here: Here, publisher: PublisherPath) -> None:
    """Remove a publisher."""
    await to_thread.run_sync(tokens.remove_publisher, here.store, publisher)


@router.post(
    "/ingest/on-publish",
    status_code=204,
    summary="May this publisher push?",
    description="nginx-rtmp's `on_publish` callback: `name` is the stream, `key` the push key. 403: no.",
    openapi_extra={"requestBody": _FORM},
)
async def on_publish(here: Here, request: Request) -> Response:
    """Answer nginx-rtmp's callback."""
    text = (await request.body()).decode(errors="replace")
    try:
        form = parse_qs(text, max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise of_status(400, f"the form has more than {_MAX_FIELDS} fields") from error
    stream, key = form.get("name", [""])[0], form.get("key", [""])[0]
    if not await to_thread.run_sync(lambda: tokens.may_push(here.store, stream=stream, key=key)):
        raise of_status(403, "this key does not open this stream")
    return Response(status_code=204)


def _shown(one: tokens.Publisher) -> Publisher:
    return Publisher(**{name: value for name, value in asdict(one).items() if name != "digest"})
