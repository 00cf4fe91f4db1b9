"""models/ in a stream's directory: the weights that were pushed to it, and what became of each.

    models/f-edsr-<version>.safetensors   weights that stamps name, as they were pushed; never changed, never removed
    models/history.json                   an entry for each model that was tried, oldest first

Stamps decide which weights a frame is made with; the history says why, and where a rollback leads. It is written before
the stamp, so after a crash between the two it may be ahead: `settled` brings it back to what the stamps say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from pipeline.errors import NotFound, StorageError
from pipeline.store.objects import Store

NAME = "models/history.json"
MOST = 200  # entries that are kept; weights of forgotten ones stay

State = Literal["current", "superseded", "rolled-back", "rejected"]
STATES: tuple[State, ...] = get_args(State)

_MODEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}@([1-9][0-9]{0,17})")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelEntry:
    """One model of a stream.

    Attributes:
        model: "name@version", as stamps have it.
        version: of it; of the models that were taken it only rises.
        state: one of STATES.
        at_s: Unix time at which it was tried; 0: the generic one, which the stream began with.
        psnr_before_db, psnr_after_db: on the held-out key frames: of the model in use then, and of this one.
        gain_db: this one's gain there over the generic one.
        parent: name@version that its training started from, as its header says.
        publisher: who signed it.
        before: "name@version" that was in use before: where a rollback leads.
        epoch, seq: first frame that it holds for; −1 where it holds for none.
        reason: why it was rejected or rolled back.
    """

    model: str
    version: int
    state: State
    at_s: float = 0.0
    psnr_before_db: float | None = None
    psnr_after_db: float | None = None
    gain_db: float | None = None
    parent: str | None = None
    publisher: str = ""
    before: str = ""
    epoch: int = -1
    seq: int = -1
    reason: str = ""


def version_of(model: str) -> int:
    """Return the version in "name@version"; 0 where it is no such text."""
    found = _MODEL.fullmatch(model)
    return int(found[1]) if found else 0


def weights_name(model: str) -> str:
    """Return the object of a stream's own weights. Raises StorageError where `model` is no "name@version"."""
    version = version_of(model)
    if not version:
        raise StorageError(f"'{model}' is no model's name and version", hint="the stamps are damaged")
    return f"models/f-edsr-{version}.safetensors"


def load_history(store: Store) -> tuple[ModelEntry, ...]:
    """Return a stream's entries, oldest first; none where nothing was pushed.

    Raises:
        StorageError: the history is damaged or cannot be read.
    """
    try:
        rows = json.loads(store.get(NAME))
        return tuple(_entry(row) for row in rows)
    except NotFound:
        return ()
    except (ValueError, TypeError, KeyError) as error:
        raise StorageError(
            f"the history of models is damaged ({type(error).__name__}: {error})",
            where=f"{store.url}/{NAME}",
            hint="remove the file: the stream keeps the weights that its stamps name",
        ) from error


def save_history(store: Store, entries: Sequence[ModelEntry]) -> None:
    """Write a stream's entries in place of the old ones; of more than MOST the oldest go. Raises StorageError."""
    old = [e for e in entries if e.state != "current" and e.at_s]  # the generic one is where rollbacks end
    gone = set(map(id, old[: max(0, len(entries) - MOST)]))
    rows = [asdict(entry) for entry in entries if id(entry) not in gone]
    store.put(NAME, json.dumps(rows, sort_keys=True, separators=(",", ":")).encode())


def promoted(entries: Sequence[ModelEntry], entry: ModelEntry) -> tuple[ModelEntry, ...]:
    """Return the history in which `entry` has taken the place of the current one."""
    before = tuple(replace(e, state="superseded") if e.state == "current" else e for e in entries)
    return (*before, replace(entry, state="current"))


def rolled_back(entries: Sequence[ModelEntry], to: str, reason: str) -> tuple[ModelEntry, ...]:
    """Return the history in which the current model was taken back for `reason` and `to` is current again."""
    back = [replace(e, state="rolled-back", reason=reason) if e.state == "current" else e for e in entries]
    return _made_current(back, to)


def settled(entries: Sequence[ModelEntry], model: str) -> tuple[ModelEntry, ...]:
    """Return the history as stamps that name `model` last would have it: what was ahead of them holds for no frame."""
    current = next((e for e in entries if e.state == "current"), None)
    if current is None or current.model == model:
        return tuple(entries)
    if current.before == model:
        reason = "the service ended before it was taken"
        back = [replace(e, state="rejected", epoch=-1, seq=-1, reason=reason) if e is current else e for e in entries]
    else:  # a rollback that was not stamped: the one that it took back holds still
        back = [replace(e, state="superseded") if e is current else e for e in entries]
    return _made_current(back, model)


def _made_current(entries: Sequence[ModelEntry], model: str) -> tuple[ModelEntry, ...]:
    at = max((i for i, e in enumerate(entries) if e.model == model and e.state != "rejected"), default=-1)
    return tuple(replace(e, state="current", reason="") if i == at else e for i, e in enumerate(entries))


def _entry(row: dict[str, Any]) -> ModelEntry:
    entry = ModelEntry(**row)
    if entry.state not in STATES or type(entry.version) is not int or not isinstance(entry.model, str):
        raise ValueError(f"an entry is {row!r}")
    return entry
