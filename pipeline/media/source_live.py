"""Live sources: read as they pass, kept for a while, opened again when they go away.

Theory of operation. One thread per source connects, demuxes, places every packet on the timeline and puts it into the
log (packet_log), whether anybody reads or not; passes (`batches`) take from the log. When a connection ends, however it
does, the thread opens another one, after a pause that doubles from try to try, with jitter. Nothing of what was sent in
between can be had: what follows is a new epoch that begins with a key frame, and `gap_before` says why.

The same holds inside a connection where the publisher behind a server was started anew, or a network was silent and
what was sent meanwhile is lost: time at a key frame has gone back by more than a second, or behind at least 2 s of
silence does not continue where it was. (Silence alone, behind which it does, is a network that held everything back:
nothing is missing.) A jump of more than 10 s and a change of the picture's size or coding begin an epoch as in files.

Where a slate is wanted (media/slate.py), it is put into the log as an epoch of its own while nothing comes, by the pass
that reads; what comes behind it begins an epoch with a key frame, whether the connection has lasted or not.

A playlist that has an end when it is opened is no live source although its address looks like one's: it is read like a
file. One that gets an end is over when that is reached. In mode "live" an end means what it means elsewhere: what comes
next is waited for.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from typing import Any

from pipeline.errors import ConfigError, LimpidError, Refused, Unreachable, UnsupportedMedia
from pipeline.media.address import split, without_secrets
from pipeline.media.connection import Connection
from pipeline.media.packet_log import PacketLog
from pipeline.media.slate import RATE, Slate
from pipeline.media.source_base import Source, SourceInfo, SourceOptions
from pipeline.media.source_file import FileSource
from pipeline.media.source_hls import Place
from pipeline.media.timeline import Placed
from pipeline.wire.ids import StreamId
from pipeline.wire.packets import PacketBatch, Track
from pipeline.wire.status import Gap, SourceState

IDLE_S = 0.5
"""Without a packet, after which a pass yields None."""

_SILENCE_S = 2.0  # behind which time must continue where it was (chosen: twice what a buffered network holds back)
_OFF_S = 1.0  # that a video packet may be off the one before (chosen: more than reordering, less than a restart)
_HELD = 8  # video packets from before a silence that may come behind it: FFmpeg holds some back (chosen; seen: 2)
_LEAVE_S = 0.5  # that close() waits for the thread
_NO_MEDIA_TRIES = 3  # until a source that has never worked and holds no video is given up
_NS = 1_000_000_000
_WAITING = ("rtmp+listen:", "udp:")  # who sends connects to us: not listening would turn it away


class Backoff:
    """Pauses between tries: `initial_s`, then twice as long each time up to `max_s`, each by a random part shorter."""

    def __init__(self, *, initial_s: float, max_s: float, rng: random.Random) -> None:
        self._initial_s, self._max_s, self._rng = initial_s, max_s, rng

    def pause_s(self, failed: int) -> float:
        """Return the pause after `failed` tries in a row (0: after a connection that worked), in seconds."""
        longest_s = min(self._max_s, self._initial_s * 2.0 ** min(failed, 32))
        return longest_s * self._rng.uniform(0.5, 1.0)


class LiveSource(Source):
    """What passes whether it is read or not. The constructor connects to nothing; a thread does.

    Raises:
        ConfigError, Refused: `uri` is no address.
    """

    def __init__(
        self,
        uri: str,
        *,
        options: SourceOptions,
        rng: random.Random | None = None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        split(uri)
        self._uri = uri
        self._where = without_secrets(uri)
        self._options = options
        self._backoff = Backoff(
            initial_s=options.reconnect_initial_s, max_s=options.reconnect_max_s, rng=rng or random.Random()
        )
        self._now_ns = now_ns
        self.problems = Counter()
        self._log = PacketLog(log_s=options.log_s)
        self._changed = threading.Condition()  # around all that follows, and the log
        self._info: SourceInfo | None = None
        self._recorded: FileSource | None = None
        self._over = False  # nothing more comes into the log
        self._failure: LimpidError | None = None
        self._state = SourceState(connected=False, reason="connecting")
        self._connection: Connection | None = None
        self._closed = threading.Event()
        self._last_ns: int | None = None  # arrival of the source's last packet in the log
        self._burst_s = 0.0  # without a packet that is usual
        self._slate: Slate | None = None  # that is shown,
        self._slate_ns = 0  # and since when
        self._thread = threading.Thread(target=self._run, name="limpid-live", daemon=True)
        self._thread.start()

    # --- what readers see -------------------------------------------------------------------------------------------

    @property
    def info(self) -> SourceInfo:  # type: ignore[override]  # the base's is set once, this one becomes known
        """What the source is, by its last connection; waits up to `open_timeout_s` for the first one.

        Raises:
            Unreachable: there is none yet, or the source has been given up.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._info or self._failure, self._options.open_timeout_s)
            if self._info is not None:
                return self._info
            if self._failure is not None:
                raise self._failure
            reason = self._state.reason
        raise Unreachable(f"is not there yet: {reason}", where=self._where, hint="check that something is being sent")

    @property
    def state(self) -> SourceState:
        """Whether packets can come now."""
        return self._state

    def gap_before(self, epoch: int) -> Gap | None:
        """Return what is missing before an epoch; with 0 s nothing is, but the picture's size or coding changed."""
        with self._changed:
            return self._log.gap_before(epoch)

    def batches(
        self, *, epoch: int = 0, packet: int = 0, stream: StreamId
    ) -> Generator[PacketBatch | None, None, None]:
        """Yield packets as they arrive, from a position on if the log holds it, else as a new epoch (see packet_log).

        Yields None when nothing has come for half a second.

        Raises:
            Unreachable: `reconnect_attempts` tries in a row have failed.
            Refused: the address is not allowed.
            UnsupportedMedia: it never was video.
        """
        while not self._closed.is_set():
            if self._options.slate_after_s:
                self._show_slate()
            with self._changed:
                batch = self._await(epoch, packet, stream)
                recorded, failure, over = self._recorded, self._failure, self._over
            if batch is not None:
                epoch, packet = batch.span.epoch, batch.span.stop
            elif recorded is not None:
                yield from recorded.batches(epoch=epoch, packet=packet, stream=stream)
                return
            elif failure is not None:
                raise failure
            elif over or self._closed.is_set():
                return
            yield batch

    def close(self) -> None:
        """End the thread and all passes. What hangs in the system is left to its deadline."""
        self._closed.set()
        with self._changed:
            connection, recorded = self._connection, self._recorded
            self._changed.notify_all()
        if connection is not None:
            connection.interrupt()
        if recorded is not None:
            recorded.close()
        self._thread.join(_LEAVE_S)

    def _await(self, epoch: int, packet: int, stream: StreamId) -> PacketBatch | None:
        """The batch at a position, waited for up to half a second, or the slate's next frame (or an end)."""
        deadline_s = time.monotonic() + (IDLE_S if self._slate is None else 1 / RATE)
        while (batch := self._log.take(epoch, packet, stream)) is None:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or self._closed.is_set() or self._failure is not None or self._over:
                return None
            self._changed.wait(left_s)
        return batch

    def _show_slate(self) -> None:
        """Put into the log what the slate shows by now, if nothing has come for so long that it is to be shown."""
        now_ns = self._now_ns()
        with self._changed:
            last_ns, slate, over = self._last_ns, self._slate, self._over or self._failure is not None
            if last_ns is None or over:
                return
            silent_s = (now_ns - last_ns) / _NS
            video, audio = self._log.latest
        if silent_s < max(self._options.slate_after_s, self._burst_s):
            return
        if slate is None:
            assert video.shown_size is not None
            slate = Slate(size=video.shown_size, text=self._options.slate_text, sound=audio)  # it takes a moment
        with self._changed:
            if self._last_ns != last_ns:
                return  # the source is back
            if self._slate is None:
                self._slate, self._slate_ns = slate, now_ns
                state = self._state
                why = "the source is silent" if state.connected else f"the source is away: {state.reason}"
                self._log.begin(why, round(silent_s, 3), slate=True)
            for packet in self._slate.due((now_ns - self._slate_ns) / _NS):
                self._log.put(packet, video=self._slate.video, audio=self._slate.audio, arrived_ns=now_ns)

    # --- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._read_until_over()
        finally:
            with self._changed:
                if self._failure is None and not self._over and not self._closed.is_set():
                    # a bug, told on standard error by the thread's end: readers are not to wait for ever
                    self._failure = Unreachable("the thread that reads it has failed", where=self._where)
                self._changed.notify_all()

    def _read_until_over(self) -> None:
        failed = unusable = 0
        reason = ""  # of the gap: why the last connection that worked ended
        place: Place | None = None
        while not self._closed.is_set():
            begun_s = time.monotonic()
            connection = Connection(self._uri, options=self._options, problems=self.problems, place=place)
            with self._changed:
                self._connection = connection
            try:
                self._connect(connection)
                if self._over:
                    return
                failed = 0
                self._read(connection, reason)
                if connection.has_end and self._options.mode != "live":
                    self._over = True
                    return
                error: LimpidError = Unreachable("the other side ended the stream", where=self._where)
            except LimpidError as caught:
                error = caught
            finally:
                with self._changed:
                    self._connection = None
                connection.close()
                place = connection.place
            if self._state.connected:
                reason = error.what
            else:
                failed += 1
                unusable += isinstance(error, UnsupportedMedia)
            hopeless = isinstance(error, Refused | ConfigError) or (self._info is None and unusable >= _NO_MEDIA_TRIES)
            self._tell(SourceState(connected=False, reason=error.what, attempts=failed))
            if hopeless or 0 <= self._options.reconnect_attempts <= failed:
                with self._changed:
                    self._failure = error
                return
            pause_s = self._backoff.pause_s(failed)
            if self._uri.startswith(_WAITING):
                pause_s -= time.monotonic() - begun_s
            self._closed.wait(max(0.0, pause_s))

    def _connect(self, connection: Connection) -> None:
        if self._closed.is_set():
            connection.interrupt()
        connection.open()
        recorded = None
        if connection.recorded:
            if self._options.mode == "live":
                raise Unreachable("its playlist has an end", where=self._where, hint="check that it is being published")
            if self._info is None:
                recorded = FileSource(self._uri, remote=True, options=self._options)
        with self._changed:
            self._over, self._recorded, self._burst_s = connection.recorded, recorded, connection.burst_s
            if not connection.recorded:
                self._info = connection.info
            elif recorded is not None:
                self._info = recorded.info
            self._state = SourceState(connected=True)
            self._changed.notify_all()

    def _tell(self, state: SourceState) -> None:
        with self._changed:
            self._state = state
            self._changed.notify_all()

    def _read(self, connection: Connection, reason: str) -> None:
        """Put a connection's packets into the log until it ends. Raises what Connection.packets raises."""
        why, missing_s = f"the source was away: {reason}", 0.0 if connection.resumed else None
        while True:
            keeping = _Keeping(self.problems, connection, why, missing_s)
            for track, packet in connection.packets():
                arrived_ns = self._now_ns()
                if (broken := keeping.broken(track, packet, arrived_ns)) is not None:
                    self._keep(keeping, connection.placing.flush(), arrived_ns)
                    keeping.begin(*broken)
                self._keep(keeping, keeping.push(track, packet), arrived_ns)
            self._keep(keeping, connection.placing.flush(), self._now_ns())
            if not connection.next_session():
                return
            why, missing_s = "the playlist has a discontinuity", 0.0

    def _keep(self, keeping: _Keeping, placed: list[Placed], arrived_ns: int) -> None:
        if not placed:
            return
        with self._changed:
            for item in placed:
                begins = keeping.begins(item.epoch)
                if begins is None and self._slate is not None:
                    keeping.interrupt()
                    return
                if begins is not None:
                    why, missing_s = begins
                    since_ns = self._last_ns if self._slate is None else self._slate_ns
                    silent_s = 0.0 if since_ns is None else (arrived_ns - since_ns) / _NS
                    self._slate = None
                    if missing_s is None or silent_s > missing_s > 0:
                        missing_s = silent_s
                    self._log.begin(why, round(missing_s, 3))
                self._log.put(item.packet, video=item.video, audio=keeping.audio, arrived_ns=arrived_ns)
                self._last_ns = arrived_ns
            self._changed.notify_all()


class _Keeping:
    """Where the packets of one connection's session stand: which may be kept, and why an epoch begins."""

    def __init__(self, problems: Counter[str], connection: Connection, why: str, missing_s: float | None) -> None:
        self._connection = connection
        self._problems = problems
        self.audio = connection.chosen.audio_codec
        self._time_base = connection.chosen.video_codec.time_base
        self._why: tuple[str, float | None] | None = (why, missing_s)
        self._epoch: int | None = None
        self._changes = self._problems["format_change"]
        self._lost = connection.lost
        self._keyless = True  # no key frame yet since the beginning, or a break
        self._last: int | None = None  # dts of the last video packet
        self._last_ns = 0
        self._silent_s = 0.0  # the last silence,
        self._behind = _HELD  # and how many video packets have come since

    def push(self, track: Track, packet: Any) -> list[Placed]:
        """Place a packet, but for video of which nothing can be seen since its key frame is missing."""
        if track is Track.VIDEO:
            if self._keyless and not packet.is_keyframe:
                self._problems["before_key"] += 1
                return []
            self._keyless = False
        return self._connection.placing.push(track, packet)

    def begin(self, why: str, missing_s: float | None) -> None:
        """Have an epoch begin with the next key frame; the placing has been flushed."""
        self._why, self._keyless = (why, missing_s), True

    def interrupt(self) -> None:
        """A slate is shown by now: what is placed belongs before it, and goes; the next key frame begins an epoch."""
        self._connection.placing.flush()
        self.begin("the source was silent", None)

    def broken(self, track: Track, packet: Any, arrived_ns: int) -> tuple[str, float | None] | None:
        """Why time does not continue at a packet as it should, and how much is missing (see `begins`), or None."""
        if track is not Track.VIDEO:
            return None
        stamp = packet.dts if packet.dts is not None else packet.pts
        last, silent_s = self._last, (arrived_ns - self._last_ns) / _NS
        self._last_ns = arrived_ns
        if last is not None and silent_s >= _SILENCE_S:
            self._silent_s, self._behind = silent_s, 0
        self._behind += 1
        if stamp is None:
            return None
        self._last = stamp
        if last is None:
            return None
        step_s = float(self._step(stamp - last) * self._time_base)
        if abs(step_s) <= _OFF_S:
            return None
        lost, self._lost = self._lost, self._connection.lost
        if self._lost > lost:
            return "segments were lost", max(0.0, step_s)
        if self._behind <= _HELD:
            return "the source was silent", self._silent_s
        if packet.is_keyframe and step_s < 0:
            return "the publisher began anew", None
        return None

    def begins(self, epoch: int) -> tuple[str, float | None] | None:
        """Why an epoch begins at a packet placed in `epoch`, or None where it goes on.

        And how many seconds are missing: 0 for nothing, None for as long as nothing came.
        """
        if epoch == self._epoch:
            return None
        self._epoch = epoch
        changes, self._changes = self._changes, self._problems["format_change"]
        why, self._why = self._why, None
        if why is not None:
            return why
        return "the picture's size or coding changed" if self._changes > changes else "time stamps jumped", 0.0

    def _step(self, ticks: int) -> int:
        """The step between two stamps, wrap-around undone."""
        bits = self._connection.placing.wrap_bits
        if not bits:
            return ticks
        lap = 1 << bits
        return (ticks + lap // 2) % lap - lap // 2
