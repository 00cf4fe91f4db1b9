"""The rendered scene as a source: encoded on the fly, group by group, so that any position can be started from.

Every group of pictures (2 s) comes from an encoder of its own with one thread, closed: it is a function of the scene's
settings and its number alone. Sound likewise, in groups that meet where it is steady (half a second behind the beep),
each encoder warmed up on the samples before its first packet. So a pass that starts inside a long scene renders from
the group that holds its first packet, and gives the same bytes as an uninterrupted one.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Generator, Iterator
from fractions import Fraction
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import av
import numpy as np
from av.codec.context import CodecContext
from av.codec.context import Flags as CodecFlags

from pipeline.errors import ConfigError
from pipeline.media.source_base import Source, SourceInfo, TrackInfo, batched
from pipeline.media.synthetic import COLOR, SAMPLE_RATE_HZ, Rendered, Scene, SceneConfig
from pipeline.media.timeline import Placed
from pipeline.wire.ids import StreamId
from pipeline.wire.packets import Codec, Packet, PacketBatch, Track

GROUP_S = 2
_TICKS = 512  # a frame (chosen: fine enough for any player, exact for any rate)
_CRF = "20"
_AAC_FRAME = 1024  # samples a packet (ISO/IEC 14496-3 4.5.1.1)
_AAC_RATE_BPS = 64_000
_WARM_UP = 3  # packets that an AAC encoder makes before those that count
_MPEG4_QSCALE = 3  # of 1 to 31; good


class SyntheticSource(Source):
    """`synthetic://…` as H.264 and AAC; with odd sides as MPEG-4 part 2, which (unlike H.264 in 4:2:0) can have them.

    The key `bitrate` (bit/s, or with k or M) asks for a rate instead of a constant quality.
    """

    def __init__(self, uri: str) -> None:
        scene_uri, self._bitrate_bps = _split_bitrate(uri)
        self._config = config = SceneConfig.parse(scene_uri)
        self.problems = Counter()
        self._closed = False
        scene = Scene(config)
        self._num_frames, self._num_samples = scene.num_frames, scene.num_samples
        self._group_frames = max(1, round(GROUP_S * config.fps))
        encoder = self._video_encoder()
        self._video = Codec(
            name=encoder.codec.canonical_name,
            extradata=encoder.extradata or b"",
            time_base=1 / (config.fps * _TICKS),
            size=config.size,
            pix_fmt="yuv420p",
            frame_rate=config.fps,
        )
        self._audio: Codec | None = None
        if config.audio:
            self._audio = Codec(
                name="aac",
                extradata=_audio_encoder().extradata or b"",
                time_base=Fraction(1, SAMPLE_RATE_HZ),
                sample_rate_hz=SAMPLE_RATE_HZ,
                channels=1,
            )
        self.info = SourceInfo(
            uri=uri,
            container="synthetic",
            tracks=self._tracks(),
            video=self._video,
            audio=self._audio,
            duration_s=None if self._num_frames is None else float(self._num_frames / config.fps),
        )

    def batches(self, *, epoch: int = 0, packet: int = 0, stream: StreamId) -> Generator[PacketBatch]:
        """Render and encode from the group of pictures that holds the position."""
        if epoch > 0:
            return
        group = 0
        while (start := self._position(group + 1)) is not None and start <= packet:
            group += 1
        scene = Scene(self._config)
        while (first := self._position(group)) is not None and not self._closed:
            packets = (Placed(epoch=0, video=self._video, packet=p) for p in self._group(scene, group))
            yield from batched(packets, stream=stream, audio=self._audio, packet=packet, first=first)
            group += 1

    def close(self) -> None:
        self._closed = True

    def _tracks(self) -> tuple[TrackInfo, ...]:
        config = self._config
        video = TrackInfo(
            index=0,
            kind="video",
            codec=self._video.name,
            chosen=True,
            size=config.size,
            frame_rate=config.fps,
            pix_fmt="yuv420p",
        )
        sound = TrackInfo(index=1, kind="audio", codec="aac", chosen=True, sample_rate_hz=SAMPLE_RATE_HZ, channels=1)
        return (video, sound) if self._audio is not None else (video,)

    # --- what lies where --------------------------------------------------------------------------------------------

    def _sound_packets_before(self, frame: int) -> int:
        """Packets of sound that come before a frame: those that start earlier than it."""
        if self._audio is None:
            return 0
        return math.ceil(frame * SAMPLE_RATE_HZ / (self._config.fps * _AAC_FRAME))

    def _position(self, group: int) -> int | None:
        """The number of a group's first packet; None behind the last group."""
        frame = group * self._group_frames
        if self._num_frames is not None and frame >= self._num_frames:
            return None
        return frame + self._sound_packets_before(frame)

    def _group(self, scene: Scene, group: int) -> Iterator[Packet]:
        """The packets of a group, both tracks in the order of their time."""
        start, stop = group * self._group_frames, (group + 1) * self._group_frames
        last_sound = self._sound_packets_before(stop)
        if self._num_frames is not None and stop >= self._num_frames:
            stop = self._num_frames
            assert self._num_samples is not None
            last_sound = math.ceil(self._num_samples / _AAC_FRAME) if self._audio is not None else 0
        video = self._pictures(scene, start, stop)
        if self._audio is None:
            yield from video
            return
        sound = self._sound(scene, self._sound_packets_before(start), last_sound)
        bases = {Track.VIDEO: self._video.time_base, Track.AUDIO: self._audio.time_base}
        yield from heapq.merge(video, sound, key=lambda p: ((p.pts or 0) * bases[p.track], p.track))

    # --- encoding ---------------------------------------------------------------------------------------------------

    def _video_encoder(self) -> av.VideoCodecContext:
        config = self._config
        odd = config.width % 2 or config.height % 2
        context = CodecContext.create("mpeg4" if odd else "libx264", "w")
        assert isinstance(context, av.VideoCodecContext)
        context.width, context.height, context.pix_fmt = config.width, config.height, "yuv420p"
        context.framerate = config.fps
        context.time_base = 1 / (config.fps * _TICKS)
        context.gop_size = self._group_frames + 1
        context.max_b_frames = 0
        context.thread_count = 1
        context.flags |= int(CodecFlags.global_header) | int(CodecFlags.bitexact)
        context.colorspace, context.color_primaries, context.color_trc = COLOR.matrix, COLOR.primaries, COLOR.transfer
        context.color_range = 1  # AVCOL_RANGE_MPEG: limited
        # mbtree reads memory that it did not write (measured at 64×48: 35 of 2,163 runs differed, none without it).
        options = {} if odd else {"preset": "veryfast", "sc_threshold": "0", "x264-params": "mbtree=0"}
        if self._bitrate_bps:
            context.bit_rate = self._bitrate_bps
            options |= {"maxrate": str(self._bitrate_bps), "bufsize": str(self._bitrate_bps)}
        elif odd:
            context.flags |= int(CodecFlags.qscale)
            context.global_quality = _MPEG4_QSCALE * 118  # FF_QP2LAMBDA
        else:
            options["crf"] = _CRF
        context.options = options
        context.open()
        return context

    def _pictures(self, scene: Scene, start: int, stop: int) -> Iterator[Packet]:
        encoder = self._video_encoder()
        for index in range(start, stop):
            frame = _frame(scene.frame(index), self._config)
            frame.pts = index * _TICKS
            frame.time_base = self._video.time_base
            yield from map(self._picture, encoder.encode(frame))
        yield from map(self._picture, encoder.encode(None))

    def _picture(self, packet: Any) -> Packet:
        return Packet(
            track=Track.VIDEO,
            pts=packet.pts,
            dts=packet.pts,  # no B-frames
            duration=_TICKS,
            key=packet.is_keyframe,
            data=bytes(packet),
        )

    def _sound(self, scene: Scene, start: int, stop: int) -> Iterator[Packet]:
        """The AAC packets [start, stop); packet j begins at sample 1024 j."""
        while start < stop:
            group = _sound_group(start)
            until = min(stop, _sound_border(group + 1))
            yield from itertools.islice(
                _encoded_sound(scene, max(0, _sound_border(group)), until), start - max(0, _sound_border(group)), None
            )
            start = until


def _split_bitrate(uri: str) -> tuple[str, int]:
    """Take `bitrate` out of the URI (the scene does not know it); 0 when it is not there."""
    parts = urlsplit(uri)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    rates = [value for key, value in pairs if key == "bitrate"]
    if not rates:
        return uri, 0
    text = rates[-1].lower()
    factor = {"k": 1_000, "m": 1_000_000}.get(text[-1:], 1)
    try:
        rate_bps = round(float(text[:-1] if factor > 1 else text) * factor)
    except (ValueError, OverflowError):
        rate_bps = 0
    if not 10_000 <= rate_bps <= 1_000_000_000:
        raise ConfigError(
            f"bitrate={rates[-1]} is no rate from 10k to 1000M", where=uri, hint="write bitrate=500k or bitrate=2M"
        )
    rest = urlencode([pair for pair in pairs if pair[0] != "bitrate"])
    return urlunsplit((parts.scheme, parts.netloc, parts.path, rest, "")), rate_bps


def _frame(rendered: Rendered, config: SceneConfig) -> av.VideoFrame:
    frame = av.VideoFrame(config.width, config.height, "yuv420p")
    at = 0
    planes: Any = frame.planes  # buffers, which their stubs do not say
    for plane in planes:
        count = plane.width * plane.height
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        rows[:, : plane.width] = rendered.i420[at : at + count].reshape(plane.height, plane.width)
        at += count
    return frame


def _sound_border(group: int) -> int:
    """The first packet of a group of sound: the one nearest to half a second behind each second beep."""
    return round((GROUP_S * group + 0.5) * SAMPLE_RATE_HZ / _AAC_FRAME)


def _sound_group(packet: int) -> int:
    """The group that a packet belongs to; −1 before the first border."""
    group = int(packet * _AAC_FRAME / SAMPLE_RATE_HZ / GROUP_S) + 1
    while _sound_border(group) > packet:
        group -= 1
    return group


def _audio_encoder() -> av.AudioCodecContext:
    context = CodecContext.create("aac", "w")
    assert isinstance(context, av.AudioCodecContext)
    context.sample_rate = SAMPLE_RATE_HZ
    context.layout = "mono"
    context.format = "fltp"
    context.bit_rate = _AAC_RATE_BPS
    context.time_base = Fraction(1, SAMPLE_RATE_HZ)
    context.thread_count = 1
    context.flags |= int(CodecFlags.global_header) | int(CodecFlags.bitexact)
    context.open()
    return context


def _encoded_sound(scene: Scene, start: int, stop: int) -> Iterator[Packet]:
    """The AAC packets [start, stop) of one encoder; samples before the scene's first one are silence."""
    encoder = _audio_encoder()
    number = start - _WARM_UP - 1  # the encoder's first packet is its padding, one packet before what it is fed
    for block in itertools.chain(range(start - _WARM_UP, stop + 2), [None]):
        frame = None
        if block is not None:
            samples = (
                scene.audio(block * _AAC_FRAME, _AAC_FRAME) if block >= 0 else np.zeros(_AAC_FRAME, np.int16)
            ).astype(np.float32) / 32768
            frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="fltp", layout="mono")
            frame.sample_rate = SAMPLE_RATE_HZ
            frame.pts = (block - start + _WARM_UP) * _AAC_FRAME
            frame.time_base = Fraction(1, SAMPLE_RATE_HZ)
        for packet in encoder.encode(frame):
            if start <= number < stop:
                pts = number * _AAC_FRAME
                yield Packet(track=Track.AUDIO, pts=pts, dts=pts, duration=_AAC_FRAME, key=True, data=bytes(packet))
            number += 1
            if number >= stop:
                return
