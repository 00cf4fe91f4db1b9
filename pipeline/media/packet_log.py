"""What has come of a live source lately, and under which names it was given out.

Theory of operation. Packets are kept in the order of their arrival, each with a serial number that never comes again.
A reader asks by (epoch, packet); `_epochs` says at which serial each epoch begins, its packets follow one by one. A
position names one packet for as long as the log exists: no packet is ever given under two names.

An epoch begins where the source says so (`begin`), and where a reader's position is not in the log any more, or never
was (the process that held it has died): then what comes next is a new epoch, from the newest key frame on that has not
been given to anybody; if there is none, from the next one that comes while it waits. Until something is given, all that
is kept may be renamed, so this holds for the first reader as well, whatever it asks for: it is to see the present.

What is older than `log_s`, or more than 64 MiB, goes, by whole groups of pictures: the log begins with a key frame.
(Only a single group that is too much by itself goes packet by packet: who reads at its end is not to be disturbed.)

No thread, no clock: one lock around it is the caller's.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from pipeline.media.source_base import BATCH_BYTES, BATCH_PACKETS
from pipeline.wire.ids import Span, StreamId
from pipeline.wire.packets import Codec, Packet, PacketBatch, Track
from pipeline.wire.status import Gap

MAX_BYTES = 64 << 20
_EPOCHS = 64  # whose beginnings are remembered
_NS = 1_000_000_000

ANEW = "the process that reads the source was started anew"
BEHIND = "reading was too slow: the packets were not kept any longer"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kept:
    packet: Packet
    arrived_ns: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Epoch:
    """An epoch by its number, the serial of its packet 0, and how its tracks are coded."""

    number: int
    first: int
    gap: Gap | None
    video: Codec
    audio: Codec | None


class PacketLog:
    """The last `log_s` seconds of packets, at most `max_bytes`."""

    def __init__(self, *, log_s: float, max_bytes: int = MAX_BYTES) -> None:
        self._keep_ns = round(log_s * _NS)
        self._max_bytes = max_bytes
        self._first = 0  # serial of the oldest packet kept
        self._kept: deque[_Kept] = deque()
        self._starts: deque[int] = deque()  # serials kept at which an epoch may begin: key frames, packets 0 of epochs
        self._epochs: list[_Epoch] = []
        self._given = 0  # every serial below has been given, or passed over
        self._given_ns: int | None = None  # when the last packet given had arrived
        self._highest = -1  # number of the last epoch that was given
        self._waited = False  # a reader waits for a key frame to begin at;
        self._pinned: int | None = None  # this one came
        self._begins: tuple[str, float, bool] | None = None
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def empty(self) -> bool:
        """Whether nothing has ever come."""
        return not self._epochs

    @property
    def latest(self) -> tuple[Codec, Codec | None]:
        """How the newest epoch's tracks are coded, video and audio; the log must not be empty."""
        return self._epochs[-1].video, self._epochs[-1].audio

    def begin(self, reason: str, seconds: float, *, slate: bool = False) -> None:
        """Have the next packet begin a new epoch, with that gap before it (see Gap)."""
        self._begins = (reason, seconds, slate)

    def put(self, packet: Packet, *, video: Codec, audio: Codec | None, arrived_ns: int) -> None:
        """Take the packet that has just arrived; the first one of an epoch should be a key frame."""
        serial = self._first + len(self._kept)
        if not self._epochs or self._begins is not None:
            number = self._epochs[-1].number + 1 if self._epochs else 0
            gap = None
            if self._epochs and self._begins is not None:
                reason, seconds, slate = self._begins
                gap = Gap(epoch=number, reason=reason, seconds=seconds, slate=slate)
            self._begins = None
            self._epochs.append(_Epoch(number=number, first=serial, gap=gap, video=video, audio=audio))
            del self._epochs[:-_EPOCHS]
            self._start(serial)
        elif packet.key and packet.track is Track.VIDEO:
            self._start(serial)
        self._kept.append(_Kept(packet=packet, arrived_ns=arrived_ns))
        self.nbytes += len(packet.data)
        self._forget(arrived_ns)

    def take(self, epoch: int, packet: int, stream: StreamId) -> PacketBatch | None:
        """Return what is there from a position on, 1 to 16 packets of one epoch; None where nothing is yet.

        The batch begins at the position if that is in the log or the next to come, else a new epoch: its number is
        above `epoch` and all that were given, or `epoch` itself if the position is its packet 0 and it is above those.
        """
        at = self._at(epoch, packet)
        if at is None:
            return None
        serial, found, stop = at
        kept: list[_Kept] = []
        held_bytes = 0
        while serial + len(kept) < stop and len(kept) < BATCH_PACKETS and held_bytes < BATCH_BYTES:
            kept.append(self._kept[serial - self._first + len(kept)])
            held_bytes += len(kept[-1].packet.data)
        self._highest = max(self._highest, found.number)
        if serial + len(kept) > self._given:
            self._given = serial + len(kept)
            self._given_ns = kept[-1].arrived_ns
        start = serial - found.first
        return PacketBatch(
            span=Span(stream=stream, epoch=found.number, start=start, stop=start + len(kept)),
            video=found.video,
            audio=found.audio,
            packets=tuple(k.packet for k in kept),
            arrived_ns=kept[-1].arrived_ns,
        )

    def gap_before(self, epoch: int) -> Gap | None:
        """Return what is missing before an epoch; None where nothing is, or where the epoch is not known (any more)."""
        return next((e.gap for e in self._epochs if e.number == epoch), None)

    # --- where a position is ----------------------------------------------------------------------------------------

    def _at(self, epoch: int, packet: int) -> tuple[int, _Epoch, int] | None:
        """The serial to give next, its epoch, and the serial behind that epoch's last packet; None: nothing yet."""
        end = self._first + len(self._kept)
        if self._highest >= 0:
            oldest = self._epochs[0]
            if epoch < oldest.number <= self._highest and oldest.first >= self._first:
                # Of an earlier process's log, and asked for again: what came next is the first that this one gave.
                return self._at(oldest.number, 0)
            for place, known in enumerate(self._epochs):
                if known.number != epoch or (packet and epoch > self._highest):
                    continue  # inside an epoch that nobody was given yet, it is a place in another process's log
                later = self._epochs[place + 1 : place + 2]
                stop = later[0].first if later else end
                serial = known.first + packet
                if self._first <= serial < stop:
                    return serial, known, stop
                if serial == stop and not later:
                    return None
                if serial == stop and later[0].first >= self._first:
                    return self._at(later[0].number, 0)
        return self._anew(epoch, packet)

    def _anew(self, epoch: int, packet: int) -> tuple[int, _Epoch, int] | None:
        """Begin an epoch at a start that nobody was given: the one that was waited for, or the newest."""
        serial = self._pinned if self._pinned is not None else self._starts[-1] if self._starts else -1
        if serial < max(self._first, self._given):
            self._waited, self._pinned = True, None
            return None
        self._pinned = None
        place = max(i for i, e in enumerate(self._epochs) if i == 0 or e.first <= serial)
        here, later = self._epochs[place], self._epochs[place + 1 :]
        stop = later[0].first if later else self._first + len(self._kept)
        number = epoch if packet == 0 and epoch > self._highest else max(epoch, self._highest) + 1
        if self._highest < 0:
            before: list[_Epoch] = []  # none of them was given
            gap = Gap(epoch=number, reason=ANEW, seconds=0.0) if number else None
        else:
            before = self._epochs[:place]
            if here.first < serial:
                before = [*before, here]
                number = max(number, here.number + 1)
            elif here.number >= number:
                return serial, here, stop  # the source began one there
            gap = Gap(epoch=number, reason=BEHIND, seconds=self._seconds_since_given(serial))
        begun = replace(here, number=number, first=serial, gap=gap)
        self._epochs = [*before, begun]
        for one in later:
            number = max(one.number, number + 1)
            self._epochs.append(
                replace(one, number=number, gap=None if one.gap is None else replace(one.gap, epoch=number))
            )
        return serial, begun, stop

    def _seconds_since_given(self, serial: int) -> float:
        assert self._given_ns is not None
        return round(max(0, self._kept[serial - self._first].arrived_ns - self._given_ns) / _NS, 3)

    # --- what is kept -----------------------------------------------------------------------------------------------

    def _start(self, serial: int) -> None:
        self._starts.append(serial)
        if self._waited:
            self._waited, self._pinned = False, serial

    def _forget(self, now_ns: int) -> None:
        while (following := self._following()) is not None and (
            now_ns - self._kept[following - self._first].arrived_ns >= self._keep_ns or self.nbytes > self._max_bytes
        ):
            while self._first < following:
                self._drop()
        while self.nbytes > self._max_bytes:
            self._drop()

    def _following(self) -> int | None:
        """Where the log may begin next."""
        return next((s for s in self._starts if s > self._first), None)

    def _drop(self) -> None:
        gone = self._kept.popleft()
        self.nbytes -= len(gone.packet.data)
        if self._starts and self._starts[0] == self._first:
            self._starts.popleft()
        self._first += 1
