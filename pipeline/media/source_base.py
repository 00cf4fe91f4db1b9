"""What every source is and tells: packets on one timeline, from any position on.

A position in a source is (epoch, packet number in that epoch). Asking for one gives exactly the packets that an
uninterrupted pass gives from there on, however often one asks: replay and resuming rest on it (design §5).
"""

from __future__ import annotations

import ipaddress
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from pipeline.errors import ConfigError
from pipeline.media.timeline import Placed
from pipeline.wire.frames import Size
from pipeline.wire.ids import Span, StreamId
from pipeline.wire.packets import Codec, Packet, PacketBatch
from pipeline.wire.status import Gap, SourceState

BATCH_PACKETS = 16
BATCH_BYTES = 256 << 10


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceOptions:
    """How to open a source.

    Attributes:
        open_timeout_s, read_timeout_s: deadlines for opening, and for each read after it.
        allow_private: whether addresses may lead to loopback and private networks, and open ports of this machine.
            True suits a command line; a service that takes addresses from others sets it to False.
        networks: such networks that are allowed nonetheless ("192.168.7.0/24", "fd00::/8").
        ca_file: certificates (PEM) that are trusted beside the system's; "": none.
        local: whether files of this machine may be opened; a service sets it to False.
        mode: "live", "file" or "auto", see source.is_live.
        reconnect_initial_s, reconnect_max_s: between two tries to reach a live source, at first and at most.
        reconnect_attempts: tries in a row until a live source fails; -1: without end.
        log_s: seconds of packets of a live source that are kept.
        slate_after_s: seconds without a packet after which a live source that was there shows a slate; 0: never.
        slate_text: the line on it.

    Raises:
        ConfigError: an entry of `networks` is no network.
    """

    open_timeout_s: float = 15.0
    read_timeout_s: float = 15.0
    allow_private: bool = True
    networks: tuple[str, ...] = ()
    ca_file: str = ""
    local: bool = True
    mode: Literal["auto", "live", "file"] = "auto"
    reconnect_initial_s: float = 1.0
    reconnect_max_s: float = 30.0
    reconnect_attempts: int = -1
    log_s: float = 30.0
    slate_after_s: float = 0.0
    slate_text: str = "No signal"

    def __post_init__(self) -> None:
        for network in self.networks:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise ConfigError(
                    f"'{network}' is no network: {error}",
                    where="source.networks",
                    hint="write its first address and the length of its prefix, 192.168.7.0/24",
                ) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackInfo:
    """One track of a source, as the container describes it.

    `kind` is FFmpeg's media type ("video", "audio", "subtitle", "data"); `chosen` marks the two that are processed.
    """

    index: int
    kind: str
    codec: str
    chosen: bool = False
    size: Size | None = None
    frame_rate: Fraction | None = None
    pix_fmt: str = ""
    sample_rate_hz: int = 0
    channels: int = 0
    language: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceInfo:
    """What a source is.

    Attributes:
        uri: without secrets.
        container: FFmpeg's name of the format ("mov,mp4,…"), "synthetic" for a scene.
        tracks: all of them, in the container's order.
        video: how the chosen video track starts; later epochs may differ (their batches say so).
        audio: the chosen audio track, None if there is none.
        duration_s: None where the source does not say (raw streams, endless scenes).
        live: whether it passes whether we read it or not.
    """

    uri: str
    container: str
    tracks: tuple[TrackInfo, ...]
    video: Codec
    audio: Codec | None
    duration_s: float | None
    live: bool = False

    @property
    def size(self) -> Size:
        """The size at which pictures are shown: the coded one, turned if the source says so."""
        size = self.video.shown_size
        assert size is not None
        return size

    @property
    def frame_rate(self) -> Fraction | None:
        """Average frames a second, None if unknown."""
        return self.video.frame_rate


class Source(ABC):
    """An opened source. `problems` counts by name what the last pass met (timeline.Timeline, and read errors)."""

    info: SourceInfo
    problems: Counter[str]

    @property
    def state(self) -> SourceState:
        """Whether it can be read now; a source that waits until it is read always can."""
        return SourceState(connected=True)

    def gap_before(self, epoch: int) -> Gap | None:
        """Return what is missing before an epoch; None where nothing is, and in sources that wait until read."""
        return None

    @abstractmethod
    def batches(self, *, epoch: int = 0, packet: int = 0, stream: StreamId) -> Generator[PacketBatch | None]:
        """Yield the packets from a position on, in batches of one epoch each, to the end of the source.

        Batches hold at most 16 packets and, but for live sources, begin at the same packets in every pass (the first
        one may be the rest of such a batch). Several passes may run one after the other, or at once. A live source
        yields None when nothing has come for half a second.

        Raises:
            Unreachable: reading failed.
            CorruptMedia: what is read makes no sense any more.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of everything; passes that are under way end. Safe to call twice."""


def batched(
    placed: Iterable[Placed],
    *,
    stream: StreamId,
    audio: Codec | None,
    epoch: int = 0,
    packet: int = 0,
    first: int = 0,
    now_ns: Callable[[], int] = time.time_ns,
) -> Iterator[PacketBatch]:
    """Yield packets on the timeline as batches, leaving out what lies before (epoch, packet).

    Borders depend on the packets before them alone: every 16 packets, or after 256 KiB, and at an epoch's end.
    `first` is the number of the first packet given.
    """
    held: list[Packet] = []
    held_bytes, start = 0, first
    current: Placed | None = None

    def batch() -> Iterator[PacketBatch]:
        assert current is not None
        span = Span(stream=stream, epoch=current.epoch, start=start, stop=start + len(held))
        wanted = current.epoch > epoch or (current.epoch == epoch and span.stop > packet)
        if not held or not wanted:
            return
        whole = PacketBatch(span=span, video=current.video, audio=audio, packets=tuple(held), arrived_ns=now_ns())
        inside = current.epoch == epoch and span.start < packet
        yield whole.cut(packet, span.stop) if inside else whole

    for item in placed:
        if current is not None and item.epoch != current.epoch:
            yield from batch()
            held, held_bytes, start = [], 0, 0
        current = item
        held.append(item.packet)
        held_bytes += len(item.packet.data)
        if len(held) == BATCH_PACKETS or held_bytes >= BATCH_BYTES:
            yield from batch()
            start += len(held)
            held, held_bytes = [], 0
    if current is not None:
        yield from batch()
