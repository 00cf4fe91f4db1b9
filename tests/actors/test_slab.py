"""Shared memory between processes: nothing is overwritten while somebody looks, nothing is left behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from actors.slab import Block, Claim, Custody, Gone, Reader, Slab, files_of, sweep
from pipeline.errors import StorageError


def data(value: int, nbytes: int) -> memoryview:
    return memoryview(np.full(nbytes, value, np.uint8))


def test_a_block_reads_as_written_and_cannot_be_written(tmp_path: Path) -> None:
    slab, reader = Slab("s", [tmp_path]), Reader()
    first, second = slab.put(data(1, 5000)), slab.put(data(2, 3))
    assert (first.offset, second.offset) == (0, 8192)  # whole pages of 4096
    read = reader.open(first, lambda: None)
    assert read.tobytes() == b"\1" * 5000
    assert reader.open(second, lambda: None).tobytes() == b"\2\2\2"
    with pytest.raises(ValueError, match="read-only"):
        read[0] = 9


def test_a_freed_block_is_used_again_and_neighbours_grow_together(tmp_path: Path) -> None:
    slab = Slab("s", [tmp_path])
    a, b, c = (slab.put(data(n, 4096)) for n in range(3))
    slab.free([a, c])
    slab.free([b])
    assert slab.put(data(7, 3 * 4096)).offset == 0


def test_a_view_of_a_view_keeps_the_loan(tmp_path: Path) -> None:
    """NumPy lets a slice refer to the first array of its chain: the loan must hang on exactly that."""
    block = Slab("s", [tmp_path]).put(data(5, 8192))
    gone: list[int] = []
    view = Reader().open(block, lambda: gone.append(1)).reshape(2, 4096)[1:].reshape(-1)[10:]
    gc.collect()
    assert gone == []
    assert view[0] == 5
    del view
    gc.collect()
    assert gone == [1]


def test_dropped_files_are_still_read_by_who_has_them(tmp_path: Path) -> None:
    slab, reader = Slab("s", [tmp_path]), Reader()
    block = slab.put(data(5, 100))
    read = reader.open(block, lambda: None)
    slab.drop()
    slab.put(data(6, 100))
    assert read.tobytes() == b"\5" * 100
    assert not Path(block.path).exists()


def test_a_reader_says_that_a_file_is_gone(tmp_path: Path) -> None:
    with pytest.raises(Gone):
        Reader().open(Block("s", str(tmp_path / "s.1"), 0, 10), lambda: None)


def test_a_full_directory_is_passed_over(tmp_path: Path) -> None:
    assert Path(Slab("s", [tmp_path / "absent", tmp_path]).put(data(1, 10)).path).parent == tmp_path
    with pytest.raises(StorageError, match="no room"):
        Slab("s", [tmp_path / "absent"]).put(data(1, 10))


def test_one_empty_file_is_kept(tmp_path: Path) -> None:
    slab = Slab("s", [tmp_path])
    blocks = [slab.put(data(1, 10 << 20)) for _ in range(8)]  # files of 40 MiB hold 4 each
    assert len(list(tmp_path.iterdir())) == 2
    slab.free(blocks)
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_looked_at_is_known_by_its_bytes_whole_and_as_long_as_somebody_looks(tmp_path: Path) -> None:
    slab, reader = Slab("s", [tmp_path]), Reader()
    block = slab.put(data(1, 5000))
    assert reader.block_of(data(1, 5000)) is None
    first, second = reader.open(block, lambda: None), reader.open(block, lambda: None)
    assert reader.block_of(memoryview(first.reshape(2, 2500)).cast("B")) == block
    assert reader.block_of(first[:4000].data) is None
    del first
    assert reader.block_of(second.data) == block
    place = np.frombuffer(second.data, np.uint8)  # a view: still looked at
    del second
    gc.collect()
    assert reader.block_of(place.data) == block
    del place
    gc.collect()
    assert not reader._open


def test_custody_gives_blocks_back_to_their_maker_once() -> None:
    custody, block = Custody(), Block("h1", "f", 0, 1)
    custody.hold([block])
    assert custody.freed("h1") == ()
    custody.let_go([block])
    assert custody.freed("h1") == (block,)
    assert custody.freed("h1") == ()


def test_a_block_that_two_items_share_goes_back_after_both() -> None:
    custody, block, other = Custody(), Block("h1", "f", 0, 1), Block("h2", "g", 0, 1)
    custody.hold([block])
    custody.hold([block, other])  # of another process: it passed the block on, beside one of its own
    custody.let_go([block])
    assert custody.freed("h1") == ()
    custody.let_go([block, other])
    assert (custody.freed("h1"), custody.freed("h2")) == ((block,), (other,))


def test_files_of_a_dead_maker_live_as_long_as_they_are_needed(tmp_path: Path) -> None:
    needed, idle = tmp_path / "h1.1", tmp_path / "h1.2"
    needed.touch()
    idle.touch()
    custody, block = Custody(), Block("h1", str(needed), 0, 1)
    custody.hold([block])
    custody.hold([block])
    custody.died("h1", [str(needed), str(idle)])
    assert (needed.exists(), idle.exists()) == (True, False)
    custody.let_go([block])
    assert needed.exists()
    custody.let_go([block])
    assert not needed.exists()
    assert custody.freed("h1") == ()


def test_sweep_removes_only_what_dead_runs_left(tmp_path: Path) -> None:
    """The other process claims a run, writes a block and exits without a word."""
    code = (
        "import os, sys; from pathlib import Path; from actors.slab import Claim, Slab\n"
        "d = [Path(sys.argv[1])]; c = Claim('dead', d); Slab(c.name + '-h1', d).put(memoryview(b'x')); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60, cwd=os.getcwd())
    claim = Claim("live", [tmp_path])
    Slab(f"{claim.name}-h1", [tmp_path]).put(data(1, 1))
    assert sweep([tmp_path]) == 2  # the dead one's lock and file
    assert sorted(p.name for p in tmp_path.iterdir()) == ["limpid-slab-live-h1.1", "limpid-slab-live.lock"]
    claim.release()
    assert files_of("limpid", [tmp_path]) == []
