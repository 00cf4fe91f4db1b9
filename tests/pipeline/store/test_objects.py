"""Both kinds of store keep the same promises; S3 is a real server that speaks S3 on 127.0.0.1."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import NotFound, StorageError
from pipeline.store.objects import LEFTOVER_AGE_S, TEMPORARY_PREFIX, LocalStore, Store, check_name, open_store
from tests.s3_server import s3_server


@pytest.fixture(scope="module")
def s3_bucket() -> Iterator[str]:
    """A bucket of a server of this process."""
    with s3_server("limpid-test"):
        yield "limpid-test"


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return open_store(str(tmp_path / "out"))
    bucket = request.getfixturevalue("s3_bucket")
    return open_store(f"s3://{bucket}/{tmp_path.name}")


def test_what_exists_wins(store: Store) -> None:
    assert store.put_new("tables/frames/part-0.parquet", b"first")
    assert not store.put_new("tables/frames/part-0.parquet", b"second")
    assert store.get("tables/frames/part-0.parquet") == b"first"


def test_one_of_many_concurrent_writers_wins_and_its_object_is_whole(store: Store) -> None:
    start, won = threading.Barrier(4), []

    def write(i: int) -> None:
        start.wait(10)
        if store.put_new("x", bytes([i]) * 200_000):
            won.append(i)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)
    assert len(won) == 1
    assert store.get("x") == bytes(won) * 200_000


def test_put_replaces(store: Store) -> None:
    store.put("manifest.json", b"old")
    store.put("manifest.json", b"new")
    assert store.get("manifest.json") == b"new"


def test_list_is_sorted_deep_and_by_prefix(store: Store) -> None:
    for name in ("b", "a/2", "a/1", "a/b/3", "ab"):
        store.put(name, b"")
    assert store.list() == ["a/1", "a/2", "a/b/3", "ab", "b"]
    assert store.list("a/") == ["a/1", "a/2", "a/b/3"]
    assert store.list("a") == ["a/1", "a/2", "a/b/3", "ab"]
    assert store.list("a/b/") == ["a/b/3"]
    assert store.list("none/") == []


def test_a_part_sees_its_own_names(store: Store) -> None:
    part = store.part("tables/frames")
    part.put("x", b"1")
    assert store.get("tables/frames/x") == b"1"
    assert part.list() == ["x"]
    assert open_store(part.url).get("x") == b"1"


def test_missing_objects(store: Store) -> None:
    assert not store.exists("x")
    store.delete("x")
    with pytest.raises(NotFound, match="no such object"):
        store.get("x")


def test_deleted_objects_are_gone_and_may_be_written_again(store: Store) -> None:
    store.put_new("x", b"1")
    assert store.exists("x")
    store.delete("x")
    assert not store.exists("x")
    assert store.put_new("x", b"2")


def test_check_leaves_nothing(store: Store) -> None:
    store.check()
    assert store.list() == []


@pytest.mark.parametrize(
    "name", ["", "/x", "a//b", "../x", "a/../x", ".", "a/.", "a\\b", "a\0", f"a/{TEMPORARY_PREFIX}1"]
)
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(StorageError, match="no object's name"):
        check_name(name)


def test_leftovers_of_killed_processes_are_never_listed_and_go_when_old(tmp_path: Path) -> None:
    old, young = tmp_path / f"{TEMPORARY_PREFIX}1-a", tmp_path / f"{TEMPORARY_PREFIX}2-b"
    for path in (old, young):
        path.write_bytes(b"half")
    past = time.time() - LEFTOVER_AGE_S - 1
    os.utime(old, (past, past))
    store = open_store(str(tmp_path))
    assert store.list() == []
    store.put("x", b"1")
    assert not old.exists() and young.exists()


def test_a_process_killed_while_it_writes_leaves_only_whole_objects(tmp_path: Path) -> None:
    """kill -9 in the middle of a row of 4 MB objects, three times over; each is whole or not there."""
    program = (
        "import itertools, sys; from pipeline.store.objects import open_store; store = open_store(sys.argv[1])\n"
        "for i in itertools.count(int(sys.argv[2])): store.put_new(f'x/{i}', bytes([i % 251]) * (4 << 20))"
    )
    store = open_store(str(tmp_path))
    for round_ in range(3):
        begun = len(store.list())
        with subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(begun)]) as process:
            deadline = time.monotonic() + 60
            while len(store.list()) < begun + 3:
                assert process.poll() is None and time.monotonic() < deadline, f"round {round_}: nothing was written"
            process.kill()
        for name in store.list():
            assert store.get(name) == bytes([int(name.removeprefix("x/")) % 251]) * (4 << 20)
    assert len(store.list()) >= 9


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as f:
            f.write(data[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    store = open_store(str(tmp_path))
    monkeypatch.setattr(Path, "write_bytes", full)
    for write in (store.put_new, store.put):
        with pytest.raises(StorageError, match=r"disk is full.*free some space"):
            write("x", b"1234")
    assert list(tmp_path.iterdir()) == []


def test_file_systems_without_hard_links_are_written_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(a: Path, b: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    store = open_store(str(tmp_path))
    assert store.put_new("x", b"1") and not store.put_new("x", b"2")
    assert [p.name for p in tmp_path.iterdir()] == ["x"] and store.get("x") == b"1"


def test_a_file_in_the_place_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="a file, not a directory"):
        open_store(str(tmp_path / "file"))
    with pytest.raises(StorageError, match="choose another directory"):
        open_store(str(tmp_path / "file" / "below")).put_new("x", b"")


def test_a_directory_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)  # tests may run as root, whom no mode bit stops
    with pytest.raises(StorageError, match=r"may not be written.*choose a directory"):
        open_store(str(tmp_path / "x")).check()


def test_urls_of_local_stores(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/a%20b")
    assert isinstance(store, LocalStore) and store.root == tmp_path / "a b"
    assert store.url == f"{tmp_path}/a b"


@pytest.mark.parametrize("url", ["", "ftp://x/y", "file://host/x", "s3://", "s3:///x", "s3://key:secret@bucket/x"])
def test_places_that_are_none(url: str) -> None:
    with pytest.raises(StorageError) as caught:
        open_store(url)
    assert caught.value.hint
    assert "secret" not in str(caught.value)


def test_a_missing_bucket_is_told(s3_bucket: str) -> None:
    store = open_store("s3://limpid-none/x")
    for call in (lambda: store.put_new("a", b""), lambda: store.put("a", b""), store.list):
        with pytest.raises(StorageError, match=r"no bucket 'limpid-none'.*create it first"):
            call()


def test_missing_credentials_are_told(s3_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(StorageError, match=r"no credentials.*AWS_ACCESS_KEY_ID"):
        open_store(f"s3://{s3_bucket}/x").put("a", b"")
