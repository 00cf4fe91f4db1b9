"""What every request and answer keeps to: small bodies of the right type, and headers that browsers need.

Bodies are read here, whole, before the application sees them: all are small JSON. What is too large is refused as soon
as that is known, also where no length was given.
"""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from actors.http.problem import Problem, of_status, respond

MAX_BODY_BYTES = 1 << 20
BODY_S = 30.0
"""Seconds in which a body must be there (chosen): it is small, and who sends slower holds a place for nothing."""

FORMS = frozenset({"/ingest/on-publish"})
"""Paths whose bodies are forms; all others are JSON."""

CSP = "default-src 'none'; frame-ancestors 'none'"
"""For answers that are no page."""

_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
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
    if declared.isdigit() and int(declared[:20]) > MAX_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise of_status(400, "the body broke off")
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    raise _too_large()
                more = message.get("more_body", False)
    except TimeoutError as error:
        raise of_status(408, f"the body was not there after {BODY_S:g} s") from error
    if body:
        _check_type(headers.get("content-type", ""), form=scope["path"] in FORMS)
    first: Message | None = {"type": "http.request", "body": bytes(body), "more_body": False}

    async def again() -> Message:
        nonlocal first
        if first is not None:
            message, first = first, None
            return message
        return await receive()

    return again


def _check_type(content_type: str, *, form: bool) -> None:
    kind = content_type.partition(";")[0].strip().lower()
    if form:
        if kind != _FORM:
            raise of_status(415, f"send a form ({_FORM})")
    elif kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise of_status(415, "send JSON, with 'Content-Type: application/json'")


def _too_large() -> Problem:
    problem = of_status(413, f"the body is larger than {MAX_BODY_BYTES >> 20} MiB")
    problem.headers["Connection"] = "close"
    return problem
