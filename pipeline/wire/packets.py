"""Compressed media as it left the source: what the packet log keeps and what decode and the mux take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from fractions import Fraction

from pipeline.wire.frames import Size
from pipeline.wire.ids import Span


class Track(IntEnum):
    """Which of the two tracks of a stream a packet belongs to."""

    VIDEO = 0
    AUDIO = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Codec:
    """What a decoder or a muxer has to know of a track before its first packet.

    Attributes:
        name: FFmpeg's codec name ("h264", "aac", "rawvideo").
        extradata: decoder configuration (avcC, AudioSpecificConfig, …), may be empty.
        time_base: seconds a tick of the packets' pts and dts.
        size: of the coded picture; None for audio.
        pix_fmt: FFmpeg's pixel format name; "" for audio. Raw video cannot be decoded without it.
        sample_rate_hz, channels: of audio; 0 for video.
        rotation_deg: how far a player turns the picture counter-clockwise (0, 90, 180, 270).
        frame_rate: average frames a second; None if unknown. A hint: it spaces frames whose pts are missing.
        tag: FFmpeg's codec tag (four characters), which tells some decoders the dialect; "" if none.
        reorder_frames: how many frames a decoder holds back to put them in order, as far as the source tells.
        bits_per_sample: of a coded sample, where a decoder has to be told (raw, old PCM-like codecs); else 0.
        interlaced: the pictures are two fields of different instants: decode makes one progressive frame of each.
    """

    name: str
    extradata: bytes
    time_base: Fraction
    size: Size | None = None
    pix_fmt: str = ""
    sample_rate_hz: int = 0
    channels: int = 0
    rotation_deg: int = 0
    frame_rate: Fraction | None = None
    tag: str = ""
    reorder_frames: int = 0
    bits_per_sample: int = 0
    interlaced: bool = False

    @property
    def shown_size(self) -> Size | None:
        """The size at which pictures are shown: the coded one, turned if the source says so; None for audio."""
        if self.size is not None and self.rotation_deg in (90, 270):
            return Size(width_px=self.size.height_px, height_px=self.size.width_px)
        return self.size


@dataclass(frozen=True, kw_only=True, slots=True)
class Packet:
    """One compressed packet, on the epoch's timeline (pts wrap, jumps and gaps already repaired).

    `pts` may be None (raw streams, damaged ones: decode synthesises); `dts` likewise.
    `key` marks a random-access point. `discard` says: decode it for what refers to it, but show nothing of it
    (edit lists; the packets before an epoch that begins inside a group of pictures).
    """

    track: Track
    pts: int | None
    dts: int | None
    duration: int
    key: bool
    data: bytes
    discard: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class PacketBatch:
    """Consecutive packets of one epoch, video and audio interleaved as the source gave them.

    `span` counts *packets* (both tracks), from 0 in each epoch. `codecs` is the same object value for the whole epoch.
    """

    span: Span
    video: Codec
    audio: Codec | None
    packets: tuple[Packet, ...]
    arrived_ns: int

    def __post_init__(self) -> None:
        if len(self.packets) != len(self.span):
            raise ValueError(f"{len(self.packets)} packets are not {self.span}")

    def __len__(self) -> int:
        return len(self.packets)

    @property
    def nbytes(self) -> int:
        """Bytes of the packets' data."""
        return sum(len(p.data) for p in self.packets)

    def cut(self, start: int, stop: int) -> PacketBatch:
        """Return the packets [start, stop) (numbers in the epoch); they must lie inside the span."""
        if (start, stop) == (self.span.start, self.span.stop):
            return self
        inner = self.span.part(start, stop)
        if not self.span.covers(inner):
            raise ValueError(f"{inner} is not inside {self.span}")
        return replace(self, span=inner, packets=self.packets[start - self.span.start : stop - self.span.start])
