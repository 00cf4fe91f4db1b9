"""The web page and the API's documentation, which load nothing from elsewhere."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Header, Request, Response

from actors.http.problem import of_status
from actors.http.reference import STYLE_SOURCE, reference

router = APIRouter(include_in_schema=False)

CSP = (
    "default-src 'self'; media-src 'self' blob:; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
"""Only our own files run; players feed media, and show thumbnails, from memory (blob:)."""

_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "ico": "image/x-icon",
}


class _File(NamedTuple):
    data: bytes
    media_type: str
    etag: str


@router.get("/")
async def index(if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """Return the page."""
    return _answer("index.html", if_none_match)


@router.get("/web/{name}")
async def part(name: str, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """Return a file of the page."""
    return _answer(name, if_none_match)


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Return the documentation of the API."""
    text = reference(request.app.openapi())
    return Response(
        text, media_type=_TYPES["html"], headers={"Content-Security-Policy": f"{CSP}; style-src {STYLE_SOURCE}"}
    )


@cache
def _files() -> dict[str, _File]:
    """Return the page's files by name: read once, so that no request reaches the disk."""
    folder = resources.files("actors") / "web"
    found = {}
    for entry in folder.iterdir() if folder.is_dir() else ():
        media_type = _TYPES.get(entry.name.rpartition(".")[2])
        if media_type is not None and entry.is_file():
            data = entry.read_bytes()
            found[entry.name] = _File(data, media_type, f'"{hashlib.sha256(data).hexdigest()[:32]}"')
    return found


def _answer(name: str, if_none_match: str | None) -> Response:
    file = _files().get(name)
    if file is None:
        raise of_status(404, "there is no such file")
    headers = {"Cache-Control": "no-cache", "Content-Security-Policy": CSP, "ETag": file.etag}
    if if_none_match is not None and file.etag in if_none_match:
        return Response(status_code=304, headers=headers)
    return Response(file.data, media_type=file.media_type, headers=headers)
