"""Audio: the source's audio packets, unchanged, become the audio rendition of the HLS output.

The same bytes at the same pts (only the ADTS headers that AAC has in MPEG-TS are taken off: fMP4 says that once). A
segment holds the packets with pts in [k·segment_s, (k+1)·segment_s) of the epoch's timeline, what lies before 0
counted to the first. It is written when a packet of a later one arrives, or at the end. Units are packets of the
source, video ones counted but passed over. Audio that fMP4 cannot carry is left out and told (`problems`): it never
fails a stream.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction

from pipeline.errors import ConfigError, UnsupportedMedia
from pipeline.media import hls, mux
from pipeline.media.entries import Entry, adts_header_bytes, audio_entry
from pipeline.stage import Resources, StageConfig, StageEnv, StageSpec, StreamStage, Work
from pipeline.store.objects import Store, open_store
from pipeline.wire.acks import Snapshot
from pipeline.wire.packets import Codec, Packet, PacketBatch, Track

LONE_PACKET_S = Fraction(1, 50)
"""How long an epoch's only packet lasts when its source does not say (chosen)."""

READ_FROM_PACKETS = ("aac", "ac3")
"""Codecs whose configuration may have to be read from a packet."""

PATIENCE_PACKETS = 50
"""Packets, about a second, that may pass before one of them says the configuration (chosen)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioConfig(StageConfig):
    """Settings of the audio rendition."""

    segment_s: float = 2.0
    """Seconds, (0, 30]: a segment's length; best as encode's."""
    keep_s: float = 0.0
    """Seconds that the playlist reaches back, as encode's; 0: to the stream's start."""

    def __post_init__(self) -> None:
        if not 0 < self.segment_s <= 30:
            raise ConfigError(f"{self.segment_s} s is no segment length", where="audio.segment_s", hint="(0, 30]")
        if not 0 <= self.keep_s < math.inf:
            raise ConfigError(f"{self.keep_s} s cannot be kept", where="audio.keep_s", hint="0 keeps all")


@dataclass(frozen=True, kw_only=True, slots=True)
class _State:
    """What the packets so far decide for those to come.

    Attributes:
        entry: the sample entry (hexadecimal), "" before the first packet.
        adts: whether packets have ADTS headers.
        shift: as in mux.media_segment.
        at, dts, step: time, dts and spacing of the last packet in ticks; None before there is one.
        dropped: packets left out because they were damaged or stepped back.
        reason: why there is no audio; "" if there is.
    """

    entry: str = ""
    adts: bool = False
    shift: int = 0
    at: int | None = None
    dts: int | None = None
    step: int | None = None
    dropped: int = 0
    reason: str = ""


@dataclass(kw_only=True, slots=True)
class _Open:
    """The segment that is being made: packets by number, time and data; `before` is the state in front of it."""

    epoch: int
    number: int
    codec: Codec
    before: _State
    units: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)
    duration: int = 0  # of the last packet, as the source says


class Audio(StreamStage[AudioConfig, PacketBatch, None]):
    """Audio packets → fMP4 segments and a growing playlist, in the stream's directory."""

    spec = StageSpec(
        name="audio",
        version=1,
        takes=(PacketBatch,),
        gives=None,
        resources=Resources(cpus=0.05),
        latency_target_s=0.05,
    )
    Config = AudioConfig

    def __init__(self, config: AudioConfig) -> None:
        super().__init__(config)
        self._segment_s = Fraction(str(config.segment_s))
        self._store: Store | None = None
        self._state = _State()
        self._open: _Open | None = None
        self._next = 0
        self._began = False

    @property
    def problems(self) -> tuple[str, ...]:
        """What users should be told: why there is no audio, how many packets were left out."""
        dropped = self._state.dropped
        told = [self._state.reason] if self._state.reason else []
        return (
            (*told, f"{dropped} audio packets were damaged or out of order and are left out") if dropped else (*told,)
        )

    def open(self, env: StageEnv) -> None:
        """Take back the end of a playlist that an earlier run closed. Raises StorageError."""
        super().open(env)
        self._store = open_store(env.store)
        hls.reopen(self._store, hls.AUDIO)

    def close(self) -> None:
        """Drop the unfinished segment: whoever goes on gets its packets again."""
        self._open = None

    def process(self, work: Work[PacketBatch]) -> Sequence[None]:
        """Take the batch's audio packets; write each segment that they complete. Raises StorageError."""
        batch = work.item
        if batch.audio is not None:
            for unit, packet in enumerate(batch.packets, batch.span.start):
                if packet.track is Track.AUDIO and not self._state.reason:
                    self._take(batch.span.epoch, batch.audio, unit, packet)
        self._next = batch.span.stop
        return ()

    def finish(self) -> Sequence[None]:
        """Write the last segment. Its last packet lasts as the source says, else as long as the one before it."""
        if self._open is not None:
            lone = max(1, math.floor(LONE_PACKET_S / self._open.codec.time_base))
            self._write(until=self._open.times[-1] + (self._open.duration or self._state.step or lone))
        return ()

    def snapshot(self) -> Snapshot:
        """Return the state at the start of the unfinished segment: the packets before it are durable."""
        at, state = self._next, self._state
        if self._open is not None:
            at, state = self._open.units[0], self._open.before
        return Snapshot(after=at, resume_from=at, state=json.dumps(asdict(state), sort_keys=True).encode())

    def restore(self, snapshot: Snapshot) -> None:
        """Go on at the start of the segment that was unfinished."""
        self._next, self._state = snapshot.after, _State(**json.loads(snapshot.state))

    def _take(self, epoch: int, codec: Codec, unit: int, packet: Packet) -> None:
        state = self._state
        at = packet.pts if packet.pts is not None else packet.dts
        if at is None:
            at = 0 if state.at is None else state.at + (state.step or 1)
        data = packet.data
        if not state.entry:
            # What the first packet decides for the epoch. A segment's state is the one before its first packet, so
            # a restored object decides it again, from the same packet.
            try:
                entry = audio_entry(codec, data)
            except UnsupportedMedia as error:
                # A source that is entered in the middle may start with half a packet: one that can be read follows.
                hopeless = codec.name not in READ_FROM_PACKETS or state.dropped >= PATIENCE_PACKETS
                self._state = (
                    replace(state, reason=str(error)) if hopeless else replace(state, dropped=state.dropped + 1)
                )
                return
            adts = codec.name == "aac" and not codec.extradata
            shift = max(0, -mux.ticks(at, codec.time_base))
            self._state = replace(state, entry=entry.data.hex(), adts=adts, shift=shift)
        header = adts_header_bytes(data) if self._state.adts else 0
        back = state.at is not None and at <= state.at
        back = back or (state.dts is not None and packet.dts is not None and packet.dts <= state.dts)
        if back or not data or (self._state.adts and not header):
            self._state = replace(self._state, dropped=self._state.dropped + 1)
            return
        number = max(0, math.floor(at * codec.time_base / self._segment_s))
        if self._open is not None and number > self._open.number:
            self._write(until=at)
        if self._open is None:
            self._open = _Open(epoch=epoch, number=number, codec=codec, before=state)
        self._open.units.append(unit)
        self._open.times.append(at)
        self._open.data.append(data[header:])
        self._open.duration = packet.duration
        self._state = replace(
            self._state,
            at=at,
            dts=packet.dts if packet.dts is not None else state.dts,
            step=packet.duration or (at - state.at if state.at is not None else state.step),
        )

    def _write(self, *, until: int) -> None:
        """Make the open segment durable; its last packet lasts until `until` (pts)."""
        segment, store = self._open, self._store
        assert segment is not None and store is not None
        time_base = segment.codec.time_base
        times = [mux.ticks(at, time_base) for at in (*segment.times, until)]
        samples = [
            mux.Sample(time=times[i], duration=min(times[i + 1] - times[i], mux.MAX_TICKS), key=True, data=data)
            for i, data in enumerate(segment.data)
        ]
        data = mux.media_segment(samples, number=segment.number, shift=self._state.shift)
        entry = Entry(data=bytes.fromhex(self._state.entry), codecs="")
        duration_s = (until - segment.times[0]) * time_base
        line = hls.Segment(
            epoch=segment.epoch,
            first=segment.units[0],
            stop=segment.units[-1] + 1,
            duration_s=duration_s,
            kbps=math.ceil(len(data) * 8 / duration_s / 1000),
        )
        init = mux.init_segment(entry, ticks_a_second=mux.timescale(time_base), shift=self._state.shift)
        hls.write_segment(
            store,
            hls.AUDIO,
            line,
            data=data,
            init=init,
            target_s=hls.target_duration(self.config.segment_s),
            keep_s=Fraction(str(self.config.keep_s)),
        )
        if not self._began:
            hls.write_master(store)
        self._began = True
        self._open = None
