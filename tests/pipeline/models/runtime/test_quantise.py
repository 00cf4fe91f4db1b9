"""Eight bits that leave flat areas flat."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.models import SHIPPED
from pipeline.models.fedsr import FEdsr, FEdsrConfig
from pipeline.models.load import load_model
from pipeline.models.runtime import open_engine
from pipeline.models.runtime.quantise import activation_limits, whole_weights
from pipeline.wire.frames import Size


def test_whole_weights_are_within_a_step_and_a_half_of_the_weights() -> None:
    """A weight that was flipped lies at most one step from where it was, all others half a step."""
    torch.manual_seed(0)
    net = FEdsr(FEdsrConfig(channels=8, blocks=1)).eval().requires_grad_(False)
    convs = dict(net.layers())
    for name, (whole_OIKL, step_O) in whole_weights(net).items():
        error = np.abs(whole_OIKL - convs[name].weight.numpy() / step_O[:, None, None, None])
        assert whole_OIKL.dtype == np.int8 and np.abs(whole_OIKL.astype(int)).max() <= 127
        assert error.max() <= 1 + 1e-4 and np.mean(error <= 0.5 + 1e-4) > 0.5


def test_a_constant_frame_passes_the_first_convolution_as_in_float() -> None:
    """Its response is the sum of the weights times the level: whole numbers can meet that to half a step."""
    torch.manual_seed(0)
    net = FEdsr(FEdsrConfig(channels=16, blocks=0)).eval().requires_grad_(False)
    weight_OIKL = net.layers()[0][1].weight.numpy()
    whole_OIKL, step_O = whole_weights(net)["head"]
    plain_OIKL = np.rint(weight_OIKL / step_O[:, None, None, None])
    exact_O = weight_OIKL.sum(axis=(1, 2, 3)) / step_O
    rounded = np.abs(whole_OIKL.sum(axis=(1, 2, 3)) - exact_O).max()
    assert rounded <= 0.5 + 1e-4 < np.abs(plain_OIKL.sum(axis=(1, 2, 3)) - exact_O).max()


def test_limits_keep_zero_on_a_level_and_the_luma_exact() -> None:
    net = FEdsr(FEdsrConfig(channels=4, blocks=1))
    ranges = {"head": (0.0, 0.8), "blocks.0.conv1": (-4.0, 2.0), "blocks.0.conv2": (0.0, 6.0), "close": (-1.0, 3.0)}
    limits = activation_limits(net, {**ranges, "tail": (0.0, 0.0)})
    assert limits["head"] == (0.0, 1.0)
    assert limits["blocks.0.conv1"] == pytest.approx((-170 * 3 / 255, 85 * 3 / 255))  # half of −4..2
    assert limits["blocks.0.conv2"] == (0.0, 3.0)
    assert limits["close"] == pytest.approx((-64 * 2 / 255, 191 * 2 / 255))  # −0.5 is no level, 0 is
    assert limits["tail"][1] > 0  # a dead layer still has levels


def test_the_shipped_weights_leave_flat_frames_flat_in_int8() -> None:
    header, net = load_model(SHIPPED / "f-edsr-x2.safetensors")
    engine = open_engine("openvino-int8", net.fold(), Size(width_px=48, height_px=48), ranges=header.ranges)
    for level in (16, 60, 128, 200, 235):
        inner_HW = engine.residual(np.full((1, 48, 48), level, np.uint8))[0, 32:-32, 32:-32]
        assert not inner_HW.any(), level
