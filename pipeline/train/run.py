"""The state of a training run: its configuration, its weights, and the checkpoint that holds both."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.errors import ConfigError, ModelFormatError, StorageError
from pipeline.models.fedsr import FEdsr, FEdsrConfig
from pipeline.train.device import DEVICES, chosen_device
from pipeline.train.losses import LOSSES


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
    device: str = "auto"  # "cpu", "cuda", or "auto": CUDA where there is one
    cuda_graph: bool = True  # on a CUDA device a step is one graph; without, each kernel is started by the host
    seed: int = 1

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ConfigError(f"unknown loss '{self.loss}'", where="loss", hint=f"known are {', '.join(LOSSES)}")
        if self.device not in DEVICES:
            raise ConfigError(f"unknown device '{self.device}'", where="device", hint=f"known are {', '.join(DEVICES)}")


@dataclass(kw_only=True, slots=True)
class Run:
    """The state of a training run: all that a checkpoint holds. Its tensors lie on the device of `config`."""

    net: FEdsr
    config: TrainConfig
    average: dict[str, Tensor]  # moving average of the parameters
    optimizer: torch.optim.Adam
    step: int = 0
    curve: list[tuple[int, float, float]] = field(default_factory=list)  # (step, mean loss, gain in dB)

    @classmethod
    def start(cls, network: FEdsrConfig, config: TrainConfig) -> Run:
        """Return a run at step 0; its weights come from the seed, whatever the device.

        Raises:
            ConfigError: there is no such device here.
        """
        device = chosen_device(config.device)
        torch.manual_seed(config.seed)
        net = FEdsr(network)
        net = net.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        cuda = device.type == "cuda"
        return cls(
            net=net,
            config=config,
            average={name: p.detach().clone() for name, p in net.named_parameters()},
            optimizer=torch.optim.Adam(
                net.parameters(), lr=config.rate, betas=(0.9, 0.99), fused=cuda or None, capturable=cuda
            ),
        )

    @property
    def device(self) -> torch.device:
        """Where the run's tensors lie."""
        return next(self.net.parameters()).device

    def averaged(self) -> FEdsr:
        """Return the plain network for inference, with the averaged weights, on the CPU."""
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
        parts = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
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
                        "step": torch.tensor(float(facts["step"]), device=run.device),
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
