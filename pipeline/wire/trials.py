"""How weights that were pushed to a stream fared on its key frames, and from which frame on they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What a model was found to be, beside the one in use, on the key frames that were captured last.

    Attributes:
        model, version: "name@version", and the version in it.
        parent: as its header says.
        publisher: whose key signed it.
        psnr_before_db, psnr_after_db: PSNR-Y over all crops of the model in use, and of this one.
        gain_db: this one's over the generic one's.
        latest_ns: Unix time at which the newest of those key frames was captured.
    """

    model: str
    version: int
    parent: str | None
    publisher: str
    psnr_before_db: float
    psnr_after_db: float
    gain_db: float
    latest_ns: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Contest:
    """What weights of a stream are compared by.

    Attributes:
        store: of the stream: its key frames, and weights of its own.
        base: name or path of the generic weights, as in the stage's configuration.
        scale: of the stream.
        generic, current: "name@version" of the generic weights, and of those in use.
        runtime, threads: that the stream's frames are made by.
        least_version: of a model that may be taken.
        keys: public keys of those who may sign, base64, by the publisher's id.
    """

    store: str
    base: str
    scale: int
    generic: str
    current: str
    runtime: str
    threads: int
    least_version: int = 1
    keys: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gain:
    """What the model in use gains over the generic one on one key frame: dB of PSNR-Y, and when it was captured."""

    captured_ns: int
    gain_db: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Swap:
    """Weights that hold from a frame on.

    Attributes:
        model, version: that hold.
        psnr_before_db, psnr_after_db: as in Trial; None where nothing was measured (a rollback).
        epoch, seq: the first frame.
    """

    model: str
    version: int
    epoch: int
    seq: int
    psnr_before_db: float | None = None
    psnr_after_db: float | None = None
