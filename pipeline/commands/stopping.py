"""Ctrl-C and SIGTERM: the first asks for a clean end, the second ends at once, and so does a clean end that hangs."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

CLOSE_WITHIN_S = 60.0  # segments, parts and playlists are closed in a second; a dead disk or network never
_CAUGHT = (signal.SIGINT, signal.SIGTERM)


@dataclass(slots=True)
class Stopping:
    """Whether to end: `event` is set by the first signal, `signum` says which it was."""

    event: threading.Event = field(default_factory=threading.Event)
    signum: int = 0

    @property
    def exit_code(self) -> int:
        """128 + the signal, as shells have it: 130 for Ctrl-C, 143 for SIGTERM; 0 if there was none."""
        return 128 + self.signum if self.signum else 0


@contextmanager
def stop_on_signals(close_within_s: float = CLOSE_WITHIN_S) -> Iterator[Stopping]:
    """Catch SIGINT and SIGTERM while the body runs; must be entered in the main thread.

    Whoever works in the body looks at `event` and ends cleanly. When that takes longer than `close_within_s`, or a
    second signal comes, the process ends at once with the same exit code.
    """
    stopping = Stopping()
    watchdog = threading.Timer(close_within_s, _too_late, args=(stopping, close_within_s))
    watchdog.daemon = True

    def caught(signum: int, frame: FrameType | None) -> None:
        if stopping.signum:
            os._exit(stopping.exit_code)
        stopping.signum = signum
        stopping.event.set()
        watchdog.start()
        print("stopping: closing what is written (once more to end at once)", file=sys.stderr, flush=True)

    before = {number: signal.signal(number, caught) for number in _CAUGHT}
    try:
        yield stopping
    finally:
        watchdog.cancel()
        if stopping.signum:
            watchdog.join()  # a thread that the interpreter's end meets is torn down, by luck without an abort
        for number, handler in before.items():
            signal.signal(number, handler)


def _too_late(stopping: Stopping, close_within_s: float) -> None:
    print(f"not closed within {close_within_s:.0f} s: ending", file=sys.stderr, flush=True)
    os._exit(stopping.exit_code)
