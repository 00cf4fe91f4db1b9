"""Tickets of one pooled box waiting for its workers: fair over streams, oldest first, few on a worker at a time."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pipeline.wire.ids import StreamId

T = TypeVar("T")

DEPTH = 2
"""Tickets on a worker: one is worked on while the next one travels."""


@dataclass(slots=True)
class _Worker(Generic[T]):
    tickets: deque[T] = field(default_factory=deque)
    draining: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Leftovers(Generic[T]):
    """What a worker that is gone had: the ticket it was at (to blame for a death), and those behind it, put back."""

    blamed: T | None
    put_back: tuple[T, ...]


class PoolQueue(Generic[T]):
    """Who works on what next.

    Streams take turns; within a stream tickets go in the order in which they came. A worker gets at most `depth`
    tickets and answers them in turn.
    """

    def __init__(self, *, depth: int = DEPTH) -> None:
        self._depth = depth
        self._waiting: OrderedDict[StreamId, deque[T]] = OrderedDict()
        self._workers: dict[str, _Worker[T]] = {}
        self._stream_of: dict[T, StreamId] = {}

    def __len__(self) -> int:
        """Tickets that no worker has."""
        return sum(len(tickets) for tickets in self._waiting.values())

    @property
    def workers(self) -> tuple[str, ...]:
        """The workers that are there and do not drain, in the order in which they came."""
        return tuple(name for name, worker in self._workers.items() if not worker.draining)

    def put(self, stream: StreamId, ticket: T) -> None:
        """Have `ticket` wait."""
        self._stream_of[ticket] = stream
        self._waiting.setdefault(stream, deque()).append(ticket)

    def add_worker(self, name: str) -> None:
        """Take a worker in."""
        assert name not in self._workers, name
        self._workers[name] = _Worker()

    def remove_worker(self, name: str) -> Leftovers[T]:
        """Take a worker out, wherever it was; tickets that it had not begun wait again, at the front."""
        worker = self._workers.pop(name, None)
        if worker is None or not worker.tickets:
            return Leftovers(blamed=None, put_back=())
        blamed, *behind = worker.tickets
        for ticket in reversed(behind):
            stream = self._stream_of[ticket]
            self._waiting.setdefault(stream, deque()).appendleft(ticket)
        del self._stream_of[blamed]
        return Leftovers(blamed=blamed, put_back=tuple(behind))

    def drain(self, name: str) -> None:
        """Give a worker nothing more; `drained` names it when it has answered what it has."""
        self._workers[name].draining = True

    def drained(self) -> tuple[str, ...]:
        """Return the draining workers that have nothing left."""
        return tuple(name for name, worker in self._workers.items() if worker.draining and not worker.tickets)

    def assign(self) -> tuple[str, T] | None:
        """Give the next ticket to the least busy worker; None while there is no room or nothing waits."""
        free = [(len(w.tickets), name) for name, w in self._workers.items() if self._takes(w)]
        stream = next((s for s, tickets in self._waiting.items() if tickets), None)
        if not free or stream is None:
            return None
        name = min(free)[1]
        ticket = self._waiting[stream].popleft()
        self._waiting.move_to_end(stream)
        self._workers[name].tickets.append(ticket)
        return name, ticket

    def _takes(self, worker: _Worker[T]) -> bool:
        return not worker.draining and len(worker.tickets) < self._depth

    def pop(self) -> T | None:
        """Take out and return the ticket that would be next, for no worker will come; None where nothing waits."""
        stream = next((s for s, tickets in self._waiting.items() if tickets), None)
        if stream is None:
            return None
        ticket = self._waiting[stream].popleft()
        del self._stream_of[ticket]
        return ticket

    def done(self, name: str, ticket: T) -> None:
        """Note that a worker has answered; told of a worker or ticket that is gone it does nothing."""
        worker = self._workers.get(name)
        if worker is not None and ticket in worker.tickets:
            worker.tickets.remove(ticket)
            del self._stream_of[ticket]

    def forget(self, stream: StreamId) -> tuple[T, ...]:
        """Drop and return a stream's waiting tickets (it is over); those on workers are answered to nobody."""
        dropped = tuple(self._waiting.pop(stream, ()))
        for ticket in dropped:
            del self._stream_of[ticket]
        return dropped
