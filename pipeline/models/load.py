"""How a model file becomes a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from pipeline.errors import ConfigError, ModelFormatError
from pipeline.models.fedsr import FEdsr
from pipeline.models.tcsr import Tcsr
from pipeline.store import modelfile
from pipeline.store.modelfile import ModelHeader

Network = FEdsr | Tcsr

NetworkT = TypeVar("NetworkT", FEdsr, Tcsr)

KINDS: dict[str, type[FEdsr] | type[Tcsr]] = {FEdsr.kind: FEdsr, Tcsr.kind: Tcsr}


def load_model(path: Path) -> tuple[ModelHeader, FEdsr]:
    """Return the header and the network (CPU, float32, for inference) of the F-EDSR in the model file at `path`.

    Raises:
        Unreachable: the file cannot be read.
        ModelFormatError: it is no model file, is damaged, or kind, configuration and tensors do not fit one another.
    """
    header, state = modelfile.load(path)
    return header, build(header, state, where=str(path))


def load_tcsr(path: Path) -> tuple[ModelHeader, Tcsr]:
    """Return what `load_model` returns, of a TCSR."""
    header, state = modelfile.load(path)
    return header, _built(Tcsr, header, state, str(path))


def load_any(path: Path) -> tuple[ModelHeader, Network]:
    """Return what `load_model` returns, of a model of any kind."""
    header, state = modelfile.load(path)
    if header.kind == Tcsr.kind:
        return header, _built(Tcsr, header, state, str(path))
    return header, build(header, state, where=str(path))


def build(header: ModelHeader, state: Mapping[str, Tensor], *, where: str) -> FEdsr:
    """Return the F-EDSR that `header` describes, with the weights `state`; `where` names them in errors."""
    return _built(FEdsr, header, state, where)


def _built(network: type[NetworkT], header: ModelHeader, state: Mapping[str, Tensor], where: str) -> NetworkT:
    if header.kind not in KINDS:
        raise ModelFormatError(
            f"a model of the unknown kind '{header.kind}'", where=where, hint=f"known are {', '.join(KINDS)}"
        )
    if header.kind != network.kind:
        raise ModelFormatError(
            f"a model of the kind '{header.kind}', not '{network.kind}'", where=where, hint="give one of that kind"
        )
    try:
        net = network(network.Config.from_dict(header.config))
    except (ConfigError, TypeError) as error:
        raise ModelFormatError(
            f"its configuration does not fit: {error}", where=where, hint="it is of another version of Limpid"
        ) from error
    wanted = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if wanted != found:
        name = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))[0]
        raise ModelFormatError(
            f"tensor '{name}' has shape {found.get(name)}, its configuration asks for {wanted.get(name)}",
            where=where,
            hint="header and weights are of two models",
        )
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)
