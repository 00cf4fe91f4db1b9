"""The training of TCSR: state, checkpoint and loop. Adam, a cosine to zero, a moving average of the weights.

As F-EDSR's (`loop.py`): which windows a step sees depends on the seed and its number alone, so a run that is stopped
and resumed gives the same weights on a CPU. Plain PyTorch on every device; windows lie in the host's memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.models.ofrnet import halved
from pipeline.models.tcsr import MARGIN_PX, Tcsr, TcsrConfig
from pipeline.train import checkpoint
from pipeline.train.device import DEVICES, chosen_device
from pipeline.train.loop import Progress
from pipeline.train.losses import flow_l1, psnr_gain_db, refining, three_part
from pipeline.train.windows import Windows


@dataclass(frozen=True, kw_only=True, slots=True)
class RefineConfig:
    """How TCSR is trained."""

    steps: int = 20_000
    batch: int = 12  # windows a step
    rate: float = 1.2e-3  # Adam's first learning rate; falls to 0 along a cosine
    linear_share: float = 0.04  # of it, for the linear path: its 25 weights a neighbour act on every pixel
    warmup_steps: int = 100  # over which the rate rises from 0
    alpha: float = 0.05  # of L_flow1, in the full form
    beta: float = 0.2  # of L_flow2, likewise
    wrong_share: float = 0.01  # of the batches have another window's neighbours: what does not fit is to be left out
    average: float = 0.999  # decay of the moving average of the weights, which is what ships
    half_until: float = 0.85  # share of the steps run in bfloat16
    judge_every: int = 500  # steps between two looks at the held-out windows
    judge_windows: int = 768
    threads: int = 1
    device: str = "auto"  # "cpu", "cuda", or "auto": CUDA where there is one
    seed: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < self.beta < 1:
            raise ConfigError(
                f"alpha {self.alpha} and beta {self.beta}", where="train", hint="alpha < beta < 1, both at least 0"
            )
        if self.device not in DEVICES:
            raise ConfigError(f"unknown device '{self.device}'", where="device", hint=f"known are {', '.join(DEVICES)}")


@dataclass(kw_only=True, slots=True)
class RefineRun:
    """The state of a run: all that a checkpoint holds. Its tensors lie on the device of `config`."""

    net: Tcsr
    config: RefineConfig
    average: dict[str, Tensor]  # moving average of the parameters
    optimizer: torch.optim.Adam
    step: int = 0
    curve: list[tuple[int, float, float]] = field(default_factory=list)  # (step, mean loss, gain in dB)

    @classmethod
    def start(cls, network: TcsrConfig, config: RefineConfig) -> RefineRun:
        """Return a run at step 0; its weights come from the seed, whatever the device.

        Raises:
            ConfigError: there is no such device here.
        """
        device = chosen_device(config.device)
        torch.manual_seed(config.seed)
        net = Tcsr(network).to(device)
        linear = [p for name, p in net.named_parameters() if name.startswith("fusion.linear.")]
        others = [p for name, p in net.named_parameters() if not name.startswith("fusion.linear.")]
        groups = [{"params": others, "share": 1.0}]
        if linear:
            groups.append({"params": linear, "share": config.linear_share})
        return cls(
            net=net,
            config=config,
            average={name: p.detach().clone() for name, p in net.named_parameters()},
            optimizer=torch.optim.Adam(groups, lr=config.rate, betas=(0.9, 0.99)),
        )

    @property
    def device(self) -> torch.device:
        """Where the run's tensors lie."""
        return next(self.net.parameters()).device

    def averaged(self) -> Tcsr:
        """Return a network for inference, with the averaged weights, on the CPU."""
        net = Tcsr(self.net.config)
        net.load_state_dict(self.average)
        return net.eval().requires_grad_(False)

    def save(self, path: Path) -> None:
        """Write a checkpoint, complete or not at all; safetensors, no pickle.

        Raises:
            StorageError: it cannot be written.
        """
        checkpoint.save(path, self, network=self.net.config.to_dict(), steps=self.config.steps)

    @classmethod
    def load(cls, path: Path, network: TcsrConfig, config: RefineConfig) -> RefineRun:
        """Return the run that `save` wrote to `path`, to go on with.

        Raises:
            ModelFormatError: it is no checkpoint, or one of another network or number of steps.
        """
        run = cls.start(network, config)
        checkpoint.restore(path, run, network=network.to_dict(), steps=config.steps)
        return run


def refine(
    run: RefineRun,
    windows: Windows,
    held: Windows,
    *,
    until: int | None = None,
    report: Callable[[Progress], None],
) -> None:
    """Train `run` up to step `until` (default: its last), in place; `report` is called after each step."""
    torch.set_num_threads(run.config.threads)
    judged = _judged(held, run.config)
    losses: list[float] = []
    gain_db = run.curve[-1][2] if run.curve else 0.0
    last = run.config.steps if until is None else min(until, run.config.steps)
    while run.step < last:
        loss = _step(run, windows)
        run.step += 1
        assert math.isfinite(loss), f"the loss is {loss} at step {run.step}"
        losses.append(loss)
        if run.step % run.config.judge_every == 0 or run.step == run.config.steps:
            gain_db = judge(run.averaged().to(run.device), judged)
            run.curve.append((run.step, float(np.mean(losses)), gain_db))
            losses.clear()
        report(Progress(step=run.step, steps=run.config.steps, loss=loss, gain_db=gain_db))


def judge(net: Tcsr, held: Windows) -> float:
    """Return the mean gain over F-EDSR on the windows `held`, in dB, computed where `net` lies."""
    device = next(net.parameters()).device
    gains = []
    with torch.inference_mode():
        for start in range(0, len(held), 48):
            target, neighbours, true = _tensors(held.near[start : start + 48], held.true[start : start + 48], device)
            out = (target + net(target, neighbours)).clamp(0, 1)
            gains.append(psnr_gain_db(*(_inner(x) for x in (out, true, target))))
    return float(torch.cat(gains).mean()) if gains else 0.0


def _step(run: RefineRun, windows: Windows) -> float:
    config = run.config
    rng = np.random.default_rng([config.seed, run.step])
    chosen = np.sort(rng.integers(0, len(windows), config.batch))
    near, true = _turned(windows.near[chosen], windows.true[chosen], rng)
    if rng.random() < config.wrong_share:
        near = np.concatenate([near[:, :1], np.roll(near[:, 1:], 1, axis=0)], axis=1)
    target, neighbours, truth = _tensors(near, true, run.device)
    warm = min(1.0, (run.step + 1) / max(1, config.warmup_steps))
    rate = config.rate * warm * 0.5 * (1 + math.cos(math.pi * run.step / config.steps))
    for group in run.optimizer.param_groups:
        group["lr"] = rate * group["share"]
    half = run.step < config.half_until * config.steps
    loss = _loss(run, target, neighbours, truth, half=half)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    run.optimizer.step()
    kept = min(config.average, (run.step + 1) / (run.step + 11))  # early on a short one, see loop._kept
    with torch.no_grad():
        for name, parameter in run.net.named_parameters():
            run.average[name].lerp_(parameter, 1 - kept)
    return float(loss.detach())


def _loss(run: RefineRun, target: Tensor, neighbours: Tensor, true: Tensor, *, half: bool) -> Tensor:
    net = run.net
    with torch.autocast(run.device.type, torch.bfloat16, enabled=half and not net.aligns):
        # Flows in bfloat16 would be coarser than a pixel, so the full form stays in float32.
        aligned = net.align(target, neighbours)
        residual = net.fusion(target, aligned.full)
    sr = refining(*(_inner(x) for x in (target + residual.float(), true, target)))
    if aligned.half is None:
        return sr
    config = run.config
    full, small = flow_l1(aligned.full, target), flow_l1(aligned.half, halved(target))
    return three_part(sr, full, small, alpha=config.alpha, beta=config.beta)


def _inner(x_N1HW: Tensor) -> Tensor:
    """Leave out what a frame has as margin: there the network sees its own padding."""
    return x_N1HW[:, :, MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]


def _judged(held: Windows, config: RefineConfig) -> Windows:
    """The same windows in every run on the same set: spread evenly over it."""
    chosen = np.unique(np.linspace(0, max(0, len(held) - 1), config.judge_windows).astype(int))[: len(held)]
    return Windows(near=np.asarray(held.near[chosen]), true=np.asarray(held.true[chosen]))


def _turned(
    near: NDArray[np.uint8], true: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return both in one of the eight orientations of a square; a lying picture is rare in video."""
    if rng.random() < 0.5:
        near, true = near[..., ::-1, :], true[..., ::-1, :]
    if rng.random() < 0.5:
        near, true = near[..., ::-1], true[..., ::-1]
    if rng.random() < 0.25:
        near, true = near.swapaxes(-1, -2), true.swapaxes(-1, -2)
    return near, true


def _tensors(near: NDArray[np.uint8], true: NDArray[np.uint8], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return target (N, 1, P, P), neighbours (N, K, P, P) and truth (N, 1, P, P) on `device`, float in 0..1."""
    x = torch.from_numpy(np.array(near)).to(device).float() / 255  # a copy: what is read from the cache is read-only
    y = torch.from_numpy(np.array(true)).to(device).float() / 255
    return x[:, :1], x[:, 1:], y[:, None]
