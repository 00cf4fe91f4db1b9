"""F-EDSR on a GPU gives what the reference gives: skipped where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.models import SHIPPED
from pipeline.models.load import load_model
from pipeline.models.runtime import open_engine
from pipeline.models.runtime.choose import choose
from pipeline.stage import StageEnv, Work
from pipeline.stages.enhance import Enhance, EnhanceConfig
from pipeline.wire.acks import Stamp
from pipeline.wire.frames import Size
from tests.pipeline.models.runtime.test_runtime import moving, network, reference, size
from tests.pipeline.stages.test_enhance import batch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.mark.parametrize("frame", [size(64, 48), size(33, 21), size(1, 1), size(1920, 1080)], ids=str)
def test_half_precision_agrees_with_the_reference_to_a_code_value(frame: Size) -> None:
    net, y_NHW = network(), moving(frame, 3)
    out_NHW = open_engine("pytorch", net, frame, device="cuda").upscale(y_NHW)
    assert np.abs(out_NHW.astype(int) - reference(net, y_NHW)).max() <= 1


@pytest.mark.parametrize("config", [{"scale": 3}, {"scale": 4, "unshuffle": 1}, {"channels": 64, "blocks": 8}], ids=str)
def test_every_configuration_runs(config: dict[str, int]) -> None:
    net, frame = network(**config), size(31, 17)
    y_NHW = moving(frame, 2)
    out_NHW = open_engine("pytorch", net, frame, device="cuda").upscale(y_NHW)
    assert np.abs(out_NHW.astype(int) - reference(net, y_NHW)).max() <= 1


def test_a_frame_does_not_depend_on_its_batch_and_repeats_to_the_bit() -> None:
    _, net = load_model(SHIPPED / "f-edsr-x2.safetensors")
    frame = size(320, 180)
    y_NHW = moving(frame, 11)  # more than a call holds, and not a multiple
    engine = open_engine("pytorch", net.fold(), frame, device="cuda")
    assert engine.rows > 1
    whole = engine.upscale(y_NHW)
    assert np.array_equal(engine.upscale(y_NHW), whole)
    for i in range(len(y_NHW)):
        assert np.array_equal(engine.upscale(y_NHW[i : i + 1])[0], whole[i])


def test_the_choice_on_a_gpu_is_pytorch() -> None:
    assert choose(network(), size(320, 180), device="cuda") == "pytorch"


def test_the_stage_uses_the_device_of_its_environment() -> None:
    stage, here = Enhance(EnhanceConfig()), Enhance(EnhanceConfig(runtime="pytorch"))
    stage.open(StageEnv(device="cuda:0"))
    here.open(StageEnv())
    item = batch(320, 180, 8)
    assert stage.stamp().runtime == "pytorch"
    there, reference_ = (s.process(Work(item=item, span=item.span, stamp=Stamp())) for s in (stage, here))
    assert np.abs(there.data.astype(int) - reference_.data).max() <= 1
