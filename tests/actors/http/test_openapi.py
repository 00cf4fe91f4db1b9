"""The OpenAPI description, and requests that are made up from it: none brings the service out of its own rules."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.testclient import TestClient

from actors.http.app import make_app
from actors.http.auth import ROUTES
from pipeline.config import Settings
from pipeline.store.objects import Store
from pipeline.store.tokens import new_token
from tests.actors.http import results
from tests.actors.http.memory import MemoryService

BEYOND = (
    "/v1/probe",
    "/v1/stages/{name}",
    "/v1/streams/{id}/models/f-edsr",
    "/v1/streams/{id}/key-frames",
)
"""Routes with rules that a schema cannot say: what can be opened, that min is not above max, what a model is."""

_PLAIN = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


def test_every_error_is_described_as_a_problem(app: FastAPI) -> None:
    problem = {"$ref": "#/components/schemas/Problem"}
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            assert "default" in operation["responses"], (method, path)
            for status, answer in operation["responses"].items():
                if status == "default" or (status.isdigit() and int(status) >= 400 and "content" in answer):
                    assert answer["content"] == {"application/problem+json": {"schema": problem}}, (path, status)


def test_every_public_route_is_described_with_what_it_needs(app: FastAPI) -> None:
    described = {
        (method.upper(), path): operation["x-scope"]
        for path, operations in app.openapi()["paths"].items()
        for method, operation in operations.items()
    }
    pages = {("GET", "/"), ("GET", "/web/{name}"), ("GET", "/docs"), ("GET", "/openapi.json")}
    wanted = {route: need for route, need in ROUTES.items() if route[0] not in ("WS", "OPTIONS") and route not in pages}
    assert {(m, p.replace(":path", "")): need for (m, p), need in wanted.items()} == described


def test_no_value_of_a_request_needs_a_description_from_elsewhere(client: TestClient) -> None:
    answer = client.get("/openapi.json")
    assert answer.status_code == 200
    assert "http://" not in answer.text and "https://" not in answer.text


# ---- made-up requests -----------------------------------------------------------------------------------------------


@pytest.fixture
def api(store: Store) -> Any:
    """The application with tokens on and a stream that has results, and a token for everything."""
    service = MemoryService(cpus=1e6)
    app = make_app(service, store.url, Settings.from_dict({"service": {"tokens": "on"}, "source": {"local": False}}))
    for table in ("frames", "quality"):
        results.write_part(store, "gate", table, results.Part(0, 0, 10))
    results.write_hls(store, "gate")
    results.say(store, "gate", "queued", "running")
    made = schemathesis.openapi.from_asgi("/openapi.json", app)
    token = new_token(store, "fuzz", ["read", "write", "models"], now_s=0.0)

    @made.auth()
    class Auth:
        def get(self, case: schemathesis.Case, context: schemathesis.AuthContext) -> str:
            return token

        def set(self, case: schemathesis.Case, data: str, context: schemathesis.AuthContext) -> None:
            case.headers["Authorization"] = f"Bearer {data}"

    return made


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
def test_made_up_requests_get_described_answers(api: Any, mode: GenerationMode) -> None:
    """All of schemathesis' checks: no server error, described statuses, types and bodies, wrong values refused."""
    for operation in (found.ok() for found in api.get_all_operations()):
        asked = operation.as_strategy(generation_mode=mode)

        @settings(_PLAIN)
        @given(case=asked)
        def ask(case: schemathesis.Case) -> None:
            if case.path.endswith("/events"):
                case.query["follow"] = "false"  # an in-process client waits for the end
            case.call_and_validate(excluded_checks=[positive_data_acceptance] if case.path in BEYOND else [])

        with contextlib.suppress(Unsatisfiable):  # nothing can be wrong with a request without parts
            ask()
