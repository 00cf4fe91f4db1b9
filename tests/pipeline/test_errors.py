"""The error tree: what it looks like, what it prints, and that it survives the way between processes."""

from __future__ import annotations

import pickle

import pytest

from pipeline import errors
from pipeline.errors import CapacityError, ConfigError, LimpidError, Refused, StageError, Unreachable

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LimpidError)]


def test_docstring_draws_the_whole_tree() -> None:
    drawn = errors.__doc__ or ""
    assert [kind.__name__ for kind in KINDS if kind.__name__ not in drawn] == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (LimpidError("it is full"), "it is full"),
        (LimpidError("it is full", where="/a"), "/a: it is full"),
        (LimpidError("it is full", hint="free some"), "it is full (free some)"),
        (LimpidError("it is full", where="/a", hint="free some"), "/a: it is full (free some)"),
        (StageError("it failed", stage="guard", span="a/0[0:8]"), "guard a/0[0:8]: it failed"),
    ],
)
def test_text_says_where_what_and_what_to_do(error: LimpidError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("w", where="x", hint="h"),
        StageError("w", stage="s", span="a/0[0:8]", cause="c", hint="h"),
        CapacityError("w", retry_after_s=3.0),
        Unreachable("w", where="x"),
    ],
)
def test_error_survives_pickling(error: LimpidError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert vars(again) == vars(error)
    assert str(again) == str(error)
    assert again.args == error.args


def test_errors_are_also_what_python_calls_them() -> None:
    assert issubclass(ConfigError, ValueError)
    assert issubclass(Unreachable, OSError)


def test_what_is_not_allowed_is_also_out_of_reach() -> None:
    """Whoever handles Unreachable need not know Refused."""
    assert issubclass(Refused, Unreachable)
