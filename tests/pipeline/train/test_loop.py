"""Training: it learns, it is deterministic, and a resumed run equals one that was never stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import ConfigError, ModelFormatError, StorageError
from pipeline.models.fedsr import FEdsrConfig
from pipeline.train.checkpoint import steps_of
from pipeline.train.data import Pairs
from pipeline.train.loop import Progress, judge, train
from pipeline.train.losses import charbonnier, mse, psnr_gain_db, relative_mse
from pipeline.train.run import Run, TrainConfig

NETWORK = FEdsrConfig(channels=8, blocks=1, expand=1)
CONFIG = TrainConfig(
    steps=60,
    batch=4,
    rate=1e-2,
    warmup_steps=5,
    average=0.9,
    half_until=0.0,
    judge_every=20,
    judge_patches=8,
    device="cpu",
)


def quiet(_: Progress) -> None:
    pass


def weights(run: Run) -> list[torch.Tensor]:
    return [p.detach().clone() for p in run.net.parameters()] + list(run.average.values())


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_few_steps_lower_the_loss_and_beat_bicubic(pairs: Pairs) -> None:
    run = Run.start(NETWORK, replace(CONFIG, steps=100, judge_patches=len(pairs)))
    losses: list[float] = []
    train(run, pairs, pairs, report=lambda reached: losses.append(reached.loss))
    assert len(losses) == run.step == 100
    assert np.mean(losses[-10:]) < 0.93 * np.mean(losses[:10])
    assert [point[0] for point in run.curve] == [20, 40, 60, 80, 100]
    assert run.curve[-1][2] == judge(run.averaged(), pairs) > 0.2


def test_a_resumed_run_equals_an_uninterrupted_one(pairs: Pairs, tmp_path: Path) -> None:
    whole = Run.start(NETWORK, CONFIG)
    train(whole, pairs, pairs, report=quiet)

    first = Run.start(NETWORK, CONFIG)
    train(first, pairs, pairs, until=27, report=quiet)
    first.save(tmp_path / "run.ckpt")
    resumed = Run.load(tmp_path / "run.ckpt", NETWORK, CONFIG)
    assert resumed.step == 27
    assert same(weights(resumed), weights(first))
    train(resumed, pairs, pairs, report=quiet)

    assert same(weights(resumed), weights(whole))
    assert [point[0] for point in resumed.curve] == [point[0] for point in whole.curve] == [20, 40, 60]
    assert [p.name for p in tmp_path.iterdir()] == ["run.ckpt"]


def test_another_seed_gives_other_weights(pairs: Pairs) -> None:
    runs = [Run.start(NETWORK, replace(CONFIG, seed=seed)) for seed in (1, 1, 2)]
    for run in runs:
        train(run, pairs, pairs, until=3, report=quiet)
    assert same(weights(runs[0]), weights(runs[1]))
    assert not same(weights(runs[0]), weights(runs[2]))


def test_a_run_follows_another_number_of_steps_that_is_given_on_the_way(pairs: Pairs) -> None:
    """The last of 20 steps has the rate 0.01 · ½ · (1 + cos(19/20 · π)) = 0.01 · ½ · (1 − 0.987688) = 6.1558e-5."""
    run = Run.start(NETWORK, CONFIG)

    def shorten(reached: Progress) -> None:
        if reached.step == 10:
            run.config = replace(CONFIG, steps=20)

    train(run, pairs, pairs, report=shorten)
    assert run.step == 20
    assert [point[0] for point in run.curve] == [20]
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(6.1558e-5, rel=1e-4)


def test_the_first_share_of_steps_may_run_in_half_precision(pairs: Pairs) -> None:
    run = Run.start(NETWORK, replace(CONFIG, steps=4, half_until=0.5))
    train(run, pairs, pairs, report=quiet)
    assert all(parameter.dtype == torch.float32 for parameter in run.net.parameters())
    assert all(bool(torch.isfinite(parameter).all()) for parameter in run.net.parameters())


def test_a_checkpoint_of_another_run_is_refused(pairs: Pairs, tmp_path: Path) -> None:
    run = Run.start(NETWORK, CONFIG)
    train(run, pairs, pairs, until=1, report=quiet)
    run.save(tmp_path / "run.ckpt")
    assert steps_of(tmp_path / "run.ckpt") == 60
    with pytest.raises(ModelFormatError, match="another network"):
        Run.load(tmp_path / "run.ckpt", replace(NETWORK, channels=16), CONFIG)
    with pytest.raises(ModelFormatError, match="another number of steps"):
        Run.load(tmp_path / "run.ckpt", NETWORK, replace(CONFIG, steps=61))


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    for data in (b"", b"\x80\x04" + bytes(64)):
        path.write_bytes(data)
        with pytest.raises(ModelFormatError, match="no checkpoint"):
            Run.load(path, NETWORK, CONFIG)
        with pytest.raises(ModelFormatError, match="no checkpoint"):
            steps_of(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ModelFormatError, match="no checkpoint"):
        Run.load(path, NETWORK, CONFIG)


def test_a_checkpoint_that_cannot_be_written_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="folder: the checkpoint cannot be written"):
        Run.start(NETWORK, CONFIG).save(tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown loss 'l7'"):
        TrainConfig(loss="l7")


def test_losses_by_hand() -> None:
    """Two patches of one pixel: errors 0.3 and 0.1 where bicubic's are 0.3 and 0.2.

    MSE (0.09 + 0.01) / 2 = 0.05. Charbonnier: √(0.09 + 1e-6) ≈ 0.3000017, √(0.01 + 1e-6) ≈ 0.1000050: mean 0.2000033.
    Relative: 0.09 / 0.09002 and 0.01 / 0.04002: mean (0.999778 + 0.249875) / 2 = 0.624826.
    """
    out, true, base = (torch.tensor(v).reshape(2, 1, 1, 1) for v in ([0.8, 0.4], [0.5, 0.5], [0.2, 0.7]))
    assert float(mse(out, true, base)) == pytest.approx(0.05)
    assert float(charbonnier(out, true, base)) == pytest.approx(0.2000033, abs=1e-6)
    assert float(relative_mse(out, true, base)) == pytest.approx(0.624826, abs=1e-5)


def test_gain_of_half_the_error_is_six_decibels() -> None:
    """10·log10(0.2² / 0.1²) = 6.0206 dB; the floor of 8-bit rounding, 1.3e-6, takes 0.0004 of it."""
    out, true, base = (torch.tensor([v]).reshape(1, 1, 1, 1) for v in (0.4, 0.5, 0.7))
    assert float(psnr_gain_db(out, true, base)) == pytest.approx(6.0206, abs=1e-3)
