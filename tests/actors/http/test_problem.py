"""Every error is a problem, whoever found it; none tells a secret or a path of ours."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from actors.http.problem import KINDS, kind_of
from pipeline import errors
from pipeline.errors import CapacityError, LimpidError, StageError, StorageError
from pipeline.store.objects import Store
from tests.actors.http.conftest import local_client
from tests.actors.http.memory import MemoryService

JSON = {"Content-Type": "application/json"}


def _full() -> StorageError:
    try:
        try:
            raise OSError(errno.ENOSPC, "no space")
        except OSError as error:
            raise StorageError("the disk is full", where="/var/secret/place") from error
    except StorageError as error:
        return error


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        (errors.Conflict("a"), 409, "conflict"),
        (errors.NotFound("a"), 404, "not-found"),
        (errors.ConfigError("a", where="enhance.scale"), 422, "invalid"),
        (errors.GraphError("a"), 422, "invalid"),
        (errors.Refused("a"), 403, "refused"),
        (errors.Unreachable("a"), 422, "source"),
        (errors.UnsupportedMedia("a"), 422, "source"),
        (errors.CorruptMedia("a"), 422, "source"),
        (errors.ModelFormatError("a"), 422, "model"),
        (errors.SignatureError("a"), 403, "signature"),
        (errors.ModelRejected("a"), 409, "rejected"),
        (CapacityError("a"), 503, "no-capacity"),
        (StorageError("a", where="/var/secret/place"), 503, "storage"),
        (_full(), 507, "storage-full"),
        (StageError("a", stage="decode", span="s"), 500, "stage"),
    ],
)
def test_each_error_has_its_status(
    error: LimpidError, status: int, name: str, client: TestClient, service: MemoryService
) -> None:
    service.failure = error
    answer = client.post("/v1/streams", json={"source": "http://e.org/a"})
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    body = answer.json()
    assert body["type"] == f"/problems/{name}"
    assert (body["status"], body["instance"]) == (status, "/v1/streams")
    assert body["title"] and body["detail"]
    assert ("Retry-After" in answer.headers) == (status == 503)
    assert "/var/secret" not in answer.text


def test_every_error_class_is_of_a_kind() -> None:
    """Subclasses may leave it to their base, but no error is left to LimpidError by being forgotten."""
    for found in vars(errors).values():
        if isinstance(found, type) and issubclass(found, LimpidError) and found is not LimpidError:
            kind = next(KINDS[base] for base in found.__mro__ if base in KINDS)
            assert kind is not KINDS[LimpidError], found
    assert kind_of(LimpidError("a")).status == 500


def test_a_problem_says_what_where_and_what_to_do_without_secrets(client: TestClient, service: MemoryService) -> None:
    service.failure = errors.Unreachable("timed out", where="rtsp://u:secret@e.org/1", hint="check the camera")
    detail = client.post("/v1/streams", json={"source": "http://e.org/a"}).json()["detail"]
    assert detail == "rtsp://***@e.org/1: timed out (check the camera)"


def test_a_bug_is_told_without_details(client: TestClient, service: MemoryService) -> None:
    service.failure = AssertionError("secret")
    answer = client.post("/v1/streams", json={"source": "http://e.org/a"})
    assert answer.status_code == 500
    assert answer.json()["type"] == "/problems/internal"
    assert "secret" not in answer.text


def test_wrong_fields_are_all_told_with_their_paths(client: TestClient) -> None:
    body = {"id": "Gate 3", "source": {"uri": "rtsp://u:secret@e.org", "reconnect": {"max_s": -1}}, "colour": "red"}
    answer = client.post("/v1/streams", json=body)
    assert answer.status_code == 422
    assert sorted(fault["path"] for fault in answer.json()["errors"]) == [
        "body.colour",
        "body.id",
        "body.source.reconnect.max_s",
    ]
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "sent", "status"),
    [
        ("GET", "/nowhere", {}, 404),
        ("GET", "/v1/streams/", {}, 404),
        ("PUT", "/v1/streams", {"json": {}}, 405),
        ("POST", "/v1/streams", {"content": "{", "headers": JSON}, 400),
        ("POST", "/v1/streams", {"content": b"\xff\xfe", "headers": JSON}, 400),
        ("POST", "/v1/streams", {"content": "[" * 100_000, "headers": JSON}, 400),
        ("POST", "/v1/streams", {"content": '{"priority": 1' + "0" * 5000 + "}", "headers": JSON}, 400),
        ("POST", "/v1/streams", {"content": '{"source": "\\ud800"}', "headers": JSON}, 422),
        ("POST", "/v1/streams", {"content": '{"source": "a", "slo": {"max_lag_s": NaN}}', "headers": JSON}, 422),
        ("POST", "/v1/streams", {}, 422),
        ("POST", "/v1/streams", {"content": "null", "headers": JSON}, 422),
        ("POST", "/v1/streams", {"content": "<a/>", "headers": {"Content-Type": "text/xml"}}, 415),
        ("POST", "/v1/streams", {"content": "{}"}, 415),
        ("POST", "/v1/streams", {"data": {"source": "a"}}, 415),
        ("POST", "/ingest/on-publish", {"json": {"name": "a"}}, 415),
        ("POST", "/ingest/on-publish", {"data": {f"f{n}": "x" for n in range(101)}}, 400),
        ("POST", "/v1/streams", {"content": b" " * ((1 << 20) + 1), "headers": JSON}, 413),
        ("GET", "/v1/streams/Gate", {}, 422),
    ],
)
def test_what_the_framework_refuses_is_a_problem_too(
    method: str, path: str, sent: dict[str, Any], status: int, client: TestClient
) -> None:
    answer = client.request(method, path, **sent)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert set(answer.json()) >= {"type", "title", "status", "detail", "instance"}


def test_a_wrong_method_is_told_the_right_ones(client: TestClient) -> None:
    assert client.put("/v1/capacity", json={}).headers["Allow"] == "GET"


def test_a_large_body_without_length_is_refused_too(client: TestClient) -> None:
    pieces = (b" " * 65536 for _ in range(17))
    answer = client.post("/v1/streams", content=pieces, headers=JSON)
    assert answer.status_code == 413


def test_a_store_that_does_not_work_is_503_also_before_routing(
    guarded: FastAPI, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise StorageError("S3 does not answer", where="s3://bucket/secret")

    with local_client(guarded) as client:
        monkeypatch.setattr(type(store), "get", broken)
        answer = client.get("/v1/streams", headers={"Authorization": "Bearer a.b"})
    assert answer.status_code == 503
    assert "bucket" not in answer.text
