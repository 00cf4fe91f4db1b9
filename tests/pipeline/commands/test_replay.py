"""`limpid replay`: the recorded run again, with what it chose; and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.config import Settings
from pipeline.flow.job import Job
from pipeline.flow.local import run_local
from pipeline.store import manifest as manifests
from pipeline.store.objects import open_store
from pipeline.store.parquet import read_table
from pipeline.store.stamps import StampLog
from pipeline.wire.ids import Span, stream_id

GATE = stream_id("gate")
SCENE = "synthetic://street?width=128&height=72&fps=25&seed=1&persons=2&vehicles=1&seconds=2"
PLAIN = Settings.from_dict({"enhance": {"enabled": False}})


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded") / "run"
    outcome = run_local(Job(stream=GATE, source=SCENE, store=str(folder), settings=PLAIN))
    assert outcome.state == "completed", outcome.error
    return folder


def _segments(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in (folder / "hls").rglob("*.m[4p][s4]")}


def test_replay_gives_the_same_segments_and_tables(recorded: Path, tmp_path: Path) -> None:
    assert main(["replay", str(recorded / "manifest.json"), "-o", str(tmp_path / "again")]) == 0
    assert _segments(tmp_path / "again") == _segments(recorded)
    for table in ("frames", "quality"):
        first, second = (read_table(open_store(str(f)), table) for f in (recorded, tmp_path / "again"))
        assert first.num_rows == 50
        assert first.drop_columns(["captured_at"]).equals(second.drop_columns(["captured_at"]))


def test_directory_stands_for_its_manifest(recorded: Path, tmp_path: Path) -> None:
    assert main(["replay", str(recorded), "-o", str(tmp_path / "again")]) == 0
    assert _segments(tmp_path / "again") == _segments(recorded)


def test_what_was_set_aside_is_set_aside_again(recorded: Path, tmp_path: Path) -> None:
    """Quality of the frames [8, 16) was set aside in the run: the replay marks just these as unprocessed."""
    folder = tmp_path / "run"
    store = open_store(str(folder))
    found = manifests.load(open_store(str(recorded)))
    assert found is not None
    manifests.save(store, replace(found, state="failed"))
    StampLog(store).set_aside(Span(stream=GATE, epoch=0, start=8, stop=16), "quality")
    assert main(["replay", str(folder), "-o", str(tmp_path / "again")]) == 0
    rows = read_table(open_store(str(tmp_path / "again")), "quality").to_pylist()
    assert [row["seq"] for row in rows if "unprocessed" in (row["flags"] or ())] == list(range(8, 16))


def test_nothing_to_replay_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(tmp_path), "-o", str(tmp_path / "again")]) == 1
    assert "there is no manifest.json" in capsys.readouterr().err


def test_run_is_not_replaced_by_its_replay(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(recorded), "-o", str(recorded)]) == 2
    assert "it would replace the run itself" in capsys.readouterr().err


def test_source_with_a_secret_has_to_be_given(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads((recorded / "manifest.json").read_text(encoding="utf-8"))
    found["source"] = "http://user:secret@127.0.0.1/a.mp4"
    (tmp_path / "manifest.json").write_text(json.dumps(found), encoding="utf-8")
    assert main(["replay", str(tmp_path), "-o", str(tmp_path / "again")]) == 2
    told = capsys.readouterr().err
    assert "give the whole URL with --source" in told and "secret@" not in told
    assert main(["replay", str(tmp_path), "-o", str(tmp_path / "again"), "--source", SCENE]) == 0


def test_stages_of_others_have_to_be_trusted(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A manifest may come from anywhere: what it says that it may import does not count."""
    found = json.loads((recorded / "manifest.json").read_text(encoding="utf-8"))
    found["config"]["stage_modules"] = ["antigravity"]
    found["graph"]["stages"][0]["stage"] = "antigravity:Decode"
    (tmp_path / "manifest.json").write_text(json.dumps(found), encoding="utf-8")
    assert main(["replay", str(tmp_path), "-o", str(tmp_path / "again")]) == 2
    assert "module 'antigravity' is not allowed" in capsys.readouterr().err
