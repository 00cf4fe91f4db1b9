"""The Trainer's process: a Learner behind a pipe, below the video's priority, with one thread.

It is a process of its own so that training never holds the interpreter that reads, encodes and pushes; on two cores the
video keeps one, whatever the training does (docs/publishing.md has the figures).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from pipeline.publisher.learner import LearnConfig, Learner, Offer, Standing
from pipeline.publisher.pairs import Pair

_NICE = 5  # below the video, above what is nobody's hurry
_WAITING = 4  # pairs that wait while the process is busy; older ones go: the newest tell most
_LEAVE_S = 3.0


class Trainer:
    """Starts the process; `look` and `sent` never block.

    Args:
        model: file of the generic weights.
        config: of the Learner.
        offer: called with each model that is to be uploaded, from a thread.
        standing: called with the state after each pair, from a thread.
    """

    def __init__(
        self,
        model: Path,
        config: LearnConfig,
        *,
        offer: Callable[[Offer], None],
        standing: Callable[[Standing], None],
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_child, args=(model, config, theirs), name="limpid-trainer", daemon=True)
        self._process.start()
        theirs.close()
        self._offer, self._standing = offer, standing
        self._changed = threading.Condition()  # around all that follows
        self._pairs: deque[Pair] = deque(maxlen=_WAITING)
        self._ends: deque[tuple[bool, bool]] = deque()
        self._closing = False
        self.alive = True
        self._threads = [
            threading.Thread(target=run, name=f"limpid-trainer-{run.__name__}", daemon=True)
            for run in (self._write, self._read)
        ]
        for thread in self._threads:
            thread.start()

    def look(self, pair: Pair) -> None:
        """Give the process a pair; where it is behind, the oldest that waits goes."""
        with self._changed:
            self._pairs.append(pair)
            self._changed.notify_all()

    def sent(self, *, accepted: bool, final: bool) -> None:
        """Tell how an upload has ended."""
        with self._changed:
            self._ends.append((accepted, final))
            self._changed.notify_all()

    def close(self) -> None:
        """End the process."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._process.join(_LEAVE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        for thread in self._threads:
            thread.join(_LEAVE_S)
        self._pipe.close()

    def _write(self) -> None:
        with suppress(OSError):  # the process has died: `_read` sees that too
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._pairs or self._ends or self._closing)
                    message: Pair | tuple[bool, bool] | None = None
                    if not self._closing:
                        message = self._ends.popleft() if self._ends else self._pairs.popleft()
                self._pipe.send(message)
                if message is None:
                    return

    def _read(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                message = self._pipe.recv()
                if isinstance(message, Offer):
                    self._offer(message)
                else:
                    self._standing(message)
        self.alive = False


def _child(model: Path, config: LearnConfig, pipe: Connection) -> None:
    """Learn from what comes through the pipe; what is to be uploaded and how it stands go back."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent says when to end
    if hasattr(os, "nice"):
        os.nice(_NICE)
    import cv2  # noqa: PLC0415  # the parent, which imports this module too, has its own settings
    import torch  # noqa: PLC0415

    from pipeline.models import gain  # noqa: PLC0415
    from pipeline.models.load import load_model  # noqa: PLC0415

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    header, net = load_model(model)
    learner = Learner(header, net.fold(), config, gain.fit(gain.load_points()))
    with suppress(EOFError, OSError):  # the parent has gone
        while True:
            while pipe.poll(0 if learner.training else None):
                message = pipe.recv()
                if message is None:
                    return
                if isinstance(message, Pair):
                    offers = learner.look(message)
                    pipe.send(learner.standing())
                else:
                    accepted, final = message
                    offers = learner.sent(accepted=accepted, final=final)
                for offer in offers:
                    pipe.send(offer)
            learner.step()
