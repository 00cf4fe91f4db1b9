"""Every example of README and docs runs, in the order of its document, in a directory of the document's own.

Blocks marked `bash` and `python` run; a block whose first line is a comment with a file's name ("# graph.yaml") is
written there instead. `sh` marks what would run the tests within the tests (`make test`).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LIMIT_S = 270  # of a block; they take a quarter of it on two idle cores

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"# ([\w.]+\.\w+)\n")
_LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


class Block(NamedTuple):
    language: str
    text: str


def _blocks(document: Path) -> Iterator[Block]:
    for match in _BLOCK.finditer(document.read_text(encoding="utf-8")):
        yield Block(match[1], match[2])


def _environment(folder: Path) -> dict[str, str]:
    """`limpid` leads to this checkout, installed or not."""
    programs = folder / "bin"
    programs.mkdir()
    limpid = programs / "limpid"
    limpid.write_text(
        f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{ROOT}" exec {sys.executable} -m pipeline.cli "$@"\n', encoding="utf-8"
    )
    limpid.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }


def _words(block: Block) -> list[str]:
    return ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else [sys.executable, "-W", "error", "-c"]


RUNNABLE = [d for d in DOCUMENTS if any(b.language in ("bash", "python") for b in _blocks(d))]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("document", RUNNABLE, ids=lambda path: path.name)
def test_examples_run(document: Path, tmp_path: Path) -> None:
    environment = _environment(tmp_path)
    for block in _blocks(document):
        name = _NAME.match(block.text)
        if name and block.language in ("yaml", "python"):
            (tmp_path / name[1]).write_text(block.text, encoding="utf-8")
    for block in _blocks(document):
        if block.language not in ("bash", "python") or _NAME.match(block.text):
            continue
        done = subprocess.run(
            [*_words(block), block.text],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"


def test_readme_shows_the_main_targets_and_five_commands() -> None:
    blocks = list(_blocks(ROOT / "README.md"))
    shell = "\n".join(block.text for block in blocks if block.language == "sh")
    assert "make demo" in shell and "make test" in shell
    commands = [line for b in blocks if b.language == "bash" for line in b.text.splitlines() if line]
    assert len(commands) == 5
    assert all(line.startswith("limpid ") for line in commands)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    targets = [t for t in _LINK.findall(document.read_text(encoding="utf-8")) if "://" not in t]
    assert [target for target in targets if not (document.parent / target).exists()] == []
