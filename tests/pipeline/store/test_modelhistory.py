"""pipeline.store.modelhistory: what became of each model, and what stamps make of a history that is ahead of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.store import modelhistory
from pipeline.store.modelhistory import ModelEntry, promoted, rolled_back, settled, version_of, weights_name
from pipeline.store.objects import open_store

GENERIC = ModelEntry(model="m@2", version=2, state="current")


def entry(version: int, before: str) -> ModelEntry:
    return ModelEntry(model=f"m@{version}", version=version, state="current", at_s=float(version), before=before)


def states(entries: tuple[ModelEntry, ...]) -> dict[str, str]:
    return {e.model: e.state for e in entries}


THREE = promoted((GENERIC,), entry(3, "m@2"))
FOUR = promoted(THREE, entry(4, "m@3"))


def test_what_is_promoted_supersedes_and_what_is_rolled_back_gives_place() -> None:
    assert states(FOUR) == {"m@2": "superseded", "m@3": "superseded", "m@4": "current"}
    back = rolled_back(FOUR, "m@3", "by request")
    assert states(back) == {"m@2": "superseded", "m@3": "current", "m@4": "rolled-back"}
    assert back[-1].reason == "by request"
    assert states(rolled_back(back, "m@2", "")) == {"m@2": "current", "m@3": "rolled-back", "m@4": "rolled-back"}


def test_a_history_that_is_ahead_of_the_stamps_goes_back_to_them() -> None:
    """A process died after it had written the history and before the stamp: of a promotion, of a rollback."""
    assert states(settled(FOUR, "m@4")) == states(FOUR)
    assert states(settled(FOUR, "m@3")) == {"m@2": "superseded", "m@3": "current", "m@4": "rejected"}
    back = rolled_back(FOUR, "m@2", "worse")
    assert states(settled(back, "m@4")) == states(FOUR)
    assert settled((), "m@2") == ()


def test_it_comes_back_as_it_was_written_and_the_oldest_go(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    assert modelhistory.load_history(store) == ()
    modelhistory.save_history(store, FOUR)
    assert modelhistory.load_history(store) == FOUR
    many = [replace(entry(5 + n, "m@4"), state="rejected") for n in range(modelhistory.MOST)]
    modelhistory.save_history(store, (*FOUR, *many))
    kept = modelhistory.load_history(store)
    assert len(kept) == modelhistory.MOST
    assert [e.model for e in kept[:2]] == ["m@2", "m@4"] and kept[-1] == many[-1]


@pytest.mark.parametrize(
    "text", ["no json", "[1]", '[{"model": "m@1"}]', '[{"model": 1, "version": 1, "state": "current"}]']
)
def test_a_damaged_history_is_told_with_its_place(tmp_path: Path, text: str) -> None:
    store = open_store(str(tmp_path))
    store.put(modelhistory.NAME, text.encode())
    with pytest.raises(StorageError, match="history of models is damaged"):
        modelhistory.load_history(store)


def test_a_stamp_names_a_file_in_the_streams_directory_and_nothing_else() -> None:
    assert weights_name("f-edsr-x2@17") == "models/f-edsr-17.safetensors"
    for name in ("f-edsr-x2", "x@0", "x@-1", "../x@1", "x@1/../../y", "x@1\n", ""):
        assert version_of(name) == 0
        with pytest.raises(StorageError):
            weights_name(name)
