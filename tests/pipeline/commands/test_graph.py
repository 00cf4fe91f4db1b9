"""`limpid graph`: every stage and edge is told, and drawn as well-formed SVG."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from pipeline.cli import main
from pipeline.commands.graph import as_svg, as_text
from pipeline.flow.boxes import groups_of, make_boxes
from pipeline.graph import load_graph

SVG = "{http://www.w3.org/2000/svg}"


def test_text_has_a_line_for_each_stage_and_each_process() -> None:
    graph = load_graph("enhance")
    boxes = make_boxes(graph, groups_of(graph, "unchained"))
    lines = as_text(graph, boxes, "unchained").splitlines()
    told = [line.split()[0] for line in lines[2 : 2 + len(graph.nodes)]]
    assert told == [node.name for node in graph.nodes]
    assert f"{len(graph.nodes)} kinds of host process" in "\n".join(lines)


def test_drawing_has_a_box_for_each_stage_and_an_arrow_for_each_input() -> None:
    graph = load_graph("enhance")
    drawing = ElementTree.fromstring(as_svg(graph, make_boxes(graph, groups_of(graph, "chained"))))
    texts = [text.text for text in drawing.iter(f"{SVG}text")]
    assert {"source", *(node.name for node in graph.nodes)} <= set(texts)
    arrows = [path for path in drawing.iter(f"{SVG}path") if path.get("class") == "arrow"]
    assert len(arrows) == sum(len(node.inputs) for node in graph.nodes)
    assert "frames" in texts and "report" in texts


def test_drawing_lies_inside_its_own_size() -> None:
    graph = load_graph("enhance")
    drawing = ElementTree.fromstring(as_svg(graph, make_boxes(graph, groups_of(graph, "chained"))))
    width, height = float(drawing.get("width", "0")), float(drawing.get("height", "0"))
    for rect in drawing.iter(f"{SVG}rect"):
        assert float(rect.get("x", "0")) + float(rect.get("width", "0")) <= width
        assert float(rect.get("y", "0")) + float(rect.get("height", "0")) <= height


def test_command_prints_what_the_settings_ask_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMPID_ENHANCE__ENABLED", "false")
    assert main(["graph", "--plan", "chained", "--svg", str(tmp_path / "g.svg")]) == 0
    told = capsys.readouterr().out
    assert "decode → encode → audio → quality → record" in told
    assert "guard" not in told
    assert (tmp_path / "g.svg").read_text(encoding="utf-8").startswith("<svg")


def test_drawing_that_cannot_be_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["graph", "--plan", "unchained", "--svg", str(tmp_path / "absent" / "g.svg")]) == 1
    assert "cannot be written: No such file" in capsys.readouterr().err
