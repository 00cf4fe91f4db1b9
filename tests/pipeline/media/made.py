"""Small pictures and sounds, made here, and how a stage is fed with them."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np

from pipeline.stage import Stage, StageEnv, Work
from pipeline.wire.frames import ColorSpec, FrameBatch, Size
from pipeline.wire.ids import Span, StreamId
from pipeline.wire.packets import Codec, Packet, PacketBatch, Track

STREAM = StreamId("s")


def frames(
    pts: Sequence[int],
    *,
    size: Size | None = None,
    time_base: Fraction = Fraction(1, 1000),
    duration: int = 0,
    epoch: int = 0,
    color: ColorSpec | None = None,
    seed: int = 0,
) -> FrameBatch:
    """Moving stripes with a little noise; frame i depends on i and the seed alone."""
    size = size or Size(width_px=64, height_px=48)
    n = len(pts)
    rng = np.random.default_rng(seed)
    data = np.empty((n, size.frame_bytes), np.uint8)
    luma = size.width_px * size.height_px
    x, y = np.meshgrid(np.arange(size.width_px), np.arange(size.height_px))
    for i in range(n):
        picture = 128 + 60 * np.sin((x + 2 * y + 3 * i) / 5) + rng.normal(0, 3, x.shape)
        data[i, :luma] = picture.clip(16, 235).astype(np.uint8).reshape(-1)
        data[i, luma:] = 128 + i % 16
    return FrameBatch(
        span=Span(stream=STREAM, epoch=epoch, start=0, stop=n),
        size=size,
        color=color or ColorSpec(),
        time_base=time_base,
        pts=np.array(pts, np.int64),
        duration=np.full(n, duration, np.int64),
        captured_ns=np.full(n, 1_700_000_000_123_000_000, np.int64) + np.arange(n) * 1_000_000,
        keyframe=np.arange(n) == 0,
        data=data,
    )


def sound(
    codec: str, *, seconds: float = 5.0, container: str = "", start: int | None = None, channels: int = 2
) -> tuple[Codec, list[Packet]]:
    """A tone, coded by `codec`: its facts and packets, as demuxed from `container` (default: one that fits)."""
    container = container or {"aac": "mp4", "libmp3lame": "mp4", "libopus": "matroska", "ac3": "mpegts"}.get(
        codec, "matroska"
    )
    file = io.BytesIO()
    rate = 48000
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.layout = "stereo" if channels == 2 else "mono"
        n = stream.codec_context.frame_size or 1024
        stream.codec_context.open()
        n = stream.codec_context.frame_size or 1024
        for at in range(0, int(seconds * rate), n):
            tone = np.sin(np.arange(at, at + n) * 2 * np.pi * 440 / rate) * 0.5
            kind = stream.codec_context.format.name
            block = np.tile(tone, (channels, 1))
            peak, kept = {"s16": (2**15 - 1, np.int16), "s32": (2**31 - 1, np.int32)}.get(kind[:3], (1, np.float32))
            block = (block * peak).astype(kept)
            if not kind.endswith("p"):
                block = np.ascontiguousarray(block.T.reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(block, format=kind, layout=stream.layout.name)
            frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as source:
        stream = source.streams.audio[0]
        facts = Codec(
            name=stream.codec_context.name,
            extradata=stream.codec_context.extradata or b"",
            time_base=stream.time_base,
            sample_rate_hz=stream.codec_context.sample_rate,
            channels=stream.codec_context.channels,
        )
        packets = [
            Packet(track=Track.AUDIO, pts=p.pts, dts=p.dts, duration=p.duration or 0, key=True, data=bytes(p))
            for p in source.demux(stream)
            if p.size
        ]
    if start is not None:
        assert packets[0].pts is not None
        packets = moved(packets, start - packets[0].pts)
    return facts, packets


def moved(packets: Sequence[Packet], ticks: int) -> list[Packet]:
    """The packets, `ticks` later."""
    return [
        Packet(
            track=p.track,
            pts=None if p.pts is None else p.pts + ticks,
            dts=None if p.dts is None else p.dts + ticks,
            duration=p.duration,
            key=p.key,
            data=p.data,
        )
        for p in packets
    ]


VIDEO_CODEC = Codec(name="h264", extradata=b"", time_base=Fraction(1, 1000), size=Size(width_px=64, height_px=48))


def packets(codec: Codec | None, audio: Sequence[Packet], *, epoch: int = 0, start: int = 0) -> PacketBatch:
    """One batch of audio packets with a video packet in front of every third."""
    mixed: list[Packet] = []
    for i, packet in enumerate(audio):
        if i % 3 == 0:
            mixed.append(Packet(track=Track.VIDEO, pts=i, dts=i, duration=1, key=i == 0, data=b"v"))
        mixed.append(packet)
    return PacketBatch(
        span=Span(stream=STREAM, epoch=epoch, start=start, stop=start + len(mixed)),
        video=VIDEO_CODEC,
        audio=codec,
        packets=tuple(mixed),
        arrived_ns=0,
    )


def feed(stage: Stage[Any], item: Any, *, cuts: Sequence[int] = (), start: int = 0, stop: int | None = None) -> None:
    """Give a stage the units [start, stop) of an item that starts at 0, cut in front of the units `cuts`."""
    stop = item.span.stop if stop is None else stop
    borders = [start, *(c for c in cuts if start < c < stop), stop]
    for a, b in itertools.pairwise(borders):
        if a < b:
            part = item.cut(a, b)
            stage.process(Work(item=part, span=part.span))


def opened(stage: Stage[Any], store: object, epoch: int = 0) -> Any:
    """The stage, opened on a stream's directory."""
    stage.open(StageEnv(stream=STREAM, epoch=epoch, store=str(store)))
    return stage


def demuxed(init: bytes, *segments: bytes) -> Iterator[av.Packet]:
    """The packets that FFmpeg finds in an initialisation segment and media segments, with its time base."""
    with av.open(io.BytesIO(init + b"".join(segments))) as source:
        yield from (p for p in source.demux() if p.size)
