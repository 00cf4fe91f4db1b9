"""Enhance: exact sizes, the same bytes for the same work, and what the stamp says."""

from __future__ import annotations

from dataclasses import fields
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError, ModelError, ModelFormatError, Unreachable
from pipeline.models import model_path
from pipeline.models.runtime import RUNTIMES
from pipeline.models.runtime.choose import pattern
from pipeline.stage import StageEnv, Work
from pipeline.stages.enhance import Enhance, EnhanceConfig
from pipeline.vision.upscale import bicubic, upscale
from pipeline.wire.acks import Stamp
from pipeline.wire.frames import ColorSpec, FrameBatch, Size
from pipeline.wire.ids import Span, stream_id
from tests import pushed


def batch(width: int = 48, height: int = 32, n: int = 3) -> FrameBatch:
    size = Size(width_px=width, height_px=height)
    data = np.random.default_rng(2).integers(100, 156, (n, size.frame_bytes), dtype=np.uint8)
    data[:, : width * height] = np.stack([np.roll(pattern(size), i, axis=1).reshape(-1) for i in range(n)])
    return FrameBatch(
        span=Span(stream=stream_id("s"), epoch=1, start=8, stop=8 + n),
        size=size,
        color=ColorSpec(matrix=6, full_range=True),
        time_base=Fraction(1, 12800),
        pts=np.cumsum(np.arange(1, n + 1, dtype=np.int64)),
        duration=np.zeros(n, np.int64),
        captured_ns=np.arange(n, dtype=np.int64) + 5,
        keyframe=np.arange(n) == 1,
        data=data,
    )


def work(item: FrameBatch, stamp: Stamp | None = None) -> Work[FrameBatch]:
    return Work(item=item, span=item.span, stamp=stamp or Stamp())


def opened(**config: object) -> Enhance:
    stage = Enhance(EnhanceConfig(**{"runtime": "openvino-int8", **config}))  # type: ignore[arg-type]
    stage.open(StageEnv())
    return stage


@pytest.mark.parametrize(("width", "height"), [(48, 32), (47, 31), (1, 1), (2, 3)])
def test_output_is_exactly_twice_as_large_and_keeps_all_else(width: int, height: int) -> None:
    source = batch(width, height)
    out = opened().process(work(source))
    assert out.size == Size(width_px=2 * width, height_px=2 * height)
    for field in fields(FrameBatch):
        if field.name not in ("size", "data"):
            assert np.array_equal(getattr(out, field.name), getattr(source, field.name)), field.name


def test_chroma_is_conventional_and_luma_is_not() -> None:
    source = batch()
    out, plain = opened().process(work(source)).planes(), upscale(source, 2).planes()
    assert np.array_equal(out.u, plain.u) and np.array_equal(out.v, plain.v)
    assert not np.array_equal(out.y, plain.y)


def test_the_same_work_gives_the_same_bytes_in_any_worker_and_batch() -> None:
    source = batch(n=3)
    first, second = opened(), opened()
    whole = first.process(work(source))
    first.process(work(batch(30, 30)))
    assert np.array_equal(whole.data, second.process(work(source)).data)
    assert np.array_equal(whole.data, first.process(work(source)).data)
    last = source.cut(10, 11)
    assert np.array_equal(whole.data[2:], second.process(work(last)).data)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_stamp_decides_what_runs(runtime: str) -> None:
    """A worker that chose anything gives what the named runtime gives elsewhere."""
    source, stamp = batch(), Stamp(model="f-edsr-x2@1", runtime=runtime)
    stage = opened()
    stamp = Stamp(model=stage.stamp().model, runtime=runtime)
    assert np.array_equal(stage.process(work(source, stamp)).data, opened(runtime=runtime).process(work(source)).data)


def test_a_stamp_of_bicubic_and_a_bypass_are_the_conventional_picture() -> None:
    source = batch(33, 21)
    stage, plain = opened(), upscale(source, 2).data
    assert np.array_equal(stage.process(work(source, Stamp(runtime="bicubic"))).data, plain)
    assert np.array_equal(stage.bypass(work(source)).data, plain)


def test_a_stamp_of_other_weights_is_refused() -> None:
    with pytest.raises(ModelError, match=r"asks for the model 'f-edsr-x2@999'"):
        opened().process(work(batch(), Stamp(model="f-edsr-x2@999", runtime="openvino-int8")))


def test_the_stamp_of_a_worker_names_model_runtime_and_threads() -> None:
    stamp = opened(threads=2).stamp()
    assert stamp.model.startswith("f-edsr-x2@") and (stamp.runtime, stamp.threads) == ("openvino-int8", 2)
    assert opened(runtime="auto").stamp().runtime in RUNTIMES


@pytest.mark.parametrize("model", ["none", "bicubic"])
@pytest.mark.parametrize("scale", [2, 3])
def test_without_a_model_the_picture_is_bicubic(model: str, scale: int) -> None:
    source = batch(9, 7)
    stage = opened(model=model, scale=scale, runtime="auto")
    assert stage.stamp() == Stamp(runtime="bicubic")
    out = stage.process(work(source)).planes()
    assert np.array_equal(out.y[0], bicubic(source.planes().y[0], scale))


def test_streams_with_weights_of_their_own_share_a_worker(tmp_path: Path) -> None:
    """Both streams' stamps say version 3; one's weights add nothing to bicubic."""
    stage, source = opened(), batch()
    for name, factor in (("plain", 0.0), ("same", 1.0)):
        (tmp_path / name / "models").mkdir(parents=True)
        pushed.write(tmp_path / name / "models" / "f-edsr-3.safetensors", factor, 3)
    stamp = Stamp(model="f-edsr-x2@3", runtime="openvino-int8")
    plain, same = (
        stage.process(Work(item=source, span=source.span, stamp=stamp, store=str(tmp_path / name))).data
        for name in ("plain", "same")
    )
    assert np.array_equal(plain, upscale(source, 2).data)
    assert np.array_equal(same, stage.process(work(source)).data)


def test_weights_are_compiled_for_the_size_that_the_streams_frames_have(tmp_path: Path) -> None:
    stage, source, store = opened(), batch(), str(tmp_path)
    (tmp_path / "models").mkdir()
    pushed.write(tmp_path / "models" / "f-edsr-3.safetensors", 1.0, 3)
    stamp = Stamp(model="f-edsr-x2@3", runtime="openvino-int8")
    stage.prepare(stamp, store=store)
    assert len(stage._library) == 0, "no frame has come yet"
    stage.process(Work(item=source, span=source.span, store=store))
    stage.prepare(stamp, store=store)
    assert len(stage._library) == 2
    stage.process(Work(item=source, span=source.span, stamp=stamp, store=store))
    assert len(stage._library) == 2


def test_a_missing_or_damaged_model_is_said_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="absent"):
        opened(model=str(tmp_path / "absent.safetensors"))
    (tmp_path / "bad.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelFormatError, match="bad"):
        opened(model=str(tmp_path / "bad.safetensors"))


def test_a_model_of_another_scale_is_refused() -> None:
    with pytest.raises(ModelError, match="up-scales by 2, not by 3"):
        opened(model="f-edsr-x2", scale=3)


def test_a_shipped_name_is_found_and_anything_else_is_a_path() -> None:
    assert model_path("f-edsr-x2").is_file()
    assert [model_path("f-edsr", scale).name for scale in (2, 3, 4)] == [f"f-edsr-x{n}.safetensors" for n in (2, 3, 4)]
    assert all(model_path("f-edsr", scale).is_file() for scale in (2, 3, 4))
    assert model_path("weights/mine.safetensors") == Path("weights/mine.safetensors")


@pytest.mark.parametrize("config", [{"scale": 1}, {"scale": 5}, {"scale": 2.0}, {"threads": -1}, {"runtime": "cudnn"}])
def test_settings_are_checked_when_they_are_made(config: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(config))):
        EnhanceConfig(**config)  # type: ignore[arg-type]


def test_close_is_safe_after_a_failed_open(tmp_path: Path) -> None:
    stage = Enhance(EnhanceConfig(model=str(tmp_path / "absent")))
    with pytest.raises(Unreachable):
        stage.open(StageEnv())
    stage.close()
