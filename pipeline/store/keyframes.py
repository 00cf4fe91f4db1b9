"""Key frames that a publisher sends with its models: true crops and what the stream shows in their place.

A body is one safetensors file (never pickle) of two uint8 luma tensors, `low` (N, h, w) and `high` (N, s·h, s·w): N
crops of one frame, or the whole of it (N = 1); `low` as decoded from the very stream that is pushed. Its metadata holds
    limpid       "key-frame 1"
    captured_ns  Unix time of the frame, whole nanoseconds

The last KEPT lie in the stream's directory, `key-frames/<captured_ns>.safetensors`.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from pipeline.errors import ModelFormatError, NotFound
from pipeline.store.objects import Store

FILE_LIMIT_BYTES = 8 << 20
"""Of a body: a whole 1080p frame with its true one at 4K is 10 MB, so those are sent as crops."""

MAX_CROPS = 64
KEPT = 16
"""Key frames of a stream: those captured last."""

AHEAD_NS = 60 * 10**9
"""That a publisher's clock may be ahead: what lies further in the future would stay the latest one for ever."""

_FORMAT = "key-frame 1"
_FOLDER = "key-frames/"
_HINT = "see pipeline/store/keyframes.py for the format"


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyFrame:
    """Aligned crops of one frame.

    Attributes:
        captured_ns: Unix time of the frame.
        low: (N, h, w) uint8 luma as decoded; N 1 to MAX_CROPS, h and w at least 16.
        high: (N, s·h, s·w) uint8 true luma; s 2, 3 or 4.
    """

    captured_ns: int
    low: NDArray[np.uint8]
    high: NDArray[np.uint8]

    def __post_init__(self) -> None:
        if problem := _problem(self.low, self.high):
            raise ModelFormatError(problem, where="key frame", hint=_HINT)

    @property
    def scale(self) -> int:
        """s."""
        return int(self.high.shape[1]) // int(self.low.shape[1])


def dumps(frame: KeyFrame) -> bytes:
    """Return the body that holds `frame`."""
    tensors = {"low": np.ascontiguousarray(frame.low), "high": np.ascontiguousarray(frame.high)}
    return save_safetensors(tensors, metadata={"limpid": _FORMAT, "captured_ns": str(frame.captured_ns)})


def loads(data: bytes, *, where: str) -> KeyFrame:
    """Return the key frame in the body `data`.

    Raises:
        ModelFormatError: it is too large, damaged, or no key frame.
    """
    if len(data) > FILE_LIMIT_BYTES:
        raise ModelFormatError(
            f"{len(data)} bytes are over the limit of {FILE_LIMIT_BYTES}", where=where, hint="send crops of the frame"
        )
    try:
        (length,) = struct.unpack_from("<Q", data)
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        if metadata["limpid"] != _FORMAT:
            raise ValueError(f"the format is {metadata['limpid']!r}")
        captured_ns = int(metadata["captured_ns"])
        tensors = load_safetensors(data)
        low, high = tensors["low"], tensors["high"]
    except (struct.error, SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ModelFormatError(f"no key frame: {error}", where=where, hint=_HINT) from error
    if problem := _problem(low, high):
        raise ModelFormatError(problem, where=where, hint=_HINT)
    return KeyFrame(captured_ns=captured_ns, low=low, high=high)


def keep(store: Store, data: bytes, *, now_ns: int) -> KeyFrame:
    """Keep the key frame in the body `data` in a stream's directory, unless KEPT newer ones are there; return it.

    Args:
        store: the stream's.
        data: as `dumps` makes it.
        now_ns: Unix time.

    Raises:
        ModelFormatError: it is too large, damaged, no key frame, or not from before now.
        StorageError: it cannot be written.
    """
    frame = loads(data, where="key frame")
    if not 0 <= frame.captured_ns <= now_ns + AHEAD_NS:
        raise ModelFormatError(
            f"it was captured at {frame.captured_ns} ns, and now is {now_ns} ns",
            where="key frame",
            hint="set the publisher's clock",
        )
    store.put_new(f"{_FOLDER}{frame.captured_ns:020d}.safetensors", data)
    for name in store.list(_FOLDER)[:-KEPT]:
        store.delete(name)
    return frame


def latest(store: Store, count: int, *, scale: int, after_ns: int = -1) -> list[KeyFrame]:
    """Return a stream's `count` key frames that were captured last, in their order: of this scale, after `after_ns`.

    Raises:
        ModelFormatError: one is damaged.
        StorageError: they cannot be read.
    """
    found: list[KeyFrame] = []
    for name in reversed(store.list(_FOLDER)):
        if len(found) == count:
            break
        try:
            frame = loads(store.get(name), where=name)
        except NotFound:
            continue  # a newer one has taken its place meanwhile
        if frame.captured_ns <= after_ns:
            break
        if frame.scale == scale:
            found.append(frame)
    return found[::-1]


def _problem(low: NDArray[np.uint8], high: NDArray[np.uint8]) -> str:
    """Return what is wrong with a pair, or ""."""
    if low.dtype != np.uint8 or high.dtype != np.uint8 or low.ndim != 3 or high.ndim != 3:
        return f"low is {low.dtype} {low.shape} and high {high.dtype} {high.shape}, not uint8 (N, h, w)"
    if not 1 <= len(low) <= MAX_CROPS or len(low) != len(high):
        return f"{len(low)} crops and {len(high)} true ones are not 1 to {MAX_CROPS} pairs"
    height, width = low.shape[1:]
    if min(height, width) < 16:
        return f"crops of {width}×{height} are smaller than 16×16"
    if not any(high.shape[1:] == (s * height, s * width) for s in (2, 3, 4)):
        return f"true crops of {high.shape[2]}×{high.shape[1]} are not 2, 3 or 4 times as large as {width}×{height}"
    return ""
