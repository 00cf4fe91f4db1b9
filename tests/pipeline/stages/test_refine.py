"""Refine: the budget counts, batch borders do not show, and what must not be refined is passed on as it is."""

from __future__ import annotations

from dataclasses import fields
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import Settings
from pipeline.errors import ConfigError, GraphError, ModelError, ModelFormatError
from pipeline.flow.job import Job
from pipeline.flow.local import run_local
from pipeline.graph import choose_stamp, graph_of
from pipeline.models import model_path
from pipeline.models.load import load_tcsr
from pipeline.models.runtime.choose import pattern
from pipeline.models.runtime.refiner import open_refiner
from pipeline.models.tcsr import Tcsr, TcsrConfig
from pipeline.stage import StageEnv, Work
from pipeline.stages.refine import Refine, RefineConfig, picked_frames
from pipeline.store import modelfile
from pipeline.store.modelfile import ModelHeader
from pipeline.store.objects import open_store
from pipeline.store.parquet import read_table
from pipeline.wire.acks import Stamp
from pipeline.wire.frames import ColorSpec, FrameBatch, Size
from pipeline.wire.ids import Span, stream_id
from pipeline.wire.items import join
from pipeline.wire.results import RefineResult

N = 10
SCENE = "synthetic://street?width=64&height=48&fps=25&seed=1&persons=2&vehicles=1&seconds=1"


def span(start: int, stop: int) -> Span:
    return Span(stream=stream_id("s"), epoch=1, start=start, stop=stop)


def batch(width: int = 62, height: int = 50) -> FrameBatch:
    """Ten frames that pan by 2 pixels, as enhancement would give them: twice the size of a source, so even."""
    size = Size(width_px=width, height_px=height)
    data = np.random.default_rng(2).integers(100, 156, (N, size.frame_bytes), dtype=np.uint8)
    data[:, : width * height] = np.stack([np.roll(pattern(size), 2 * i, axis=1).reshape(-1) for i in range(N)])
    data.flags.writeable = False  # as what another process made
    n = np.arange(N, dtype=np.int64)
    return FrameBatch(
        span=span(0, N), size=size, color=ColorSpec(matrix=6), time_base=Fraction(1, 25), pts=n,
        duration=np.ones_like(n), captured_ns=n + 5, keyframe=n == 0, data=data,
    )  # fmt: skip


def opened(budget: float = 1.0, **config: object) -> Refine:
    stage = Refine(RefineConfig(budget=budget, **config))  # type: ignore[arg-type]
    stage.open(StageEnv())
    return stage


def run(stage: Refine, size: int, stamp: Stamp | None = None) -> RefineResult:
    """Process the batch in parts of `size` frames, each with its halo."""
    whole, parts = batch(), []
    for start in range(0, N, size):
        stop = min(N, start + size)
        work = Work(
            item=whole.cut(start, stop),
            span=span(start, stop),
            before=whole.cut(start - 1, start) if start else None,
            after=whole.cut(stop, stop + 1) if stop < N else None,
            stamp=stamp or Stamp(),
        )
        parts.append(stage.process(work))
    return join(parts)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_batch_borders_do_not_show(size: int) -> None:
    found, expected = run(opened(), size), run(opened(), N)
    assert np.array_equal(found.frames.data, expected.frames.data)
    assert np.array_equal(found.report.refined, expected.report.refined)
    assert found.span == expected.span == span(0, N)


def test_each_frame_is_refined_by_its_neighbours_and_all_else_is_kept() -> None:
    """At the epoch's ends the neighbour that is missing is the frame itself."""
    source, out = batch(), run(opened(), 4).frames
    for field in fields(FrameBatch):
        if field.name != "data":
            assert np.array_equal(getattr(out, field.name), getattr(source, field.name)), field.name
    y, planes = source.planes().y, out.planes()
    size = source.size
    refiner = open_refiner(load_tcsr(model_path("tcsr"))[1], size)
    for i in (0, 5, 9):
        wanted = refiner.refine(y[i], (y[max(0, i - 1)], y[min(9, i + 1)]))
        assert np.array_equal(planes.y[i], wanted)
    assert np.array_equal(planes.u, source.planes().u) and np.array_equal(planes.v, source.planes().v)
    assert not np.array_equal(planes.y, y)


@pytest.mark.parametrize(
    ("budget", "wanted"), [(1.0, range(10)), (0.5, [1, 3, 5, 7, 9]), (0.25, [3, 7]), (0.1, [9]), (0.05, []), (0.0, [])]
)
def test_the_budget_counts_frames_evenly(budget: float, wanted: list[int]) -> None:
    """Of the first n frames ⌊n · budget⌋: a quarter of ten frames is 2, and they are the fourth and the eighth."""
    found = run(opened(budget), 3)
    assert np.flatnonzero(found.report.refined).tolist() == list(wanted)
    y, source = found.frames.planes().y, batch().planes().y
    assert [i for i in range(N) if not np.array_equal(y[i], source[i])] == list(wanted)


def test_any_grid_picks_the_same_frames() -> None:
    whole = picked_frames(span(0, 1000), 0.3)
    assert whole.sum() == 300
    assert np.array_equal(np.concatenate([picked_frames(span(i, i + 7), 0.3) for i in range(0, 994, 7)]), whole[:994])


@pytest.mark.parametrize("stamp", [Stamp(runtime="bicubic"), Stamp(runtime="openvino-int8", set_aside=("enhance",))])
def test_what_no_network_enhanced_is_passed_on(stamp: Stamp) -> None:
    found = run(opened(), 8, stamp)
    assert not found.report.refined.any()
    assert np.array_equal(found.frames.data, batch().data)


def test_a_batch_without_a_picked_frame_is_not_copied() -> None:
    item = batch().cut(0, 3)
    found = opened(0.25).process(Work(item=item, span=item.span))
    assert found.frames is item
    assert Refine(RefineConfig(budget=1.0)).bypass(Work(item=item, span=item.span)).frames is item


@pytest.mark.parametrize("config", [{"budget": -0.1}, {"budget": 1.5}, {"threads": -1}])
def test_settings_are_checked_when_they_are_made(config: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(config))):
        RefineConfig(**config)  # type: ignore[arg-type]


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for config, says in ((TcsrConfig(k=2), "2 frames on each side"), (TcsrConfig(scale=3), "up-scaled by 3, not by 2")):
        header = ModelHeader(name="x", kind="tcsr", version=1, config=config.to_dict())
        modelfile.save(path, header, Tcsr(config).state_dict())
        with pytest.raises(ModelError, match=says):
            opened(model=str(path))
    with pytest.raises(ModelFormatError, match="of the kind 'f-edsr'"):
        opened(model="f-edsr-x2")


def settings(**refine: object) -> Settings:
    return Settings.from_dict({"refine": refine, "enhance": {"runtime": "openvino-int8", "model": "f-edsr-x2-nano"}})


def test_the_stage_is_there_only_with_a_budget() -> None:
    without, with_budget = graph_of(Settings()), graph_of(settings(budget=0.2))
    assert "refine" not in [node.name for node in without.nodes]
    assert [str(edge) for edge in without.node("guard").inputs] == ["enhance", "decode"]
    assert [str(edge) for edge in without.node("record").inputs] == ["decode", "quality", "guard.report"]
    assert [str(edge) for edge in with_budget.node("guard").inputs] == ["refine.frames", "decode"]
    assert with_budget.node("refine").config == RefineConfig(budget=0.2)
    stamp = choose_stamp(with_budget)
    assert stamp.model.startswith("f-edsr-x2-nano@") and stamp.runtime == "openvino-int8"


def test_a_scale_without_weights_is_refused_before_a_stage_opens() -> None:
    with pytest.raises(GraphError, match="refine: no model 'tcsr'"):
        graph_of(Settings.from_dict({"refine": {"budget": 0.2}, "enhance": {"scale": 3}}))


def test_a_run_refines_its_budget_and_says_which_in_every_plan(tmp_path: Path) -> None:
    """A quarter of 25 frames is 6; the halo crosses batches in one process of all stages and in one of each."""
    segments = []
    for plan in ("chained", "unchained"):
        folder, values = tmp_path / plan, settings(budget=0.25).to_dict()
        values["flow"]["plan"] = plan
        job = Job(stream=stream_id("gate"), source=SCENE, store=str(folder), settings=Settings.from_dict(values))
        outcome = run_local(job)
        assert outcome.state == "completed", outcome.error
        refined = read_table(open_store(str(folder)), "frames").column("refined").to_pylist()
        assert [i for i, yes in enumerate(refined) if yes] == [3, 7, 11, 15, 19, 23]
        segments.append([path.read_bytes() for path in sorted((folder / "hls").rglob("*.m4s"))])
    assert segments[0] == segments[1] and segments[0]
