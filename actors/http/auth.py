"""Who may call what: one table from route to what it needs, and the border that holds every request against it.

It stands before routing, so a request that may not be made costs no parsing of its body. What is in no table needs
`read`, or `write` where it is no GET: nothing becomes public by being forgotten. Paths with control characters are
refused: Starlette's patterns end in "$", which lets a line feed follow, and ours would not know such a path.

Without tokens the service is for its own machine only. Then other machines are refused, and so are web pages of other
origins that a browser on this machine has open: by the Host that they ask for (DNS rebinding), and by the Origin of
WebSockets, which no CORS guards.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlsplit

from anyio import to_thread
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from actors.http.links import holds
from actors.http.problem import Kind, Problem, of_error, of_status, respond
from actors.http.service import Context
from pipeline.config import Settings
from pipeline.errors import ConfigError, LimpidError
from pipeline.store.tokens import Scope as TokenScope
from pipeline.store.tokens import find_token

Need = Literal["public", "link", "read", "write", "models"]
"""public: nothing; link: a signed link or `read`; else that scope."""

ROUTES: Mapping[tuple[str, str], Need] = {
    ("GET", "/"): "public",
    ("GET", "/web/{name}"): "public",
    ("GET", "/docs"): "public",
    ("GET", "/openapi.json"): "public",
    ("GET", "/livez"): "public",
    ("GET", "/readyz"): "public",
    ("GET", "/metrics"): "read",
    ("POST", "/v1/streams"): "write",
    ("GET", "/v1/streams"): "read",
    ("GET", "/v1/streams/{id}"): "read",
    ("PATCH", "/v1/streams/{id}"): "write",
    ("DELETE", "/v1/streams/{id}"): "write",
    ("GET", "/v1/streams/{id}/frames"): "read",
    ("GET", "/v1/streams/{id}/quality"): "read",
    ("GET", "/v1/streams/{id}/events"): "read",
    ("GET", "/v1/streams/{id}/snapshot.jpg"): "link",
    ("WS", "/v1/streams/{id}/live"): "link",
    ("GET", "/v1/streams/{id}/models"): "read",
    ("PUT", "/v1/streams/{id}/models/f-edsr"): "models",
    ("POST", "/v1/streams/{id}/models/rollback"): "models",
    ("PUT", "/v1/streams/{id}/key-frames"): "models",
    ("GET", "/v1/events"): "read",
    ("POST", "/v1/probe"): "write",
    ("GET", "/v1/capacity"): "read",
    ("GET", "/v1/stages"): "read",
    ("PATCH", "/v1/stages/{name}"): "write",
    ("POST", "/v1/publishers"): "write",
    ("GET", "/v1/publishers"): "read",
    ("GET", "/v1/publishers/{id}"): "read",
    ("DELETE", "/v1/publishers/{id}"): "write",
    ("POST", "/ingest/on-publish"): "public",  # the push key in it decides
    ("GET", "/hls/{id}/{path:path}"): "link",
    ("OPTIONS", "/hls/{id}/{path:path}"): "public",  # a browser's preflight carries no token
}
"""Every route of the application; a test compares. HEAD is as GET."""

UNAUTHENTICATED = Kind(401, "unauthenticated", "A token is needed")
FORBIDDEN = Kind(403, "forbidden", "The token does not allow this")
NOT_LOCAL = Kind(403, "not-local", "This service is for its own machine")

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LOCAL_NAMES = frozenset({"localhost", "localhost.localdomain"})


def tokens_needed(settings: Settings) -> bool:
    """Return whether requests need a token.

    Raises:
        ConfigError: tokens are off on an address that other machines reach.
    """
    service = settings.service
    local = is_loopback(service.host)
    if service.tokens == "off" and not local:
        raise ConfigError(
            f"without tokens the service may not listen on {service.host}",
            where="service.tokens",
            hint="use auto or on, or listen on 127.0.0.1",
        )
    return service.tokens == "on" or (service.tokens == "auto" and not local)


def is_loopback(host: str) -> bool:
    """Say whether a host, by name or address, is this machine and no other."""
    if host.lower() in _LOCAL_NAMES:
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def need_of(method: str, path: str) -> tuple[Need, str]:
    """Return what a request needs, and the stream's id in its path ("" if there is none)."""
    method = "GET" if method == "HEAD" else method
    unknown: Need = "read" if method in ("GET", "WS") else "write"
    for pattern, needs in _PATTERNS:
        match = pattern.fullmatch(path)
        if match is not None:
            return needs.get(method, unknown), match.groupdict().get("id", "")
    return unknown, ""


class Guard:
    """ASGI: lets through what may be called, answers the rest with 401 or 403."""

    def __init__(self, app: ASGIApp, *, context: Context) -> None:
        self._app = app
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            try:
                await self._check(HTTPConnection(scope))
            except Problem as problem:
                await _refuse(problem, scope, receive, send)
                return
            except LimpidError as error:  # the store does not work
                await _refuse(of_error(error), scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _check(self, connection: HTTPConnection) -> None:
        websocket = connection.scope["type"] == "websocket"
        method = "WS" if websocket else str(connection.scope["method"])
        path = _route_path(connection.scope)
        if _CONTROL.search(path):
            raise of_status(404)
        need, stream = need_of(method, path)
        if need == "public":
            return
        key = self._context.link_key
        if key is None:
            _check_local(connection, websocket)
            return
        sig = connection.query_params.get("sig", "")
        if need == "link":
            if holds(key, stream, sig, now_s=time.time()):
                return
            need = "read"
        await self._check_token(connection.headers.get("authorization", ""), need)

    async def _check_token(self, header: str, scope: TokenScope) -> None:
        kind, _, text = header.partition(" ")
        if kind.lower() != "bearer" or not text.strip():
            raise Problem(
                UNAUTHENTICATED,
                "send a token: 'Authorization: Bearer …' (`limpid token new` makes one)",
                headers={"WWW-Authenticate": 'Bearer realm="limpid"'},
            )
        token = await to_thread.run_sync(find_token, self._context.store, text.strip())
        if token is None:
            raise Problem(
                UNAUTHENTICATED,
                "this token is not known, or was revoked",
                headers={"WWW-Authenticate": 'Bearer realm="limpid", error="invalid_token"'},
            )
        if not token.allows(scope):
            raise Problem(
                FORBIDDEN,
                f"this needs a token with scope {scope}",
                headers={"WWW-Authenticate": f'Bearer realm="limpid", error="insufficient_scope", scope="{scope}"'},
            )


def _check_local(connection: HTTPConnection, websocket: bool) -> None:
    client = connection.client
    if client is not None and not is_loopback(client.host):
        raise Problem(NOT_LOCAL, "tokens are off, so other machines are refused; turn service.tokens on")
    host = connection.headers.get("host", "")
    if host and not is_loopback(_host_name(f"//{host}")):
        raise Problem(NOT_LOCAL, "tokens are off, so the service answers as localhost only; turn service.tokens on")
    origin = connection.headers.get("origin")
    if websocket and origin is not None and urlsplit(origin).netloc != host:
        raise Problem(NOT_LOCAL, "pages of other origins may not watch")


def _route_path(scope: Scope) -> str:
    """Return the path that routes are matched with: below the prefix that the application is mounted at."""
    path, prefix = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(prefix) :] if prefix and path.startswith(prefix) else path


def _host_name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


async def _refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": problem.detail})
        return
    await respond(problem, str(scope["path"]))(scope, receive, send)


def _compiled() -> list[tuple[re.Pattern[str], dict[str, Need]]]:
    grouped: dict[str, dict[str, Need]] = {}
    for (method, path), need in ROUTES.items():
        grouped.setdefault(path, {})[method] = need
    return [(re.compile(_regex(path)), needs) for path, needs in grouped.items()]


def _regex(path: str) -> str:
    def part(match: re.Match[str]) -> str:
        return f"(?P<{match[1]}>{'.*' if match[2] else '[^/]+'})"

    pieces = re.split(r"(\{\w+(?::path)?\})", path)
    return "".join(
        re.sub(r"\{(\w+)(:path)?\}", part, piece) if piece.startswith("{") else re.escape(piece) for piece in pieces
    )


_PATTERNS = _compiled()
