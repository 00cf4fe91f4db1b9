"""The checkpoint of a training run: weights, their moving average, Adam's moments, how far it is; never pickle.

The runs of all networks have the same state; what differs is how they begin (`run.py`, `refining.py`).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.errors import ModelFormatError, StorageError

_MOMENTS = ("exp_avg", "exp_avg_sq")  # Adam's, by the names that PyTorch gives them


class State(Protocol):
    """What a checkpoint holds of a run.

    Attributes:
        net: that is trained.
        average: moving average of its parameters, by their names.
        optimizer: Adam over all of them.
        step: reached.
        curve: (step, mean loss, gain in dB) wherever it was judged.
    """

    average: dict[str, Tensor]
    optimizer: torch.optim.Adam
    step: int
    curve: list[tuple[int, float, float]]

    @property
    def net(self) -> nn.Module: ...


def save(path: Path, run: State, *, network: dict[str, Any], steps: int) -> None:
    """Write a checkpoint, complete or not at all.

    Args:
        network: the network's configuration.
        steps: that the run is to have.

    Raises:
        StorageError: it cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in run.net.named_parameters():
        tensors[f"net.{name}"] = parameter.detach()
        tensors[f"average.{name}"] = run.average[name]
        state = run.optimizer.state[parameter]
        for key in _MOMENTS:
            tensors[f"{key}.{name}"] = state[key] if state else torch.zeros_like(parameter)
    facts = {"step": run.step, "steps": steps, "network": network, "curve": run.curve}
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    parts = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(parts, unfinished, metadata={"run": json.dumps(facts)})
        unfinished.replace(path)
    except (OSError, SafetensorError) as error:
        unfinished.unlink(missing_ok=True)
        raise StorageError(f"the checkpoint cannot be written: {error}", where=str(path)) from error


def restore(path: Path, run: State, *, network: dict[str, Any], steps: int) -> None:
    """Bring a run that has just begun to where the one stood that `save` wrote to `path`.

    Raises:
        ModelFormatError: it is no checkpoint, or one of another network or number of steps.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            facts = json.loads((file.metadata() or {})["run"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        if facts["network"] != network or facts["steps"] != steps:
            raise ModelFormatError(
                "a checkpoint of another network or another number of steps",
                where=str(path),
                hint="remove it, or train with the recipe that it belongs to",
            )
        with torch.no_grad():
            for name, parameter in run.net.named_parameters():
                parameter.copy_(tensors[f"net.{name}"])
                run.average[name].copy_(tensors[f"average.{name}"])
                moments = {key: torch.empty_like(parameter).copy_(tensors[f"{key}.{name}"]) for key in _MOMENTS}
                done = torch.tensor(float(facts["step"]), device=parameter.device)
                run.optimizer.state[parameter] = {"step": done, **moments}
        run.step = int(facts["step"])
        run.curve = [(int(step), float(loss), float(gain)) for step, loss, gain in facts["curve"]]
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, OSError) as error:
        if isinstance(error, ModelFormatError):
            raise
        raise _no_checkpoint(path, error) from error


def steps_of(path: Path) -> int:
    """Return how many steps the run in the checkpoint `path` is to have.

    Raises:
        ModelFormatError: it is no checkpoint.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            return int(json.loads((file.metadata() or {})["run"])["steps"])
    except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        raise _no_checkpoint(path, error) from error


def _no_checkpoint(path: Path, error: Exception) -> ModelFormatError:
    return ModelFormatError(
        f"no checkpoint of a training run: {error}", where=str(path), hint="remove it to start anew"
    )
