"""Figures on disk have the form that the interface promises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.commands.report import Row, document, print_table, write_json
from pipeline.errors import StorageError

ROW = Row(case="a", metric="cpu_time", unit="ms", value=3.0, reference="b", reference_value=12.0, spread=(2.5, 4.0))


def test_a_document_has_hardware_versions_command_and_rows(tmp_path: Path) -> None:
    write_json(tmp_path / "new" / "x.json", [ROW], ["limpid", "eval", "a b"])
    found = json.loads((tmp_path / "new" / "x.json").read_text())
    assert set(found) == {"hardware", "versions", "command", "rows"}
    assert found["command"] == "limpid eval 'a b'"
    assert found["hardware"]["cores"] >= 1 and "numpy" in found["versions"]
    assert found["rows"] == [
        {
            "case": "a", "metric": "cpu_time", "unit": "ms", "value": 3.0, "reference": "b", "reference_value": 12.0,
            "ratio": 0.25, "spread": [2.5, 4.0],
        }
    ]  # fmt: skip


def test_there_is_no_ratio_without_a_reference_nor_of_decibels() -> None:
    assert Row(case="a", metric="m", unit="ms", value=1.0).ratio is None
    assert Row(case="a", metric="psnr_y", unit="dB", value=30.0, reference="b", reference_value=20.0).ratio is None
    assert Row(case="a", metric="m", unit="ms", value=1.0, reference="b", reference_value=0.0).ratio is None
    assert document([])["rows"] == []


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_json(tmp_path / "file" / "x.json", [ROW])


def test_a_table_in_a_pipe_is_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("title", ["name", *[f"column {i}" for i in range(30)]], [["row", *["123.45/0.678"] * 30]])
    out = capsys.readouterr().out
    assert out.count("123.45/0.678") == 30 and "…" not in out
