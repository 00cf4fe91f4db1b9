"""The push: packets to the RTMP server, by a child process that may hang, die and be started again.

Theory of operation. A thread feeds the child through a pipe and never has more than `_AHEAD_BYTES` under way, so it
never blocks; the child says after each packet that FFmpeg has taken it. A child that says nothing for `hung_s` while it
has a packet hangs with its server: it is killed. Each connection is one child; between two there is a pause that grows.
Meanwhile packets wait in a bounded queue (gops.py); another connection begins with a key frame.
"""

from __future__ import annotations

import multiprocessing
import random
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

from pipeline.errors import Unreachable
from pipeline.media.push import FlvOut, LivePacket
from pipeline.publisher.gops import GopQueue
from pipeline.wire.frames import Size

_AHEAD_BYTES = 48 << 10  # less than a pipe holds
_TICK_S = 0.2
_RATE_S = 2.0  # over which the bitrate is measured: a group of pictures
_PAUSES_S = (0.5, 10.0)  # between two tries, at first and at most
_LEAVE_S = 3.0  # that a child has to hang up


@dataclass(frozen=True, kw_only=True, slots=True)
class PushState:
    """How the push stands.

    Attributes:
        connected: the last packet was taken.
        pushed, dropped: packets so far.
        waiting_s: of video.
        connections: that have worked.
        reason: why the last one ended, or failed.
    """

    connected: bool
    pushed: int
    dropped: int
    waiting_s: float
    connections: int
    reason: str


class Pusher:
    """Pushes what `put` takes, from its construction to `close`; never blocks the caller, never raises."""

    def __init__(
        self,
        url: str,
        *,
        size: Size,
        buffer_s: float = 10.0,
        hung_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._url, self._size, self._hung_s, self._clock = url, size, hung_s, clock
        self._rng = rng or random.Random()
        self._changed = threading.Condition()  # around all that follows
        self._queue = GopQueue(buffer_s)
        self._closing = False
        self._give_up_s = 0.0
        self._connected = False
        self._pushed = self._connections = 0
        self._reason = "connecting"
        self._offered: deque[tuple[float, int]] = deque()  # (when, bytes), of the last _RATE_S
        self._thread = threading.Thread(target=self._run, name="limpid-push", daemon=True)
        self._thread.start()

    def put(self, packet: LivePacket) -> None:
        """Have a packet pushed."""
        now_s = self._clock()
        with self._changed:
            self._queue.put(packet)
            self._offered.append((now_s, len(packet.data)))
            self._forget(now_s)
            self._changed.notify_all()

    def video_bps(self) -> float:
        """Return the bitrate that the video needs now: what was put over the last seconds."""
        now_s = self._clock()
        with self._changed:
            self._forget(now_s)
            return 8 * sum(size for _, size in self._offered) / _RATE_S

    def state(self) -> PushState:
        """Return how it stands."""
        with self._changed:
            return PushState(
                connected=self._connected,
                pushed=self._pushed,
                dropped=self._queue.dropped,
                waiting_s=self._queue.waiting_s,
                connections=self._connections,
                reason=self._reason,
            )

    def close(self, within_s: float = 0.0) -> None:
        """Push what waits, for at most `within_s`, then hang up. Safe to call twice."""
        with self._changed:
            self._closing, self._give_up_s = True, self._clock() + within_s
            self._changed.notify_all()
        self._thread.join(within_s + 2 * _LEAVE_S)

    # --- the thread --------------------------------------------------------------------------------------------------

    def _forget(self, now_s: float) -> None:
        while self._offered and self._offered[0][0] < now_s - _RATE_S:
            self._offered.popleft()

    def _over(self) -> bool:
        """Whether nothing more is to be done: closed, and all is pushed or it has taken too long."""
        return self._closing and (not len(self._queue) or self._clock() >= self._give_up_s)

    def _run(self) -> None:
        failed = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: len(self._queue) or self._closing)
                if self._over():
                    return
                self._queue.restart()
            worked, reason = self._session()
            failed = 0 if worked else failed + 1
            with self._changed:
                self._connected, self._reason = False, reason
                first_s, most_s = _PAUSES_S
                pause_s = min(most_s, first_s * 2.0 ** min(failed, 16)) * self._rng.uniform(0.5, 1.0)
                self._changed.wait_for(self._over, pause_s)

    def _session(self) -> tuple[bool, str]:
        """Push through one child until it ends; say whether it ever worked, and why it ended."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        child = context.Process(
            target=_child, args=(self._url, self._size, theirs), name="limpid-push-out", daemon=True
        )
        child.start()
        theirs.close()
        try:
            return self._feed(ours)
        finally:
            ours.close()  # a child that waits for packets leaves then
            child.join(_LEAVE_S)
            if child.is_alive():
                child.kill()
                child.join()
            child.close()

    def _feed(self, pipe: Connection) -> tuple[bool, str]:
        under_way: deque[int] = deque()  # bytes of the packets that the child has not done yet
        worked, taken_s = False, self._clock()
        try:
            while True:
                with self._changed:
                    if not under_way:
                        self._changed.wait_for(lambda: len(self._queue) or self._closing, _TICK_S)
                    if self._over() and not under_way:
                        pipe.send(None)
                        return worked, "closed"
                    packet = None
                    if not under_way or sum(under_way) < _AHEAD_BYTES:
                        packet = self._queue.take()
                if packet is not None:
                    if not under_way:
                        taken_s = self._clock()
                    under_way.append(len(packet.data))
                    pipe.send(packet)
                if under_way and pipe.poll(0 if packet is not None else _TICK_S / 10):
                    if error := pipe.recv():
                        return worked, str(error)
                    under_way.popleft()
                    taken_s = self._clock()
                    with self._changed:
                        self._connections += not worked
                        self._pushed += 1
                        self._connected = worked = True
                elif under_way and self._clock() - taken_s > self._hung_s:
                    return worked, f"the server has taken nothing for {self._hung_s:g} s"
        except (EOFError, OSError):
            return worked, "the pushing process has died"


def _child(url: str, size: Size, pipe: Connection) -> None:
    """Push what comes through the pipe; answer "" to each packet, or what is wrong and leave."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent says when to end
    try:
        out = FlvOut(url, size=size)
        while (packet := pipe.recv()) is not None:
            out.write(packet)
            pipe.send("")
        out.close()
    except Unreachable as error:
        pipe.send(error.what)
    except (EOFError, OSError):
        return  # the parent has gone
