"""Items in order of their frames: put, look up what covers a span, drop what is behind."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from pipeline.wire.ids import Span


class Spanned(Protocol):
    """Anything that has a span and a size."""

    @property
    def span(self) -> Span:
        """The units that it holds."""

    @property
    def nbytes(self) -> int:
        """Bytes that it costs to keep."""


T = TypeVar("T", bound=Spanned)


class Shelf(Generic[T]):
    """Items of one edge, not overlapping, by start; there may be holes."""

    def __init__(self) -> None:
        self._items: dict[int, T] = {}
        self._starts: list[int] = []
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[T]:
        return (self._items[start] for start in self._starts)

    @property
    def stop(self) -> int:
        """The first unit behind all items; 0 if there are none."""
        return self._items[self._starts[-1]].span.stop if self._starts else 0

    def put(self, item: T) -> bool:
        """Keep `item`; return False, keeping nothing, where its units are on the shelf already."""
        if self.covering(item.span.start, item.span.stop) is not None:
            return False
        start = item.span.start
        assert start not in self._items, f"{item.span} overlaps {self._items[start].span}"
        insort(self._starts, start)
        self._items[start] = item
        self.nbytes += item.nbytes
        return True

    def covering(self, start: int, stop: int) -> list[T] | None:
        """Return the items that together hold [start, stop), in order; None where a unit is missing."""
        found: list[T] = []
        at = start
        index = max(0, bisect_right(self._starts, start) - 1)
        while at < stop:
            if index >= len(self._starts):
                return None
            item = self._items[self._starts[index]]
            if item.span.start > at:
                return None
            if item.span.stop > at:
                found.append(item)
                at = item.span.stop
            index += 1
        return found

    def first_missing(self, start: int) -> int:
        """Return the first unit ≥ `start` that no item holds."""
        at = start
        for index in range(max(0, bisect_right(self._starts, start) - 1), len(self._starts)):
            item = self._items[self._starts[index]]
            if item.span.start > at:
                break
            at = max(at, item.span.stop)
        return at

    def drop_before(self, start: int) -> list[T]:
        """Take away and return the items that lie wholly before `start`."""
        gone: list[T] = []
        while self._starts and self._items[self._starts[0]].span.stop <= start:
            item = self._items.pop(self._starts.pop(0))
            self.nbytes -= item.nbytes
            gone.append(item)
        return gone

    def clear(self) -> list[T]:
        """Take away and return everything."""
        gone = list(self)
        self._items.clear()
        self._starts.clear()
        self.nbytes = 0
        return gone
