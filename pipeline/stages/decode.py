"""Decode: packets to frames, in order of presentation, numbered from 0, in batches on a fixed grid.

Theory of operation. Batch borders lie at multiples of `batch_frames`, so they follow from sequence numbers alone and a
restored object makes the same batches. A snapshot lies behind the last batch given. Its `resume_from` is a key packet
one *before* the last key packet whose picture has been given: all that precedes a random-access point in coding order
precedes it in presentation, so what has not been given needs at most that last one, and the one before it covers what
open groups of pictures and filters look back to. A restored object decodes from there and drops pictures up to and
including the last one given, told by its packet's number, so streams without pts and with repeated pts are exact too.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CorruptMedia, LimpidError, StageError
from pipeline.media.color import I420Writer, color_of
from pipeline.media.decode import VideoDecoder
from pipeline.media.picture import Picture
from pipeline.stage import MOST_HELD, StageConfig, StageEnv, StageSpec, StreamStage, Work
from pipeline.wire.acks import Snapshot
from pipeline.wire.frames import ColorSpec, FrameBatch, Size
from pipeline.wire.ids import Span
from pipeline.wire.packets import Codec, PacketBatch, Track

_REORDER_PACKETS = 64  # a picture from so far behind the one looked for: that one does not come any more


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeConfig(StageConfig):
    """Decode has no settings: what comes out is decided by what comes in."""


@dataclass(slots=True)
class _Filling:
    """The batch that is being filled; `data` is allocated once and handed out as it is."""

    color: ColorSpec
    data: NDArray[np.uint8]  # (batch_frames, frame_bytes)
    pts: list[int] = field(default_factory=list)
    duration: list[int] = field(default_factory=list)
    arrived_ns: list[int] = field(default_factory=list)
    key: list[bool] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)


class Decode(StreamStage[DecodeConfig, PacketBatch, FrameBatch]):
    """Gives every frame that the packets hold: I420, turned upright, progressive, pts strictly increasing.

    `problems` counts by name what was repaired or lost in this epoch: "decode_error" (packets skipped),
    "key_frame_lost" (the pictures behind it are shown, damaged), "missing_pts" (spaced by duration or frame rate),
    "pts_not_increasing" (moved to one tick behind the one before), "size_changed" (scaled to the epoch's size),
    "set_aside" (packets passed over).
    """

    spec = StageSpec(name="decode", version=1, takes=(PacketBatch,), gives=FrameBatch, batch_frames=8)
    Config = DecodeConfig

    def open(self, env: StageEnv) -> None:
        super().open(env)
        self.problems: Counter[str] = Counter()
        self._codec: Codec | None = None
        self._decoder: VideoDecoder | None = None
        self._writer = I420Writer(Size(width_px=1, height_px=1))
        self._span = Span(stream=env.stream, epoch=env.epoch, start=0, stop=0) if env.stream else None
        self._start = 0  # sequence number of the batch being filled
        self._filling: _Filling | None = None
        self._last_pts: int | None = None
        self._step = 0  # ticks from the last picture to the next, should that have no pts
        self._given_keys: deque[int] = deque(maxlen=2)  # packet numbers of the last key pictures given
        self._snapshot = Snapshot(after=0, resume_from=0)
        self._given: deque[int] = deque(maxlen=_REORDER_PACKETS)  # packet numbers of the last pictures given
        self._skip_to: int | None = None  # after restore: drop pictures up to the one of this packet,
        self._pending: set[int] = set()  # numbers of packets whose picture has not come
        self._doubles = False  # a packet has given two pictures
        self._skip_repeats = 1  # the last one of so many (some codecs pack two pictures into a packet)

    def close(self) -> None:
        self._decoder = None
        self._filling = None

    def process(self, work: Work[PacketBatch]) -> Sequence[FrameBatch]:
        """Decode a batch of packets.

        Raises:
            StageError: hundreds of packets in a row could not be decoded, or there is no decoder.
        """
        batch = work.item
        self._span = batch.span
        out: list[FrameBatch] = []
        try:
            decoder = self._started(batch.video)
            for number, packet in enumerate(batch.packets, start=batch.span.start):
                if packet.track is Track.VIDEO:
                    self._pending.add(number)
                    self._take(decoder.decode(packet, number, batch.arrived_ns), out)
        except LimpidError as error:
            raise StageError(
                error.what, stage=self.spec.name, span=str(batch.span), cause=str(error), hint=error.hint
            ) from error
        return out

    def bypass(self, work: Work[PacketBatch]) -> Sequence[FrameBatch]:
        """Pass over packets: their pictures are missing (a gap in pts), the next ones come as well as they can."""
        self._span = work.item.span
        self._started(work.item.video)
        self.problems["set_aside"] += len(work.item)
        return ()

    def finish(self) -> Sequence[FrameBatch]:
        """Give what the decoder held back; the epoch's last batch may be shorter than the others."""
        out: list[FrameBatch] = []
        if self._decoder is not None:
            self._take(self._decoder.flush(), out)
        if self._filling is not None and self._filling.pts:
            out.append(self._give())
        return out

    def held(self) -> int:
        """See StreamStage: pictures that the decoder holds back, and those of the batch that is not full.

        Where packets and pictures are not one to one it is not known.
        """
        if self._doubles or (self._codec is not None and self._codec.interlaced):
            return MOST_HELD
        while len(self._pending) > MOST_HELD:
            self._pending.remove(min(self._pending))  # damaged: its picture does not come any more
        return len(self._pending) + (len(self._filling.pts) if self._filling is not None else 0)

    def snapshot(self) -> Snapshot:
        """Return the state behind the last batch given (`after` is a multiple of `batch_frames` until the end)."""
        return self._snapshot

    def restore(self, snapshot: Snapshot) -> None:
        """Continue behind `snapshot`; the packets from its `resume_from` on come next."""
        self._snapshot = snapshot
        if snapshot.after == 0:
            return
        state = json.loads(snapshot.state)
        self._start = snapshot.after
        self._last_pts = state["last_pts"]
        self._step = state["step"]
        self._skip_to, self._skip_repeats = state["last_packet"], state["repeats"]
        self._given_keys.extend(state["keys"])

    # --- pictures into batches --------------------------------------------------------------------------------------

    def _started(self, codec: Codec) -> VideoDecoder:
        if self._decoder is None:
            assert codec.size is not None
            self._codec = codec
            self._writer = I420Writer(codec.size, codec.rotation_deg)
            self._decoder = VideoDecoder(codec)
            self._decoder.problems = self.problems
            if not self._step and codec.frame_rate:
                self._step = max(1, round(1 / (codec.frame_rate * codec.time_base)))
        return self._decoder

    def _take(self, pictures: Iterable[Picture], out: list[FrameBatch]) -> None:
        for picture in pictures:
            self._doubles = self._doubles or picture.number not in self._pending
            self._pending.discard(picture.number)
            if self._skip_to is not None and self._is_given(picture):
                continue
            if self._filling is None:
                self._filling = _Filling(
                    color=color_of(picture.frame),
                    data=np.empty((self.env.batch_frames, self._writer.size.frame_bytes), np.uint8),
                )
            filling = self._filling
            try:
                if self._writer.write(picture.frame, filling.data[len(filling.pts)]):
                    self.problems["size_changed"] += 1
            except CorruptMedia:
                self.problems["decode_error"] += 1
                continue
            filling.pts.append(self._placed(picture))
            filling.duration.append(picture.duration)
            filling.arrived_ns.append(picture.arrived_ns)
            filling.key.append(picture.key)
            filling.numbers.append(picture.number)
            if len(filling.pts) == self.env.batch_frames:
                out.append(self._give())

    def _is_given(self, picture: Picture) -> bool:
        """Whether a picture was given before the snapshot was taken."""
        assert self._skip_to is not None
        if picture.number == self._skip_to:
            self._given.append(picture.number)
            self._skip_repeats -= 1
            if self._skip_repeats == 0:
                self._skip_to = None
            return True
        if picture.number > self._skip_to + _REORDER_PACKETS:
            self._skip_to = None  # damage: the picture looked for has not come back
            return False
        return True

    def _placed(self, picture: Picture) -> int:
        """The picture's pts, repaired so that it lies behind the one before."""
        pts, last = picture.pts, self._last_pts
        if pts is None:
            self.problems["missing_pts"] += 1
            pts = (picture.dts or 0) if last is None else last + max(1, self._step)
        elif last is not None and pts <= last:
            self.problems["pts_not_increasing"] += 1
            pts = last + 1
        if picture.duration:
            self._step = picture.duration
        self._last_pts = pts
        return pts

    def _give(self) -> FrameBatch:
        filling, codec, position = self._filling, self._codec, self._span
        assert filling is not None and codec is not None and position is not None
        count = len(filling.pts)
        span = position.part(self._start, self._start + count)
        data = filling.data[:count]
        data.flags.writeable = False
        batch = FrameBatch(
            span=span,
            size=self._writer.size,
            color=filling.color,
            time_base=codec.time_base,
            pts=np.array(filling.pts, np.int64),
            duration=np.array(filling.duration, np.int64),
            captured_ns=np.array(filling.arrived_ns, np.int64),
            keyframe=np.array(filling.key, np.bool_),
            data=data,
        )
        self._given_keys.extend(n for n, key in zip(filling.numbers, filling.key, strict=True) if key)
        self._given.extend(filling.numbers)
        state = {
            "last_packet": filling.numbers[-1],
            "repeats": self._given.count(filling.numbers[-1]),
            "last_pts": self._last_pts,
            "step": self._step,
            "keys": list(self._given_keys),
        }
        self._snapshot = Snapshot(
            after=span.stop,
            resume_from=self._given_keys[0] if len(self._given_keys) == 2 else 0,
            state=json.dumps(state).encode(),
        )
        self._start = span.stop
        self._filling = None
        return batch
