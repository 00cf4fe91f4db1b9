"""Results in a node's shared memory: a process writes them once, others map the file and read without a copy.

A `Slab` is one process's: files under /dev/shm that grow as needed, cut into blocks. Only its maker frees blocks,
and only when the supervisor says that nobody looks at them any more. What a process passes on unchanged stays where it
is: its own results then refer to a block that another has made. The files outlive their maker, so what a process
has made survives its death, as objects in Ray's store do that the caller owns. Whoever began the run removes its files
at the end, by their common name.

Ray's object store does the same through a server on the node; measured (docs/design.md) it costs several times as much
a call.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StorageError

PREFIX = "limpid-slab-"
_LOCK = ".lock"
_ALIGN = 4096
_FILE_BYTES = 16 << 20
_DYING_S = 10.0  # that who held a claim before may take to be gone
_ROOMY = 4  # blocks of the size in need that a new file holds at least


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes in a slab's file; `maker` is the slab's name."""

    maker: str
    path: str
    offset: int
    nbytes: int


class Gone(StorageError):
    """A block is not there any more: its file was removed."""


class _File:
    """One file of a slab: its mapping, and the gaps in it as (offset, nbytes), by offset and never touching."""

    def __init__(self, path: str, nbytes: int) -> None:
        self.path, self.nbytes = path, nbytes
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, nbytes)
            mapped = mmap.mmap(fd, nbytes, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        except OSError:
            os.unlink(path)
            raise
        finally:
            os.close(fd)
        self.array: NDArray[np.uint8] = np.frombuffer(mapped, dtype=np.uint8)
        self.gaps: list[tuple[int, int]] = [(0, nbytes)]

    def take(self, nbytes: int) -> int | None:
        for index, (offset, gap) in enumerate(self.gaps):
            if gap >= nbytes:
                if gap == nbytes:
                    del self.gaps[index]
                else:
                    self.gaps[index] = (offset + nbytes, gap - nbytes)
                return offset
        return None

    def give(self, offset: int, nbytes: int) -> None:
        insort(self.gaps, (offset, nbytes))
        merged: list[tuple[int, int]] = []
        for start, size in self.gaps:
            if merged and merged[-1][0] + merged[-1][1] == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + size)
            else:
                merged.append((start, size))
        self.gaps = merged

    @property
    def empty(self) -> bool:
        return self.gaps == [(0, self.nbytes)]


class Slab:
    """The shared memory that one process writes.

    Args:
        name: of the files, unique; they are `name`.N in one of `directories`.
        directories: where; the next one is taken when one is full.
    """

    def __init__(self, name: str, directories: Sequence[Path]) -> None:
        self._name = name
        self._directories = tuple(directories)
        self._files: dict[str, _File] = {}
        self._made = 0

    def put(self, data: memoryview) -> Block:
        """Copy bytes (C-contiguous) into a block.

        Raises:
            StorageError: there is no room in any of the directories.
        """
        wanted = _rounded(data.nbytes)
        for file in self._files.values():
            offset = file.take(wanted)
            if offset is not None:
                break
        else:
            file = self._grow(wanted)
            offset = file.take(wanted)
            assert offset is not None
        file.array[offset : offset + data.nbytes] = np.frombuffer(data, dtype=np.uint8)
        return Block(self._name, file.path, offset, data.nbytes)

    def free(self, blocks: Sequence[Block]) -> None:
        """Take blocks back; those of files that were dropped are ignored. One empty file is kept for what comes."""
        for block in blocks:
            file = self._files.get(block.path)
            if file is not None:
                file.give(block.offset, _rounded(block.nbytes))
        for file in [f for f in self._files.values() if f.empty][1:]:
            del self._files[file.path]
            unlink(file.path)

    def drop(self) -> None:
        """Remove every file; who has mapped one still reads what was in it, for nothing is written there any more."""
        for path in self._files:
            unlink(path)
        self._files.clear()

    def _grow(self, wanted: int) -> _File:
        nbytes = max(_FILE_BYTES, _ROOMY * wanted)
        why: OSError | None = None
        for directory in self._directories:
            self._made += 1
            path = str(directory / f"{self._name}.{self._made}")
            try:
                file = _File(path, nbytes)
            except OSError as error:
                why = error
                continue
            self._files[path] = file
            return file
        raise StorageError(
            f"no room for {nbytes >> 20} MiB of frames: {why.strerror if why else 'no directory'}",
            where=", ".join(map(str, self._directories)),
            hint="lower flow.queue_bytes or make room",
        )


class Reader:
    """Maps files of slabs; every array it gives tells when nobody looks at it any more."""

    def __init__(self) -> None:
        self._mapped: dict[str, mmap.mmap] = {}
        self._open: dict[tuple[int, int], list[Block]] = {}  # what is looked at, by (address, nbytes): once a view

    def open(self, block: Block, gone: Callable[[], None]) -> NDArray[np.uint8]:
        """Return a block's bytes, read-only; `gone` is called when the last view of them has been dropped.

        Raises:
            StorageError: the file is not there.
        """
        mapped = self._mapped.get(block.path)
        if mapped is None:
            mapped = self._map(block.path)
        # An array of its own on the mapping, never a slice of a larger one: NumPy lets views refer to the last array
        # in a chain of slices, and what `gone` hangs on would die before them.
        array: NDArray[np.uint8] = np.frombuffer(mapped, dtype=np.uint8, count=block.nbytes, offset=block.offset)
        key = _place(array)
        self._open.setdefault(key, []).append(block)
        finalize(array, self._close, key, gone).atexit = False
        return array

    def block_of(self, data: memoryview) -> Block | None:
        """Return the block whose bytes these are, all of them; None if they are no open block's."""
        blocks = self._open.get(_place(np.frombuffer(data, dtype=np.uint8)))
        return blocks[0] if blocks else None

    def _close(self, key: tuple[int, int], gone: Callable[[], None]) -> None:
        self._open[key].pop()
        if not self._open[key]:
            del self._open[key]
        gone()

    def _map(self, path: str) -> mmap.mmap:
        for known in [p for p in self._mapped if not os.path.exists(p)]:
            del self._mapped[known]
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise Gone(f"frames in shared memory are gone: {error.strerror}", where=path, hint="run again") from error
        try:
            mapped = mmap.mmap(fd, 0, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, prot=mmap.PROT_READ)
        finally:
            os.close(fd)
        self._mapped[path] = mapped
        return mapped


class Custody:
    """The supervisor's side: which blocks are still needed, and what their makers may take back.

    A `Held` object stands for an item; while anything in this process refers to it (the flow, a call under way, a loan)
    its blocks stay. Items of several processes may share a block.
    """

    def __init__(self) -> None:
        self._free: dict[str, list[Block]] = {}
        self._holders: dict[Block, int] = {}
        self._needed: dict[str, int] = {}  # blocks, by file
        self._dead: set[str] = set()

    def hold(self, blocks: Sequence[Block]) -> None:
        """Count one more item that needs these blocks."""
        for block in blocks:
            holders = self._holders[block] = self._holders.get(block, 0) + 1
            if holders == 1:
                self._needed[block.path] = self._needed.get(block.path, 0) + 1

    def let_go(self, blocks: Sequence[Block]) -> None:
        """Count one item off. What none needs its maker may have back; of a dead maker, empty files are removed."""
        for block in blocks:
            self._holders[block] -= 1
            if self._holders[block]:
                continue
            del self._holders[block]
            if block.maker not in self._dead:
                self._free.setdefault(block.maker, []).append(block)
            self._needed[block.path] -= 1
            if self._needed[block.path] == 0:
                del self._needed[block.path]
                if block.maker in self._dead:
                    unlink(block.path)

    def freed(self, maker: str) -> tuple[Block, ...]:
        """Return, once, what `maker` may take back."""
        return tuple(self._free.pop(maker, ()))

    def died(self, maker: str, files: Sequence[str]) -> None:
        """Note that a maker is dead: of its `files` those without a needed block are removed."""
        self._dead.add(maker)
        self._free.pop(maker, None)
        for path in files:
            if path not in self._needed:
                unlink(path)


def files_of(name: str, directories: Sequence[Path]) -> list[str]:
    """Return the files of the slabs whose name begins with `name`."""
    return [str(path) for directory in directories for path in directory.glob(f"{name}*")]


def unlink(path: str) -> None:
    """Remove a file, if it is there."""
    Path(path).unlink(missing_ok=True)


class Claim:
    """A run's files: `run` names them all, and they are in use as long as the process that claimed them lives.

    A lock says so, not a process number: containers that share /dev/shm do not share those.
    """

    def __init__(self, run: str, directories: Sequence[Path]) -> None:
        self.name = f"{PREFIX}{run}"
        self.directories = tuple(directories)
        path, until = self.directories[0] / f"{self.name}{_LOCK}", time.monotonic() + _DYING_S
        while (lock := _locked(path)) is None and time.monotonic() < until:
            time.sleep(0.05)
        self._lock = lock
        assert self._lock is not None, f"{self.name} is taken"

    def release(self) -> None:
        """Remove every file of the run."""
        for path in files_of(self.name, self.directories):
            unlink(path)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def sweep(directories: Sequence[Path]) -> int:
    """Remove the files of runs whose process is gone (killed, so that it could not); return how many."""
    removed = 0
    for lock in [Path(p) for p in files_of(PREFIX, directories) if p.endswith(_LOCK)]:
        held = _locked(lock)
        if held is not None:
            for path in files_of(lock.name.removesuffix(_LOCK), directories):
                unlink(path)
                removed += 1
            os.close(held)
    return removed


def _locked(path: Path) -> int | None:
    """Return a descriptor that holds the lock `path`; None where another process has it or it is not ours to take."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


def _place(array: NDArray[np.uint8]) -> tuple[int, int]:
    return array.__array_interface__["data"][0], array.nbytes


def _rounded(nbytes: int) -> int:
    return max(_ALIGN, -(-nbytes // _ALIGN) * _ALIGN)
