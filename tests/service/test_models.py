"""Models pushed to a live stream of the real service: taken, refused, taken back, and still there after a restart."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from actors.http.limits import MAX_MODEL_BYTES
from pipeline.store import modelfile
from tests import pushed
from tests.service.live_peer import LiveServer, transport_stream
from tests.service.serving import Served, check_whole, frames_of, serving

pytestmark = pytest.mark.timeout(240)
SECONDS = 150.0
TICKS = 3600  # of 1/90 000 s a frame, at 25 a second
MODELS = "/v1/streams/gate/models"


def push(service: Served, data: bytes) -> tuple[int, Any]:
    status, answer = service.ask("PUT", f"{MODELS}/f-edsr", data)
    return status, answer


def refused(service: Served) -> None:
    """Everything that is no better model of this stream's publisher, each with its status; the stream goes on."""
    good = pushed.model(1.0, 9)
    header, state = modelfile.loads(good, where="test")
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    state["tail.bias"][0] = float("nan")
    endless = pushed.signed(header, state, None)
    state["tail.bias"] = torch.zeros(5)
    shapes = pushed.signed(header, state, pushed.KEY)
    cases: dict[str, tuple[bytes, int]] = {
        "empty": (b"", 422),
        "no model": (b"nothing of the kind", 422),
        "cut short": (good[: len(good) // 2], 422),
        "damaged": (bytes(flipped), 422),
        "not finite": (endless, 422),
        "other shapes": (shapes, 422),
        "huge": (b"\0" * (MAX_MODEL_BYTES + 1), 413),
        "not signed": (pushed.model(1.0, 9, key=None), 403),
        "foreign key": (pushed.model(1.0, 9, key=pushed.OTHER_KEY), 403),
        "as old": (pushed.model(1.2, 3), 409),
        "older": (pushed.model(1.2, 2), 409),
        "worse": (pushed.model(0.0, 9), 409),
    }
    for what, (data, wanted) in cases.items():
        status, problem = push(service, data)
        assert status == wanted, (what, problem)
        assert problem["detail"], what
    assert push(service, pushed.model(0.0, 9))[1]["psnr_after"] < push(service, pushed.model(0.0, 9))[1]["psnr_before"]


def test_a_live_streams_models(tmp_path: Path) -> None:
    store, poor = tmp_path / "data", pushed.write(tmp_path / "poor.safetensors", 0.0, 2)
    camera = LiveServer(transport_stream(tmp_path / "clip.ts", seconds=SECONDS), SECONDS)
    env = {"LIMPID_ENHANCE__MODEL": str(poor), "LIMPID_ENHANCE__RUNTIME": "openvino-int8"}
    source, outputs = f"tcp://127.0.0.1:{camera.port}", {"hls": {"segment_s": 1}}
    with serving(store, env=env) as service:
        request = {"id": "gate", "source": source, "outputs": outputs, "slo": {"max_lag_s": 30}}
        assert service.ask("POST", "/v1/streams", request)[0] == 201
        service.wait("gate", lambda s: s["frames"] > 25)
        status, problem = push(service, pushed.model(1.0, 3))
        assert status == 403 and "nobody may sign" in problem["detail"]
        publisher = {"id": "cam", "stream": "gate", "public_key": pushed.PUBLIC}
        assert service.ask("POST", "/v1/publishers", publisher)[0] == 201
        status, problem = push(service, pushed.model(1.0, 3))
        assert status == 409 and "no key frame" in problem["detail"]
        for number in range(2):
            assert service.ask("PUT", "/v1/streams/gate/key-frames", pushed.body(number))[0] == 204
        began = time.monotonic()
        status, taken = push(service, pushed.model(0.6, 3))
        print(f"taken after {time.monotonic() - began:.2f} s: {taken}")
        assert status == 200 and taken["version"] == 3 and taken["psnr_after"] > taken["psnr_before"] + 0.02
        found = service.wait("gate", lambda s: s["seq"] > taken["seq"] + 25)
        assert found["model"] == "f-edsr-x2@3"
        assert found["gain_db"] == pytest.approx(taken["psnr_after"] - taken["psnr_before"])
        refused(service)
        assert service.stream("gate")["model"] == "f-edsr-x2@3"
        status, better = push(service, pushed.model(1.0, 9))
        assert status == 200 and better["seq"] > taken["seq"]
        status, back = service.ask("POST", f"{MODELS}/rollback")
        assert (status, back["version"]) == (200, 3)
        service.wait("gate", lambda s: s["seq"] > back["seq"] + 10)
    with serving(store, env=env) as service:
        found = service.wait("gate", lambda s: s["epoch"] == 1 and s["seq"] > 10, within_s=60)
        assert found["model"] == "f-edsr-x2@3"
        items = service.ask("GET", MODELS)[1]["items"]
        # Refused files leave no trace; what was tried and found worse does.
        worse = [item for item in items if item["state"] == "rejected"]
        assert {item["version"] for item in worse} == {9} and all("dB against" in item["reason"] for item in worse)
        assert [(i["version"], i["state"]) for i in items if i not in worse] == [
            (2, "superseded"),
            (3, "current"),
            (9, "rolled-back"),
        ]
        assert service.ask("DELETE", "/v1/streams/gate")[0] == 204
        told = service.ask("GET", "/v1/events?follow=false")[1].decode()
        for kind, count in (("model.promoted", 2), ("model.rejected", 3), ("model.rolled_back", 1)):
            assert told.count(f'"type":"{kind}"') + told.count(f'"type": "{kind}"') == count, kind
    camera.close()
    folder = store / "streams" / "gate"
    assert check_whole(folder, ticks_a_frame=TICKS) == 2
    for row in frames_of(folder):
        held = "f-edsr-x2@2"
        if row["epoch"] or row["seq"] >= back["seq"] or taken["seq"] <= row["seq"] < better["seq"]:
            held = "f-edsr-x2@3"
        elif row["seq"] >= better["seq"]:
            held = "f-edsr-x2@9"
        assert row["model_version"] == held or not row["enhanced"], row
