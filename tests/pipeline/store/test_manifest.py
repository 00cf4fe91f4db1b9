from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.store.manifest import NAME, Epoch, Manifest, Position, Watermark, load, save, to_json
from pipeline.store.objects import Store, open_store
from pipeline.wire.acks import Snapshot
from pipeline.wire.ids import StreamId

FULL = Manifest(
    id=StreamId("gate-3"),
    source="https://h/x.mp4",
    config={"scale": 2, "gain": 0.1, "classes": ["person"]},
    graph={"stages": [{"name": "decode"}]},
    plan={"chained": True},
    epochs=(
        Epoch(epoch=0, width=641, height=359, time_base=Fraction(1, 90000)),
        Epoch(epoch=1, width=1, height=1, time_base=Fraction(1001, 30000)),
    ),
    state="stopped",
    watermark=Watermark(epoch=1, seq=250),
    position=Position(
        epoch=1,
        packet=480,
        checkpoints={
            "decode": Snapshot(after=250, resume_from=480, state=b"\0\xff"),
            "record": Snapshot(after=250, resume_from=250),
        },
    ),
    models={"enhance": "f-edsr-x2@1"},
    runtime="openvino-int8",
    last_error="decode: gave up",
    counts={"frames": 1250, "gaps": 0},
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


@pytest.mark.parametrize("manifest", [FULL, Manifest(id=StreamId("a"), source="x.mp4")])
def test_what_was_saved_is_loaded(store: Store, manifest: Manifest) -> None:
    assert load(store) is None
    save(store, manifest)
    assert load(store) == manifest


def test_the_same_manifest_has_the_same_bytes_whatever_the_order_of_its_keys() -> None:
    other = replace(FULL, config={"classes": ["person"], "gain": 0.1, "scale": 2}, counts={"gaps": 0, "frames": 1250})
    assert to_json(other) == to_json(FULL)


def test_secrets_never_reach_the_file(store: Store) -> None:
    save(
        store,
        Manifest(
            id=StreamId("a"),
            source="rtsp://user:hunter2@h/1?token=hunter3",
            config={"source": {"uri": "rtsp://user:hunter2@h/1"}, "s3": {"secret": "hunter4"}},
            last_error="rtsp://user:hunter2@h/1: refused",
        ),
    )
    assert b"hunter" not in store.get(NAME)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda d: b"", "damaged"),
        (lambda d: b"\xff\xfe", "damaged"),
        (lambda d: d[: len(d) // 2], "damaged"),
        (lambda d: b"[]", "not Limpid's"),
        (lambda d: b'{"name": "an npm package", "version": "1.0.0"}', "not Limpid's"),
        (lambda d: d.replace(b'"version": 1', b'"version": 2'), "version 2"),
        (lambda d: d.replace(b'"seq": 250', b'"seq": -1'), "damaged"),
        (lambda d: d.replace(b"1/90000", b"1/0"), "damaged"),
        (lambda d: d.replace(b'"AP8="', b'"A"'), "damaged"),
        (lambda d: d.replace(b'"id": "gate-3"', b'"id": "../x"'), "damaged"),
        (lambda d: d.replace(b'"stopped"', b'"asleep"'), "damaged"),
    ],
)
def test_a_damaged_or_foreign_manifest_says_what_to_do(store: Store, damage, says: str) -> None:  # type: ignore[no-untyped-def]
    save(store, FULL)
    good = store.get(NAME)
    bad = damage(good)
    assert bad != good
    store.put(NAME, bad)
    with pytest.raises(StorageError, match=rf"{says}.*--overwrite"):
        load(store)


def test_a_manifest_lacking_any_one_key_is_damaged(store: Store) -> None:
    whole = json.loads(to_json(FULL))
    for key in sorted(whole.keys() - {"format", "version"}):
        store.put(NAME, json.dumps({k: v for k, v in whole.items() if k != key}).encode())
        with pytest.raises(StorageError, match=rf"damaged.*{key}"):
            load(store)
