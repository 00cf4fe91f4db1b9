"""`limpid model push, list, rollback` against a service over real sockets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.store import modelhistory
from pipeline.store.modelhistory import ModelEntry
from pipeline.store.objects import Store
from tests.actors.commands import test_client
from tests.actors.http.memory import BETTER, WORSE, MemoryService

service, store, server = test_client.service, test_client.store, test_client.server
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def gate(server: str) -> None:
    assert cli.main(["submit", "http://e.org/a", "--id", "gate"]) == 0


def test_push_and_rollback_say_from_where_on(tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "m.safetensors"
    file.write_bytes(BETTER)
    capsys.readouterr()
    assert cli.main(["model", "push", "gate", str(file)]) == 0
    assert capsys.readouterr().out == "gate: m@3 from frame 96 of epoch 0 on (31.000 dB → 31.500 dB)\n"
    assert cli.main(["model", "rollback", "gate", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == 2
    assert cli.main(["model", "rollback", "gate"]) == 1
    assert "none before it" in capsys.readouterr().err


def test_a_refusal_is_one_sentence_with_figures(tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "m.safetensors"
    file.write_bytes(WORSE)
    assert cli.main(["model", "push", "gate", str(file)]) == 1
    assert capsys.readouterr().err == "limpid model: 30.500 dB against 31.000 dB (train on)\n"
    assert cli.main(["model", "push", "gate", str(tmp_path / "absent")]) == 1
    assert "absent" in capsys.readouterr().err


def test_list_shows_what_became_of_each(server: str, service: MemoryService, store: Store, capsys: Captured) -> None:
    generic = ModelEntry(model="m@2", version=2, state="current", epoch=0, seq=0)
    entry = ModelEntry(
        model="m@3", version=3, state="current", at_s=1e9, psnr_before_db=31.0, psnr_after_db=31.5, publisher="cam"
    )
    modelhistory.save_history(store.part("streams/gate"), modelhistory.promoted((generic,), entry))
    capsys.readouterr()
    assert cli.main(["model", "list", "gate"]) == 0
    out = capsys.readouterr().out
    assert "superseded" in out and "m@3" in out and "31.500" in out and "cam" in out
    assert cli.main(["model", "list", "gate", "--json"]) == 0
    assert [model["state"] for model in json.loads(capsys.readouterr().out)] == ["superseded", "current"]
    service.become("gate", model="m@3", gain_db=0.5, width=640, height=360)
    assert cli.main(["show", "gate"]) == 0
    assert "m@3 , +0.50 dB over the generic model" in capsys.readouterr().out
