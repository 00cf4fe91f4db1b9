"""Who may push: made once, asked for by the ingest server, refused when deleted."""

from __future__ import annotations

import base64

import pytest
from starlette.testclient import TestClient

KEY = base64.b64encode(bytes(range(32))).decode()
CAM = {"id": "cam-1", "stream": "gate", "public_key": KEY}


def _push(client: TestClient, stream: str, key: str) -> int:
    """As nginx-rtmp asks."""
    form = {"app": "live", "name": stream, "key": key, "call": "publish", "addr": "10.0.0.9", "clientid": "1"}
    return client.post("/ingest/on-publish", data=form).status_code


def test_the_push_key_is_shown_once(client: TestClient) -> None:
    made = client.post("/v1/publishers", json=CAM)
    assert (made.status_code, made.headers["Location"]) == (201, "/v1/publishers/cam-1")
    assert made.json()["push_key"].startswith("cam-1.")
    shown = client.get("/v1/publishers/cam-1").json()
    assert {key: shown[key] for key in CAM} == CAM
    assert client.get("/v1/publishers").json() == {"items": [shown]}
    for text in (client.get("/v1/publishers").text, client.get("/v1/publishers/cam-1").text):
        assert "push_key" not in text and made.json()["push_key"] not in text and "digest" not in text


def test_the_key_opens_its_stream_alone(client: TestClient) -> None:
    key = client.post("/v1/publishers", json=CAM).json()["push_key"]
    assert _push(client, "gate", key) == 204
    assert _push(client, "door", key) == 403
    assert [
        _push(client, "gate", wrong) for wrong in ("", "cam-1", "cam-1.", key[:-1], key + "x", "cam-2.x", "../x")
    ] == [403] * 7
    assert client.post("/ingest/on-publish").status_code == 403


def test_several_may_push_a_stream_each_with_a_key_of_its_own(client: TestClient) -> None:
    first = client.post("/v1/publishers", json=CAM).json()["push_key"]
    second = client.post("/v1/publishers", json={**CAM, "id": "cam-2"}).json()["push_key"]
    assert [_push(client, "gate", key) for key in (first, second)] == [204, 204]
    assert client.delete("/v1/publishers/cam-1").status_code == 204
    assert [_push(client, "gate", key) for key in (first, second)] == [403, 204]


def test_an_id_is_taken_once(client: TestClient) -> None:
    client.post("/v1/publishers", json=CAM)
    again = client.post("/v1/publishers", json=CAM)
    assert (again.status_code, again.json()["type"]) == (409, "/problems/conflict")


@pytest.mark.parametrize("key", ["", "abc", KEY[:-4], base64.b64encode(bytes(31)).decode(), "é" * 44])
def test_a_key_that_is_none_is_told(key: str, client: TestClient) -> None:
    answer = client.post("/v1/publishers", json={**CAM, "public_key": key})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == "body.public_key"


def test_unknown_ones_are_404(client: TestClient) -> None:
    assert client.get("/v1/publishers/nobody").status_code == 404
    assert client.delete("/v1/publishers/nobody").status_code == 404
