"""Every runtime gives what the reference in PyTorch gives: the same shape, a code value apart at most."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import pipeline.models.runtime.engine
from pipeline.errors import ConfigError, ModelError
from pipeline.models import SHIPPED
from pipeline.models.fedsr import FEdsr, FEdsrConfig, bicubic, enhance_y, input_ranges
from pipeline.models.load import load_model
from pipeline.models.runtime import RUNTIMES, Engine, open_engine
from pipeline.models.runtime.choose import INT8_FLOOR_DB, choose, pattern
from pipeline.models.runtime.engine import MARGIN_PX, windows
from pipeline.wire.frames import Size

FLOAT = [name for name, runtime in RUNTIMES.items() if not runtime.int8]


def network(**config: int) -> FEdsr:
    """A network whose weights are random, with a residual of some 10 code values, as a trained one's."""
    torch.manual_seed(3)
    net = FEdsr(FEdsrConfig(**{"channels": 8, "blocks": 1, **config})).eval().requires_grad_(False)
    net.tail.weight.mul_(0.2)
    return net


def size(width: int, height: int) -> Size:
    return Size(width_px=width, height_px=height)


def moving(frame: Size, n: int) -> NDArray[np.uint8]:
    return np.stack([np.roll(pattern(frame), 3 * i, axis=1) for i in range(n)])


def opened(name: str, net: FEdsr, frame: Size) -> Engine:
    return open_engine(name, net, frame, ranges=input_ranges(net, [pattern(size(128, 96))]))


def reference(net: FEdsr, y_NHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The network in PyTorch on frames whose border is repeated, as every engine does it."""
    padded_NHW = np.pad(y_NHW, ((0, 0), (MARGIN_PX, MARGIN_PX + 1), (MARGIN_PX, MARGIN_PX + 1)), mode="edge")
    padded_NHW = padded_NHW[:, : padded_NHW.shape[1] // 2 * 2, : padded_NHW.shape[2] // 2 * 2]
    s = net.config.scale
    (height, width), m = y_NHW.shape[1:], s * MARGIN_PX
    return enhance_y(net, padded_NHW)[:, m : m + s * height, m : m + s * width]


def db(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    mse = float(np.mean((a.astype(float) - b) ** 2))
    return float("inf") if mse == 0 else 10 * np.log10(255**2 / mse)


@pytest.mark.parametrize("name", FLOAT)
@pytest.mark.parametrize("frame", [size(64, 48), size(33, 21), size(1, 1)], ids=str)
def test_float_runtimes_agree_with_the_reference_to_a_code_value(name: str, frame: Size) -> None:
    net, y_NHW = network(), moving(frame, 2)
    out_NHW = opened(name, net, frame).upscale(y_NHW)
    assert out_NHW.shape == (2, 2 * frame.height_px, 2 * frame.width_px)
    assert np.abs(out_NHW.astype(int) - reference(net, y_NHW)).max() <= 1


@pytest.mark.parametrize("config", [{"scale": 3}, {"scale": 4, "unshuffle": 1}, {"unshuffle": 1, "blocks": 0}], ids=str)
@pytest.mark.parametrize("name", FLOAT)
def test_every_configuration_runs_in_every_float_runtime(name: str, config: dict[str, int]) -> None:
    net, frame = network(**config), size(31, 17)
    y_NHW = moving(frame, 1)
    out_NHW = opened(name, net, frame).upscale(y_NHW)
    assert np.abs(out_NHW.astype(int) - reference(net, y_NHW)).max() <= 1


@pytest.mark.parametrize("frame", [size(128, 96), size(129, 95)], ids=str)
def test_int8_stays_close_to_the_reference(frame: Size) -> None:
    net, y_NHW = network(channels=32, blocks=2), moving(frame, 1)
    assert db(opened("openvino-int8", net, frame).upscale(y_NHW), reference(net, y_NHW)) >= INT8_FLOOR_DB


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_frame_does_not_depend_on_its_batch(name: str) -> None:
    frame = size(40, 30)
    engine, y_NHW = opened(name, network(), frame), moving(frame, 3)
    together = engine.upscale(y_NHW)
    apart = [engine.upscale(y_HW[None])[0] for y_HW in reversed(y_NHW)][::-1]
    assert np.array_equal(together, np.stack(apart))


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize("frame", [size(32, 200), size(31, 201)], ids=str)
def test_a_large_frame_in_strips_is_the_whole_frame(name: str, frame: Size, monkeypatch: pytest.MonkeyPatch) -> None:
    net, y_NHW = network(), moving(frame, 1)
    whole = opened(name, net, frame).upscale(y_NHW)
    monkeypatch.setattr(pipeline.models.runtime.engine, "WINDOW_PX", 32 * 80)
    engine = opened(name, net, frame)
    assert engine.window.height_px < 90
    difference = np.abs(engine.upscale(y_NHW).astype(int) - whole)
    # Sums in float are rounded in another order at another shape; a wrong halo would move whole rows.
    assert difference.max() <= 1 and np.count_nonzero(difference) <= whole.size / 500


@given(
    width=st.integers(1, 5000),
    height=st.integers(1, 2500).map(lambda n: 2 * n),
    reach=st.integers(0, 20).map(lambda n: 2 * n),
    limit=st.integers(1, 3_000_000),
)
def test_strips_tile_the_rows_and_see_what_they_keep(width: int, height: int, reach: int, limit: int) -> None:
    found = windows(size(width, height), reach, limit)
    assert [row for w in found for row in (w.start, w.stop)][1:-1] == [
        row for w in found[1:] for row in (w.start, w.start)
    ]
    assert (found[0].start, found[-1].stop) == (0, height)
    assert len({w.bottom - w.top for w in found}) == 1
    for w in found:
        assert w.top % 2 == 0 and 0 <= w.top <= w.start < w.stop <= w.bottom <= height
        assert w.top == 0 or w.start - w.top >= reach
        assert w.bottom == height or w.bottom - w.stop >= reach


def test_a_bright_frame_has_no_ring() -> None:
    """All the network's padding is zero, which would be a ring of 4 code values on level 235."""
    header, net = load_model(SHIPPED / "f-edsr-x2.safetensors")
    for name in ("openvino-int8", "openvino-fp32"):
        engine = open_engine(name, net.fold(), size(40, 30), ranges=header.ranges)
        assert np.abs(engine.residual(np.full((1, 30, 40), 220, np.uint8))).max() <= 2, name


def test_the_residual_is_what_is_added_to_bicubic() -> None:
    frame = size(24, 18)
    engine, y_NHW = opened("openvino-fp32", network(), frame), moving(frame, 2)
    base_NHW = np.stack([bicubic(y_HW, 2) for y_HW in y_NHW]).astype(int)
    residual_NHW = engine.residual(y_NHW)
    assert residual_NHW.dtype == np.int8 and residual_NHW.any()
    assert np.array_equal(engine.upscale(y_NHW), (base_NHW + residual_NHW).clip(0, 255))


def test_sums_beyond_white_and_black_are_clipped() -> None:
    """Residual +100 everywhere on white, and −100 on black: the tail's bias alone (100 / 255), all weights 0."""
    net = network()
    net.tail.weight.zero_()
    for level, bias, wanted in ((255, 100, 255), (0, -100, 0), (100, 100, 200)):
        net.tail.bias.fill_(bias / 255)
        y_NHW = np.full((1, 8, 8), level, np.uint8)
        assert (opened("openvino-fp32", net, size(8, 8)).upscale(y_NHW) == wanted).all()


def test_the_result_is_written_where_the_caller_says() -> None:
    frame = size(16, 12)
    engine, y_NHW = opened("openvino-int8", network(), frame), moving(frame, 2)
    data = np.zeros((2, 32 * 24 + 7), np.uint8)
    out_NHW = data[:, : 32 * 24].reshape(2, 24, 32)
    engine.upscale(y_NHW, out_NHW)
    assert np.array_equal(out_NHW, engine.upscale(y_NHW)) and not data[:, 32 * 24 :].any()


def test_an_unknown_runtime_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="openvino-int8, openvino-fp32, onnx, pytorch"):
        open_engine("tensorrt", network(), size(8, 8))


def test_a_runtime_is_refused_on_a_device_that_it_does_not_run_on() -> None:
    with pytest.raises(ConfigError, match="runs on cpu"):
        open_engine("onnx", network(), size(8, 8), device="cuda:0")


def test_int8_without_ranges_is_refused() -> None:
    with pytest.raises(ModelError, match="range for the input of 'head'"):
        open_engine("openvino-int8", network(), size(8, 8))


def test_choose_takes_no_int8_without_ranges() -> None:
    assert choose(network(), size(64, 48)) in FLOAT


def test_choose_takes_no_int8_whose_output_is_wrong() -> None:
    """Ranges a thousandth of the true ones cut every activation off."""
    net = network(channels=32, blocks=2)
    net.tail.weight.mul_(5)
    ranges = {
        name: (low / 1000, high / 1000) for name, (low, high) in input_ranges(net, [pattern(size(64, 48))]).items()
    }
    assert choose(net, size(64, 48), ranges=ranges) in FLOAT


def test_choose_on_a_gpu_takes_the_one_that_runs_there() -> None:
    assert choose(network(), size(64, 48), device="cuda:0") == "pytorch"


def test_the_table_names_what_its_modules_hold() -> None:
    for name, runtime in RUNTIMES.items():
        module = importlib.import_module(f"pipeline.models.runtime.{runtime.module}")
        assert getattr(module, runtime.engine).name == name
