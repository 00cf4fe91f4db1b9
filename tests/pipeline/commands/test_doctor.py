"""`limpid doctor`: what counts as good, as a warning, as a failure, and that each fault has a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.commands import doctor
from pipeline.commands.doctor import (
    BAD,
    GIB,
    GOOD,
    WARNING,
    Finding,
    judge_cores,
    judge_output,
    judge_python,
    judge_size,
)


@pytest.mark.parametrize(
    ("finding", "level"),
    [
        (judge_python((3, 11)), GOOD),
        (judge_python((3, 10)), BAD),
        (judge_cores(2), GOOD),
        (judge_cores(1), WARNING),
        (judge_size("memory", 2 * GIB, 2 * GIB, "more"), GOOD),
        (judge_size("memory", 2 * GIB - 1, 2 * GIB, "more"), BAD),
        (judge_size("/dev/shm", 0, GIB, "more", level=WARNING), WARNING),
    ],
)
def test_level_follows_from_what_was_found(finding: Finding, level: str) -> None:
    assert finding.level == level
    assert bool(finding.remedy) == (level != GOOD)


def test_output_is_judged_by_the_nearest_directory_there_is(tmp_path: Path) -> None:
    assert str(tmp_path) in judge_output(tmp_path / "a" / "b").what + judge_output(tmp_path / "a" / "b").found


def test_output_below_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert judge_output(tmp_path / "file" / "out").level == BAD


def test_command_fails_if_a_finding_does(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = [Finding(what="Python", level=GOOD, found="3.11"), Finding(what="disk", level=BAD, found="0", remedy="buy")]
    monkeypatch.setattr(doctor, "examine", lambda output, start_ray: found)
    assert doctor.main([]) == 1
    told = capsys.readouterr().out
    assert "FAILED" in told and "buy" in told
    monkeypatch.setattr(doctor, "examine", lambda output, start_ray: found[:1])
    assert doctor.main([]) == 0


def test_every_check_runs_on_this_machine(tmp_path: Path) -> None:
    found = {finding.what: finding for finding in doctor.examine(tmp_path)}
    assert {"Python", "cores", "memory", "NVDEC, NVENC", "weights", "openvino", "ray", "ports"} <= found.keys()
    assert found["weights"].level == GOOD, found["weights"].found
