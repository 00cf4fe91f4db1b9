"""Encode: the sharper frames become the video rendition of the HLS output, segment by segment.

Segment k of an epoch holds the frames whose time since the epoch's first frame lies in [k·segment_s, (k+1)·segment_s):
its borders are functions of pts, its bytes of its frames (media/encode.py, media/mux.py). It is written when the
first frame of a later one arrives, or at the end. A restored object is fed from the unfinished segment's first frame
and makes the same files; those that exist already win. With `live`, each frame is also there as a fragment of its own
as soon as the next one has come (store/livetap.py): that is for viewers at once, and durable only with its segment.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import ClassVar

from pipeline.errors import ConfigError
from pipeline.media import hls, mux
from pipeline.media.encode import Coded, EncodeParameters, SegmentEncoder
from pipeline.stage import Resources, StageConfig, StageEnv, StageSpec, StreamStage, Work
from pipeline.store import livetap
from pipeline.store.objects import Store, open_store
from pipeline.wire.acks import Snapshot
from pipeline.wire.frames import FrameBatch

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow")
"""x264's, by rising effort; slower ones than these keep no live stream up."""

LONE_FRAME_S = Fraction(1, 25)
"""How long an epoch's only frame lasts when its source does not say (chosen)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeConfig(StageConfig):
    """Settings of the video rendition."""

    segment_s: float = 2.0
    """Seconds, (0, 30]: a segment's length. Shorter: quicker start, more bits."""
    crf: float = 21.0
    """x264's quality, 0 (lossless) to 51 (worst); 6 more halve the bits."""
    preset: str = "superfast"
    """x264's effort, ultrafast to slow. Measured at 720p on one core: ultrafast 4.3 ms a frame; superfast 6.1, 19 %
    fewer bits, +0.3 dB; veryfast 8.2, another 23 % fewer bits, −0.9 dB."""
    max_kbps: int = 16_000
    """kbit/s that a segment is capped at (x264's VBV, one second of buffer); 0: no cap."""
    threads: int = 1
    """Threads of an encoder, 1 to 64. Other counts give other bytes; more than 1 only without a cap: with one,
    x264 does not repeat itself."""
    keep_s: float = 0.0
    """Seconds that the playlist reaches back, and at least three segments; 0: to the stream's start. Segments that
    have left it are deleted a while later."""
    live: bool = False
    """Write each frame as a fragment for the live view, beside the segments. Only where the store is a directory."""

    def __post_init__(self) -> None:
        if not 0 < self.segment_s <= 30:
            raise ConfigError(f"{self.segment_s} s is no segment length", where="encode.segment_s", hint="(0, 30]")
        if not 0 <= self.crf <= 51:
            raise ConfigError(f"{self.crf:g} is no quality of x264", where="encode.crf", hint="use 0 to 51")
        if self.preset not in PRESETS:
            raise ConfigError(f"unknown preset '{self.preset}'", where="encode.preset", hint=", ".join(PRESETS))
        if not 0 <= self.keep_s < math.inf:
            raise ConfigError(f"{self.keep_s} s cannot be kept", where="encode.keep_s", hint="0 keeps all")
        if self.max_kbps < 0:
            raise ConfigError(f"{self.max_kbps} kbit/s is no cap", where="encode.max_kbps", hint="0 is no cap")
        if not 1 <= self.threads <= 64:
            raise ConfigError(f"{self.threads} threads", where="encode.threads", hint="use 1 to 64")
        if self.threads > 1 and self.max_kbps:
            raise ConfigError(
                f"{self.threads} threads with a cap of {self.max_kbps} kbit/s do not give the same bytes twice",
                where="encode.threads",
                hint="use 1 thread, or set encode.max_kbps to 0",
            )


@dataclass(kw_only=True, slots=True)
class _Open:
    """The segment that is being made."""

    epoch: int
    number: int
    first: int
    time_base: Fraction
    date_ms: int | None
    encoder: SegmentEncoder
    pts: list[int] = field(default_factory=list)
    captured_ns: list[int] = field(default_factory=list)
    shown: int = 0  # frames that the live view has


class Encode(StreamStage[EncodeConfig, FrameBatch, None]):
    """Frames → H.264 in fMP4 segments and a growing playlist, in the stream's directory."""

    view: ClassVar[str] = "main"
    """The folder below hls/ and live/."""

    spec = StageSpec(
        name="encode",
        version=1,
        takes=(FrameBatch,),
        gives=None,
        batch_frames=8,
        resources=Resources(cpus=1.0),
        latency_target_s=0.1,
    )
    Config = EncodeConfig

    def __init__(self, config: EncodeConfig) -> None:
        super().__init__(config)
        self._segment_s = Fraction(str(config.segment_s))
        self._parameters = EncodeParameters(
            crf=config.crf, preset=config.preset, max_kbps=config.max_kbps, threads=config.threads
        )
        self._lighter = replace(self._parameters, lighter=True)
        self._folder = f"hls/{self.view}"
        self._store: Store | None = None
        self._tap: livetap.LiveWriter | None = None
        self._open: _Open | None = None
        self._format: tuple[object, ...] | None = None  # what the epoch's frames have in common
        self._next = 0
        self._first_pts: int | None = None  # of the epoch
        self._before: int | None = None  # pts of the last frame before the open segment
        self._duration = 0  # of the last frame, ticks, as the source says
        self._began = False

    def open(self, env: StageEnv) -> None:
        """Take back the end of a playlist that an earlier run closed. Raises StorageError."""
        super().open(env)
        self._store = open_store(env.store)
        hls.reopen(self._store, self._folder)
        root = livetap.folder(self._store, self.view) if self.config.live else None
        self._tap = None if root is None else livetap.LiveWriter(root)

    def close(self) -> None:
        """Drop the unfinished segment: whoever goes on gets its frames again."""
        self._open = None
        if self._tap is not None:
            self._tap.close()

    def process(self, work: Work[FrameBatch]) -> Sequence[None]:
        """Encode the batch; write each segment that it completes. Raises StorageError."""
        batch = work.item
        frame_format = (batch.span.epoch, batch.size, batch.time_base)
        assert self._format in (None, frame_format), f"{batch.span} is {frame_format}, its epoch {self._format}"
        self._format = frame_format
        for i in range(len(batch)):
            pts = int(batch.pts[i])
            if self._first_pts is None:
                self._first_pts = pts
            number = self._number(pts, batch.time_base)
            if self._open is not None and number != self._open.number:
                self._write(until=pts)
            if self._open is None:
                captured_ns = int(batch.captured_ns[i])
                self._open = _Open(
                    epoch=batch.span.epoch,
                    number=number,
                    first=batch.span.start + i,
                    time_base=batch.time_base,
                    date_ms=captured_ns // 1_000_000 if captured_ns > 0 else None,
                    encoder=SegmentEncoder(
                        # A stamp holds from its frame on; the segment that this lies in is as its first frame says.
                        self._lighter if self.spec.name in work.stamp.lighter else self._parameters,
                        size=batch.size,
                        color=batch.color,
                        time_base=batch.time_base,
                    ),
                )
            if self._tap is not None and not self._open.pts:
                self._tap.begin(self._open.epoch, number, self._init(self._open))
            coded = self._open.encoder.add(batch.data[i], pts)
            self._open.pts.append(pts)
            self._open.captured_ns.append(int(batch.captured_ns[i]))
            self._duration = int(batch.duration[i])
            self._show(coded, until=pts + self._nominal(self._open))
        self._next = batch.span.stop
        return ()

    def finish(self) -> Sequence[None]:
        """Write the last segment. Its last frame lasts as the source says, else as long as the one before it."""
        if self._open is not None:
            self._write(until=self._open.pts[-1] + self._nominal(self._open))
        if self._tap is not None:
            self._tap.close()
        return ()

    def snapshot(self) -> Snapshot:
        """Return the state at the start of the unfinished segment: the frames before it are durable."""
        at = self._next if self._open is None else self._open.first
        state = {"first_pts": self._first_pts, "before": self._before}
        return Snapshot(after=at, resume_from=at, state=json.dumps(state, sort_keys=True).encode())

    def restore(self, snapshot: Snapshot) -> None:
        """Go on at the start of the segment that was unfinished."""
        state = json.loads(snapshot.state)
        self._next, self._first_pts, self._before = snapshot.after, state["first_pts"], state["before"]

    def _number(self, pts: int, time_base: Fraction) -> int:
        assert self._first_pts is not None
        return math.floor((pts - self._first_pts) * time_base / self._segment_s)

    def _nominal(self, segment: _Open) -> int:
        """Return how long (ticks) the newest frame lasts if no other follows."""
        pts = segment.pts
        before = pts[-2] if len(pts) > 1 else self._before
        lone = max(1, math.floor(LONE_FRAME_S / segment.time_base))
        return self._duration or (lone if before is None else pts[-1] - before)

    def _shift(self, segment: _Open) -> int:
        assert self._first_pts is not None
        return max(0, -mux.ticks(self._first_pts, segment.time_base))

    def _init(self, segment: _Open) -> bytes:
        return mux.init_segment(
            segment.encoder.entry(), ticks_a_second=mux.timescale(segment.time_base), shift=self._shift(segment)
        )

    def _show(self, coded: Sequence[Coded], *, until: int) -> None:
        """Give the frames of the open segment that have become ready to those who watch; the newest lasts `until`."""
        segment = self._open
        if self._tap is None or segment is None:
            return
        ends = [*segment.pts[1:], until]
        for frame in coded:
            i = segment.shown
            (sample,) = _samples([frame], segment.pts[i : i + 1], ends[i], segment.time_base)
            number, shift = segment.first + i, self._shift(segment)
            self._tap.append(mux.live_fragment(sample, number=number, shift=shift, captured_ns=segment.captured_ns[i]))
            segment.shown += 1

    def _write(self, *, until: int) -> None:
        """Make the open segment durable; its last frame lasts until `until` (pts)."""
        segment, store = self._open, self._store
        assert segment is not None and store is not None
        coded = segment.encoder.finish()
        assert len(coded) == len(segment.pts), f"{len(segment.pts)} frames became {len(coded)} packets"
        self._show(coded[segment.shown :], until=until)
        samples = _samples(coded, segment.pts, until, segment.time_base)
        data = mux.media_segment(samples, number=segment.number, shift=self._shift(segment))
        duration_s = (until - segment.pts[0]) * segment.time_base
        line = hls.Segment(
            epoch=segment.epoch,
            first=segment.first,
            stop=segment.first + len(coded),
            duration_s=duration_s,
            kbps=math.ceil(len(data) * 8 / duration_s / 1000),
            date_ms=segment.date_ms,
        )
        hls.write_segment(
            store,
            self._folder,
            line,
            data=data,
            init=self._init(segment),
            target_s=hls.target_duration(self.config.segment_s),
            keep_s=Fraction(str(self.config.keep_s)),
        )
        if not self._began and self._folder == hls.MAIN:
            hls.write_master(store)
        self._began = True
        self._before = segment.pts[-1]
        self._open = None


def _samples(coded: Sequence[Coded], pts: Sequence[int], until: int, time_base: Fraction) -> list[mux.Sample]:
    times = [mux.ticks(at, time_base) for at in (*pts, until)]
    return [
        mux.Sample(time=times[i], duration=min(times[i + 1] - times[i], mux.MAX_TICKS), key=c.key, data=c.data)
        for i, c in enumerate(coded)
    ]
