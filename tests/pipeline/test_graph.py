"""The logical graph: what loads, what is refused and why, what switching stages off leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline import graph as graph_module
from pipeline.config import Settings
from pipeline.errors import ConfigError, GraphError
from pipeline.graph import Edge, Graph, graph_of, load_graph
from pipeline.stage import PooledStage, StageConfig, StageSpec, StreamStage, Work
from pipeline.wire.acks import Snapshot
from pipeline.wire.frames import FrameBatch
from pipeline.wire.packets import PacketBatch
from pipeline.wire.results import GuardReport, GuardResult, QualityReport, RefineReport, RefineResult


@dataclass(frozen=True, kw_only=True, slots=True)
class GainConfig(StageConfig):
    gain: float = 1.0

    def __post_init__(self) -> None:
        if self.gain <= 0:
            raise ConfigError(f"gain {self.gain} is not above 0", where="gain")


class _Pooled(PooledStage[Any, Any, Any]):
    def process(self, work: Work[Any]) -> Any:
        raise AssertionError("a graph is checked without running a stage")


class _Sticky(StreamStage[Any, Any, Any]):
    def process(self, work: Work[Any]) -> Sequence[Any]:
        raise AssertionError("a graph is checked without running a stage")

    def finish(self) -> Sequence[Any]:
        return ()

    def snapshot(self) -> Snapshot:
        return Snapshot(after=0, resume_from=0)

    def restore(self, snapshot: Snapshot) -> None:
        pass


class Decode(_Sticky):
    spec = StageSpec(name="decode", version=1, takes=(PacketBatch,), gives=FrameBatch)


class Enhance(_Pooled):
    spec = StageSpec(name="enhance", version=1, takes=(FrameBatch,), gives=FrameBatch)


class Refine(_Pooled):
    spec = StageSpec(name="refine", version=1, takes=(FrameBatch,), gives=RefineResult)


class Guard(_Pooled):
    spec = StageSpec(name="guard", version=1, takes=(FrameBatch, FrameBatch), gives=GuardResult)


class Quality(_Pooled):
    spec = StageSpec(name="quality", version=1, takes=(FrameBatch,), gives=QualityReport)


class Encode(_Sticky):
    spec = StageSpec(name="encode", version=1, takes=(FrameBatch,), gives=None)


class Original(_Sticky):
    spec = StageSpec(name="original", version=1, takes=(FrameBatch,), gives=None)


class Audio(_Sticky):
    spec = StageSpec(name="audio", version=1, takes=(PacketBatch,), gives=None)


class Packets(_Sticky):
    spec = StageSpec(name="packets", version=1, takes=(PacketBatch,), gives=None)


class Record(_Sticky):
    spec = StageSpec(
        name="record",
        version=1,
        takes=(FrameBatch,),
        optional=(QualityReport, GuardReport, RefineReport),
        gives=None,
    )


class Gain(_Pooled):
    spec = StageSpec(name="gain", version=1, takes=(FrameBatch,), gives=FrameBatch)
    Config = GainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnedConfig(StageConfig):
    model: str = ""


class Learned(_Pooled):
    spec = StageSpec(name="learned", version=1, takes=(FrameBatch,), gives=FrameBatch, models=("f-edsr",))
    Config = LearnedConfig


NO_STAGE = 1


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in names lead to the fakes above, so that these tests are about graphs alone."""
    fakes = {
        kind.spec.name: f"{__name__}:{kind.__name__}"
        for kind in (Decode, Enhance, Refine, Guard, Encode, Original, Audio, Packets, Quality, Record)
    }
    monkeypatch.setattr(graph_module, "FLOW", fakes)


def _load(stages: str, *, allowed: Sequence[str] = ()) -> Graph:
    return load_graph(f"name: test\nstages:\n{stages}", allowed_modules=allowed)


def _refused(stages: str, *, allowed: Sequence[str] = ()) -> str:
    with pytest.raises(GraphError) as caught:
        _load(stages, allowed=allowed)
    return str(caught.value)


DECODE = "  - {stage: decode, after: source}\n"
ENCODE = "  - {stage: encode, after: decode}\n"


def _with_gain(gain: object) -> str:
    gained = f"  - {{stage: '{__name__}:Gain', after: decode, config: {{gain: {gain}}}}}\n"
    return DECODE + gained + "  - {stage: encode, after: gain}\n"


def test_shipped_graph_has_every_stage_of_the_drawing() -> None:
    graph = load_graph("enhance")
    assert [node.name for node in graph.nodes] == [
        "decode",
        "enhance",
        "refine",
        "guard",
        "encode",
        "original",
        "audio",
        "packets",
        "quality",
        "record",
    ]
    assert graph.node("encode").inputs == (Edge(producer="guard", field="frames"),)


def test_nodes_come_in_topological_order_whatever_the_file_says() -> None:
    graph = _load(ENCODE + DECODE)
    assert [node.name for node in graph.nodes] == ["decode", "encode"]


def test_graph_survives_json() -> None:
    graph = _load(_with_gain(2), allowed=[__name__])
    assert graph.node("gain").config == GainConfig(gain=2.0)
    assert Graph.from_dict(graph.to_dict(), allowed_modules=[__name__]) == graph


def test_consumers_and_sinks_are_found() -> None:
    graph = load_graph("enhance")
    assert [node.name for node in graph.consumers("decode")] == ["enhance", "guard", "original", "quality", "record"]
    assert [node.name for node in graph.consumers("source")] == ["decode", "audio", "packets"]
    assert [node.name for node in graph.sinks()] == ["encode", "original", "audio", "packets", "record"]


def test_unknown_stage_names_the_nearest() -> None:
    assert "unknown stage 'encoed', did you mean 'encode'?" in _refused(DECODE + "  - {stage: encoed, after: decode}\n")


def test_unknown_input_names_the_nearest() -> None:
    assert "unknown input 'decod', did you mean 'decode'?" in _refused(DECODE + "  - {stage: encode, after: decod}\n")


def test_unknown_key_names_the_nearest() -> None:
    assert "unknown key 'aftr', did you mean 'after'?" in _refused(DECODE + "  - {stage: encode, aftr: decode}\n")


def test_unknown_config_key_names_the_nearest() -> None:
    stages = _with_gain(2).replace("gain: 2", "gian: 2")
    assert "unknown key 'gian', did you mean 'gain'?" in _refused(stages, allowed=[__name__])


def test_config_value_is_checked_by_its_stage() -> None:
    stages = _with_gain(-1)
    assert "gain -1.0 is not above 0" in _refused(stages, allowed=[__name__])


def test_config_value_of_the_wrong_type_is_refused() -> None:
    stages = _with_gain("loud")
    assert "config.gain" in _refused(stages, allowed=[__name__])


def test_edge_of_the_wrong_type_is_refused() -> None:
    assert "input 1 is to be a FrameBatch, 'source' gives PacketBatch" in _refused(
        "  - {stage: encode, after: source}\n"
    )


def test_field_that_the_producer_lacks_names_the_nearest() -> None:
    stages = DECODE + "  - {stage: enhance, after: decode}\n  - {stage: guard, after: [enhance, decode]}\n"
    assert "GuardResult has no 'frame' ('guard.frame'), did you mean 'frames'?" in _refused(
        stages + "  - {stage: encode, after: guard.frame}\n"
    )


def test_missing_second_input_is_refused() -> None:
    stages = DECODE + "  - {stage: guard, after: decode}\n  - {stage: encode, after: guard.frames}\n"
    assert "guard: input 2 is missing (FrameBatch)" in _refused(stages)


def test_further_input_that_nothing_asks_for_is_refused() -> None:
    assert "encode: takes no FrameBatch ('decode')" in _refused(
        DECODE + "  - {stage: encode, after: [decode, decode]}\n"
    )


def test_sink_gives_nothing_to_take() -> None:
    assert "'encode' is a sink and gives nothing" in _refused(DECODE + ENCODE + "  - {stage: record, after: encode}\n")


def test_cycle_is_refused() -> None:
    ring = "  - {stage: enhance, name: a, after: b}\n  - {stage: enhance, name: b, after: a}\n"
    stages = ring + "  - {stage: encode, after: b}\n"
    assert "a, b, encode wait for one another in a cycle" in _refused(stages)


def test_name_given_twice_is_refused() -> None:
    assert "the name 'decode' is there twice" in _refused(DECODE + DECODE + ENCODE)


def test_name_of_the_source_is_reserved() -> None:
    assert "the name 'source' is reserved" in _refused("  - {stage: decode, name: source, after: source}\n" + ENCODE)


def test_output_that_nobody_takes_is_refused() -> None:
    assert "enhance: nobody takes what it gives" in _refused(DECODE + ENCODE + "  - {stage: enhance, after: decode}\n")


def test_all_faults_are_told_at_once() -> None:
    told = _refused("  - {stage: decoed, after: source}\n  - {stage: encode, aftre: decode}\n  - {config: {}}\n")
    assert "faults" in told and "decoed" in told and "aftre" in told and "entry 3" in told


def test_foreign_module_is_refused_unless_allowed() -> None:
    stages = DECODE + f"  - {{stage: '{__name__}:Gain', after: decode}}\n  - {{stage: encode, after: gain}}\n"
    assert "is not allowed, add it to stage_modules" in _refused(stages)
    assert "is not allowed" in _refused(stages, allowed=[__name__ + "s"])
    assert _load(stages, allowed=[__name__.rpartition(".")[0] or __name__]).node("gain").stage is Gain


@pytest.mark.parametrize(("model", "legal"), [("bicubic", True), ("f-edsr-x9", False), ("/absent/model", False)])
def test_missing_weights_are_found_before_a_stage_opens(model: str, legal: bool) -> None:
    stages = DECODE + f"  - {{stage: '{__name__}:Learned', after: decode, config: {{model: {model}}}}}\n"
    stages += "  - {stage: encode, after: learned}\n"
    if legal:
        assert _load(stages, allowed=[__name__])
    else:
        assert f"no model '{model}', neither shipped nor a file" in _refused(stages, allowed=[__name__])


def test_class_that_is_no_stage_is_refused() -> None:
    stages = DECODE + f"  - {{stage: '{__name__}:NO_STAGE', after: decode}}\n"
    assert "is no stage with a spec" in _refused(stages, allowed=[__name__])


def test_module_that_cannot_be_imported_is_refused() -> None:
    stages = DECODE + "  - {stage: 'absent_module:Gain', after: decode}\n"
    assert "'absent_module:Gain' cannot be imported" in _refused(stages, allowed=["absent_module"])


@pytest.mark.parametrize("text", ["stages:\n", "- a\n- b\n", "stages: {}\n", "\n"])
def test_file_without_stages_is_refused(text: str) -> None:
    with pytest.raises(GraphError, match="no list 'stages'"):
        load_graph(text)


def test_broken_yaml_says_where() -> None:
    with pytest.raises(GraphError, match="line 2"):
        load_graph("stages:\n  - {stage: decode\n - x: [\n")


def test_missing_file_names_the_shipped_graphs(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="shipped one: enhance"):
        load_graph(tmp_path / "absent.yaml")


def test_packets_are_kept_only_where_that_is_asked_for() -> None:
    kept = graph_of(Settings.from_dict({"outputs": {"packets": True}}))
    assert "packets" in [node.name for node in kept.nodes]
    assert "packets" not in [node.name for node in graph_of(Settings()).nodes]


def test_the_sources_picture_is_kept_only_where_that_is_asked_for() -> None:
    kept = graph_of(Settings.from_dict({"outputs": {"original": True}}))
    assert "original" in [node.name for node in kept.nodes]
    assert "original" not in [node.name for node in graph_of(Settings()).nodes]


def test_a_live_graph_gives_fewer_frames_at_a_time_and_says_so_for_ever() -> None:
    graph = graph_of(Settings(), live=True)
    assert {node.batch_frames for node in graph.nodes} == {2}
    assert Graph.from_dict(graph.to_dict()) == graph
    assert {node.batch_frames for node in graph_of(Settings()).nodes} == {8}
    own = load_graph("name: test\nbatch_frames: 3\nstages:\n" + DECODE + ENCODE)
    assert {node.batch_frames for node in own.nodes} == {3}
    with pytest.raises(GraphError, match="batch_frames is 0"):
        load_graph("name: test\nbatch_frames: 0\nstages:\n" + DECODE + ENCODE)


def test_without_enhancement_the_source_is_encoded() -> None:
    graph = graph_of(Settings.from_dict({"enhance": {"enabled": False}}))
    assert [node.name for node in graph.nodes] == ["decode", "encode", "audio", "quality", "record"]
    assert graph.node("encode").inputs == (Edge(producer="decode"),)
    assert graph.node("record").inputs == (Edge(producer="decode"), Edge(producer="quality"))


def test_without_analysis_the_tables_keep_the_frames() -> None:
    graph = graph_of(Settings.from_dict({"analyse": {"enabled": False}}))
    assert graph.node("record").inputs == (Edge(producer="decode"), Edge(producer="guard", field="report"))
    assert "quality" not in {node.name for node in graph.nodes}


def test_graph_wins_over_the_settings_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True, kw_only=True, slots=True)
    class EncodeConfig(StageConfig):
        crf: int = 1
        preset: str = "none"
        own: int = 3

    monkeypatch.setattr(Encode, "Config", EncodeConfig)
    path = tmp_path / "graph.yaml"
    path.write_text("stages:\n" + DECODE + "  - {stage: encode, after: decode, config: {crf: 30}}\n")
    graph = graph_of(Settings.from_dict({"graph": str(path), "encode": {"crf": 20, "preset": "fast"}}))
    assert graph.node("encode").config == EncodeConfig(crf=30, preset="fast", own=3)
