"""One timeline out of what a source says: wrap-around, missing and broken time stamps, jumps, changes of the picture.

Theory of operation. `Timeline` takes packets in the order in which a demuxer gives them and places each into an epoch
(design §9). Inside an epoch time stamps are the source's, to the tick, but for these repairs:

- *wrap*: a counter of `wrap_bits` bits (33 in MPEG-TS) goes on counting upwards.
- *missing*: pts = dts where the codec does not reorder; else pts stays None and decode, which knows the order of
  presentation, spaces the frames by the frame rate.
- *step back* of at most 10 s (a loop, a restarted encoder): what follows is shifted to continue where time stood.
  One packet alone that steps back has a broken stamp: it counts as missing.
- *glitch*: one packet alone that is more than 10 s off counts as missing.
- *gap* of at most 10 s: kept as it is.

A new epoch begins when the picture's size or codec changes, and at a *jump*: a video packet more than 10 s away from
the clocks of both tracks (as long as one track goes on, the other one merely pauses). Negative time stamps (edit lists,
B-frames at the start) are legal and carried as they are; nothing in Limpid assumes that an epoch starts at 0.

A jump is seen at a packet's pts, but reordering mixes both sides: frames from before the jump may come after the first
packet behind it, and refer to it. So the packets of one reordering window are held back after a jump (only then), and
those that both sides need go into both epochs, with `discard` set where they must not be shown. For the same reason an
epoch that begins inside a group of pictures starts with that group, discarded.

Audio never begins an epoch. Audio that lies off the video's clocks waits for video to follow it, and is dropped (and
counted) when video does not.

No I/O, no clock, no FFmpeg: the state follows from the packets alone, so a second pass over a source places each packet
as the first one did.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.wire.packets import Codec, Packet, Track

JUMP_S = 10  # design §9
_NS = 1_000_000_000
_JUMP_NS = JUMP_S * _NS
_PENDING_AUDIO = 256  # packets of audio that wait for video: 5 s of AAC (chosen)
_WINDOW = 17  # video packets looked at behind a jump: no codec reorders more than 16 frames (H.264 A.3.1)
_PREROLL_PACKETS = 600  # of a group of pictures kept for an epoch that begins inside it: 20 s at 30 Hz (chosen)
_PREROLL_BYTES = 32 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class RawPacket:
    """A packet as the demuxer gave it; `codec` is set on a video key packet that changes the picture or its coding."""

    track: Track
    pts: int | None
    dts: int | None
    duration: int
    key: bool
    data: bytes
    discard: bool = False
    codec: Codec | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """A packet on the timeline: which epoch, and how its tracks are coded."""

    epoch: int
    video: Codec
    packet: Packet


@dataclass(slots=True)
class _Clock:
    """Where a track stands in the epoch: the last time stamp placed, in ticks and in ns, and what it lasts."""

    codec: Codec
    ticks: int | None = None
    duration: int = 0

    def ns(self, ticks: int) -> int:
        base = self.codec.time_base
        return ticks * base.numerator * _NS // base.denominator

    def ticks_of(self, ns: int) -> int:
        base = self.codec.time_base
        return ns * base.denominator // (base.numerator * _NS)

    @property
    def at_ns(self) -> int | None:
        return None if self.ticks is None else self.ns(self.ticks)

    def step(self, duration: int) -> int:
        """Ticks from a packet to the next: its duration, else the frame rate's, else the last one known, else 1."""
        if duration > 0:
            return duration
        rate = self.codec.frame_rate
        if rate:
            return max(1, round(1 / (rate * self.codec.time_base)))
        return max(1, self.duration)


def _stamp(packet: RawPacket) -> int | None:
    return packet.pts if packet.pts is not None else packet.dts


class Timeline:
    """Places the packets of one pass over a source into epochs.

    Args:
        video, audio: how the tracks are coded at the start; None where there is no audio.
        wrap_bits: of the source's time stamps, 0 if they do not wrap.
        trust_pts: False for containers that keep dts only (AVI): with a codec that reorders, FFmpeg then gives pts that
            follow the order of coding, and no pts at all is better.

    `problems` counts by name what was repaired or lost: "wrap", "missing_pts", "broken_pts", "step_back", "jump",
    "format_change", "audio_off_clock", "epoch_without_key".
    """

    def __init__(self, *, video: Codec, audio: Codec | None = None, wrap_bits: int = 0, trust_pts: bool = True) -> None:
        self._epoch = 0
        self._video = _Clock(video)
        self._audio = _Clock(audio) if audio is not None else None
        self._wrap = 1 << wrap_bits if wrap_bits else 0
        self._laps = 0  # of the epoch: how often the counter has wrapped
        self._trust_pts = trust_pts
        self._shifts_ns = [0]  # of the epoch: the last one is in force, the one before may still hold for late audio
        self._last_dts: int | None = None  # of video, raw (unwrapped, before the shift)
        self._suspect = False  # the last video packet stepped back
        self._held: list[RawPacket] = []  # from the packet that jumped on
        self._waiting: deque[RawPacket] = deque()  # audio
        self._group: list[Packet] | None = []  # of the current group of pictures, None when it has grown too large
        self._group_bytes = 0
        self.problems: Counter[str] = Counter()

    @property
    def epoch(self) -> int:
        """The epoch of the last packet placed."""
        return self._epoch

    def push(self, packet: RawPacket) -> list[Placed]:
        """Take the next packet; return what can be placed now, in order."""
        if packet.track is Track.AUDIO:
            if self._audio is None:
                return []
            if self._held or not self._waiting_is_over(packet):
                self._wait(packet)
                return []
            return [self._place_audio(packet)]
        if self._held:
            self._held.append(packet)
            return self._resolve() if len(self._held) >= _WINDOW or packet.codec is not None else []
        if packet.codec is not None:
            return self._change(packet)
        packet = self._unwrapped(packet)
        if not self._trust_pts and self._video.codec.reorder_frames:
            packet = self._without_pts(packet)
        if self._is_off(packet):
            self._held.append(packet)
            return []
        return [*self._place_video(packet), *self._place_waiting()]

    def flush(self) -> list[Placed]:
        """Take the end of the source: return what was held back."""
        out: list[Placed] = []
        while self._held:
            out += self._resolve()
        out += self._place_waiting()
        if self._waiting:
            self.problems["audio_off_clock"] += len(self._waiting)
            self._waiting.clear()
        return out

    # --- wrap-around and nearness -----------------------------------------------------------------------------------

    def _unwrapped(self, packet: RawPacket) -> RawPacket:
        if not self._wrap:
            return packet
        clock = self._video if packet.track is Track.VIDEO else self._audio
        assert clock is not None
        at_ns = self._video.at_ns if clock.ticks is None else clock.at_ns
        if at_ns is None:
            return packet
        reference = clock.ticks_of(at_ns - self._shifts_ns[-1])

        def laps(ticks: int | None) -> int:
            return 0 if ticks is None else (reference - ticks + self._wrap // 2) // self._wrap

        pts_laps, dts_laps = laps(packet.pts), laps(packet.dts)
        if max(pts_laps, dts_laps) > self._laps:
            self.problems["wrap"] += 1
            self._laps = max(pts_laps, dts_laps)
        pts = None if packet.pts is None else packet.pts + pts_laps * self._wrap
        dts = None if packet.dts is None else packet.dts + dts_laps * self._wrap
        return replace(packet, pts=pts, dts=dts)

    def _clocks_ns(self) -> list[int]:
        clocks = (self._video, self._audio)
        return [c.at_ns for c in clocks if c is not None and c.at_ns is not None]

    def _is_off(self, packet: RawPacket) -> bool:
        """Whether a video packet lies more than 10 s from every clock of the epoch."""
        stamp = _stamp(packet)
        clocks_ns = self._clocks_ns()
        if stamp is None or self._video.ticks is None or not clocks_ns:
            return False
        at_ns = self._video.ns(stamp) + self._shifts_ns[-1]
        return all(abs(at_ns - c) > _JUMP_NS for c in clocks_ns)

    # --- video ------------------------------------------------------------------------------------------------------

    def _place_video(self, packet: RawPacket) -> list[Placed]:
        clock = self._video
        pts, dts = packet.pts, packet.dts
        if pts is not None and dts is not None and abs(clock.ns(pts - dts)) > _JUMP_NS:
            dts = None  # it lies on the other side of a jump
        order = dts if dts is not None else (pts if clock.codec.reorder_frames == 0 else None)
        if order is not None:
            if self._last_dts is not None and order < self._last_dts:
                if self._suspect:
                    # the second in a row: time was set back; it goes on where it stood
                    assert clock.ticks is not None
                    ahead = clock.ns(clock.ticks) + clock.ns(clock.step(packet.duration))
                    self._shifts_ns = [self._shifts_ns[-1], ahead - clock.ns(order)]
                    self._suspect = False
                    self._last_dts = order
                    self.problems["step_back"] += 1
                else:
                    self._suspect = True
                    pts = dts = None
                    self.problems["broken_pts"] += 1
            else:
                self._suspect = False
                self._last_dts = order
        if pts is None and dts is not None and clock.codec.reorder_frames == 0:
            pts = dts
        if pts is None:
            self.problems["missing_pts"] += 1
        shift = clock.ticks_of(self._shifts_ns[-1])
        pts = None if pts is None else pts + shift
        dts = None if dts is None else dts + shift
        at = pts if pts is not None else dts
        if at is not None:
            clock.ticks = at if clock.ticks is None else max(at, clock.ticks)
        elif clock.ticks is not None:
            clock.ticks += clock.step(packet.duration)
        clock.duration = packet.duration
        placed = self._emit(packet, pts, dts, discard=packet.discard)
        self._remember(placed.packet)
        return [placed]

    def _emit(self, packet: RawPacket, pts: int | None, dts: int | None, *, discard: bool) -> Placed:
        return Placed(
            epoch=self._epoch,
            video=self._video.codec,
            packet=Packet(
                track=packet.track,
                pts=pts,
                dts=dts,
                duration=max(0, packet.duration),
                key=packet.key,
                data=packet.data,
                discard=discard,
            ),
        )

    def _remember(self, packet: Packet) -> None:
        if packet.key:
            self._group, self._group_bytes = [], 0
        if self._group is None:
            return
        self._group.append(replace(packet, pts=None, dts=None, discard=True))
        self._group_bytes += len(packet.data)
        if len(self._group) > _PREROLL_PACKETS or self._group_bytes > _PREROLL_BYTES:
            self._group = None

    def _without_pts(self, packet: RawPacket) -> RawPacket:
        """The packet without its pts, lasting as long as the dts of its track are apart: decode spaces frames by it."""
        step = 0
        if packet.dts is not None and self._last_dts is not None:
            step = packet.dts - self._last_dts
        return replace(packet, pts=None, duration=step if step > 0 else packet.duration)

    # --- new epochs -------------------------------------------------------------------------------------------------

    def _begin_epoch(self, codec: Codec, why: str) -> None:
        self._epoch += 1
        self._video = _Clock(codec)
        if self._audio is not None:
            self._audio = _Clock(self._audio.codec)
        self._shifts_ns = [0]
        self._laps = 0
        self._last_dts = None
        self._suspect = False
        self.problems[why] += 1

    def _change(self, packet: RawPacket) -> list[Placed]:
        codec = packet.codec
        assert codec is not None and packet.key
        if self._video.ticks is None and self._last_dts is None and self._epoch == 0 and self._group == []:
            self._video = _Clock(codec)  # nothing has been placed: this is how the source begins
        else:
            packet_now = self._unwrapped(packet)
            # a change of the picture alone does not touch the clock: keep the unwrapped stamps
            if not self._is_off(packet_now):
                packet = packet_now
            self._begin_epoch(codec, "format_change")
        return [*self._place_video(replace(packet, codec=None)), *self._place_waiting()]

    def _resolve(self) -> list[Placed]:
        """Decide on the packets held since one jumped: a glitch, or the border between two epochs."""
        held, self._held = self._held, []
        first = held[0]
        jumped = _stamp(first)
        assert jumped is not None
        here = self._video.ns(jumped)
        window = [p if i == 0 else self._unwrapped(p) for i, p in enumerate(held)]
        change = next((i for i, p in enumerate(window) if p.codec is not None), len(window))
        behind = [self._is_behind(p, here) for p in window[:change]]
        if sum(behind) == 1 and len(behind) > 1:
            self.problems["broken_pts"] += 1
            out = self._place_video(replace(first, pts=None, dts=None))
            return self._again(out, held[1:])
        # Packets up to the last one from before the jump go to the old epoch (those behind it unseen) ...
        mixed = max((i + 1 for i, b in enumerate(behind) if not b), default=0)
        out = []
        preroll = [] if first.key else self._group and list(self._group)
        for i in range(mixed):
            if behind[i]:
                out.append(self._emit(window[i], None, None, discard=True))
            else:
                out += self._place_video(window[i])
        # ... and all of them to the new one, those from before it unseen.
        self._begin_epoch(self._video.codec, "jump")
        self._group = preroll
        if not preroll and not first.key:
            self.problems["epoch_without_key"] += 1
        out += [Placed(epoch=self._epoch, video=self._video.codec, packet=p) for p in preroll or ()]
        for i in range(mixed):
            if behind[i]:
                out += self._place_video(held[i])
            else:
                out.append(self._emit(held[i], None, None, discard=True))
                self._remember(out[-1].packet)
        return self._again(out, held[mixed:])

    def _is_behind(self, packet: RawPacket, here_ns: int) -> bool:
        """Whether a packet lies on the far side of the jump to `here_ns`: nearer to it than to the epoch's clock."""
        stamp = _stamp(packet)
        if stamp is None:
            return True
        at_ns = self._video.ns(stamp)
        return abs(at_ns - here_ns) <= min(abs(at_ns + self._shifts_ns[-1] - c) for c in self._clocks_ns())

    def _again(self, out: list[Placed], rest: Sequence[RawPacket]) -> list[Placed]:
        for packet in rest:
            out += self.push(packet)
        return out

    # --- audio ------------------------------------------------------------------------------------------------------

    def _wait(self, packet: RawPacket) -> None:
        self._waiting.append(packet)
        if len(self._waiting) > _PENDING_AUDIO:
            self._waiting.popleft()
            self.problems["audio_off_clock"] += 1

    def _waiting_is_over(self, packet: RawPacket) -> bool:
        """Whether audio can be placed: video has begun, and the packet lies on the epoch's clocks, not in its past."""
        assert self._audio is not None
        clocks_ns = self._clocks_ns()
        if self._video.ticks is None and self._last_dts is None and not clocks_ns:
            return self._video.codec.frame_rate is not None and self._group != []
        at = self._audio_stamp(self._unwrapped(packet))
        if at is None:
            return True
        at_ns = self._audio.ns(at)
        last = self._audio.ticks
        return any(abs(at_ns - c) <= _JUMP_NS for c in clocks_ns) and (last is None or at >= last)

    def _audio_stamp(self, packet: RawPacket) -> int | None:
        """The packet's place under the shift that continues the track best: late audio keeps the shift before."""
        assert self._audio is not None
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is None:
            return None
        candidates = [stamp + self._audio.ticks_of(s) for s in self._shifts_ns]
        last = self._audio.ticks
        if last is None:
            return candidates[-1]
        expected = last + self._audio.duration
        return min(candidates, key=lambda at: abs(at - expected))

    def _place_audio(self, packet: RawPacket) -> Placed:
        assert self._audio is not None
        packet = self._unwrapped(packet)
        at = self._audio_stamp(packet)
        stamp = packet.dts if packet.dts is not None else packet.pts
        shift = 0 if at is None or stamp is None else at - stamp
        if at is not None:
            self._audio.ticks = at
        elif self._audio.ticks is not None:
            self._audio.ticks += self._audio.duration
        self._audio.duration = packet.duration
        pts = None if packet.pts is None else packet.pts + shift
        dts = None if packet.dts is None else packet.dts + shift
        return self._emit(packet, pts, dts, discard=packet.discard)

    def _place_waiting(self) -> list[Placed]:
        if not self._waiting:
            return []
        waiting, self._waiting = list(self._waiting), deque()
        out = []
        for packet in waiting:
            if self._waiting_is_over(packet):
                out.append(self._place_audio(packet))
            else:
                self._waiting.append(packet)
        return out
