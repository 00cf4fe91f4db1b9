"""F-EDSR: shapes, odd sizes, folding, the model file, and that the shipped weights do what they are for."""

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
from pipeline.models.fedsr import SLOPE, FEdsr, FEdsrConfig, bicubic, enhance_y, input_ranges
from pipeline.models.load import KINDS, load_model
from pipeline.store import modelfile
from pipeline.store.modelfile import ModelHeader
from pipeline.train.metrics import psnr_db

SMALL = FEdsrConfig(channels=8, blocks=1)


def net(config: FEdsrConfig = SMALL, seed: int = 1) -> FEdsr:
    torch.manual_seed(seed)
    return FEdsr(config).eval()


def noise(*shape: int, seed: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("unshuffle", [1, 2])
@pytest.mark.parametrize("size", [(16, 24), (17, 24), (16, 23), (1, 1), (3, 2)])
def test_output_is_scale_times_the_input_at_every_size(scale: int, unshuffle: int, size: tuple[int, int]) -> None:
    config = replace(SMALL, scale=scale, unshuffle=unshuffle)
    out = net(config)(torch.zeros(2, 1, *size))
    assert out.shape == (2, 1, scale * size[0], scale * size[1])


def test_an_odd_frame_is_padded_by_repeating_its_edge() -> None:
    network = net()
    odd = torch.rand(1, 1, 9, 11)
    even = torch.cat([odd, odd[:, :, -1:]], dim=2)
    even = torch.cat([even, even[..., -1:]], dim=3)
    with torch.inference_mode():
        assert torch.equal(network(odd), network(even)[:, :, :18, :22])


@pytest.mark.parametrize("config", [FEdsrConfig(expand=2), replace(SMALL, expand=1, scale=3, unshuffle=1)])
def test_folding_changes_the_output_by_less_than_1e_5(config: FEdsrConfig) -> None:
    network = net(config)
    with torch.no_grad():
        for parameter in network.parameters():  # the branches that start at zero take part too
            parameter.add_(torch.randn_like(parameter) * 0.02)
    y = torch.rand(1, 1, 21, 30)
    folded = network.fold()
    with torch.inference_mode():
        assert (network(y) - folded(y)).abs().max() < 1e-5
    assert folded.config == replace(config, expand=0)
    assert not any(parameter.requires_grad for parameter in folded.parameters())


def test_a_network_that_starts_training_gives_nothing_for_a_flat_frame_but_its_bias() -> None:
    """The head is centred: brightness alone must not move the interior (the border sees zero padding)."""
    network = net(FEdsrConfig(expand=2, channels=8, blocks=1))
    with torch.inference_mode():
        dark, bright = (network(torch.full((1, 1, 64, 64), level)) for level in (0.2, 0.7))
    assert (dark - bright)[:, :, 48:80, 48:80].abs().max() < 1e-5


def test_layers_are_listed_in_the_order_in_which_they_run() -> None:
    network = net(FEdsrConfig(channels=8, blocks=2))
    order: list[str] = []
    names = {conv: name for name, conv in network.layers()}
    for conv in names:
        conv.register_forward_hook(lambda module, _in, _out: order.append(names[module]))
    network(torch.zeros(1, 1, 8, 8))
    wanted = ["head", "blocks.0.conv1", "blocks.0.conv2", "blocks.1.conv1", "blocks.1.conv2", "close", "tail"]
    assert order == [name for name, _ in network.layers()] == wanted


def test_ranges_are_the_least_and_greatest_input_of_each_convolution() -> None:
    """Head sees luma: code values 51 and 255 are 0.2 and 1; zero padding puts 0 into every range."""
    network = net()
    frame = noise(8, 8) // 2 + 51
    frame[0, 0] = 255
    ranges = input_ranges(network.requires_grad_(False), [frame])
    assert list(ranges) == [name for name, _ in network.layers()]
    assert ranges["head"] == (0.0, 1.0)
    assert ranges["blocks.0.conv2"][0] == 0.0, "ReLU leaves nothing below 0"
    head = network.head(torch.nn.functional.pixel_unshuffle(torch.from_numpy(frame)[None, None].float() / 255, 2))
    assert ranges["blocks.0.conv1"] == pytest.approx((SLOPE * float(head.min()), float(head.max())))


def test_the_residual_is_added_to_bicubic_rounded_and_clipped() -> None:
    network = net()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        assert isinstance(network.tail, torch.nn.Conv2d)
        assert network.tail.bias is not None
        network.tail.bias.fill_(10.4 / 255)
    y = noise(2, 6, 8)
    wanted = np.stack([bicubic(plane, 2) for plane in y]).astype(int) + 10
    assert np.array_equal(enhance_y(network, y), wanted.clip(0, 255))


@pytest.mark.parametrize(
    "values", [{"scale": 5}, {"channels": 0}, {"unshuffle": 3}, {"blocks": -1}, {"channels": 8.0}, {"scale": True}]
)
def test_a_configuration_out_of_range_is_refused(values: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        FEdsrConfig.from_dict(values)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown key 'chanels'"):
        FEdsrConfig.from_dict({"chanels": 8})


def saved(path: Path, network: FEdsr, **changes: object) -> Path:
    fields: dict[str, object] = {"name": "x", "kind": "f-edsr", "version": 1, "config": network.config.to_dict()}
    modelfile.save(path, ModelHeader(**(fields | changes)), network.state_dict())  # type: ignore[arg-type]
    return path


def test_a_saved_network_gives_the_same_output_when_loaded(tmp_path: Path) -> None:
    network = net()
    header, loaded = load_model(saved(tmp_path / "m.safetensors", network))
    assert header.kind in KINDS
    assert loaded.config == SMALL
    y = torch.rand(1, 1, 10, 12)
    with torch.inference_mode():
        assert torch.equal(loaded(y), network(y))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kind": "espcn"}, "unknown kind 'espcn'"),
        ({"config": {"channels": 16, "blocks": 1}}, "its configuration asks for"),
        ({"config": {"channels": 8, "blocks": 2}}, r"tensor 'blocks\.1\.conv1\.bias' has shape None"),
        ({"config": {"channels": 8, "blocks": 10**9}}, "does not fit: f-edsr: blocks"),
        ({"config": {"width": 8}}, "unknown key 'width'"),
    ],
)
def test_a_model_whose_parts_do_not_fit_is_refused(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    with pytest.raises(ModelFormatError, match=says):
        load_model(saved(tmp_path / "m.safetensors", net(), **changes))


def test_shipped_weights_are_small_and_say_what_they_saw() -> None:
    path = SHIPPED / "f-edsr-x2.safetensors"
    header, network = load_model(path)
    assert path.stat().st_size < 1_000_000
    assert (header.name, header.kind, network.config.scale) == ("f-edsr-x2", "f-edsr", 2)
    assert list(header.ranges) == [name for name, _ in network.layers()]
    seen = " ".join(header.trained_on)
    assert "BSDS500, research" in seen
    assert "CC BY-NC" in seen
    assert not any(name in seen for name in ("clips/dev", "people", "sam2", "skv", "bear", "coaster", "lofoten"))


def test_shipped_weights_beat_bicubic_on_an_encoded_scene() -> None:
    """Scene of a seed that no training saw, ÷2, x264 at 250 kb/s, decoded, ×2: measured on the second half."""
    scene = Scene(SceneConfig(width=640, height=360, seed=77, noise=1.0, audio=False))
    pictures = [Picture.from_i420(scene.frame(i).i420, width_px=640, height_px=360) for i in range(12)]
    decoded = degrade(pictures, Encoding(bitrate_bps=250_000, rate=Fraction(25)), scale=2)
    _, network = load_model(SHIPPED / "f-edsr-x2.safetensors")
    gains_db = [
        psnr_db(enhance_y(network, low.y[None])[0], high.y) - psnr_db(bicubic(low.y, 2), high.y)
        for low, high in list(zip(decoded, pictures, strict=True))[6::2]
    ]
    assert min(gains_db) > 0.3
