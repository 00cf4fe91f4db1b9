"""Model files: what is written comes back, what is damaged is refused with its reason, signatures hold."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.torch import save_file
from torch import Tensor

from pipeline.errors import ModelFormatError, SignatureError, StorageError, Unreachable
from pipeline.store import modelfile
from pipeline.store.modelfile import ModelHeader, load, save, sign, verify

HEADER = ModelHeader(
    name="probe",
    kind="f-edsr",
    version=3,
    config={"scale": 2},
    parent="base@2",
    trained_on=("two clips, CC BY 4.0",),
    metrics={"held_gain_db": 1.25},
    ranges={"head": (0.0, 1.0), "close": (-2.5, 3.0), "blocks.0.conv1": (-1.0, 4.0)},
)


def state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {"b": torch.randn(4, generator=generator), "a.weight": torch.randn(2, 3, 3, 3, generator=generator)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "probe.safetensors"
    save(path, HEADER, state())
    return path


def table_of(data: bytes) -> tuple[dict[str, object], bytes]:
    (length,) = struct.unpack_from("<Q", data)
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_table(table: dict[str, object], body: bytes) -> bytes:
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text + body


def test_what_is_saved_is_loaded(path: Path) -> None:
    header, tensors = load(path)
    assert header == replace(HEADER, tensors={"a.weight": ("float32", (2, 3, 3, 3)), "b": ("float32", (4,))})
    assert list(header.ranges) == ["head", "close", "blocks.0.conv1"], "ranges keep the order of the layers"
    assert tensors.keys() == state().keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in state().items())


def test_the_same_model_gives_the_same_bytes_and_leaves_nothing_beside(path: Path) -> None:
    first = path.read_bytes()
    save(path, HEADER, state())
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_byte_flipped_anywhere_is_found(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for place in range(0, len(data), 7):
        data[place] ^= 0x10
        path.write_bytes(data)
        with pytest.raises(ModelFormatError):
            load(path)
        data[place] ^= 0x10
    path.write_bytes(data)
    load(path)


def test_a_file_cut_anywhere_is_refused(path: Path) -> None:
    data = path.read_bytes()
    for length in (0, 1, 7, 8, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ModelFormatError):
            load(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(path: Path, value: float) -> None:
    tensors = state()
    tensors["b"][2] = value
    save(path, HEADER, tensors)
    with pytest.raises(ModelFormatError, match="tensor 'b' holds values that are not finite"):
        load(path)


def test_html_and_pickles_are_no_models(path: Path) -> None:
    for data in (b"<!doctype html><html>not found</html>", b"\x80\x04\x95" + bytes(200)):
        path.write_bytes(data)
        with pytest.raises(ModelFormatError):
            load(path)


def test_a_safetensors_file_of_another_program_is_refused(path: Path) -> None:
    save_file(state(), path)
    with pytest.raises(ModelFormatError, match="no Limpid header"):
        load(path)


def test_a_huge_table_is_refused_before_it_is_parsed(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    with pytest.raises(ModelFormatError, match="over the limit"):
        load(path)


def test_deeply_nested_json_is_refused(path: Path) -> None:
    text = b"[" * 200_000
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(ModelFormatError, match="no JSON"):
        load(path)


def test_a_file_over_the_size_limit_is_refused_unread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modelfile, "FILE_LIMIT_BYTES", path.stat().st_size - 1)
    with pytest.raises(ModelFormatError, match="more than the limit"):
        load(path)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("version", 0, "version is 0"),
        ("version", True, "version"),
        ("version", "1", "version"),
        ("name", 5, "name"),
        ("config", [], "config"),
        ("metrics", {"x": "good"}, "metrics"),
        ("trained_on", [1], "trained_on"),
        ("surplus", 1, "other fields"),
    ],
)
def test_a_header_of_the_wrong_form_is_refused(path: Path, key: str, value: object, says: str) -> None:
    table, body = table_of(path.read_bytes())
    metadata = table["__metadata__"]
    assert isinstance(metadata, dict)
    metadata["limpid"] = json.dumps(json.loads(metadata["limpid"]) | {key: value})
    path.write_bytes(with_table(table, body))
    with pytest.raises(ModelFormatError, match=says):
        load(path)


def test_a_range_whose_least_is_above_its_greatest_is_refused(path: Path) -> None:
    table, body = table_of(path.read_bytes())
    metadata = table["__metadata__"]
    assert isinstance(metadata, dict)
    metadata["ranges"] = json.dumps({"head": [1.0, 0.0]})
    path.write_bytes(with_table(table, body))
    with pytest.raises(ModelFormatError, match="ranges"):
        load(path)


def test_a_missing_file_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"gone\.safetensors"):
        load(tmp_path / "gone.safetensors")


def test_a_signature_holds_for_its_key_and_content_alone(path: Path) -> None:
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    with pytest.raises(SignatureError, match="not signed"):
        verify(path, key.public_key())
    signed = sign(path, key)
    assert verify(path, key.public_key()) == signed == load(path)[0]
    with pytest.raises(SignatureError, match="not by this key"):
        verify(path, other.public_key())

    # Another version under the old signature, with a digest that fits: only the signature can tell.
    header, tensors = load(path)
    save(path, replace(header, version=header.version + 1), tensors)
    assert load(path)[0].signature is None, "a changed model loses its signature"
    table, body = table_of(path.read_bytes())
    metadata = table["__metadata__"]
    assert isinstance(metadata, dict)
    metadata["signature"] = signed.signature
    path.write_bytes(with_table(table, body))
    with pytest.raises(SignatureError, match="was changed"):
        verify(path, key.public_key())


def test_a_signature_that_is_no_base64_is_refused(path: Path) -> None:
    table, body = table_of(path.read_bytes())
    metadata = table["__metadata__"]
    assert isinstance(metadata, dict)
    metadata["signature"] = "ä not base64 ä"
    path.write_bytes(with_table(table, body))
    with pytest.raises(SignatureError):
        verify(path, Ed25519PrivateKey.generate().public_key())


def test_a_place_that_cannot_be_written_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file/probe"):
        save(tmp_path / "file" / "probe.safetensors", HEADER, state())
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="cannot be written"):
        save(tmp_path / "folder", HEADER, state())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
