"""`import pipeline` offers what `__all__` says, each from the module that `__getattr__` names."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import pipeline


def _for_type_checkers() -> set[str]:
    """The names that are imported for type checkers only, which no test at run time would miss."""
    names: set[str] = set()
    for node in ast.parse(Path(pipeline.__file__).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If):
            names |= {a.name for inner in node.body if isinstance(inner, ast.ImportFrom) for a in inner.names}
    return names


def test_all_lists_what_can_be_imported() -> None:
    assert set(pipeline.__all__) == set(pipeline._MODULE_OF) == _for_type_checkers()


@pytest.mark.parametrize("name", pipeline.__all__)
def test_public_name_is_there(name: str) -> None:
    assert getattr(pipeline, name) is not None


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        pipeline.__getattr__("absent")
