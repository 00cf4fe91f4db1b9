"""The gain predictor: its shape, its fit, its data."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.errors import ModelFormatError
from pipeline.models.gain import SHIPPED, GainNet, fit, load_points


def test_it_is_1_20_20_20_1_with_sigmoids() -> None:
    layers = list(GainNet().layers)
    assert [(each.in_features, each.out_features) for each in layers if isinstance(each, nn.Linear)] == [
        (1, 20),
        (20, 20),
        (20, 20),
        (20, 1),
    ]
    assert [type(each) for each in layers[1::2]] == [nn.Sigmoid] * 3


def test_it_learns_a_curve_that_falls_with_psnr() -> None:
    """Points of 2·e^(−(p − 25)/8): what is hard gains most."""
    points = [(float(psnr), 2 * math.exp(-(psnr - 25) / 8)) for psnr in range(25, 46, 2)]
    predict = fit(points)
    assert max(abs(predict(psnr) - gain) for psnr, gain in points) < 0.15
    assert abs(predict(30.0) - 2 * math.exp(-5 / 8)) < 0.15


def test_outside_its_data_the_nearest_end_decides_and_it_is_never_negative() -> None:
    predict = fit([(25.0, 1.0), (30.0, 0.4), (35.0, 0.0)])
    assert predict(10.0) == predict(25.0)
    assert predict(60.0) == predict(35.0) >= 0


def test_the_same_data_give_the_same_predictor_and_leave_the_generator_alone() -> None:
    points = [(25.0, 1.0), (30.0, 0.4), (35.0, 0.1)]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert fit(points)(28.0) == fit(points)(28.0)
    assert torch.equal(before, torch.get_rng_state())


def test_the_shipped_data_fit() -> None:
    """Within half a dB in the mean: two scenes of one PSNR differ by more than that."""
    points = load_points(SHIPPED)
    predict = fit(points)
    assert len(points) >= 12
    assert sum(abs(predict(psnr) - gain) for psnr, gain in points) / len(points) < 0.5


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"points": []}', '{"points": [{"psnr_db": "x", "gain_db": 1}]}'])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "points.json"
    path.write_text(text)
    with pytest.raises(ModelFormatError, match=str(path)):
        load_points(path)
