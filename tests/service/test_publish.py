"""Both sides of a stream that learns its scene, for real: `limpid publish`, nginx-rtmp, and the service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from tests import pushed
from tests.pipeline.publisher.test_publish import LIMPID, ROOT, scene_file
from tests.service.serving import check_whole, frames_of, serving
from tests.service.test_live_sources import Nginx

pytestmark = pytest.mark.timeout(240)
TICKS = 9000  # of 1/90 000 s a frame, at 10 a second


def test_a_publisher_trains_what_its_viewers_see(tmp_path: Path) -> None:
    """The generic weights add nothing to bicubic: what the publisher learns is better, is taken, and is seen."""
    (tmp_path / "key.pem").write_bytes(
        pushed.KEY.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    poor = pushed.write(tmp_path / "poor.safetensors", 0.0, 2)
    store, nginx, scene = tmp_path / "data", Nginx(tmp_path), scene_file(tmp_path / "scene.flv")
    env = {"LIMPID_ENHANCE__MODEL": str(poor), "LIMPID_ENHANCE__RUNTIME": "openvino-fp32"}
    with nginx.running(), serving(store, env=env) as service, (tmp_path / "said").open("wb") as said:
        publisher = {"id": "sam", "stream": "gate", "public_key": pushed.PUBLIC}
        assert service.ask("POST", "/v1/publishers", publisher)[0] == 201
        request = {"id": "gate", "source": nginx.uri, "outputs": {"hls": {"segment_s": 1}}, "slo": {"max_lag_s": 30}}
        assert service.ask("POST", "/v1/streams", request)[0] == 201
        options = {
            "service": service.url,
            "stream": "gate",
            "key": tmp_path / "key.pem",
            "model": poor,
            "uplink": "20M",
        }
        words = [str(scene), nginx.uri, *(str(w) for name, value in options.items() for w in (f"--{name}", value))]
        with subprocess.Popen(
            [*LIMPID, *words, "--json"],
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        ) as process:
            try:
                taken = service.wait("gate", lambda s: s["model"] not in ("", "f-edsr-x2@2"), within_s=120)
                after = taken["seq"] + 30
                service.wait("gate", lambda s: s["seq"] > after or s["epoch"] > taken["epoch"])
                os.killpg(process.pid, signal.SIGINT)
                process.wait(30)
            finally:
                process.kill()
        history: list[dict[str, Any]] = service.ask("GET", "/v1/streams/gate/models")[1]["items"]
    last = json.loads((tmp_path / "said").read_text(encoding="utf-8").splitlines()[-1])
    assert last["accepted"] >= 1, last
    promoted = [each for each in history if each["state"] in ("current", "superseded") and each["parent"]]
    assert promoted and promoted[0]["psnr_after"] > promoted[0]["psnr_before"]
    folder = store / "streams" / "gate"
    check_whole(folder, ticks_a_frame=TICKS)
    versions = {row["model_version"] for row in frames_of(folder)}
    assert {"f-edsr-x2@2"} < versions
