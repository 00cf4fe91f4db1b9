"""`limpid key new` and `limpid model show, sign, verify`: from a key to a file that a service would take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.store import keys, modelfile
from tests import pushed

Captured = pytest.CaptureFixture[str]


def test_a_key_is_made_a_model_signed_and_the_signature_holds(tmp_path: Path, capsys: Captured) -> None:
    key, file = tmp_path / "cam.pem", tmp_path / "m.safetensors"
    file.write_bytes(pushed.model(1.0, 3, key=None))
    assert cli.main(["key", "new", str(key)]) == 0
    public = capsys.readouterr().out.strip()
    assert public == keys.public_text(keys.load_key(key))
    assert cli.main(["model", "verify", str(file), "--key", public]) == 1
    assert "not signed" in capsys.readouterr().err
    assert cli.main(["model", "sign", str(file), "--key", str(key), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"model": "f-edsr-x2@3", "signed_by": public}
    for whose in (public, str(key)):
        assert cli.main(["model", "verify", str(file), "--key", whose]) == 0
    assert cli.main(["model", "verify", str(file), "--key", pushed.PUBLIC]) == 1
    assert "not by this key" in capsys.readouterr().err
    modelfile.verify(file, keys.public_key(public))


def test_a_key_is_not_written_over(tmp_path: Path, capsys: Captured) -> None:
    key = tmp_path / "cam.pem"
    assert cli.main(["key", "new", str(key), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["private_key"] == str(key)
    before = key.read_bytes()
    assert cli.main(["key", "new", str(key)]) == 1
    assert key.read_bytes() == before
    assert "name a file that is not there yet" in capsys.readouterr().err


def test_show_says_what_a_file_holds(capsys: Captured) -> None:
    assert cli.main(["model", "show", "f-edsr-x2", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["name"], shown["kind"], shown["parameters"]) == ("f-edsr-x2", "f-edsr", 35_600)
    assert shown["int8"] and not shown["signed"]
    assert cli.main(["model", "show", "f-edsr-x2"]) == 0
    assert "parameters  35600" in capsys.readouterr().out


def test_what_is_no_model_or_no_key_is_told(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "bad").write_bytes(b"no model")
    assert cli.main(["model", "show", str(tmp_path / "bad")]) == 1
    assert cli.main(["model", "show", str(tmp_path / "absent")]) == 1
    assert cli.main(["model", "verify", str(tmp_path / "bad"), "--key", "abc"]) == 2
    assert "no Ed25519 key" in capsys.readouterr().err
