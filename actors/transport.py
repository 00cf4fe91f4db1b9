"""How items get from one process to the next: through the node's shared memory, or through Ray's object store.

One node: results lie in slabs (`slab.py`), orders and replies carry where. Several nodes: results are further return
values of the call, owned by the supervisor that made it; Ray moves them. Both give read-only arrays without a copy.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from actors.calls import Lent, Parcel, Sent, Slot
from actors.slab import Custody, Reader, Slab
from pipeline.wire.items import Item

_INLINE_BYTES = 16 << 10  # what is smaller travels in the message itself


class Outbox:
    """What a process gives.

    Args:
        slab: where it goes; None: through the object store.
        reader: of the process's Inbox; what came in and goes out unchanged is passed on where it is.
    """

    def __init__(self, slab: Slab | None, reader: Reader) -> None:
        self._slab, self._reader = slab, reader

    def send(self, outputs: Mapping[str, Sequence[Item]]) -> tuple[dict[str, tuple[Sent, ...]], tuple[Any, ...]]:
        """Return per exported node what to say of its items, and what goes beside the reply: one payload a node."""
        sent: dict[str, tuple[Sent, ...]] = {}
        payloads: list[tuple[Item, ...]] = []
        for number, (name, items) in enumerate(outputs.items()):
            sent[name] = tuple(
                Sent(
                    span=item.span,
                    nbytes=item.nbytes,
                    where=Slot(payload=number, index=index) if self._slab is None else self._wrap(item, self._slab),
                )
                for index, item in enumerate(items)
            )
            payloads.append(tuple(items))
        return sent, tuple(payloads) if self._slab is None else ()

    def _wrap(self, item: Item, slab: Slab) -> Parcel:
        large: list[memoryview] = []

        def keep(buffer: pickle.PickleBuffer) -> bool:
            """Say whether a buffer stays in the pickle."""
            raw = buffer.raw()
            if raw.nbytes < _INLINE_BYTES:
                return True
            large.append(raw)
            return False

        head = pickle.dumps(item, protocol=5, buffer_callback=keep)
        blocks = [self._reader.block_of(raw) or slab.put(raw) for raw in large]
        if len(head) < _INLINE_BYTES:
            return Parcel(head=head, blocks=tuple(blocks))
        return Parcel(head=b"", blocks=(slab.put(memoryview(head)), *blocks))


class Inbox:
    """What a process takes."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._returned: list[int] = []

    def take(self, lent: Lent, payloads: Sequence[Sequence[Item]]) -> Item:
        """Return an input; its arrays are read-only."""
        where = lent.where
        if isinstance(where, Slot):
            item: Item = payloads[where.payload][where.index]
            return item
        gone = partial(self._gone, [len(where.blocks)], lent.loan)
        arrays = [self._reader.open(block, gone) for block in where.blocks]
        head, buffers = (where.head, arrays) if where.head else (arrays[0].data, arrays[1:])
        item = pickle.loads(head, buffers=buffers)
        if not arrays:
            self._returned.append(lent.loan)
        return item

    def decline(self, inputs: Sequence[Sequence[Lent]]) -> None:
        """Give inputs back without a look."""
        self._returned += [lent.loan for edge in inputs for lent in edge if isinstance(lent.where, Parcel)]

    def returned(self) -> tuple[int, ...]:
        """Return, once, the loans of which nothing is looked at any more."""
        done, self._returned = tuple(self._returned), []
        return done

    def _gone(self, left: list[int], loan: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            self._returned.append(loan)


class Held:
    """An item that the supervisor has custody of; when nothing refers to it any more, its memory is given back."""

    __slots__ = ("_custody", "where")

    def __init__(self, where: Parcel, custody: Custody) -> None:
        self.where, self._custody = where, custody
        custody.hold(where.blocks)

    def __del__(self) -> None:
        self._custody.let_go(self.where.blocks)


class Stored:
    """An item in the object store: a reference that the supervisor owns, and which item behind it."""

    __slots__ = ("index", "ref")

    def __init__(self, ref: Any, index: int) -> None:
        self.ref, self.index = ref, index


Ref = Held | Stored
"""What the flow's entries refer to on Ray."""
