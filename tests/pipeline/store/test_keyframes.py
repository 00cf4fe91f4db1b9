"""pipeline.store.keyframes: what goes in comes out, and nothing else is taken."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from pipeline.errors import ModelFormatError
from pipeline.store import keyframes
from pipeline.store.keyframes import FILE_LIMIT_BYTES, MAX_CROPS, KeyFrame, dumps, loads
from pipeline.store.objects import open_store


def pair(crops: int = 3, side: int = 24, scale: int = 2) -> KeyFrame:
    rng = np.random.default_rng(crops)
    low = rng.integers(0, 256, (crops, side, side + 8), np.uint8)
    high = rng.integers(0, 256, (crops, scale * side, scale * (side + 8)), np.uint8)
    return KeyFrame(captured_ns=1_700_000_000_123_456_789, low=low, high=high)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_key_frame_comes_back_as_it_was(scale: int) -> None:
    frame = pair(scale=scale)
    again = loads(dumps(frame), where="test")
    assert again.captured_ns == frame.captured_ns
    assert again.scale == scale
    np.testing.assert_array_equal(again.low, frame.low)
    np.testing.assert_array_equal(again.high, frame.high)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff" * 8,
        pickle.dumps({"low": 1}),
        save({"low": np.zeros((1, 16, 16), np.uint8), "high": np.zeros((1, 32, 32), np.uint8)}),
        save({"low": np.zeros((1, 16, 16), np.uint8)}, metadata={"limpid": "key-frame 1", "captured_ns": "1"}),
        save({}, metadata={"limpid": "key-frame 2", "captured_ns": "1"}),
        dumps(pair())[:-1],
        dumps(pair()) + b"\0",
        b"\0" * (FILE_LIMIT_BYTES + 1),
    ],
    ids=["empty", "length", "pickle", "no-format", "no-high", "other-format", "cut", "longer", "huge"],
)
def test_what_is_no_key_frame_is_refused(body: bytes) -> None:
    with pytest.raises(ModelFormatError):
        loads(body, where="test")


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        ((1, 16, 16), (1, 80, 80), "2, 3 or 4 times"),
        ((1, 16, 16), (1, 32, 48), "2, 3 or 4 times"),
        ((1, 8, 16), (1, 16, 32), "smaller than 16"),
        ((2, 16, 16), (1, 32, 32), "pairs"),
        ((MAX_CROPS + 1, 16, 16), (MAX_CROPS + 1, 32, 32), "pairs"),
        ((16, 16), (32, 32), "(N, h, w)"),
    ],
)
def test_pairs_that_do_not_fit_are_told_apart(low: tuple[int, ...], high: tuple[int, ...], says: str) -> None:
    with pytest.raises(ModelFormatError, match=says.replace("(", r"\(").replace(")", r"\)")):
        KeyFrame(captured_ns=0, low=np.zeros(low, np.uint8), high=np.zeros(high, np.uint8))


@given(st.binary(max_size=400))
@settings(max_examples=100)
def test_any_bytes_are_a_key_frame_or_refused(data: bytes) -> None:
    with pytest.raises(ModelFormatError):
        loads(data, where="test")


def test_the_last_ones_are_kept_and_the_latest_found(tmp_path: Path) -> None:
    store, now_ns = open_store(str(tmp_path)), 2_000_000_000 * 10**9
    for number in reversed(range(keyframes.KEPT + 3)):
        data = dumps(replace(pair(crops=1, scale=3 if number == 17 else 2), captured_ns=10**9 * number))
        keyframes.keep(store, data, now_ns=now_ns)
    assert len(store.list("key-frames/")) == keyframes.KEPT
    found = keyframes.latest(store, 3, scale=2)
    assert [frame.captured_ns // 10**9 for frame in found] == [15, 16, 18]
    assert [f.captured_ns // 10**9 for f in keyframes.latest(store, 9, scale=2, after_ns=15 * 10**9)] == [16, 18]
    assert keyframes.latest(open_store(str(tmp_path / "none")), 1, scale=2) == []


def test_a_key_frame_of_the_future_or_from_before_1970_is_refused(tmp_path: Path) -> None:
    """It would be the latest one for ever."""
    for captured_ns in (-1, 10**9 + keyframes.AHEAD_NS + 1):
        with pytest.raises(ModelFormatError, match="was captured at"):
            keyframes.keep(open_store(str(tmp_path)), dumps(replace(pair(), captured_ns=captured_ns)), now_ns=10**9)
