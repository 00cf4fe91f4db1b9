"""manifest.json: what a stream's directory is, and from where a new supervisor goes on with it."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NoReturn

from pipeline.errors import ConfigError, NotFound, StorageError
from pipeline.store.objects import Store
from pipeline.store.redact import redact, redact_all
from pipeline.wire.acks import Snapshot
from pipeline.wire.ids import StreamId, stream_id

NAME = "manifest.json"
FORMAT = "limpid-stream"
VERSION = 1

RUNNING, COMPLETED, STOPPED, FAILED = "running", "completed", "stopped", "failed"
STATES = (RUNNING, COMPLETED, STOPPED, FAILED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Epoch:
    """What is the same for all frames of an epoch: luma size in pixels, seconds a tick."""

    epoch: int
    width: int
    height: int
    time_base: Fraction


@dataclass(frozen=True, kw_only=True, slots=True)
class Watermark:
    """Everything before frame `seq` of `epoch`, and all epochs before it, is durable in every sink."""

    epoch: int = 0
    seq: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """Where the source must start again, and the snapshots that the per-stream stages start from.

    Attributes:
        epoch, packet: the first packet to feed (a random-access point).
        checkpoints: stage's name → snapshot, taken at one consistent cut.
    """

    epoch: int
    packet: int
    checkpoints: Mapping[str, Snapshot] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """One stream's manifest. It never holds a secret: texts are redacted on construction.

    Attributes:
        id: the stream's.
        source: URI or path; compare with `redact(uri)`.
        config, graph, plan: JSON objects, as resolved.
        epochs: those seen so far, in order.
        state: one of STATES.
        watermark: what is durable.
        position: from where to go on; None: from the start.
        models: stage's or network's name → version that is in use.
        runtime: what runs the networks ("openvino-int8").
        last_error: one sentence, "" where there was none.
        counts: whatever is counted (frames, gaps, batches set aside, …).
    """

    id: StreamId
    source: str
    config: Mapping[str, Any] = field(default_factory=dict)
    graph: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    epochs: tuple[Epoch, ...] = ()
    state: str = RUNNING
    watermark: Watermark = field(default_factory=Watermark)
    position: Position | None = None
    models: Mapping[str, str] = field(default_factory=dict)
    runtime: str = ""
    last_error: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ValueError(f"unknown state {self.state}")
        for name in ("source", "last_error"):
            object.__setattr__(self, name, redact(getattr(self, name)))
        object.__setattr__(self, "config", redact_all(dict(self.config)))


def load(store: Store) -> Manifest | None:
    """Return the manifest of the stream in `store`; None where there is none.

    Raises:
        StorageError: it is damaged, or not ours, or of a later version.
    """
    try:
        data = store.get(NAME)
    except NotFound:
        return None
    where = f"{store.url}/{NAME}"
    try:
        found = json.loads(data)
    except ValueError:  # not JSON, or not UTF-8
        _refuse("the manifest is damaged", where)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        _refuse("this manifest is not Limpid's", where)
    if not isinstance(found.get("version"), int) or found["version"] > VERSION:
        _refuse(f"the manifest is of version {found.get('version')}, this program knows up to {VERSION}", where)
    try:
        return _from_json(found)
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError, ConfigError, binascii.Error) as error:
        raise StorageError(
            f"the manifest is damaged ({type(error).__name__}: {error})", where=where, hint=_HINT
        ) from error


def save(store: Store, manifest: Manifest) -> None:
    """Write the manifest in place of the old one; readers see the old or the new one. Raises StorageError."""
    store.put(NAME, to_json(manifest).encode())


def to_json(manifest: Manifest) -> str:
    """Return the manifest as JSON: the same manifest gives the same bytes."""
    m = manifest
    position = None
    if m.position is not None:
        position = {
            "epoch": m.position.epoch,
            "packet": m.position.packet,
            "checkpoints": {
                stage: {
                    "after": s.after,
                    "resume_from": s.resume_from,
                    "state": base64.b64encode(s.state).decode("ascii"),
                }
                for stage, s in m.position.checkpoints.items()
            },
        }
    content = {
        "format": FORMAT,
        "version": VERSION,
        "id": m.id,
        "source": m.source,
        "config": m.config,
        "graph": m.graph,
        "plan": m.plan,
        "epochs": [
            {"epoch": e.epoch, "width": e.width, "height": e.height, "time_base": str(e.time_base)} for e in m.epochs
        ],
        "state": m.state,
        "watermark": {"epoch": m.watermark.epoch, "seq": m.watermark.seq},
        "position": position,
        "models": dict(m.models),
        "runtime": m.runtime,
        "last_error": m.last_error,
        "counts": dict(m.counts),
    }
    return json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


_HINT = "run again with --overwrite to start anew, or name another directory"


def _refuse(what: str, where: str) -> NoReturn:
    raise StorageError(what, where=where, hint=_HINT)


def _from_json(found: Mapping[str, Any]) -> Manifest:
    position = found["position"]
    return Manifest(
        id=stream_id(found["id"]),
        source=_text(found["source"]),
        config=dict(found["config"]),
        graph=dict(found["graph"]),
        plan=dict(found["plan"]),
        epochs=tuple(
            Epoch(
                epoch=_count(e["epoch"]),
                width=_count(e["width"]),
                height=_count(e["height"]),
                time_base=Fraction(e["time_base"]),
            )
            for e in found["epochs"]
        ),
        state=found["state"],
        watermark=Watermark(epoch=_count(found["watermark"]["epoch"]), seq=_count(found["watermark"]["seq"])),
        position=None
        if position is None
        else Position(
            epoch=_count(position["epoch"]),
            packet=_count(position["packet"]),
            checkpoints={
                _text(stage): Snapshot(
                    after=_count(s["after"]),
                    resume_from=_count(s["resume_from"]),
                    state=base64.b64decode(s["state"], validate=True),
                )
                for stage, s in position["checkpoints"].items()
            },
        ),
        models={k: _text(v) for k, v in found["models"].items()},
        runtime=_text(found["runtime"]),
        last_error=_text(found["last_error"]),
        counts={k: _count(v) for k, v in found["counts"].items()},
    )


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value
