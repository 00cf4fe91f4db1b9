"""The training loop of F-EDSR: Adam, a cosine to zero, a moving average of the weights; resumable, deterministic.

Which patches a step sees depends on the seed and the step's number alone, on every device. So on a CPU a run that is
stopped and resumed gives the same weights as one that was not (same machine, same thread count); on a CUDA device sums
are rounded in another order each time. A checkpoint of one device goes on on another.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.models.fedsr import FEdsr
from pipeline.train.data import Pairs
from pipeline.train.device import DeviceSteps, Order, ResidentPairs, resident, steps_at_once
from pipeline.train.losses import LOSSES, border_weight, inner, psnr_gain_db
from pipeline.train.run import Run, TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a run is; `gain_db` is the mean PSNR on held-out material above what the network starts from (bicubic,
    or F-EDSR's frame), when it was last measured."""

    step: int
    steps: int
    loss: float
    gain_db: float


def train(
    run: Run,
    pairs: Pairs | ResidentPairs,
    held: Pairs,
    *,
    until: int | None = None,
    report: Callable[[Progress], None],
) -> None:
    """Train `run` up to step `until` (default: its last), in place.

    `report` is called after each step, on a CUDA device after each STEPS_AT_ONCE or fewer. Whoever wants checkpoints
    calls `run.save` in it. It may also give `run.config` another number of steps, which the rest then follows.
    `pairs` that are resident already are for several runs on one CUDA device.
    """
    torch.set_num_threads(run.config.threads)
    steps: _HostSteps | DeviceSteps
    if isinstance(pairs, ResidentPairs) or run.device.type == "cuda":
        steps = _device_steps(run, pairs)
    else:
        steps = _HostSteps(run, pairs)
    judged = _judged(held, run.config)
    losses: list[float] = []
    gain_db = run.curve[-1][2] if run.curve else 0.0
    while run.step < (last := run.config.steps if until is None else min(until, run.config.steps)):
        config = run.config
        half = run.step < config.half_until * config.steps
        ends = [last, run.step + steps_at_once(run.device), (run.step // config.judge_every + 1) * config.judge_every]
        if half:
            ends.append(math.ceil(config.half_until * config.steps))
        order = _order(config, run.step, min(ends) - run.step, len(pairs))
        reached = steps.advance(order, half=half)
        run.step += len(order)
        assert all(map(math.isfinite, reached)), f"the loss is {reached[-1]} at step {run.step}"
        losses += reached
        if run.step % config.judge_every == 0 or run.step == config.steps:
            gain_db = judge(run.averaged().to(run.device), judged)
            run.curve.append((run.step, float(np.mean(losses)), gain_db))
            losses.clear()
        report(Progress(step=run.step, steps=config.steps, loss=reached[-1], gain_db=gain_db))


def judge(net: FEdsr, held: Pairs) -> float:
    """Return the mean gain over bicubic on the patches `held`, in dB, computed where `net` lies."""
    device = next(net.parameters()).device
    scale = net.config.scale
    gains = []
    with torch.inference_mode():
        for start in range(0, len(held), 64):
            part = _tensors(held.low[start : start + 64], held.high[start : start + 64])
            low, base, true = (x.to(device) for x in part)
            gains.append(psnr_gain_db(*(inner(x, scale) for x in (base + net(low), true, base))))
    return float(torch.cat(gains).mean()) if gains else 0.0


class _HostSteps:
    """The steps of a run on the CPU: patches are up-scaled and turned as they are drawn."""

    def __init__(self, run: Run, pairs: Pairs) -> None:
        self._run, self._pairs = run, pairs
        self._lossy = LOSSES[run.config.loss]
        self._weight = border_weight(pairs.high.shape[1], run.net.config.scale)

    def advance(self, order: Order, *, half: bool) -> list[float]:
        """Do the steps of `order`, in bfloat16 where `half`; return their losses."""
        return [self._step(order, i, half) for i in range(len(order))]

    def _step(self, order: Order, i: int, half: bool) -> float:
        run = self._run
        for group in run.optimizer.param_groups:
            group["lr"] = float(order.rates[i])
        low, base, true = _batch(self._pairs, order.chosen[i], order.turned[i])
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            residual = run.net(low)
        loss = self._lossy(*(x * self._weight for x in (base + residual.float(), true, base)))
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        run.optimizer.step()
        with torch.no_grad():
            for name, parameter in run.net.named_parameters():
                run.average[name].lerp_(parameter, float(order.follow[i]))
        return float(loss.detach())


def _device_steps(run: Run, pairs: Pairs | ResidentPairs) -> DeviceSteps:
    return DeviceSteps(
        run.net,
        run.optimizer,
        run.average,
        resident(pairs, run.device) if isinstance(pairs, Pairs) else pairs,
        batch=run.config.batch,
        loss=LOSSES[run.config.loss],
        graphs=run.config.cuda_graph,
    )


def _order(config: TrainConfig, first: int, num: int, num_pairs: int) -> Order:
    """Return what the steps `first` to `first + num` do; each depends on the seed and its own number alone."""
    chosen = np.empty((num, config.batch), np.int64)
    turned_K3 = np.empty((num, 3), np.bool_)
    for i in range(num):
        rng = np.random.default_rng([config.seed, first + i])
        chosen[i] = np.sort(rng.integers(0, num_pairs, config.batch))
        # One of the eight orientations of a square; a lying picture is rare in video.
        turned_K3[i] = rng.random() < 0.5, rng.random() < 0.5, rng.random() < 0.25
    steps = range(first, first + num)
    return Order(
        chosen=chosen,
        turned=turned_K3,
        rates=np.array([_rate(step, config) for step in steps]),
        follow=np.array([1 - _kept(step + 1, config) for step in steps]),
    )


def _rate(step: int, config: TrainConfig) -> float:
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return config.rate * warm * 0.5 * (1 + math.cos(math.pi * step / config.steps))


def _kept(done: int, config: TrainConfig) -> float:
    """Return the average's own weight after `done` steps.

    Early on the average is a short one, or the untrained start would weigh in it for thousands of steps.
    """
    return min(config.average, done / (done + 10))


def _judged(held: Pairs, config: TrainConfig) -> Pairs:
    """The same patches in every run on the same set: spread evenly over it."""
    chosen = np.unique(np.linspace(0, max(0, len(held) - 1), config.judge_patches).astype(int))[: len(held)]
    return Pairs(low=np.asarray(held.low[chosen]), high=np.asarray(held.high[chosen]))


def _batch(pairs: Pairs, chosen_N: NDArray[np.int64], turned_3: NDArray[np.bool_]) -> tuple[Tensor, Tensor, Tensor]:
    """Return (low, bicubic, true) of the chosen patches, turned as `Order.turned` says."""
    low, high = pairs.low[chosen_N], pairs.high[chosen_N]
    if turned_3[0]:
        low, high = low[:, ::-1], high[:, ::-1]
    if turned_3[1]:
        low, high = low[:, :, ::-1], high[:, :, ::-1]
    if turned_3[2]:
        low, high = low.transpose(0, 2, 1), high.transpose(0, 2, 1)
    return _tensors(np.ascontiguousarray(low), np.ascontiguousarray(high))


def _tensors(low: NDArray[np.uint8], high: NDArray[np.uint8]) -> tuple[Tensor, Tensor, Tensor]:
    side = (high.shape[2], high.shape[1])
    base = np.stack([cv2.resize(patch, side, interpolation=cv2.INTER_CUBIC) for patch in low])
    out = tuple(torch.from_numpy(np.array(x))[:, None].float() / 255 for x in (low, base, high))
    return out[0], out[1], out[2]
