"""The training of TCSR: it learns from neighbours, is deterministic, and a resumed run equals one never stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError, ModelFormatError
from pipeline.models.tcsr import TcsrConfig
from pipeline.train.drawn import sheet
from pipeline.train.loop import Progress
from pipeline.train.losses import flow_l1, refining, three_part
from pipeline.train.refining import RefineConfig, RefineRun, judge, refine
from pipeline.train.windows import Windows

NETWORK = TcsrConfig(channels=4, features=8, unshuffle=2)
FULL = TcsrConfig(form="full", unshuffle=1, channels=4, features=8, align_blocks=0)
CONFIG = RefineConfig(
    steps=30, batch=4, rate=4e-3, linear_share=0.5, warmup_steps=5, average=0.9, half_until=0.0, judge_every=10,
    judge_windows=8, device="cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def windows() -> Windows:
    """Sheets with noise that is another in each neighbour: their mean is nearer to the truth than the target."""
    rng = np.random.default_rng(5)
    true = np.stack([sheet(48, 48, rng).y for _ in range(12)])
    near = true[:, None] + rng.normal(0, 8, (12, 3, 48, 48))
    return Windows(near=near.round().clip(0, 255).astype(np.uint8), true=true)


def quiet(_: Progress) -> None:
    pass


def weights(run: RefineRun) -> list[torch.Tensor]:
    return [p.detach().clone() for p in run.net.parameters()] + list(run.average.values())


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_few_steps_lower_the_loss_and_gain_over_the_target(windows: Windows) -> None:
    run = RefineRun.start(NETWORK, replace(CONFIG, steps=120, judge_windows=len(windows)))
    losses: list[float] = []
    refine(run, windows, windows, report=lambda reached: losses.append(reached.loss))
    assert len(losses) == run.step == 120
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    assert run.curve[-1][2] == judge(run.averaged(), windows) > 1.0


def test_the_full_form_learns_too_and_moves_its_flow(windows: Windows) -> None:
    run = RefineRun.start(FULL, replace(CONFIG, steps=10))
    losses: list[float] = []
    before = [p.detach().clone() for p in run.net.flow.parameters()] if run.net.flow else []
    refine(run, windows, windows, report=lambda reached: losses.append(reached.loss))
    assert np.isfinite(losses).all()
    assert run.net.flow is not None
    assert not same(before, list(run.net.flow.parameters()))


def test_a_resumed_run_equals_an_uninterrupted_one(windows: Windows, tmp_path: Path) -> None:
    whole = RefineRun.start(NETWORK, CONFIG)
    refine(whole, windows, windows, report=quiet)
    first = RefineRun.start(NETWORK, CONFIG)
    refine(first, windows, windows, until=17, report=quiet)
    first.save(tmp_path / "run.ckpt")
    resumed = RefineRun.load(tmp_path / "run.ckpt", NETWORK, CONFIG)
    assert resumed.step == 17 and same(weights(resumed), weights(first))
    refine(resumed, windows, windows, report=quiet)
    assert same(weights(resumed), weights(whole))
    assert [point[0] for point in resumed.curve] == [10, 20, 30]
    assert [p.name for p in tmp_path.iterdir()] == ["run.ckpt"]


def test_most_steps_may_run_in_half_precision(windows: Windows) -> None:
    run = RefineRun.start(NETWORK, replace(CONFIG, steps=4, half_until=0.5, wrong_share=1.0))
    refine(run, windows, windows, report=quiet)
    assert all(p.dtype == torch.float32 and bool(torch.isfinite(p).all()) for p in run.net.parameters())


def test_a_checkpoint_of_another_run_or_none_is_refused(windows: Windows, tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    run = RefineRun.start(NETWORK, CONFIG)
    refine(run, windows, windows, until=1, report=quiet)
    run.save(path)
    with pytest.raises(ModelFormatError, match="another network"):
        RefineRun.load(path, replace(NETWORK, channels=8), CONFIG)
    with pytest.raises(ModelFormatError, match="another number of steps"):
        RefineRun.load(path, NETWORK, replace(CONFIG, steps=31))
    path.write_bytes(b"nothing")
    with pytest.raises(ModelFormatError, match="no checkpoint"):
        RefineRun.load(path, NETWORK, CONFIG)


@pytest.mark.parametrize("values", [{"alpha": 0.3, "beta": 0.2}, {"beta": 1.0}, {"alpha": -0.1}])
def test_alpha_lies_below_beta_below_one(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="alpha < beta < 1"):
        RefineConfig(**values)  # type: ignore[arg-type]


def test_losses_by_hand() -> None:
    """Two crops of one pixel, errors 0.1 and 0.2 where F-EDSR's are 0.2 and 0.2, floor 1e-4.

    0.01 / 0.0401 = 0.249377 and 0.04 / 0.0401 = 0.997506: mean 0.623441. Flow: |0.4 − 0.5| and |0.9 − 0.5|: 0.25.
    All three parts: 0.6 + 0.2 · 0.25 + 0.1 · 0.5 = 0.7.
    """
    out, true, base = (torch.tensor(v).reshape(2, 1, 1, 1) for v in ([0.6, 0.7], [0.5, 0.5], [0.3, 0.3]))
    assert float(refining(out, true, base)) == pytest.approx(0.623441, abs=1e-6)
    aligned = torch.tensor([0.4, 0.9]).reshape(1, 2, 1, 1)
    assert float(flow_l1(aligned, torch.full((1, 1, 1, 1), 0.5))) == pytest.approx(0.25)
    parts = (torch.tensor(value) for value in (0.6, 0.25, 0.5))
    assert float(three_part(*parts, alpha=0.1, beta=0.2)) == pytest.approx(0.7)
