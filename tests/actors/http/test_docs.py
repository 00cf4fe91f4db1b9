"""The examples of docs/api.md, run one after the other against a service."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from actors.http.app import make_app
from pipeline.config import Settings
from pipeline.store.objects import Store
from pipeline.store.tokens import new_token
from tests import pushed
from tests.actors.http import results
from tests.actors.http.memory import BETTER, MemoryService
from tests.actors.http.serving import served

API = Path(__file__).parents[3] / "docs" / "api.md"


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_the_examples_run(service: MemoryService, store: Store, tmp_path: Path) -> None:
    results.say(store, "gate-3", "queued", "running")
    (tmp_path / "model.safetensors").write_bytes(BETTER)
    (tmp_path / "key-frame.safetensors").write_bytes(pushed.body())
    blocks = re.findall(r"^```sh\n(.*?)^```$", API.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6
    settings = Settings.from_dict({"service": {"tokens": "on"}})
    with served(make_app(service, store.url, settings)) as url:
        token = new_token(store, "docs", ["write", "models"], now_s=0.0)
        for block in blocks:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block],
                cwd=tmp_path,
                env={**os.environ, "LIMPID_SERVER": url, "LIMPID_TOKEN": token},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "quality.arrows").stat().st_size > 0
    assert list(service.statuses["gate-3"].labels.items()) == [("floor", "2")]
