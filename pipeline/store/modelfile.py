"""Model files: safetensors weights with a JSON header, a digest and an optional Ed25519 signature; never pickle.

A model is one safetensors file (8 bytes of length, a JSON table, raw tensors) whose metadata holds
    limpid      the header (`ModelHeader` without tensors, ranges and signature), JSON
    ranges      {layer: [min, max]}, the int8 range of each convolution's input in the order in which they run, JSON
    sha256      of `_message`: the header, the ranges and every tensor; so a flipped byte is found
    signature   Ed25519 over the same message, base64; absent when unsigned
Both cover the content, not the layout of the file, so a tool that rewrites the file keeps them valid.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import os
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from pipeline.errors import ModelFormatError, SignatureError, StorageError, Unreachable

FILE_LIMIT_BYTES = 256 << 20
TABLE_LIMIT_BYTES = 1 << 20  # a table of a thousand tensors has a tenth of it


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelHeader:
    """What a model file says of itself."""

    name: str  # "f-edsr-x2"
    kind: str  # a key of pipeline.models.load.KINDS
    version: int  # from 1; only rises
    config: Mapping[str, Any]  # the network's Config as a JSON object
    parent: str | None = None  # name@version that it was fine-tuned from
    trained_on: tuple[str, ...] = ()  # every data set that it saw, with its licence
    metrics: Mapping[str, float] = field(default_factory=dict)  # what was measured, unit in the name
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # layer -> (min, max) of its input
    tensors: Mapping[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)  # name -> (dtype, shape)
    signature: str | None = None  # base64; says nothing until `verify` has checked it


def save(path: Path, header: ModelHeader, state: Mapping[str, Tensor]) -> ModelHeader:
    """Write `state` under `header` to `path`, complete or not at all; return the header as written.

    The header's tensors are taken from `state`, and a signature is dropped: it would no longer fit.

    Raises:
        StorageError: the file cannot be written.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    header = replace(header, tensors=_described(state), signature=None)
    _write(path, header, state)
    return header


def load(path: Path) -> tuple[ModelHeader, dict[str, Tensor]]:
    """Return the header and the tensors (on the CPU) of the model at `path`; a signature is *not* checked.

    Whether kind, configuration and shapes fit one another is the matter of `pipeline.models.load.load_model`.

    Raises:
        Unreachable: the file cannot be read.
        ModelFormatError: it is no model file, is damaged, too large, or holds values that are not finite.
    """
    where = str(path)
    try:
        size_bytes = path.stat().st_size
        if size_bytes > FILE_LIMIT_BYTES:
            _refuse(
                where, f"{size_bytes} bytes are more than the limit of {FILE_LIMIT_BYTES}", "this is no model of ours"
            )
        data = path.read_bytes()
    except OSError as error:
        raise Unreachable(
            f"cannot be read: {error.strerror}", where=where, hint="give the path of a model file"
        ) from error
    return loads(data, where=where)


def loads(data: bytes, *, where: str) -> tuple[ModelHeader, dict[str, Tensor]]:
    """Return what `load` returns, of the bytes of a model file; `where` names them in errors."""
    if len(data) > FILE_LIMIT_BYTES:
        _refuse(where, f"{len(data)} bytes are more than the limit of {FILE_LIMIT_BYTES}", "this is no model of ours")
    metadata = _metadata(data, where)
    try:
        state = load_safetensors(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        _refuse(where, f"the tensors cannot be read: {error}", "the file is damaged or cut short; fetch it again")
    header = _header(metadata, state, where)
    if hashlib.sha256(_message(header, state)).hexdigest() != metadata.get("sha256"):
        _refuse(where, "the content does not fit its digest", "the file is damaged; fetch it again")
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            _refuse(where, f"tensor '{name}' holds values that are not finite", "the training that made it diverged")
    return header, state


def digest(data: bytes) -> str:
    """Return what tells the bytes of one file from those of another."""
    return hashlib.sha256(data).hexdigest()


def sign(path: Path, key: Ed25519PrivateKey) -> ModelHeader:
    """Sign the model at `path` in place with `key`; return its header."""
    header, state = load(path)
    signature = base64.b64encode(key.sign(_message(header, state))).decode()
    header = replace(header, signature=signature)
    _write(path, header, state)
    return header


def verify(path: Path, public_key: Ed25519PublicKey) -> ModelHeader:
    """Return the header of the model at `path` if `public_key` signed it.

    Raises:
        SignatureError: there is no signature, or it is not by this key over this content.
        ModelFormatError, Unreachable: as `load`.
    """
    header, state = load(path)
    check_signature(header, state, public_key, where=str(path))
    return header


def check_signature(
    header: ModelHeader, state: Mapping[str, Tensor], public_key: Ed25519PublicKey, *, where: str
) -> None:
    """Raise SignatureError unless `public_key` signed this header and these tensors."""
    if header.signature is None:
        raise SignatureError("the model is not signed", where=where, hint="sign it: limpid model sign")
    try:
        public_key.verify(base64.b64decode(header.signature, validate=True), _message(header, state))
    except (InvalidSignature, binascii.Error, ValueError) as error:
        raise SignatureError(
            "the signature is not by this key, or the model was changed after it was signed",
            where=where,
            hint="take the model from its publisher again, or use the publisher's own public key",
        ) from error


def _write(path: Path, header: ModelHeader, state: Mapping[str, Tensor]) -> None:
    metadata = {
        "limpid": _json(_plain(header)),
        "ranges": _json({name: list(pair) for name, pair in header.ranges.items()}, sort_keys=False),
        "sha256": hashlib.sha256(_message(header, state)).hexdigest(),
    }
    if header.signature is not None:
        metadata["signature"] = header.signature
    data = _ordered(save_safetensors(dict(state), metadata=metadata))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(name, 0o644)  # mkstemp's 0600 would hide a model from the service's user
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise StorageError(
            f"cannot be written: {error.strerror}", where=str(path), hint="give a place with room and write access"
        ) from error


def _ordered(data: bytes) -> bytes:
    """Return the safetensors file `data` with its table sorted: the library's order changes from run to run."""
    (length,) = struct.unpack_from("<Q", data)
    text = _json(json.loads(data[8 : 8 + length])).encode()
    text += b" " * (-len(text) % 8)  # tensors stay aligned
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def _plain(header: ModelHeader) -> dict[str, Any]:
    return {
        "name": header.name,
        "kind": header.kind,
        "version": header.version,
        "config": dict(header.config),
        "parent": header.parent,
        "trained_on": list(header.trained_on),
        "metrics": dict(header.metrics),
    }


def _message(header: ModelHeader, state: Mapping[str, Tensor]) -> bytes:
    """What digest and signature cover: canonical JSON, then each tensor's name, type, shape and bytes, by name."""
    parts = [
        b"limpid model 1\0",
        _json(_plain(header)).encode(),
        b"\0",
        _json([[name, *pair] for name, pair in header.ranges.items()]).encode(),
    ]
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        parts += [b"\0", _json([name, *_kind_of(tensor), len(raw)]).encode(), b"\0", raw]
    return b"".join(parts)


def _json(value: Any, *, sort_keys: bool = True) -> str:
    return json.dumps(value, sort_keys=sort_keys, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _kind_of(tensor: Tensor) -> tuple[str, tuple[int, ...]]:
    return str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)


def _described(state: Mapping[str, Tensor]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: _kind_of(tensor) for name, tensor in sorted(state.items())}


def _metadata(data: bytes, where: str) -> dict[str, str]:
    """Return a safetensors file's metadata; read here, since the library's reader of bytes drops it."""
    if len(data) < 8:
        _refuse(where, f"{len(data)} bytes are no safetensors file", "give a model file")
    (length,) = struct.unpack_from("<Q", data)
    if length > TABLE_LIMIT_BYTES:
        _refuse(
            where, f"a table of {length} bytes is over the limit of {TABLE_LIMIT_BYTES}", "this is no safetensors file"
        )
    if len(data) < 8 + length:
        _refuse(where, "the table is cut short", "the file is truncated; fetch it again")
    table = _parsed(data[8 : 8 + length], where, "the table")
    metadata = table.get("__metadata__") if isinstance(table, dict) else None
    if not isinstance(metadata, dict) or "limpid" not in metadata:
        _refuse(where, "it has no Limpid header", "it is a safetensors file of another program")
    return {str(key): str(value) for key, value in metadata.items()}


def _parsed(text: str | bytes, where: str, what: str) -> Any:
    def no_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is no JSON")

    try:
        return json.loads(text, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        _refuse(where, f"{what} is no JSON: {error}", "the file is damaged; fetch it again")


def _header(metadata: Mapping[str, str], state: Mapping[str, Tensor], where: str) -> ModelHeader:
    values = _parsed(metadata["limpid"], where, "the header")
    ranges = _parsed(metadata.get("ranges", "{}"), where, "the table of ranges")
    texts: dict[str, type | tuple[type, ...]] = {
        "name": str,
        "kind": str,
        "version": int,
        "config": dict,
        "parent": (str, type(None)),
        "trained_on": list,
        "metrics": dict,
    }
    if not isinstance(values, dict) or set(values) != set(texts):
        _refuse(where, "the header has other fields than a model's", "it is of another version of Limpid")
    for name, kind in texts.items():
        if not isinstance(values[name], kind) or isinstance(values[name], bool):
            _refuse(where, f"the header's '{name}' is {values[name]!r}", "the file was not written by Limpid")
    if values["version"] < 1:
        _refuse(where, f"the header's version is {values['version']}", "versions count from 1")
    if not all(isinstance(text, str) for text in values["trained_on"]):
        _refuse(where, "the header's 'trained_on' is no list of texts", "the file was not written by Limpid")
    if not all(_is_number(value) for value in values["metrics"].values()):
        _refuse(where, "the header's 'metrics' are no numbers", "the file was not written by Limpid")
    if not isinstance(ranges, dict) or not all(_is_range(pair) for pair in ranges.values()):
        _refuse(where, "the ranges are no pairs [min, max]", "the file was not written by Limpid")
    return ModelHeader(
        name=values["name"],
        kind=values["kind"],
        version=values["version"],
        config=values["config"],
        parent=values["parent"],
        trained_on=tuple(values["trained_on"]),
        metrics={name: float(value) for name, value in values["metrics"].items()},
        ranges={name: (float(low), float(high)) for name, (low, high) in ranges.items()},
        tensors=_described(state),
        signature=metadata.get("signature"),
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_range(pair: object) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair)) and pair[0] <= pair[1]


def _refuse(where: str, what: str, hint: str) -> NoReturn:
    raise ModelFormatError(what, where=where, hint=hint)
