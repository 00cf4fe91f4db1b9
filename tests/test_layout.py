"""The shape of the repository: sizes, names, docstrings, and what may be imported where."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("pipeline", "actors")
ALL = (*PRODUCT, "tests", "benchmarks")
MAX_LINES = 600
BANNED_NAMES = ("util", "helper", "manager", "common", "misc")

IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
import pipeline
for module in pkgutil.walk_packages(pipeline.__path__, "pipeline."):
    importlib.import_module(module.name)
found = sorted(name for name in ("ray", "fastapi", "starlette", "uvicorn", "actors") if name in sys.modules)
print("imported:", *found)
"""


def _files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_file_is_too_long() -> None:
    lengths = {_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in _files(*ALL)}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_every_module_says_what_it_is() -> None:
    assert [_name(path) for path in _files(*PRODUCT, "benchmarks") if not ast.get_docstring(_tree(path))] == []


def test_no_file_has_a_name_that_says_nothing() -> None:
    assert [_name(p) for p in _files(*ALL) if any(banned in p.stem.lower() for banned in BANNED_NAMES)] == []


def test_nothing_is_left_to_do() -> None:
    pattern = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")
    found = [_name(path) for path in _files(*ALL) if pattern.search(path.read_text(encoding="utf-8"))]
    assert found == []


def test_no_test_sleeps() -> None:
    """A test waits for a condition with a deadline (Event.wait, Queue.get, a process's end)."""
    found = []
    for path in _files("tests"):
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.sleep", "sleep", "asyncio.sleep"):
                found.append(f"{_name(path)}:{node.lineno}")
    assert found == []


@pytest.mark.parametrize(
    ("module", "home"), [("av", "pipeline/media"), ("boto3", "pipeline/store"), ("pyarrow.fs", "pipeline/store")]
)
def test_libraries_have_one_home(module: str, home: str) -> None:
    found = []
    for path in _files(*PRODUCT):
        for node in ast.walk(_tree(path)):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            if any(n == module or n.startswith(f"{module}.") for n in names) and not _name(path).startswith(home):
                found.append(_name(path))
    assert found == []


def test_pipeline_imports_no_ray_and_no_server() -> None:
    """What static analysis cannot see: every module of pipeline is imported in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EVERYTHING], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("imported:")[-1].split() == []


def test_makefile_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    listed = re.findall(r"^([a-z]+):.*## ", text, re.MULTILINE)
    assert sorted(phony.split()) == sorted(listed)


def test_ci_runs_lint_and_tests_under_a_time_limit() -> None:
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (whole_s,) = map(int, re.findall(r"timeout --kill-after=30s (\d+)s", text))
    steps_s = {target: int(limit) for limit, target in re.findall(r"^step (\d+) make (\w+)$", text, re.MULTILINE)}
    assert whole_s < 40 * 60
    assert {"lint", "test"} <= set(steps_s)
    assert max(steps_s.values()) < whole_s
