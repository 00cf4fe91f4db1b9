"""Playlists and segments for players: ranges, CORS, caching; with tokens on, every address in a playlist is signed.

Only names that the product itself writes are served, so no path can lead elsewhere.
"""

from __future__ import annotations

import hashlib
import re
import time
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request, Response

from actors.http.links import LINK_S, holds, sign, signed_playlist
from actors.http.problem import Problem, of_status
from actors.http.service import Context, Here
from actors.http.streams import StreamPath
from pipeline.errors import NotFound

router = APIRouter(tags=["media"])

PLAYLIST_CACHE = "no-cache"
SEGMENT_CACHE = "public, max-age=31536000, immutable"
"""A segment is named by its frames and never changes while the stream is kept."""

_NAME = re.compile(r"(?:[a-z0-9]{1,32}/)?(?:index\.m3u8|init-\d{1,9}\.mp4|\d{6,9}-\d{10,18}-\d{10,18}\.m4s)", re.ASCII)
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_TYPES = {"m3u8": "application/vnd.apple.mpegurl", "mp4": "video/mp4", "m4s": "video/iso.segment"}
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Accept-Ranges, Content-Length, Content-Range, ETag",
}
_PREFLIGHT = {
    **_CORS,
    "Access-Control-Allow-Methods": "GET, HEAD",
    "Access-Control-Allow-Headers": "Authorization, If-None-Match, Range",
    "Access-Control-Max-Age": "86400",
}


@router.get(
    "/hls/{id}/{path:path}",
    summary="A playlist or segment",
    description="Start at `index.m3u8`. Takes a signed link (`links.hls` of the stream) in place of a token.",
    response_class=Response,
    responses={
        200: {"content": {media_type: {} for media_type in _TYPES.values()}},
        206: {"description": "The range that was asked for", "content": {_TYPES["m4s"]: {}, _TYPES["mp4"]: {}}},
        304: {"description": "It is what the client has"},
        416: {"description": "The range lies behind the end"},
    },
)
@router.head("/hls/{id}/{path:path}", include_in_schema=False)
async def media(
    here: Here,
    request: Request,
    stream: StreamPath,
    path: str,
    sig: Annotated[str | None, Query(max_length=100, description="A signature, as in a stream's links.")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
    byte_range: Annotated[str | None, Header(alias="range")] = None,
) -> Response:
    """Return a playlist or segment."""
    if not _NAME.fullmatch(path):
        raise of_status(404, "there is no such file")
    store = here.stream_store(stream)
    try:
        data = await to_thread.run_sync(store.get, f"hls/{path}")
    except NotFound as error:
        raise of_status(404, "there is no such file (yet)") from error
    kind = path.rpartition(".")[2]
    headers = {"Cache-Control": SEGMENT_CACHE, "Accept-Ranges": "bytes", **_CORS}
    if kind == "m3u8":
        data = _for_viewer(here, stream, data, sig)
        headers["Cache-Control"] = PLAYLIST_CACHE
    headers["ETag"] = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    if if_none_match is not None and headers["ETag"] in if_none_match:
        return Response(status_code=304, headers=headers)
    status = 200
    if byte_range is not None and request.method == "GET":
        first, stop = _range(byte_range, len(data))
        if (first, stop) != (0, len(data)):
            headers["Content-Range"] = f"bytes {first}-{stop - 1}/{len(data)}"
            data, status = data[first:stop], 206
    return Response(data, status_code=status, headers=headers, media_type=_TYPES[kind])


@router.options("/hls/{id}/{path:path}", include_in_schema=False)
async def preflight(stream: StreamPath, path: str) -> Response:
    """Tell a browser that pages of any origin may play this."""
    return Response(status_code=204, headers=_PREFLIGHT)


def _for_viewer(here: Context, stream: str, data: bytes, sig: str | None) -> bytes:
    """Return a playlist whose addresses carry the viewer's signature: theirs, or a fresh one for who sent a token."""
    if here.link_key is None:
        return data
    now_s = time.time()
    if sig is None or not holds(here.link_key, stream, sig, now_s=now_s):
        sig = sign(here.link_key, stream, expires_s=int(now_s) + LINK_S)
    return signed_playlist(data.decode(), sig).encode()


def _range(text: str, size: int) -> tuple[int, int]:
    """Return [first, stop) of a Range header; what is no single byte range means all (RFC 9110 §14.2).

    Raises:
        Problem: 416, the range lies behind the end.
    """
    match = _RANGE.fullmatch(text.replace(" ", ""))
    if match is None or not (match[1] or match[2]):
        return 0, size
    if match[1]:
        first, stop = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
        if match[2] and int(match[2]) < first:
            return 0, size  # not a valid range: ignored
    else:
        first, stop = max(0, size - int(match[2])), size
    if first >= stop:
        problem: Problem = of_status(416, f"the file has {size} bytes")
        problem.headers.update({"Content-Range": f"bytes */{size}", **_CORS})
        raise problem
    return first, stop
