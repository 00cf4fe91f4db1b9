"""What every request and answer keeps to: small bodies of the right type, and headers that browsers need.

Bodies are read here, whole, before the application sees them: most are small JSON, models and key frames are bytes with
limits of their own. What is too large is refused as soon as that is known, also where no length was given.
"""

from __future__ import annotations

import asyncio
import contextlib
import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from actors.http.problem import Problem, of_status, respond
from pipeline.store import keyframes

MAX_BODY_BYTES = 1 << 20
BODY_S = 30.0
"""Seconds in which a body must be there (chosen): it is small, and who sends slower holds a place for nothing."""

MAX_MODEL_BYTES = 32 << 20
"""Of a pushed model: the largest that ships has 2 MB."""

UPLOAD_S = 120.0
"""Seconds in which a model or key frame must be there: a publisher sends it in what its video leaves of the uplink."""

BINARY = {
    re.compile(r"/v1/streams/[^/]+/models/f-edsr"): MAX_MODEL_BYTES,
    re.compile(r"/v1/streams/[^/]+/key-frames"): keyframes.FILE_LIMIT_BYTES,
}
"""Paths whose bodies are bytes, and how many at most."""

FORMS = frozenset({"/ingest/on-publish"})
"""Paths whose bodies are forms; all others but BINARY are JSON."""

CSP = "default-src 'none'; frame-ancestors 'none'"
"""For answers that are no page."""

_DISCARDED = 3  # times the limit that are read beyond it, so that the sender hears why it is refused
_DISCARD_S = 10.0
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_BYTES = "application/octet-stream"
_FORM = "application/x-www-form-urlencoded"


class SameHeaders:
    """ASGI: sets the headers that are the same for all answers, unless an answer has its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Referrer-Policy", "no-referrer")
                headers.setdefault("Content-Security-Policy", CSP)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, sending)


class Bodies:
    """ASGI: holds bodies to size, time and type."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in _WITH_BODY:
            try:
                receive = await _with_body(scope, receive)
            except Problem as problem:
                await respond(problem, scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _with_body(scope: Scope, receive: Receive) -> Receive:
    """Read the body and return a `receive` that gives it again. Raises Problem."""
    headers = Headers(scope=scope)
    declared = headers.get("content-length", "0")
    most = next((limit for path, limit in BINARY.items() if path.fullmatch(scope["path"])), 0)
    limit, patience_s = (most, UPLOAD_S) if most else (MAX_BODY_BYTES, BODY_S)
    if declared.isdigit() and int(declared[:20]) > limit:
        await _discard(receive, headers, limit)
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(patience_s):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise of_status(400, "the body broke off")
                body += message.get("body", b"")
                if len(body) > limit:
                    body.clear()
                    await _discard(receive, headers, limit)
                    raise _too_large(limit)
                more = message.get("more_body", False)
    except TimeoutError as error:
        raise of_status(408, f"the body was not there after {patience_s:g} s") from error
    if body:
        _check_type(headers.get("content-type", ""), form=scope["path"] in FORMS, binary=bool(most))
    first: Message | None = {"type": "http.request", "body": bytes(body), "more_body": False}

    async def again() -> Message:
        nonlocal first
        if first is not None:
            message, first = first, None
            return message
        return await receive()

    return again


async def _discard(receive: Receive, headers: Headers, limit: int) -> None:
    """Read what is left of a body that is too large, as far as that makes sense.

    Who is still sending when the connection is closed sees it reset, and never the answer. One that asked before
    sending (`Expect: 100-continue`) has sent nothing yet.
    """
    left = _DISCARDED * limit
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_S):
            while left > 0 and "expect" not in headers:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return


def _check_type(content_type: str, *, form: bool, binary: bool) -> None:
    kind = content_type.partition(";")[0].strip().lower()
    if binary:
        if kind != _BYTES:
            raise of_status(415, f"send bytes, with 'Content-Type: {_BYTES}'")
    elif form:
        if kind != _FORM:
            raise of_status(415, f"send a form ({_FORM})")
    elif kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise of_status(415, "send JSON, with 'Content-Type: application/json'")


def _too_large(limit: int) -> Problem:
    problem = of_status(413, f"the body is larger than {limit >> 20} MiB")
    problem.headers["Connection"] = "close"
    return problem
