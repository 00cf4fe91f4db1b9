"""The training loop of F-EDSR: Adam, a cosine to zero, a moving average of the weights; resumable, deterministic.

Which patches a step sees depends on the seed and the step's number alone, so a run that is stopped and resumed gives
the same weights as one that was not (same machine, same thread count).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.errors import ConfigError, ModelFormatError, StorageError
from pipeline.models.fedsr import FEdsr, FEdsrConfig
from pipeline.train.data import Pairs
from pipeline.train.losses import LOSSES, psnr_gain_db

BORDER_PX = 12  # of a high-resolution patch, where the network sees the zero padding
BORDER_WEIGHT = 0.3  # of a squared difference there: a patch has far more border than a frame, but a frame has one


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How a network is trained."""

    steps: int = 30_000
    batch: int = 12  # patches a step
    rate: float = 1e-3  # Adam's first learning rate; falls to 0 along a cosine
    warmup_steps: int = 100  # over which the rate rises from 0
    loss: str = "relative"  # a key of LOSSES
    average: float = 0.999  # decay of the moving average of the weights, which is what ships
    half_until: float = 0.85  # share of the steps run in bfloat16 (twice as fast on CPUs that have it)
    judge_every: int = 500  # steps between two looks at the held-out patches
    judge_patches: int = 768
    threads: int = 1
    seed: int = 1

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ConfigError(f"unknown loss '{self.loss}'", where="loss", hint=f"known are {', '.join(LOSSES)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a run is; `gain_db` is the mean PSNR above bicubic on held-out patches, when it was last measured."""

    step: int
    steps: int
    loss: float
    gain_db: float


@dataclass(kw_only=True, slots=True)
class Run:
    """The state of a training run: all that a checkpoint holds."""

    net: FEdsr
    config: TrainConfig
    average: dict[str, Tensor]  # moving average of the parameters
    optimizer: torch.optim.Adam
    step: int = 0
    curve: list[tuple[int, float, float]] = field(default_factory=list)  # (step, mean loss, gain in dB)

    @classmethod
    def start(cls, network: FEdsrConfig, config: TrainConfig) -> Run:
        """Return a run at step 0; its weights come from the seed."""
        torch.manual_seed(config.seed)
        net = FEdsr(network)
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(
            net=net,
            config=config,
            average={name: p.detach().clone() for name, p in net.named_parameters()},
            optimizer=torch.optim.Adam(net.parameters(), lr=config.rate, betas=(0.9, 0.99)),
        )

    def averaged(self) -> FEdsr:
        """Return the plain network for inference, with the averaged weights."""
        net = FEdsr(self.net.config)
        net.load_state_dict(self.average)
        return net.fold()

    def save(self, path: Path) -> None:
        """Write a checkpoint, complete or not at all; safetensors, no pickle.

        Raises:
            StorageError: it cannot be written.
        """
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.net.named_parameters():
            tensors[f"net.{name}"] = parameter.detach()
            tensors[f"average.{name}"] = self.average[name]
            state = self.optimizer.state[parameter]
            for key in ("exp_avg", "exp_avg_sq"):
                tensors[f"{key}.{name}"] = state[key] if state else torch.zeros_like(parameter)
        text = json.dumps(
            {
                "step": self.step,
                "steps": self.config.steps,
                "network": self.net.config.to_dict(),
                "curve": self.curve,
            }
        )
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        parts = {name: tensor.contiguous() for name, tensor in tensors.items()}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(parts, unfinished, metadata={"run": text})
            unfinished.replace(path)
        except (OSError, SafetensorError) as error:
            unfinished.unlink(missing_ok=True)
            raise StorageError(f"the checkpoint cannot be written: {error}", where=str(path)) from error

    @classmethod
    def load(cls, path: Path, network: FEdsrConfig, config: TrainConfig) -> Run:
        """Return the run that `save` wrote to `path`, to go on with.

        Raises:
            ModelFormatError: it is no checkpoint, or one of another network or number of steps.
        """
        run = cls.start(network, config)
        try:
            with safe_open(str(path), framework="pt") as file:
                facts = json.loads((file.metadata() or {})["run"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            if facts["network"] != network.to_dict() or facts["steps"] != config.steps:
                raise ModelFormatError(
                    "a checkpoint of another network or another number of steps",
                    where=str(path),
                    hint="remove it, or train with the recipe that it belongs to",
                )
            with torch.no_grad():
                for name, parameter in run.net.named_parameters():
                    parameter.copy_(tensors[f"net.{name}"])
                    run.average[name].copy_(tensors[f"average.{name}"])
                    run.optimizer.state[parameter] = {
                        "step": torch.tensor(float(facts["step"])),
                        "exp_avg": torch.empty_like(parameter).copy_(tensors[f"exp_avg.{name}"]),
                        "exp_avg_sq": torch.empty_like(parameter).copy_(tensors[f"exp_avg_sq.{name}"]),
                    }
            run.step = int(facts["step"])
            run.curve = [(int(step), float(loss), float(gain)) for step, loss, gain in facts["curve"]]
        except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, OSError) as error:
            if isinstance(error, ModelFormatError):
                raise
            raise ModelFormatError(
                f"no checkpoint of a training run: {error}", where=str(path), hint="remove it to start anew"
            ) from error
        return run


def checkpoint_steps(path: Path) -> int:
    """Return how many steps the run in the checkpoint `path` is to have.

    Raises:
        ModelFormatError: it is no checkpoint.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            return int(json.loads((file.metadata() or {})["run"])["steps"])
    except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        raise ModelFormatError(
            f"no checkpoint of a training run: {error}", where=str(path), hint="remove it to start anew"
        ) from error


def train(run: Run, pairs: Pairs, held: Pairs, *, until: int | None = None, report: Callable[[Progress], None]) -> None:
    """Train `run` up to step `until` (default: its last), in place.

    `report` is called after each step. Whoever wants checkpoints calls `run.save` in it.
    """
    config = run.config
    torch.set_num_threads(config.threads)
    lossy = LOSSES[config.loss]
    judged = _judged(held, config)
    weight = _weight(pairs.high.shape[1])
    last = config.steps if until is None else min(until, config.steps)
    losses: list[float] = []
    gain_db = run.curve[-1][2] if run.curve else 0.0
    while run.step < last:
        for group in run.optimizer.param_groups:
            group["lr"] = _rate(run.step, config)
        low, base, true = _batch(pairs, np.random.default_rng([config.seed, run.step]), config.batch)
        half = run.step < config.half_until * config.steps
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            residual = run.net(low)
        loss = lossy(*(x * weight for x in (base + residual.float(), true, base)))
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        run.optimizer.step()
        run.step += 1
        _follow(run)
        losses.append(float(loss.detach()))
        assert math.isfinite(losses[-1]), f"the loss is {losses[-1]} at step {run.step}"
        if run.step % config.judge_every == 0 or run.step == config.steps:
            gain_db = judge(run.averaged(), judged)
            run.curve.append((run.step, float(np.mean(losses)), gain_db))
            losses.clear()
        report(Progress(step=run.step, steps=config.steps, loss=float(loss.detach()), gain_db=gain_db))


def judge(net: FEdsr, held: Pairs) -> float:
    """Return the mean gain over bicubic on the patches `held`, in dB."""
    gains = []
    with torch.inference_mode():
        for start in range(0, len(held), 64):
            low, base, true = _tensors(held.low[start : start + 64], held.high[start : start + 64])
            gains.append(psnr_gain_db(*(_inner(x) for x in (base + net(low), true, base))))
    return float(torch.cat(gains).mean()) if gains else 0.0


def _rate(step: int, config: TrainConfig) -> float:
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return config.rate * warm * 0.5 * (1 + math.cos(math.pi * step / config.steps))


def _follow(run: Run) -> None:
    # Early on the average is a short one, or the untrained start would weigh in it for thousands of steps.
    keep = min(run.config.average, run.step / (run.step + 10))
    with torch.no_grad():
        for name, parameter in run.net.named_parameters():
            run.average[name].lerp_(parameter, 1 - keep)


def _judged(held: Pairs, config: TrainConfig) -> Pairs:
    """The same patches in every run on the same set: spread evenly over it."""
    chosen = np.unique(np.linspace(0, max(0, len(held) - 1), config.judge_patches).astype(int))[: len(held)]
    return Pairs(low=np.asarray(held.low[chosen]), high=np.asarray(held.high[chosen]))


def _batch(pairs: Pairs, rng: Generator, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return (low, bicubic, true) of `size` random patches, in one of the eight orientations of a square."""
    chosen = np.sort(rng.integers(0, len(pairs), size))
    low, high = pairs.low[chosen], pairs.high[chosen]
    if rng.random() < 0.5:
        low, high = low[:, ::-1], high[:, ::-1]
    if rng.random() < 0.5:
        low, high = low[:, :, ::-1], high[:, :, ::-1]
    if rng.random() < 0.25:  # a lying picture is rare in video
        low, high = low.transpose(0, 2, 1), high.transpose(0, 2, 1)
    return _tensors(np.ascontiguousarray(low), np.ascontiguousarray(high))


def _tensors(low: NDArray[np.uint8], high: NDArray[np.uint8]) -> tuple[Tensor, Tensor, Tensor]:
    side = (high.shape[2], high.shape[1])
    base = np.stack([cv2.resize(patch, side, interpolation=cv2.INTER_CUBIC) for patch in low])
    out = tuple(torch.from_numpy(np.array(x))[:, None].float() / 255 for x in (low, base, high))
    return out[0], out[1], out[2]


def _weight(side_px: int) -> Tensor:
    """Return what differences are multiplied by (1, 1, side, side): the root of each pixel's weight in the loss."""
    weight = torch.full((1, 1, side_px, side_px), BORDER_WEIGHT**0.5)
    _inner(weight).fill_(1.0)
    return weight


def _inner(x_N1HW: Tensor) -> Tensor:
    return x_N1HW[:, :, BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX]
