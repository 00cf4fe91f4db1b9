"""`limpid probe` says what a source is; its exit code says whether it can be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.commands import probe
from tests import media_files as made


def report(path: Path | str, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert cli.main(["probe", str(path), "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_says_what_a_clip_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = report(made.encode(tmp_path / "a.mp4", frames=50, options=made.B_FRAMES, audio=True), capsys)
    assert found["verdict"] == "usable"
    assert found["problems"] == {}
    assert found["video"] == {
        "codec": "h264", "width": 96, "height": 64, "rotation_deg": 0, "frame_rate": 25.0, "pix_fmt": "yuv420p",
        "interlaced": False, "color": {"matrix": 2, "primaries": 2, "transfer": 2, "full_range": False},
        "gop_frames": 10, "b_frames": True, "clock": "constant", "time_base": "1/12800",
    }  # fmt: skip
    assert found["audio"] == {"codec": "aac", "sample_rate_hz": 48000, "channels": 1}
    assert found["looked_at"] == {"frames": 50, "seconds": 1.96, "epochs": 1}


def test_reads_a_few_seconds_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = report(made.encode(tmp_path / "a.mp4", frames=400, width=32, height=32), capsys)
    looked = found["looked_at"]
    assert isinstance(looked, dict)
    assert 5 <= looked["seconds"] < 7


def test_endless_scene_is_usable(capsys: pytest.CaptureFixture[str]) -> None:
    found = report("synthetic://street?width=64&height=48&fps=4&seconds=inf&persons=1&vehicles=1", capsys)
    assert found["duration_s"] is None and found["verdict"] == "usable"


def test_clock_is_variable_where_frames_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = report(made.encode(tmp_path / "a.mp4", frames=8, pts=[0, 512, 900, 2000, 2100, 4000, 5000, 6000]), capsys)
    assert found["video"]["clock"] == "variable"  # type: ignore[index]  # JSON
    found = report(made.encode(tmp_path / "a.h264", frames=8, options=made.B_FRAMES), capsys)
    assert found["video"]["clock"] == "none"  # type: ignore[index]  # JSON
    assert found["problems"] == {"missing_pts": 8}
    assert found["verdict"] == "usable, with problems"


def test_says_what_is_odd(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turned = made.rotated(tmp_path / "b.mp4", made.encode(tmp_path / "a.mp4", pix_fmt="yuv444p"), 90)
    assert cli.main(["probe", str(turned)]) == 0
    text = capsys.readouterr().out
    assert "picture    64×96" in text
    assert "turned by 270° counter-clockwise" in text
    assert "yuv444p is converted to 8 bit 4:2:0" in text
    assert text.endswith("verdict    usable\n")
    assert cli.main(["probe", str(made.several_tracks(tmp_path / "c.mkv"))]) == 0
    assert "track 1 is taken (largest area × rate)" in capsys.readouterr().out


def test_jump_is_a_problem_that_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = made.encode(tmp_path / "a.mp4", frames=40, shift=lambda n, p: 1_000_000 if n >= 20 else 0)
    assert cli.main(["probe", str(path)]) == 0
    assert "problem    1 × jumps in time" in capsys.readouterr().out


def test_what_cannot_be_used_exits_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = made.audio_only(tmp_path / "a.m4a")
    assert cli.main(["probe", str(path)]) == 1
    assert "holds no video (audio)" in capsys.readouterr().err
    assert cli.main(["probe", str(path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "unusable"
    assert found["error"]["kind"] == "UnsupportedMedia"


def test_wrong_use_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["probe", "synthetic://street?widht=5"]) == 2
    assert cli.main(["probe", str(tmp_path), "--timeout", "0"]) == 2
    with pytest.raises(SystemExit) as caught:
        probe.main([])
    assert caught.value.code == 2
