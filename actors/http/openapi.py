"""The OpenAPI description: FastAPI's, with the errors and the scopes as they really are."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from actors.http.auth import need_of
from actors.http.problem import MEDIA_TYPE

_PROBLEM = {
    "type": "object",
    "description": "What is wrong (RFC 9457).",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["path", "message"],
                "properties": {"path": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}
_SECURITY = {"bearer": {"type": "http", "scheme": "bearer", "description": "`limpid token new` makes a token."}}


def describe(app: FastAPI, *, tokens: bool) -> dict[str, Any]:
    """Return the description of `app`, whose routes must all be there; `tokens`: whether they are needed."""
    api = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
    )
    schemas = api.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = _PROBLEM
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own: ours are problems
        schemas.pop(name, None)
    _close_maps(schemas)
    for path, operations in api["paths"].items():
        for method, operation in operations.items():
            _errors(path, method, operation, tokens)
    if tokens:
        api["components"]["securitySchemes"] = _SECURITY
    return api


def _close_maps(value: Any) -> None:
    """Say of every map whose keys have a pattern that other keys are refused, which pydantic does but does not say."""
    if isinstance(value, dict):
        if "patternProperties" in value:
            value["additionalProperties"] = False
        for inner in value.values():
            _close_maps(inner)
    elif isinstance(value, list):
        for inner in value:
            _close_maps(inner)


def _errors(path: str, method: str, operation: dict[str, Any], tokens: bool) -> None:
    need, _ = need_of(method.upper(), path)
    operation["x-scope"] = need
    told = {
        "422": "A value is wrong; `errors` has its path",
        "503": "The service or its store cannot do it now",
        "default": "Anything else that is wrong",
    }
    if "{" in path:
        told["404"] = "There is no such thing"
    if method in ("post", "put", "patch"):
        told |= {"400": "The body is no JSON", "413": "The body is too large", "415": "The body is of another type"}
    if method in ("post", "put"):
        told["409"] = "Another content has that name"
    if need != "public":
        told["403"] = "Not allowed"
    if need != "public" and tokens:
        told["401"] = "A token is needed"
        operation["security"] = [{"bearer": []}]
    for status, description in told.items():
        operation["responses"][status] = {
            "description": description,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
