"""`limpid run --local`: what it leaves, what it refuses, stopping and going on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from actors.commands import run
from actors.commands.run import check_room, name_of, sources
from pipeline.cli import main
from pipeline.errors import ConfigError, StorageError

ROOT = Path(__file__).parents[3]
SCENE = "synthetic://street?width=128&height=72&fps=25&seed=1&persons=2&vehicles=1"
LOCAL = ("--local", "--no-enhance")


def _run(*words: object) -> int:
    return main(["run", *map(str, words), *LOCAL])


def _manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return found


def test_one_source_fills_the_directory_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """2 s at 25 frames a second are 50 frames."""
    assert _run(f"{SCENE}&seconds=2", "-o", tmp_path / "out") == 0
    told = capsys.readouterr().out
    assert _manifest(tmp_path / "out")["state"] == "completed"
    assert "frames    50\n" in told
    assert "128×72 → 128×72" in told
    assert f"mpv {tmp_path}/out/hls/index.m3u8" in told


def test_complete_directory_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(f"{SCENE}&seconds=1", "-o", tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert _run(f"{SCENE}&seconds=1", "-o", tmp_path / "out") == 0
    assert "complete already; --overwrite starts anew" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_other_settings_need_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(f"{SCENE}&seconds=1", "-o", tmp_path / "out")
    (tmp_path / "other.yaml").write_text("encode: {crf: 30}\n", encoding="utf-8")
    other = (f"{SCENE}&seconds=1", "-o", tmp_path / "out", "--config", tmp_path / "other.yaml")
    assert _run(*other) == 2
    told = capsys.readouterr().err
    assert "encode.crf was 21.0 and is now 30.0" in told and "--overwrite" in told
    assert _run(*other, "--overwrite") == 0
    assert _manifest(tmp_path / "out")["config"]["encode"]["crf"] == 30.0


def test_several_sources_get_a_directory_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "page.mp4"
    bad.write_text("<html>", encoding="utf-8")
    assert _run(f"{SCENE}&seconds=1", bad, f"{SCENE}&seconds=2", "-o", tmp_path / "out") == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["street", "street-2"]
    told = capsys.readouterr()
    assert "page: " in told.err
    assert [line.split()[:3] for line in told.out.splitlines()] == [
        ["stream", "state", "frames"],
        ["street", "completed", "25"],
        ["page", "failed", "0"],
        ["street-2", "completed", "50"],
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "absent.mp4"), (b"", "bad.mp4"), (b"<html><body>404</body></html>", "bad.mp4"), (b"\0" * 4096, "bad.mp4")],
)
def test_source_that_cannot_be_used_leaves_nothing(
    tmp_path: Path, content: bytes | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / said
    if content is not None:
        source.write_bytes(content)
    assert _run(source, "-o", tmp_path / "out") == 1
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert said in told
    assert not (tmp_path / "out").exists()


class Wrong(NamedTuple):
    words: tuple[str, ...]
    said: str


@pytest.mark.parametrize(
    "wrong",
    [
        Wrong(("concat:/etc/passwd", "-o", "out"), "concat:"),
        Wrong(("subfile:,,start,0,end,9,,:/etc/passwd", "-o", "out"), "subfile:"),
        Wrong(("synthetic://street?seconds=1", "-o", "out", "--scale", "9"), "enhance.scale is 9"),
        Wrong(("synthetic://street?seconds=1", "-o", "out", "--id", "No Id"), "'No Id' is no stream id"),
        Wrong(("synthetic://street", "synthetic://street", "-o", "out", "--id", "a"), "one id for 2 sources"),
        Wrong(("absent*.mp4", "-o", "out"), "'absent*.mp4' matches no file"),
        Wrong(("synthetic://street?seconds=1", "-o", "out", "--config", "absent.yaml"), "absent.yaml: cannot be read"),
    ],
)
def test_wrong_use_is_told_before_anything_is_written(
    wrong: Wrong, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run(*wrong.words) in (1, 2)
    told = capsys.readouterr().err
    assert wrong.said in told
    assert len(told.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_misspelt_key_and_unknown_stage_are_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text("encoed: {crf: 30}\n", encoding="utf-8")
    assert _run(f"{SCENE}&seconds=1", "-o", tmp_path / "out", "--config", tmp_path / "a.yaml") == 2
    assert "unknown key 'encoed', did you mean 'encode'?" in capsys.readouterr().err
    (tmp_path / "g.yaml").write_text("stages:\n  - {stage: decoder, after: source}\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text(f"graph: {tmp_path}/g.yaml\n", encoding="utf-8")
    assert _run(f"{SCENE}&seconds=1", "-o", tmp_path / "out", "--config", tmp_path / "b.yaml") == 2
    assert "unknown stage 'decoder', did you mean 'decode'?" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_output_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StorageError, match="cannot be written"):
        check_room(str(tmp_path / "file" / "out"))


def test_full_disk_is_refused_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nearly_full = shutil.disk_usage(tmp_path)._replace(free=run.MIN_FREE_BYTES - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: nearly_full)
    with pytest.raises(StorageError, match="only 63 MiB are free, a run needs 64 MiB"):
        check_room(str(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/a/My Clip.v2.mp4", "my-clip-v2"),
        ("synthetic://street?seconds=1", "street"),
        ("https://example.org/live/Gate_3.m3u8?token=1", "gate-3"),
        ("https://example.org/", "example-org"),
        ("/a/" + "x" * 90 + ".mp4", "x" * 64),
        ("/a/视频.mp4", "stream"),
    ],
)
def test_id_is_made_of_the_name(source: str, name: str) -> None:
    assert name_of(source) == name


def test_globs_are_sorted_and_paths_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.mp4", "a.mp4", "c[1].mp4"):
        (tmp_path / name).write_bytes(b"")
    assert sources(["[ab].mp4"]) == [f"{tmp_path}/a.mp4", f"{tmp_path}/b.mp4"]
    assert sources(["c[1].mp4", "http://a/*.mp4"]) == [f"{tmp_path}/c[1].mp4", "http://a/*.mp4"]
    with pytest.raises(ConfigError, match="matches no file"):
        sources(["z*"])


def _wait_until_durable(folder: Path, process: subprocess.Popen[str], *, within_s: float = 60.0) -> None:
    """Return when the run in `folder` has frames that are durable."""
    pause, deadline = threading.Event(), time.monotonic() + within_s
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "manifest.json").exists() and _manifest(folder)["watermark"]["seq"] > 0:
            return
        pause.wait(0.05)
    raise AssertionError(f"nothing durable within {within_s} s")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_run_is_playable_and_goes_on(
    tmp_path: Path, number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """20 s at 25 frames a second are 500 frames, whatever was stopped; a stopped playlist has its end."""
    source, folder = f"{SCENE}&seconds=20", tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "run", source, "-o", str(folder), *LOCAL],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _wait_until_durable(folder, process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, errors
    found = _manifest(folder)
    assert found["state"] == "stopped"
    assert 0 < found["watermark"]["seq"] < 500
    assert "#EXT-X-ENDLIST" in (folder / "hls" / "main" / "index.m3u8").read_text(encoding="utf-8")
    assert _run(source, "-o", folder) == 0
    told = capsys.readouterr()
    assert "going on at frame" in told.err
    assert "frames    500\n" in told.out
