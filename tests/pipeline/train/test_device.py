"""Steps whose data lie on the device do what the host's steps do; on a CUDA device, recorded or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.models.fedsr import FEdsrConfig, bicubic
from pipeline.train import device as device_module
from pipeline.train.data import Pairs
from pipeline.train.device import STEPS_AT_ONCE, DeviceSteps, Order, chosen_device, resident, steps_at_once
from pipeline.train.loop import Progress, judge, train
from pipeline.train.losses import LOSSES
from pipeline.train.run import Run, TrainConfig

CPU = torch.device("cpu")
NETWORK = FEdsrConfig(channels=8, blocks=1, expand=1)
CONFIG = TrainConfig(
    steps=60, batch=4, rate=1e-2, warmup_steps=5, average=0.9, half_until=0.0, judge_every=20, judge_patches=8
)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


@pytest.fixture
def cpu_config() -> TrainConfig:
    return replace(CONFIG, device="cpu")


def quiet(_: Progress) -> None:
    pass


def order_of(num: int, *, turned: bool, first: int = 0) -> Order:
    rng = np.random.default_rng(first)
    return Order(
        chosen=rng.integers(0, 12, (num, 4)),
        turned=rng.random((num, 3)) < (0.5 if turned else 0.0),
        rates=np.linspace(1e-3, 1e-2, num),
        follow=np.linspace(0.9, 0.1, num),
    )


def steps_of(run: Run, pairs: Pairs) -> DeviceSteps:
    return DeviceSteps(
        run.net,
        run.optimizer,
        run.average,
        resident(pairs, run.device),
        batch=run.config.batch,
        loss=LOSSES[run.config.loss],
        graphs=run.config.cuda_graph,
    )


def weights(run: Run) -> list[torch.Tensor]:
    return [p.detach().cpu() for p in run.net.parameters()] + [x.cpu() for x in run.average.values()]


def test_auto_is_cuda_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert chosen_device("auto").type == kind
        assert chosen_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match="no CUDA device here"):
        chosen_device("cuda")
    with pytest.raises(ConfigError, match="unknown device 'gpu'"):
        TrainConfig(device="gpu")


def test_the_host_does_each_step_by_itself() -> None:
    assert steps_at_once(CPU) == 1
    assert steps_at_once(torch.device("cuda")) == STEPS_AT_ONCE > 1


def test_resident_pairs_hold_the_up_scale_of_opencv() -> None:
    """More pairs than are copied at once (1024), so that the seam counts too; scale 3."""
    rng = np.random.default_rng(1)
    low = rng.integers(0, 256, (1030, 4, 4), np.uint8)
    high = rng.integers(0, 256, (1030, 12, 12), np.uint8)
    there = resident(Pairs(low=low, high=high), CPU)
    assert len(there) == 1030
    assert np.array_equal(there.low.numpy(), low)
    assert np.array_equal(there.true.numpy(), high)
    for i in (0, 1023, 1024, 1029):
        assert np.array_equal(there.base[i].numpy(), bicubic(low[i], 3))


def test_pairs_that_do_not_fit_the_device_stay_with_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    free = device_module.RESERVE_BYTES + 100
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (free, 2 * free))
    cuda = torch.device("cuda")
    assert device_module._home(100, cuda) == cuda
    assert device_module._home(101, cuda) == CPU
    assert device_module._home(1 << 50, CPU) == CPU


def test_steps_on_the_device_equal_those_of_the_host(pairs: Pairs, cpu_config: TrainConfig) -> None:
    """Nothing turned, the up-scales are equal, and so are losses, weights and average but for the order of sums."""
    host, other = (Run.start(NETWORK, cpu_config) for _ in range(2))
    from pipeline.train.loop import _HostSteps

    order = order_of(6, turned=False)
    losses = _HostSteps(host, pairs).advance(order, half=False)
    assert steps_of(other, pairs).advance(order, half=False) == pytest.approx(losses, rel=1e-4)
    start = weights(Run.start(NETWORK, cpu_config))
    for one, two, before in zip(weights(host), weights(other), start, strict=True):
        assert torch.allclose(one, two, atol=1e-4)
        assert not torch.allclose(one, before, atol=1e-3)


def test_patches_are_turned_as_the_host_turns_them(pairs: Pairs) -> None:
    """All eight orientations; the up-scale may differ by a code value: OpenCV rounds between rows and columns."""
    from pipeline.train.loop import _batch

    chosen_8N = np.tile(np.arange(4), (8, 1))
    turned_83 = np.array([[i & 4, i & 2, i & 1] for i in range(8)], np.bool_)
    there = resident(pairs, CPU)
    for i in range(8):
        for x_MHW, wanted_N1HW, slack in zip(
            (there.low, there.base, there.true),
            _batch(pairs, chosen_8N[i], turned_83[i]),
            (0.0, 1 / 255, 0.0),
            strict=True,
        ):
            patches_1N1HW = x_MHW[torch.from_numpy(chosen_8N[i])][None, :, None]
            got_N1HW = device_module._turned(patches_1N1HW, torch.from_numpy(turned_83[i : i + 1]))[0].float() / 255
            assert float((got_N1HW - wanted_N1HW).abs().max()) <= slack + 1e-6


def test_two_orders_do_what_one_of_both_does(pairs: Pairs, cpu_config: TrainConfig) -> None:
    whole, parts = (Run.start(NETWORK, cpu_config) for _ in range(2))
    order = order_of(5, turned=True)
    losses = steps_of(whole, pairs).advance(order, half=False)
    steps, got = steps_of(parts, pairs), []
    for part in (slice(0, 3), slice(3, 5)):
        got += steps.advance(
            Order(
                chosen=order.chosen[part],
                turned=order.turned[part],
                rates=order.rates[part],
                follow=order.follow[part],
            ),
            half=False,
        )
    assert got == losses
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(parts), strict=True))


def test_a_run_on_resident_pairs_learns_as_one_on_the_hosts_pairs(pairs: Pairs, cpu_config: TrainConfig) -> None:
    """The same seed gives the same patches; the half-precision share and the judging are the loop's."""
    config = replace(cpu_config, half_until=0.1)
    gains = []
    for material in (pairs, resident(pairs, CPU)):
        run = Run.start(NETWORK, config)
        train(run, material, pairs, report=quiet)
        assert [point[0] for point in run.curve] == [20, 40, 60]
        gains.append(run.curve[-1][2])
    assert gains[0] > 0.1
    assert gains[1] == pytest.approx(gains[0], abs=0.05)


@needs_cuda
def test_a_recorded_step_does_what_a_started_one_does(pairs: Pairs) -> None:
    losses = []
    for graph in (True, False):
        run = Run.start(NETWORK, replace(CONFIG, device="cuda", cuda_graph=graph, half_until=0.5))
        train(run, pairs, pairs, report=quiet)
        assert run.step == 60
        losses.append([point[1] for point in run.curve])
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@needs_cuda
def test_a_cuda_run_learns_what_a_cpu_run_learns(pairs: Pairs) -> None:
    gains = []
    for device in ("cpu", "cuda"):
        run = Run.start(NETWORK, replace(CONFIG, device=device))
        train(run, pairs, pairs, report=quiet)
        gains.append(run.curve[-1][2])
    assert gains[1] == pytest.approx(gains[0], abs=0.05)


@needs_cuda
def test_a_network_without_unshuffling_trains_on_cuda(pairs: Pairs) -> None:
    """Its head has one input channel, whose stride says nothing: gradient and weight must still match for Adam."""
    run = Run.start(replace(NETWORK, unshuffle=1), replace(CONFIG, device="cuda"))
    before = weights(run)
    train(run, pairs, pairs, until=10, report=quiet)
    after = weights(run)
    assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(bool(torch.isfinite(x).all()) for x in after)


@needs_cuda
@pytest.mark.parametrize(("first", "then"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_checkpoint_goes_on_on_another_device(pairs: Pairs, tmp_path: Path, first: str, then: str) -> None:
    run = Run.start(NETWORK, replace(CONFIG, device=first))
    train(run, pairs, pairs, until=30, report=quiet)
    run.save(tmp_path / "run.ckpt")
    other = Run.load(tmp_path / "run.ckpt", NETWORK, replace(CONFIG, device=then))
    assert all(torch.equal(a, b) for a, b in zip(weights(run), weights(other), strict=True))
    train(other, pairs, pairs, report=quiet)
    assert judge(other.averaged(), pairs) > 0.1
