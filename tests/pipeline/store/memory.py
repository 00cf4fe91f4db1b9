"""Objects in memory, and a store whose user is killed or held up between two of its operations."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.errors import NotFound
from pipeline.store.objects import Store, check_name


class MemoryStore(Store):
    """A store that costs no time."""

    def __init__(self, objects: dict[str, bytes] | None = None, lead: str = "") -> None:
        self.objects = {} if objects is None else objects
        self.lead = lead
        self.url = f"memory/{lead}"

    def put_new(self, name: str, data: bytes) -> bool:
        return self.objects.setdefault(self.lead + check_name(name), data) is data

    def put(self, name: str, data: bytes) -> None:
        self.objects[self.lead + check_name(name)] = data

    def get(self, name: str) -> bytes:
        try:
            return self.objects[self.lead + check_name(name)]
        except KeyError:
            raise NotFound("there is no such object", where=name) from None

    def exists(self, name: str) -> bool:
        return self.lead + name in self.objects

    def list(self, prefix: str = "") -> list[str]:
        return sorted(n[len(self.lead) :] for n in self.objects if n.startswith(self.lead + prefix))

    def delete(self, name: str) -> None:
        self.objects.pop(self.lead + name, None)

    def part(self, prefix: str) -> MemoryStore:
        return MemoryStore(self.objects, f"{self.lead}{prefix}/")


class Killed(BaseException):
    """The process that used the store is gone."""


class WatchedStore(Store):
    """Another store; `before` and `after` are called around each operation, with its number (from 0)."""

    def __init__(
        self,
        inner: Store,
        *,
        before: Callable[[int], None] = lambda n: None,
        after: Callable[[int], None] = lambda n: None,
        counter: list[int] | None = None,
    ) -> None:
        self.inner, self.before, self.after = inner, before, after
        self.counter = [0] if counter is None else counter  # shared with the parts
        self.url = inner.url

    def _do(self, operation: Callable[[], object]) -> object:
        n = self.counter[0]
        self.counter[0] += 1
        self.before(n)
        try:
            return operation()
        finally:
            self.after(n)

    def put_new(self, name: str, data: bytes) -> bool:
        return bool(self._do(lambda: self.inner.put_new(name, data)))

    def put(self, name: str, data: bytes) -> None:
        self._do(lambda: self.inner.put(name, data))

    def get(self, name: str) -> bytes:
        data = self._do(lambda: self.inner.get(name))
        assert isinstance(data, bytes)
        return data

    def exists(self, name: str) -> bool:
        return bool(self._do(lambda: self.inner.exists(name)))

    def list(self, prefix: str = "") -> list[str]:
        names = self._do(lambda: self.inner.list(prefix))
        assert isinstance(names, list)
        return names

    def delete(self, name: str) -> None:
        self._do(lambda: self.inner.delete(name))

    def part(self, prefix: str) -> WatchedStore:
        return WatchedStore(self.inner.part(prefix), before=self.before, after=self.after, counter=self.counter)
