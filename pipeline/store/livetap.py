"""The live tap: every coded frame of a stream as a fragment in a growing file, long before its segment is complete.

    live/<view>/<epoch>-init.mp4          the epoch's initialisation segment
    live/<view>/<epoch>-<segment>.frag    fragments (prft, moof, mdat) of a segment's frames, so far

Theory of operation
-------------------
A segment's fragments are a function of its frames, so an encoder that died is followed by one that writes the same
bytes from the file's start on, in place: a reader that stands at byte n is not disturbed, and goes on when the file
grows past n. (Only the capture times in the `prft` boxes may differ, which are as long.) A reader takes whole
fragments; what it sees of one that is being written waits. A file is complete once a later one is there. Files of
segments that nobody has written to for KEEP_S are removed when the next one begins. Nothing is flushed, nothing is
durable: the segments are.

Only for directories: objects on S3 cannot grow.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import StorageError
from pipeline.store.objects import LocalStore, Store

KEEP_S = 10.0
"""Seconds that a file stays after it was written to last (chosen: a viewer that is further behind skips anyway)."""

FAR_BEHIND = 2
"""Segments: a reader that finds so many later ones skips to the newest."""

_READ_BYTES = 1 << 18  # half a second of 4 Mbit/s: a slow viewer holds no more than that of what is old
_LARGEST_BYTES = 1 << 26  # of a box: no frame of ours is as large
_NAME = re.compile(r"(\d+)-(\d+)\.frag")


def folder(store: Store, view: str) -> Path | None:
    """Return where the tap of a view ("main", "input") of a stream is; None where the store is no directory."""
    return store.root / "live" / view if isinstance(store, LocalStore) else None


class LiveWriter:
    """Writes a view's files; one at a time is open."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._epoch: int | None = None
        self._file: int | None = None
        self._at = 0

    def begin(self, epoch: int, number: int, init: bytes) -> None:
        """Begin segment `number` of an epoch, over what an earlier writer left of it. Raises StorageError."""
        self.close()
        name = f"{epoch}-{number}.frag"
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            if epoch != self._epoch:
                temporary = self._root / f".tmp-{os.getpid()}"
                temporary.write_bytes(init)
                temporary.replace(self._root / _init_name(epoch))
                self._epoch = epoch
            self._file = os.open(self._root / name, os.O_WRONLY | os.O_CREAT, 0o644)
            os.utime(self._file)  # what a dead writer left is in use again
            self._at = 0
            self._remove_old(keep=name, epoch=epoch)
        except OSError as error:
            raise _failure(error, self._root) from error

    def append(self, fragment: bytes) -> None:
        """Write the next fragment; readers have it once this returns. Raises StorageError."""
        assert self._file is not None, "a segment has begun"
        rest = memoryview(fragment)
        try:
            while rest:
                written = os.pwrite(self._file, rest, self._at)
                self._at += written
                rest = rest[written:]
        except OSError as error:
            raise _failure(error, self._root) from error

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _remove_old(self, *, keep: str, epoch: int) -> None:
        limit = time.time() - KEEP_S
        left = {epoch}
        for path in self._root.glob("*.frag"):
            # Another writer, taken for dead, may remove them at the same time.
            with contextlib.suppress(FileNotFoundError):
                if path.name != keep and path.stat().st_mtime < limit:
                    path.unlink()
                elif found := _NAME.fullmatch(path.name):
                    left.add(int(found[1]))
        needed = {_init_name(number) for number in left}
        for path in self._root.glob("*-init.mp4"):
            if path.name not in needed:
                path.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Began:
    """An epoch's fragments follow; decoders start with `init`."""

    epoch: int
    init: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """The reader was too far behind and went to the start of the newest segment, past so many others."""

    segments: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Fragments:
    """Whole fragments, a frame each, in order."""

    data: tuple[bytes, ...]


class LiveReader:
    """Follows a view from the newest segment's start on. It never waits: who calls it decides when to look again."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._told: list[Began | Skipped] = []
        self._epoch: int | None = None
        self._place: tuple[int, int] | None = None
        self._file: int | None = None
        self._at = 0

    def read(self) -> Began | Skipped | Fragments | None:
        """Return what comes next; None while there is nothing. Raises StorageError for a damaged file."""
        if self._told:
            return self._told.pop(0)
        files = self._files()  # looked at first: what lies in a file that has a later one is all that it will hold
        if self._place is not None and files and self._place not in files and self._place > files[-1]:
            self._leave()  # the stream was deleted and begun anew
        if self._place is None:
            return self._enter(files[-1]) if files else None
        later = [place for place in files if place > self._place]
        if len(later) >= FAR_BEHIND:
            self._told.append(Skipped(segments=len(later)))
            return self._enter(later[-1])
        fragments = self._take()
        if fragments:
            return Fragments(data=fragments)
        return self._enter(later[0]) if later else None

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _files(self) -> list[tuple[int, int]]:
        try:
            names = os.listdir(self._root)
        except FileNotFoundError:
            return []
        return sorted((int(m[1]), int(m[2])) for m in map(_NAME.fullmatch, names) if m)

    def _leave(self) -> None:
        self.close()
        self._place = self._epoch = None

    def _enter(self, place: tuple[int, int]) -> Began | Skipped | Fragments | None:
        self.close()
        epoch, number = place
        try:
            if epoch != self._epoch:
                self._told.append(Began(epoch=epoch, init=(self._root / _init_name(epoch)).read_bytes()))
            self._file = os.open(self._root / f"{epoch}-{number}.frag", os.O_RDONLY)
        except FileNotFoundError:
            # Removed meanwhile: what is newest now will be found at the next look.
            self._leave()
            return None
        self._epoch, self._place, self._at = epoch, place, 0
        return self.read()

    def _take(self) -> tuple[bytes, ...]:
        """Return the whole fragments between the place in the file and its end, a block of them at most."""
        assert self._file is not None
        size = _READ_BYTES
        while True:
            data = os.pread(self._file, size, self._at)
            fragments = _whole(data, self._root)
            if fragments or len(data) < size:
                break
            size *= 2
        self._at += sum(map(len, fragments))
        return fragments


def _whole(data: bytes, where: Path) -> tuple[bytes, ...]:
    """Return the fragments that `data` begins with and holds whole: each ends with its `mdat`."""
    fragments = []
    start = at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4])
        if not 8 <= size <= _LARGEST_BYTES:
            raise StorageError("the live view's file is damaged", where=str(where), hint="watch the segments instead")
        if at + size > len(data):
            break
        at += size
        if data[at - size + 4 : at - size + 8] == b"mdat":
            fragments.append(data[start:at])
            start = at
    return tuple(fragments)


def _init_name(epoch: int) -> str:
    return f"{epoch}-init.mp4"


def _failure(error: OSError, where: Path) -> StorageError:
    return StorageError(
        f"the live view cannot be written ({error.strerror})",
        where=str(where),
        hint="free some space, or choose a directory that you may write to",
    )
