"""Errors as RFC 9457 problems: one table from what went wrong to status and type.

What a client is told never holds a secret (URLs are redacted) nor a path of the server's disk; a bug of ours is told
as such, without details, and logged with its traceback.
"""

from __future__ import annotations

import errno
import http
import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from pipeline import errors
from pipeline.errors import CapacityError, ConfigError, LimpidError, ModelRejected, StorageError
from pipeline.store.redact import redact

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 5.0
"""Seconds after which a client may ask again, where what went wrong does not say."""

_log = logging.getLogger(__name__)


class Kind(NamedTuple):
    """What an error is for a client; `type` is "/problems/<name>" in answers."""

    status: int
    name: str
    title: str


KINDS: Mapping[type[LimpidError], Kind] = {
    errors.Conflict: Kind(409, "conflict", "Another content has that name"),
    errors.NotFound: Kind(404, "not-found", "There is no such thing"),
    errors.ConfigError: Kind(422, "invalid", "The request is wrong"),
    errors.Refused: Kind(403, "refused", "This address is not allowed"),
    errors.CapacityError: Kind(503, "no-capacity", "It does not fit now"),
    errors.SourceError: Kind(422, "source", "The source cannot be used"),
    errors.SignatureError: Kind(403, "signature", "The signature does not hold"),
    errors.ModelRejected: Kind(409, "rejected", "The model is not taken"),
    errors.ModelError: Kind(422, "model", "The model cannot be used"),
    errors.StorageError: Kind(503, "storage", "The store does not work"),
    errors.StageError: Kind(500, "stage", "A stage failed"),
    errors.LimpidError: Kind(500, "internal", "Something went wrong"),
}
"""By class; a class that is not here is what its nearest base is."""

STORAGE_FULL = Kind(507, "storage-full", "The store is full")
MALFORMED = Kind(400, "malformed", "The body is no JSON")
INVALID = KINDS[errors.ConfigError]
INTERNAL = KINDS[errors.LimpidError]
_FIELD = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Problem(Exception):
    """An answer that says what is wrong; `extra` are further members."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})


def kind_of(error: LimpidError) -> Kind:
    """Return what an error is for a client."""
    cause = error.__cause__
    if isinstance(error, StorageError) and isinstance(cause, OSError) and cause.errno in _FULL:
        return STORAGE_FULL
    return next(KINDS[base] for base in type(error).__mro__ if base in KINDS)


def of_error(error: LimpidError) -> Problem:
    """Return an error as a problem."""
    kind = kind_of(error)
    detail = f"{error.what} ({error.hint})" if error.hint else error.what
    extra: dict[str, Any] = {}
    field = _FIELD.fullmatch(error.where) is not None
    if isinstance(error, ModelRejected):
        extra |= error.figures
    if isinstance(error, ConfigError):
        extra["errors"] = [{"path": error.where if field else "body", "message": _plain(error.what)}]
    if error.where and not field and not isinstance(error, StorageError):  # of a StorageError: a path on our disk
        detail = f"{error.where}: {detail}"
    return Problem(kind, detail, headers=_retry_after(error, kind), extra=extra)


def respond(problem: Problem, instance: str) -> JSONResponse:
    """Return a problem as an answer; `instance` is the path that was asked for."""
    kind = problem.kind
    content = {
        "type": f"/problems/{kind.name}" if kind.name else "about:blank",
        "title": kind.title,
        "status": kind.status,
        "detail": _plain(problem.detail),
        "instance": _plain(instance),
        **problem.extra,
    }
    headers = {"Cache-Control": "no-store", **problem.headers}
    return JSONResponse(content, status_code=kind.status, headers=headers, media_type=MEDIA_TYPE)


def of_status(status: int, detail: str = "") -> Problem:
    """Return the problem of a bare HTTP status ("about:blank": its title says all)."""
    title = http.HTTPStatus(status).phrase
    return Problem(Kind(status, "", title), detail or title)


def install(app: FastAPI) -> None:
    """Let every error of `app`, also the framework's own, become a problem."""

    @app.exception_handler(Problem)
    async def on_problem(request: Request, error: Problem) -> JSONResponse:
        return respond(error, request.url.path)

    @app.exception_handler(LimpidError)
    async def on_limpid(request: Request, error: LimpidError) -> JSONResponse:
        problem = of_error(error)
        if problem.kind.status >= 500 and not isinstance(error, CapacityError):
            _log.warning("request failed: path=%s error=%s", _plain(request.url.path), redact(str(error)))
        return respond(problem, request.url.path)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return respond(of_validation(error.errors()), request.url.path)

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> JSONResponse:
        problem = of_status(error.status_code, error.detail)
        if error.status_code == MALFORMED.status:
            problem.kind = MALFORMED
        problem.headers.update(error.headers or {})
        return respond(problem, request.url.path)

    @app.exception_handler(Exception)
    async def on_bug(request: Request, error: Exception) -> JSONResponse:
        # Starlette raises it again behind the answer, so that the server logs it with its traceback.
        return respond(Problem(INTERNAL, "this is a fault of the service, not of the request"), request.url.path)


def of_validation(faults: Sequence[Any]) -> Problem:
    """Return what pydantic found wrong as a problem: paths and messages, never the values."""
    if any(fault["type"] == "json_invalid" for fault in faults):
        reason = str(faults[0].get("ctx", {}).get("error", ""))
        return Problem(MALFORMED, f"the body is no JSON: {reason}")
    told = [
        {"path": ".".join(_plain(str(part)) for part in fault["loc"]), "message": _plain(fault["msg"])}
        for fault in faults
    ]
    detail = "; ".join(f"{fault['path']}: {fault['message']}" for fault in told[:10])
    return Problem(INVALID, detail, extra={"errors": told})


def _retry_after(error: LimpidError, kind: Kind) -> dict[str, str]:
    if kind.status != http.HTTPStatus.SERVICE_UNAVAILABLE:
        return {}
    wanted_s = error.retry_after_s if isinstance(error, CapacityError) else 0.0
    return {"Retry-After": str(max(1, math.ceil(wanted_s or RETRY_AFTER_S)))}


def _plain(text: str) -> str:
    """Return text that JSON can carry (no lone surrogates) and that holds no secret."""
    return redact(text.encode(errors="replace").decode())
