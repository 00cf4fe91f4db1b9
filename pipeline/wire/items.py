"""What every payload on an edge of the graph can do: say its span and size, be cut to frames, be joined."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from pipeline.wire.ids import Span


@runtime_checkable
class Item(Protocol):
    """A payload on an edge: frames, packets, or results about frames."""

    @property
    def span(self) -> Span:
        """The units that it holds or speaks of."""

    @property
    def nbytes(self) -> int:
        """Bytes that it costs to keep."""


ItemT = TypeVar("ItemT")


def cut(item: ItemT, start: int, stop: int) -> ItemT:
    """Return the part of an item that speaks of frames [start, stop), as views.

    Arrays of the item are cut along their first axis when it is as long as the span, nested items recursively;
    everything else is kept.
    """
    span: Span = item.span  # type: ignore[attr-defined]  # ItemT is structural: Item's attributes are read-only
    if (span.start, span.stop) == (start, stop):
        return item
    own = getattr(item, "cut", None)
    if own is not None:
        part: ItemT = own(start, stop)
        return part
    inner = span.part(start, stop)
    assert span.covers(inner), f"{inner} is not inside {span}"
    rows = slice(start - span.start, stop - span.start)
    changed: dict[str, Any] = {"span": inner}
    assert is_dataclass(item) and not isinstance(item, type)
    for field in fields(item):
        value = getattr(item, field.name)
        if isinstance(value, np.ndarray):
            changed[field.name] = value[rows]
        elif field.name != "span" and hasattr(value, "span"):
            changed[field.name] = cut(value, start, stop)
    return replace(item, **changed)


def join(parts: Sequence[ItemT]) -> ItemT:
    """Return consecutive items of one kind as one; a single part is returned as it is, without a copy."""
    first = parts[0]
    if len(parts) == 1:
        return first
    own = getattr(type(first), "join", None)
    if own is not None:
        whole: ItemT = own(parts)
        return whole
    spans: list[Span] = [p.span for p in parts]  # type: ignore[attr-defined]  # structural, as in cut
    for a, b in itertools.pairwise(spans):
        assert a.stop == b.start, f"{b} does not continue {a}"
    changed: dict[str, Any] = {"span": spans[0].part(spans[0].start, spans[-1].stop)}
    assert is_dataclass(first) and not isinstance(first, type)
    for field in fields(first):
        values = [getattr(p, field.name) for p in parts]
        if isinstance(values[0], np.ndarray):
            changed[field.name] = np.concatenate(values)
        elif field.name != "span" and hasattr(values[0], "span"):
            changed[field.name] = join(values)
    return replace(first, **changed)
