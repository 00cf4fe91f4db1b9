"""Objects by name in a directory or an S3 bucket: complete or not at all, and what exists wins.

Names are relative POSIX paths ("hls/0-12.m4s"). Two ways to write:
    put_new   for what is named by its content (a segment, a Parquet part): the first writer wins, so a second try
              after a crash, or a process that everyone took for dead, changes nothing;
    put       for what is replaced (manifest.json, a live playlist): readers see the old or the new object, never half.
A write survives the death of the process as soon as the call returns. Nothing is flushed to the medium (fsync), so a
power cut may take the last seconds; the watermark in the manifest would then be ahead of them (chosen: an fsync a
segment costs more than all else that a segment does on a slow disk).
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import secrets
import time
from abc import ABC, abstractmethod
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.errors import NotFound, StorageError

TEMPORARY_PREFIX = ".tmp-"
"""How names of unfinished objects begin: never listed, never accepted as a name."""

LEFTOVER_AGE_S = 600.0
"""Age from which an unfinished object belongs to a dead process (no write here takes minutes)."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_FOLDER = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR)
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class Store(ABC):
    """A folder of objects, local or on S3; `url` opens it again."""

    url: str

    @abstractmethod
    def put_new(self, name: str, data: bytes) -> bool:
        """Write an object unless one of that name exists; return whether it was written.

        Raises:
            StorageError: it cannot be written (full, not allowed, no bucket, …).
        """

    @abstractmethod
    def put(self, name: str, data: bytes) -> None:
        """Write an object, in place of one that exists. Raises StorageError."""

    @abstractmethod
    def get(self, name: str) -> bytes:
        """Return an object's bytes. Raises NotFound, StorageError."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Say whether there is such an object. Raises StorageError."""

    @abstractmethod
    def list(self, prefix: str = "") -> list[str]:
        """Return the names that begin with `prefix`, sorted, of all depths; [] where there are none."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove an object; nothing happens where there is none. Raises StorageError."""

    @abstractmethod
    def part(self, prefix: str) -> Store:
        """Return the store of the objects below "prefix/"."""

    def check(self) -> None:
        """Write and remove a small object. Raises StorageError where results could not be written."""
        name = f"check-{secrets.token_hex(8)}"
        self.put(name, b"limpid")
        self.delete(name)


def open_store(url: str) -> Store:
    """Return the store at a path, a file:// URL or s3://bucket/prefix; folders come into being at the first write.

    S3's endpoint, region and credentials are boto3's own business (AWS_ENDPOINT_URL, AWS_PROFILE, …).

    Raises:
        StorageError: no such scheme, no bucket's name, or the path is a file.
    """
    if not url:
        raise StorageError("there is no place for results", hint="name a directory or s3://bucket/prefix")
    scheme, mark, rest = url.partition("://")
    if not mark:
        return LocalStore(Path(url))
    if scheme == "file":
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost"):
            raise StorageError("a file:// URL names a path of this machine", where=url, hint="write file:///path")
        return LocalStore(Path(unquote(parts.path)))
    if scheme == "s3":
        # boto3 takes 0.2 s and 20 MB to import: only those who store there pay.
        s3 = importlib.import_module("pipeline.store.s3")
        bucket, _, prefix = rest.partition("/")
        store: Store = s3.S3Store(bucket, prefix)
        return store
    raise StorageError(f"results cannot be written to {scheme}://", hint="name a directory, file:// or s3://")


def check_name(name: str) -> str:
    """Return an object's name. Raises StorageError where it is empty, absolute or leads out of the store."""
    parts = name.split("/")
    wrong = any(p in ("", ".", "..") or p.startswith(TEMPORARY_PREFIX) for p in parts)
    if wrong or "\\" in name or "\0" in name:
        raise StorageError(f"{name!r} is no object's name", hint="use a relative path without '..'")
    return name


class LocalStore(Store):
    """Objects as files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))
        self.url = str(self.root)
        self._swept: set[Path] = set()
        if self.root.exists() and not self.root.is_dir():
            raise StorageError("this is a file, not a directory", where=self.url, hint="name another directory")

    def put_new(self, name: str, data: bytes) -> bool:
        """See Store. Where the file system has no hard links, it is one writer at a time that is safe."""
        path = self.root / check_name(name)
        try:
            if path.exists():
                return False
            temporary = self._write_temporary(path, data)
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise _failure(error, "written", path) from error
        return True

    def put(self, name: str, data: bytes) -> None:
        """See Store."""
        path = self.root / check_name(name)
        try:
            temporary = self._write_temporary(path, data)
            try:
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise _failure(error, "written", path) from error

    def get(self, name: str) -> bytes:
        """See Store."""
        path = self.root / check_name(name)
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise NotFound("there is no such object", where=str(path)) from error
        except OSError as error:
            raise _failure(error, "read", path) from error

    def exists(self, name: str) -> bool:
        """See Store."""
        return (self.root / check_name(name)).is_file()

    def list(self, prefix: str = "") -> list[str]:
        """See Store."""
        folder = self.root / check_name(prefix.rpartition("/")[0]) if "/" in prefix else self.root
        names: list[str] = []
        for base, _, files in os.walk(folder, onerror=_unless_missing):
            place = os.path.relpath(base, self.root)
            lead = "" if place == "." else f"{Path(place).as_posix()}/"
            names += [lead + f for f in files if not f.startswith(TEMPORARY_PREFIX)]
        return sorted(n for n in names if n.startswith(prefix))

    def delete(self, name: str) -> None:
        """See Store."""
        path = self.root / check_name(name)
        try:
            path.unlink(missing_ok=True)
        except NotADirectoryError:
            return
        except OSError as error:
            raise _failure(error, "removed", path) from error

    def part(self, prefix: str) -> LocalStore:
        """See Store."""
        return LocalStore(self.root / check_name(prefix))

    def _write_temporary(self, path: Path, data: bytes) -> Path:
        folder = path.parent
        folder.mkdir(parents=True, exist_ok=True)
        if folder not in self._swept:
            _sweep(folder)
            self._swept.add(folder)
        temporary = folder / f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(6)}"
        try:
            temporary.write_bytes(data)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        return temporary


def _sweep(folder: Path) -> None:
    """Remove what killed processes left unfinished in a folder."""
    limit = time.time() - LEFTOVER_AGE_S
    for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
        # Those of writers at work are made and gone while one looks.
        with contextlib.suppress(FileNotFoundError):
            if path.lstat().st_mtime < limit:
                path.unlink()


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise _failure(error, "listed", Path(str(error.filename))) from error


def _failure(error: OSError, done: str, path: Path) -> StorageError:
    where = str(path)
    if error.errno in _FULL:
        return StorageError("the disk is full", where=where, hint="free some space or choose another directory")
    if error.errno in _FORBIDDEN:
        return StorageError(
            f"it may not be {done} ({error.strerror})", where=where, hint="choose a directory that you may write to"
        )
    if error.errno in _NO_FOLDER:
        return StorageError(
            f"it cannot be {done}: a part of the path is not what it should be ({error.strerror})",
            where=where,
            hint="choose another directory",
        )
    return StorageError(f"it cannot be {done} ({error.strerror or error})", where=where)
