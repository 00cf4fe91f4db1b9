"""The state of a training run of F-EDSR: its configuration and its weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.models.fedsr import FEdsr, FEdsrConfig
from pipeline.train import checkpoint
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
        checkpoint.save(path, self, network=self.net.config.to_dict(), steps=self.config.steps)

    @classmethod
    def load(cls, path: Path, network: FEdsrConfig, config: TrainConfig) -> Run:
        """Return the run that `save` wrote to `path`, to go on with.

        Raises:
            ModelFormatError: it is no checkpoint, or one of another network or number of steps.
        """
        run = cls.start(network, config)
        checkpoint.restore(path, run, network=network.to_dict(), steps=config.steps)
        return run
