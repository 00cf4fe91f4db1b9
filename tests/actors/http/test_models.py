"""Models over HTTP: bodies of bytes with limits of their own, the history, key frames; each refusal with its status."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from actors.http import limits
from pipeline.store import keyframes, modelhistory
from pipeline.store.modelhistory import ModelEntry
from pipeline.store.objects import Store
from tests import pushed
from tests.actors.http.memory import BETTER, FOREIGN, WORSE, MemoryService

GATE = {"id": "gate", "source": "http://e.org/a"}
MODELS = "/v1/streams/gate/models"
BYTES = {"Content-Type": "application/octet-stream"}


@pytest.fixture(autouse=True)
def stream(client: TestClient) -> None:
    assert client.post("/v1/streams", json=GATE).status_code == 201


def test_a_better_model_is_taken_and_taken_back(client: TestClient) -> None:
    taken = client.put(f"{MODELS}/f-edsr", content=BETTER, headers=BYTES)
    assert taken.status_code == 200
    assert taken.json() == {
        "model": "m@3",
        "version": 3,
        "psnr_before": 31.0,
        "psnr_after": 31.5,
        "epoch": 0,
        "seq": 96,
    }
    back = client.post(f"{MODELS}/rollback")
    assert (back.status_code, back.json()["version"], back.json()["psnr_after"]) == (200, 2, None)
    again = client.post(f"{MODELS}/rollback")
    assert (again.status_code, again.json()["type"]) == (409, "/problems/rejected")


def test_each_refusal_has_its_status_and_figures(client: TestClient) -> None:
    worse = client.put(f"{MODELS}/f-edsr", content=WORSE, headers=BYTES)
    assert (worse.status_code, worse.json()["type"]) == (409, "/problems/rejected")
    assert (worse.json()["psnr_before"], worse.json()["psnr_after"], worse.json()["version"]) == (31.0, 30.5, 3)
    foreign = client.put(f"{MODELS}/f-edsr", content=FOREIGN, headers=BYTES)
    assert (foreign.status_code, foreign.json()["type"]) == (403, "/problems/signature")
    for body in (b"", b"{}", b"\0" * 100):
        nothing = client.put(f"{MODELS}/f-edsr", content=body, headers=BYTES)
        assert (nothing.status_code, nothing.json()["type"]) == (422, "/problems/model")
    assert client.put("/v1/streams/door/models/f-edsr", content=BETTER, headers=BYTES).status_code == 404
    assert client.post("/v1/streams/door/models/rollback").status_code == 404
    assert client.get("/v1/streams/door/models").status_code == 404


@pytest.mark.parametrize(
    ("path", "limit"),
    [(f"{MODELS}/f-edsr", limits.MAX_MODEL_BYTES), ("/v1/streams/gate/key-frames", keyframes.FILE_LIMIT_BYTES)],
)
def test_bodies_have_a_limit_and_are_bytes(client: TestClient, path: str, limit: int) -> None:
    whole = client.put(path, content=b"\0" * limit, headers=BYTES)
    assert whole.status_code == 422, "as large as may be: it is looked at"
    larger = client.put(path, content=b"\0" * (limit + 1), headers=BYTES)
    assert larger.status_code == 413 and f"larger than {limit >> 20} MiB" in larger.json()["detail"]
    declared = client.put(path, content=b"", headers={**BYTES, "Content-Length": str(limit + 1)})
    assert declared.status_code == 413
    assert client.put(path, json={}).status_code == 415
    assert client.put(path, content=b"x").status_code == 415


def test_the_generic_model_is_the_history_of_a_stream_that_had_no_other(
    client: TestClient, service: MemoryService
) -> None:
    assert client.get(MODELS).json() == {"items": []}
    service.become("gate", model="f-edsr-x2@2")
    (generic,) = client.get(MODELS).json()["items"]
    assert (generic["model"], generic["version"], generic["state"], generic["at"]) == ("f-edsr-x2@2", 2, "current", 0)


def test_the_history_is_what_the_store_says(client: TestClient, store: Store) -> None:
    generic = ModelEntry(model="m@2", version=2, state="current", epoch=0, seq=0)
    entry = ModelEntry(
        model="m@3",
        version=3,
        state="current",
        at_s=7.5,
        psnr_before_db=31.0,
        psnr_after_db=31.5,
        gain_db=0.5,
        parent="m@2",
        publisher="cam",
        before="m@2",
        epoch=0,
        seq=96,
    )
    modelhistory.save_history(store.part("streams/gate"), modelhistory.promoted((generic,), entry))
    first, second = client.get(MODELS).json()["items"]
    assert (first["state"], second["state"]) == ("superseded", "current")
    assert {name: second[name] for name in ("psnr_before", "psnr_after", "gain", "at", "seq", "parent", "before")} == {
        "psnr_before": 31.0,
        "psnr_after": 31.5,
        "gain": 0.5,
        "at": 7.5,
        "seq": 96,
        "parent": "m@2",
        "before": "m@2",
    }


def test_key_frames_are_kept_and_told(client: TestClient, service: MemoryService, store: Store) -> None:
    path = "/v1/streams/gate/key-frames"
    for number in range(2):
        assert client.put(path, content=pushed.body(number), headers=BYTES).status_code == 204
    assert service.key_frames == ["gate", "gate"]
    found = keyframes.latest(store.part("streams/gate"), 9, scale=2)
    assert [frame.captured_ns for frame in found] == [pushed.key_frame(n).captured_ns for n in range(2)]
    refused = client.put(path, content=b"no key frame", headers=BYTES)
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/model")
    assert client.put("/v1/streams/door/key-frames", content=pushed.body(), headers=BYTES).status_code == 404
    assert service.key_frames == ["gate", "gate"]
