"""Guard: leaves good frames as they are, byte for byte, and takes bad blocks back."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.media.degrade import Encoding, Picture, degrade
from pipeline.media.synthetic import Scene, SceneConfig
from pipeline.models import model_path
from pipeline.models.fedsr import FEdsr, enhance_y
from pipeline.models.load import load_model
from pipeline.stage import StageEnv, Work
from pipeline.stages.guard import Guard, GuardConfig
from pipeline.vision.stability import num_blocks
from pipeline.vision.upscale import upscale
from pipeline.wire.acks import CONVENTIONAL_RUNTIME, Stamp
from pipeline.wire.frames import FrameBatch
from tests.pipeline.stages.test_enhance import batch

STAMP = Stamp(model="f-edsr-x2@1", runtime="openvino-int8")


def guard(**config: float) -> Guard:
    stage = Guard(GuardConfig(**config))
    stage.open(StageEnv())
    return stage


def work(enhanced: FrameBatch, source: FrameBatch, stamp: Stamp = STAMP) -> Work[FrameBatch]:
    return Work(item=enhanced, span=enhanced.span, side=(source,), stamp=stamp)


def damaged(enhanced: FrameBatch, frame: int, rows: slice, columns: slice, by: int) -> FrameBatch:
    """A copy whose luma is `by` brighter in one place of one frame."""
    out = replace(enhanced, data=enhanced.data.copy())
    out.planes().y[frame, rows, columns] += np.uint8(by)
    return out


def luma(frames: FrameBatch) -> NDArray[np.uint8]:
    return frames.planes().y


@cache
def street(n: int) -> FrameBatch:
    """Frames of the rendered street at 320×180, as a live encoder leaves them."""
    scene = Scene(SceneConfig(width=640, height=360, seed=11, audio=False))
    pictures = [Picture.from_i420(scene.frame(2 * i).i420, width_px=640, height_px=360) for i in range(n)]
    lows = degrade(pictures, Encoding(bitrate_bps=500_000, rate=Fraction(15)), scale=2)
    planes = batch(320, 180, n)
    data = np.stack([np.concatenate([low.y.reshape(-1), low.u.reshape(-1), low.v.reshape(-1)]) for low in lows])
    return replace(planes, data=data)


def enhanced_by(net: FEdsr, source: FrameBatch) -> FrameBatch:
    out = upscale(source, 2)
    luma(out)[...] = enhance_y(net, luma(source))
    return out


@pytest.mark.parametrize(("width", "height"), [(48, 48), (47, 31), (1, 1)])
def test_a_conventional_picture_is_fully_stable_and_passes_as_it_is(width: int, height: int) -> None:
    source = batch(width, height)
    enhanced = upscale(source, 2)
    result = guard().process(work(enhanced, source))
    assert result.frames is enhanced
    assert (result.report.stability == 1).all() and not result.report.restored_blocks.any()
    assert result.report.enhanced.all() and result.report.model_version == "f-edsr-x2@1"


def test_where_no_network_enhances_there_is_nothing_to_guard() -> None:
    source = batch(48, 48)
    enhanced = upscale(source, 2)
    result = guard().process(work(enhanced, source, Stamp(model="f-edsr-x2@1", runtime=CONVENTIONAL_RUNTIME)))
    assert result.frames is enhanced
    assert (result.report.stability == 1).all() and not result.report.restored_blocks.any()
    assert not result.report.enhanced.any() and result.report.model_version == ""


def test_a_bad_block_of_one_frame_goes_back_and_nothing_else_changes() -> None:
    """30 code values on the source's block (1, 1), 16..32 px: blocks beside it change towards bicubic at most."""
    source = batch(64, 64)
    plain = upscale(source, 2)
    enhanced = damaged(plain, 1, slice(32, 64), slice(32, 64), 30)
    result = guard().process(work(enhanced, source))
    assert result.report.restored_blocks.tolist() == [0, 1, 0]
    assert result.report.enhanced.all() and result.report.stability[1] < 1
    assert np.array_equal(result.frames.data, plain.data)
    assert np.array_equal(luma(enhanced)[1, 32:64, 32:64], luma(plain)[1, 32:64, 32:64] + 30)  # the input is untouched


def test_a_frame_that_is_bad_all_over_becomes_bicubic() -> None:
    source = batch(40, 24)
    plain = upscale(source, 2)
    enhanced = damaged(plain, 0, slice(None), slice(None), 40)
    result = guard().process(work(enhanced, source))
    assert np.array_equal(result.frames.data, plain.data)
    assert result.report.restored_blocks.tolist() == [6, 0, 0]  # ⌈24/16⌉ × ⌈40/16⌉
    assert result.report.enhanced.tolist() == [False, True, True]


def test_limits_of_nothing_let_everything_pass() -> None:
    source = batch(40, 24)
    enhanced = damaged(upscale(source, 2), 0, slice(None), slice(None), 40)
    off = {"stability": 0, "tolerance": 255, "detail": math.inf, "frame_share": 1, "frame_detail": math.inf}
    result = guard(**off).process(work(enhanced, source))
    assert result.frames is enhanced and not result.report.restored_blocks.any()


def test_where_too_much_goes_back_the_frame_does() -> None:
    """Four of the 16 blocks are bad: more than a fifth."""
    source = batch(64, 64)
    enhanced = damaged(upscale(source, 2), 2, slice(64), slice(64), 30)
    result = guard().process(work(enhanced, source))
    assert result.report.restored_blocks.tolist() == [0, 0, 16]
    assert result.report.enhanced.tolist() == [True, True, False]
    result = guard(frame_share=0.5).process(work(enhanced, source))
    assert result.report.restored_blocks.tolist() == [0, 0, 4]


def test_a_checkerboard_that_the_source_cannot_show_goes_back() -> None:
    """±16 on alternating pixels: each cell's mean is as it was, so neither stability nor tolerance sees it."""
    source = batch(64, 64)
    plain = upscale(source, 2)
    enhanced = replace(plain, data=plain.data.copy())
    board = (np.indices((128, 128)).sum(axis=0) % 2 * 32 - 16).astype(np.int16)
    luma(enhanced)[1] = np.clip(luma(plain)[1] + board, 0, 255)
    result = guard().process(work(enhanced, source))
    assert result.report.restored_blocks.tolist() == [0, 16, 0]
    assert np.array_equal(result.frames.data, plain.data)


@pytest.mark.parametrize("spoilt", ["random", "bias"])
def test_spoilt_weights_are_not_seen(spoilt: str) -> None:
    """Every frame of the first batch goes back whole, and the picture is bicubic; shipped weights stay as they are."""
    source = street(8)
    net = load_model(model_path("f-edsr-x2"))[1].fold()
    torch.manual_seed(0)
    with torch.no_grad():
        if spoilt == "random":
            net = FEdsr(net.config).eval()
        else:
            net.tail.bias[::2] += 6 / 255  # type: ignore[index,union-attr,operator]
            net.tail.bias[1::2] -= 6 / 255  # type: ignore[index,union-attr,operator]
    result = guard().process(work(enhanced_by(net, source), source))
    assert not result.report.enhanced.any()
    assert np.array_equal(luma(result.frames), luma(upscale(source, 2)))


@pytest.mark.parametrize("name", ["f-edsr-x2", "f-edsr-x2-nano", "f-edsr-x2-large"])
def test_shipped_weights_are_believed(name: str) -> None:
    source = street(8)
    enhanced = enhanced_by(load_model(model_path(name))[1].fold(), source)
    result = guard().process(work(enhanced, source))
    assert result.report.enhanced.all()
    assert result.report.restored_blocks.sum() <= 0.02 * 8 * num_blocks(source.size)


@pytest.mark.parametrize("stamp", [Stamp(model="f@1", set_aside=("enhance",)), Stamp(runtime="bicubic")], ids=str)
def test_frames_that_were_not_enhanced_are_reported_so(stamp: Stamp) -> None:
    source = batch()
    report = guard().process(work(upscale(source, 2), source, stamp)).report
    assert not report.enhanced.any() and report.model_version == ""


def test_a_bypass_is_bicubic_with_every_block_set_back() -> None:
    source = batch(40, 24)
    result = guard().bypass(work(damaged(upscale(source, 2), 0, slice(None), slice(None), 40), source))
    assert np.array_equal(result.frames.data, upscale(source, 2).data)
    assert (result.report.restored_blocks == 6).all() and not result.report.enhanced.any()
    assert result.frames.span == source.span and np.array_equal(result.frames.pts, source.pts)


@pytest.mark.parametrize("config", [{"stability": 1.5}, {"tolerance": -1.0}, {"detail": -0.1}])
def test_settings_are_checked_when_they_are_made(config: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(config))):
        GuardConfig(**config)
