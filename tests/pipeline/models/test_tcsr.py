"""TCSR: shapes, odd sizes, folding, the model file, and that the shipped weights do what they are for."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.errors import ConfigError, ModelFormatError
from pipeline.media.degrade import Encoding, Picture, degrade
from pipeline.media.synthetic import Scene, SceneConfig
from pipeline.models import SHIPPED
from pipeline.models.fedsr import enhance_y
from pipeline.models.load import KINDS, load_any, load_model, load_tcsr
from pipeline.models.ofrnet import OfrNet, halved
from pipeline.models.tcsr import Tcsr, TcsrConfig, refine_y
from pipeline.store import modelfile
from pipeline.store.modelfile import ModelHeader
from pipeline.train.metrics import psnr_db

LOW = TcsrConfig(channels=4, features=8)
FULL = TcsrConfig(form="full", unshuffle=1, channels=4, features=8, align_blocks=1)


def net(config: TcsrConfig = LOW, seed: int = 1) -> Tcsr:
    """A network whose every part takes part: what starts at zero is moved away from it."""
    torch.manual_seed(seed)
    made = Tcsr(config).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return made


def noise(*shape: int, seed: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("config", [LOW, replace(LOW, unshuffle=2, k=2), FULL], ids=["low", "low k2", "full"])
@pytest.mark.parametrize("size", [(48, 64), (50, 70), (26, 30), (2, 2), (6, 4)])
def test_a_refined_frame_has_the_size_of_the_frame(config: TcsrConfig, size: tuple[int, int]) -> None:
    network = net(config)
    planes = [noise(*size, seed=i) for i in range(1 + 2 * config.k)]
    first = refine_y(network, planes[0], planes[1:])
    assert first.shape == size and first.dtype == np.uint8
    assert not np.array_equal(first, planes[0])
    assert np.array_equal(first, refine_y(network, planes[0], planes[1:]))


@pytest.mark.parametrize("config", [LOW, FULL], ids=["low", "full"])
def test_training_starts_from_the_frame_itself(config: TcsrConfig) -> None:
    planes = torch.rand(1, 3, 32, 32)
    assert bool((Tcsr(config)(planes[:, :1], planes[:, 1:]) == 0).all())


def test_the_residual_is_added_to_the_frame_rounded_and_clipped() -> None:
    """All weights 0 but the tail's bias of 10.4 code values: each pixel gains 10."""
    network = net(LOW)
    for parameter in network.parameters():
        parameter.zero_()
    bias = network.get_parameter("fusion.tail.bias")
    bias.fill_(10.4 / 255)
    frame = noise(32, 40)
    assert np.array_equal(refine_y(network, frame, [frame, frame]), (frame.astype(int) + 10).clip(0, 255))


def test_ofrnet_starts_from_no_motion_at_both_levels() -> None:
    torch.manual_seed(1)
    flows = OfrNet(8, 1)(torch.rand(2, 1, 9, 12), torch.rand(2, 1, 9, 12))
    assert [tuple(flow.shape) for flow in flows] == [(2, 2, 5, 6), (2, 2, 9, 12)]
    assert all(bool((flow == 0).all()) for flow in flows)


def test_ofrnet_learns_a_shift() -> None:
    """A pattern that moves by 1 pixel to the right: what the target shows at p, the neighbour shows at p + 1."""
    torch.manual_seed(1)
    network = Tcsr(replace(FULL, channels=8))
    assert network.flow is not None
    smooth = torch.nn.functional.avg_pool2d(torch.rand(2, 1, 32, 33), 5, stride=1, padding=2)
    smooth = (smooth - smooth.mean()) * 3 + 0.5
    target, neighbour = smooth[..., 1:], smooth[..., :-1]
    optimizer = torch.optim.Adam(network.flow.parameters(), lr=5e-3)
    for _ in range(40):
        aligned = network.align(target, neighbour)
        assert aligned.half is not None
        loss = (aligned.full - target).abs().mean() + (aligned.half - halved(target)).abs().mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    found = network.flow(target, neighbour)[1].detach()[:, :, 8:-8, 8:-8]
    assert abs(float(found[:, 0].median()) - 1) < 0.4
    assert abs(float(found[:, 1].median())) < 0.4


def test_halving_takes_means_and_repeats_the_edge_of_odd_frames() -> None:
    """[[0, 2, 4]] → columns (0 + 2) / 2 = 1 and (4 + 4) / 2 = 4; the one row is repeated."""
    assert halved(torch.tensor([[[[0.0, 2.0, 4.0]]]])).tolist() == [[[[1.0, 4.0]]]]


@pytest.mark.parametrize(
    "values",
    [{"scale": 5}, {"channels": 2}, {"unshuffle": 8}, {"k": 0}, {"gain": 0.5}, {"form": "spec"}, {"features": 8.0}],
)
def test_a_configuration_out_of_range_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        TcsrConfig.from_dict(values)


def test_the_full_form_works_at_full_size_alone() -> None:
    with pytest.raises(ConfigError, match="full size"):
        TcsrConfig(form="full")


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown key 'chanels'"):
        TcsrConfig.from_dict({"chanels": 8})


@pytest.mark.parametrize("config", [LOW, FULL], ids=["low", "full"])
def test_a_saved_network_gives_the_same_output_when_loaded(tmp_path: Path, config: TcsrConfig) -> None:
    network = net(config)
    header = ModelHeader(name="x", kind="tcsr", version=1, config=network.config.to_dict())
    path = tmp_path / "m.safetensors"
    modelfile.save(path, header, network.state_dict())
    found, loaded = load_tcsr(path)
    assert found.kind in KINDS and isinstance(load_any(path)[1], Tcsr)
    assert loaded.config == config
    planes = [noise(34, 42, seed=i) for i in range(3)]
    assert np.array_equal(refine_y(loaded, planes[0], planes[1:]), refine_y(network, planes[0], planes[1:]))


def test_a_model_of_the_other_kind_is_refused() -> None:
    with pytest.raises(ModelFormatError, match="of the kind 'tcsr', not 'f-edsr'"):
        load_model(SHIPPED / "tcsr-x2.safetensors")
    with pytest.raises(ModelFormatError, match="of the kind 'f-edsr', not 'tcsr'"):
        load_tcsr(SHIPPED / "f-edsr-x2.safetensors")


def test_shipped_weights_are_small_and_say_what_they_saw() -> None:
    path = SHIPPED / "tcsr-x2.safetensors"
    header, network = load_tcsr(path)
    assert path.stat().st_size < 400_000
    assert (header.name, header.kind, network.config.scale) == ("tcsr-x2", "tcsr", 2)
    seen = " ".join(header.trained_on)
    assert "f-edsr-x2" in seen and "BSDS500, research" in seen
    assert not any(name in seen for name in ("clips/dev", "people", "sam2", "skv", "bear", "coaster", "lofoten"))


def test_shipped_weights_do_not_harm_a_moving_scene() -> None:
    """A street of a seed that no training saw, ÷2, x264 at 250 kb/s, decoded, enhanced: refined, it gains or stays."""
    scene = Scene(SceneConfig(width=640, height=360, seed=78, noise=1.0, shake_px=2.0, audio=False))
    pictures = [Picture.from_i420(scene.frame(i).i420, width_px=640, height_px=360) for i in range(13)]
    decoded = degrade(pictures, Encoding(bitrate_bps=250_000, rate=Fraction(25)), scale=2)
    _, enhancer = load_model(SHIPPED / "f-edsr-x2.safetensors")
    _, network = load_tcsr(SHIPPED / "tcsr-x2.safetensors")
    y_NHW = enhance_y(enhancer, np.stack([low.y for low in decoded[5:]]))
    gains_db = [
        psnr_db(refine_y(network, y_NHW[i], (y_NHW[i - 1], y_NHW[i + 1])), pictures[5 + i].y)
        - psnr_db(y_NHW[i], pictures[5 + i].y)
        for i in (1, 3, 5)
    ]
    assert np.mean(gains_db) >= 0
