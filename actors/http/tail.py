"""How far the log has got: looked up once for all who follow it in this process, however many they are.

A look costs a store two requests. So nobody looks by itself: who waits shares one look, and what it has found is read
from memory (`ServiceLog.read(…, fresh=False)`). While nobody waits there is no look.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from anyio import to_thread

from pipeline.errors import StorageError
from pipeline.store.servicelog import ServiceLog

LOOK_S, REMOTE_LOOK_S = 0.25, 1.0
"""Seconds between two looks; of a store in which each request is paid for."""


class Tail:
    """The number of the log's last event. For one event loop.

    Args:
        log: which.
        every_s: seconds between two looks.
    """

    def __init__(self, log: ServiceLog, *, every_s: float) -> None:
        self.every_s = every_s
        self._log = log
        self._last = 0
        self._look: asyncio.Task[None] | None = None

    async def beyond(self, number: int, within_s: float) -> int:
        """Return the last number as soon as it is above `number`; after `within_s` whatever it is then."""
        until = time.monotonic() + within_s
        while self._last <= number and (left_s := until - time.monotonic()) > 0:
            if self._look is None or self._look.done():
                self._look = asyncio.create_task(self._looked())
            await asyncio.wait((self._look,), timeout=left_s)
        return self._last

    async def _looked(self) -> None:
        await asyncio.sleep(self.every_s)
        with contextlib.suppress(StorageError):  # the next look may find the store well again
            self._last = max(self._last, await to_thread.run_sync(self._log.last))
