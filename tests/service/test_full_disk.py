"""A disk that fills up in the middle of a run: told once, what is written plays, the run goes on where there is room.

A real file system of a few hundred kB, which only root may mount.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from pipeline.cli import main

SCENE = "synthetic://street?width=256&height=144&fps=25&seed=3&seconds=14"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or _mount("-t", "tmpfs", "-o", "size=80m", "tmpfs", str(folder)) != 0:
        pytest.skip("only root may mount a small file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True, timeout=30)


def _mount(*words: str) -> int:
    return subprocess.run(["mount", *words], capture_output=True, timeout=30, check=False).returncode


def _frames(folder: Path) -> int:
    with av.open(str(folder / "hls" / "index.m3u8")) as container:
        return sum(1 for _ in container.decode(video=0))


def test_what_came_before_plays_and_the_run_goes_on(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """14 s at 25 frames a second are 350 frames; room for a part of them is left once the run has begun."""
    out = small_disk / "out"
    ballast = small_disk / "ballast"
    words = ["run", SCENE, "-o", str(out), "--local", "--no-enhance"]
    free = os.statvfs(small_disk)
    # The command wants 64 MiB to begin with, so the disk is nearly filled by a file that grows with the first segment.
    room = free.f_bavail * free.f_frsize - (200 << 10)
    with _Filling(ballast, room, until=out / "hls" / "main" / "index.m3u8"):
        assert main(words) == 1
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if "the disk is full" in line]
    before = _frames(out)
    assert 0 < before < 350
    ballast.unlink()
    assert main(words) == 0
    assert _frames(out) == 350


class _Filling:
    """Fills a disk with a file of `nbytes` as soon as `until` exists."""

    def __init__(self, path: Path, nbytes: int, *, until: Path) -> None:
        code = (
            "import os, sys, time\n"
            f"deadline = time.monotonic() + 60\n"
            f"while not os.path.exists({str(until)!r}) and time.monotonic() < deadline: time.sleep(0.02)\n"
            f"fd = os.open({str(path)!r}, os.O_CREAT | os.O_WRONLY)\n"
            f"os.posix_fallocate(fd, 0, {nbytes})\n"
        )
        self._code = code

    def __enter__(self) -> None:
        self._process = subprocess.Popen(["python3", "-c", self._code])

    def __exit__(self, *_: object) -> None:
        self._process.wait(timeout=90)
