"""Which tracks of a container are processed, and what their first pictures tell that its header does not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.error

from pipeline.errors import CorruptMedia, LimpidError, UnsupportedMedia
from pipeline.media import hostile
from pipeline.media.decode import MEDIA_ERRORS, VideoDecoder
from pipeline.media.source_base import SourceInfo, TrackInfo
from pipeline.wire.frames import Size
from pipeline.wire.packets import Codec, Packet

_PROBE_PACKETS = 250  # of a track, looked at for its first picture
_PROBE_BYTES = 32 << 20
_ERRORS_IN_A_ROW = 50  # failed reads after which no more pictures are looked for
_FIELD_ORDERS = (2, 3, 4, 5)  # AVFieldOrder: all but unknown and progressive


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """The tracks that are processed, by index in the container, and how they are coded."""

    video: int
    audio: int | None
    video_codec: Codec
    audio_codec: Codec | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """What a track's first picture tells: more than a container's header knows."""

    size: Size
    pix_fmt: str
    rotation_deg: int
    interlaced: bool


def _shown(frame: Any) -> Shown:
    return Shown(
        size=Size(width_px=frame.width, height_px=frame.height),
        pix_fmt=frame.format.name,
        rotation_deg=round(frame.rotation / 90) * 90 % 360,
        interlaced=frame.interlaced_frame,
    )


def first_picture(codec: Codec, packets: list[Packet]) -> Shown | None:
    """Return what the first picture of these packets shows; None if they give none."""
    try:
        decoder = VideoDecoder(codec)
        for packet in packets:
            for picture in decoder.decode(packet, 0):
                return _shown(picture.frame)
        for picture in decoder.flush():
            return _shown(picture.frame)
    except LimpidError:
        return None
    return None


def choose(container: Any, where: str) -> Chosen:
    """Choose the tracks: the video of the largest area × rate that decodes, and the sound that goes with it.

    Raises:
        UnsupportedMedia: there is no video, or all of it is larger than the limit.
        CorruptMedia: there is video, but none of its first packets gives a picture.
    """
    candidates = [
        s
        for s in container.streams.video
        if isinstance(s.codec_context, av.VideoCodecContext)
        and not int(s.disposition) & int(av.stream.Disposition.attached_pic)
    ]
    if not container.streams.video or not candidates:
        kinds = sorted({s.type for s in container.streams if s.type is not None})
        coded = [s for s in container.streams.video if s.codec_context is None]
        what = (
            "holds video that no decoder here can read"
            if coded
            else f"holds no video ({', '.join(kinds) or 'nothing'})"
        )
        raise UnsupportedMedia(what, where=where, hint="use a source with a video track")
    too_large: UnsupportedMedia | None = None
    pictures = _first_pictures(container, candidates)
    order = sorted(candidates, key=lambda s: (-_area_rate(s, pictures.get(s.index)), s.index))
    for stream in order:
        shown = pictures.get(stream.index)
        if shown is None:
            continue
        try:
            hostile.check_size(shown.size, where=where)
        except UnsupportedMedia as error:
            too_large = too_large or error
            continue
        audio = container.streams.best("audio", related=stream) or next(iter(container.streams.audio), None)
        if audio is not None and not isinstance(audio.codec_context, av.AudioCodecContext):
            audio = None
        return Chosen(
            video=stream.index,
            audio=None if audio is None else audio.index,
            video_codec=_video_codec(stream, shown),
            audio_codec=None if audio is None else _audio_codec(audio),
        )
    if too_large is not None:
        raise too_large
    for stream in order:
        if stream.codec_context.width and stream.codec_context.height:
            size = Size(width_px=stream.codec_context.width, height_px=stream.codec_context.height)
            hostile.check_size(size, where=where)
    raise CorruptMedia(
        f"holds {order[0].codec_context.name} video, but its first {_PROBE_PACKETS} packets give no picture",
        where=where,
        hint="the file is damaged or encrypted",
    )


def _area_rate(stream: Any, shown: Shown | None) -> float:
    size = (shown.size.width_px * shown.size.height_px) if shown else 0
    return float(size * (_rate(stream) or Fraction(1)))


def _rate(stream: Any) -> Fraction | None:
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    # raw and damaged sources claim absurd rates (a time base's inverse): no rate is better than those
    return Fraction(rate) if rate and 0 < rate <= 1000 else None


def _first_pictures(container: Any, candidates: list[Any]) -> dict[int, Shown]:
    """The first picture of each track by its index, from as few packets as it takes."""
    found: dict[int, Shown] = {}
    counts: Counter[int] = Counter()
    total_bytes = failed = 0
    open_tracks = {s.index for s in candidates if _fits(s)}
    for stream in candidates:
        stream.codec_context.thread_count = 1
    while open_tracks and failed < _ERRORS_IN_A_ROW:
        try:
            for packet in container.demux(candidates):
                index = packet.stream_index
                counts[index] += 1
                total_bytes += packet.size
                if index in open_tracks:
                    try:
                        frames = packet.decode()
                    except MEDIA_ERRORS:
                        frames = []
                    if frames:
                        found[index] = _shown(frames[0])
                        open_tracks.discard(index)
                    elif counts[index] > _PROBE_PACKETS:
                        open_tracks.discard(index)
                if not open_tracks or total_bytes > _PROBE_BYTES:
                    return found
            return found
        except MEDIA_ERRORS:
            failed += 1
    return found


def _fits(stream: Any) -> bool:
    """Whether the header's size is within the limit: a decoder is not even opened for more."""
    context = stream.codec_context
    try:
        if context.width and context.height:
            hostile.check_size(Size(width_px=context.width, height_px=context.height), where="")
    except UnsupportedMedia:
        return False
    return True


def _video_codec(stream: Any, shown: Shown) -> Codec:
    context = stream.codec_context
    return Codec(
        name=context.codec.canonical_name,
        extradata=context.extradata or b"",
        time_base=Fraction(stream.time_base),
        size=shown.size,
        pix_fmt=shown.pix_fmt,
        rotation_deg=shown.rotation_deg,
        frame_rate=_rate(stream),
        tag=_tag(context),
        reorder_frames=context.reorder_depth,
        bits_per_sample=context.bits_per_coded_sample or 0,
        interlaced=shown.interlaced or context.field_order in _FIELD_ORDERS,
    )


def _tag(context: Any) -> str:
    try:
        tag: str = context.codec_tag
    except UnicodeDecodeError:
        return ""
    return "" if tag == "\0\0\0\0" else tag


def _audio_codec(stream: Any) -> Codec:
    context = stream.codec_context
    return Codec(
        name=context.codec.canonical_name,
        extradata=context.extradata or b"",
        time_base=Fraction(stream.time_base),
        sample_rate_hz=context.sample_rate or 0,
        channels=context.channels or 0,
        tag=_tag(context),
    )


def source_info(container: Any, chosen: Chosen, where: str) -> SourceInfo:
    """Return what the container holds; `where` is its URI without secrets."""
    tracks = []
    for stream in container.streams:
        # by its codec, not by stream.type: damage can change the latter while the file is open
        context = stream.codec_context
        is_video = isinstance(context, av.VideoCodecContext) and context.width > 0 and context.height > 0
        is_audio = isinstance(context, av.AudioCodecContext)
        tracks.append(
            TrackInfo(
                index=stream.index,
                kind=stream.type or "unknown",
                codec=context.codec.canonical_name if context is not None else "",
                chosen=stream.index in (chosen.video, chosen.audio),
                size=Size(width_px=context.width, height_px=context.height) if is_video else None,
                frame_rate=_rate(stream) if is_video else None,
                pix_fmt=(context.pix_fmt or "") if is_video else "",
                sample_rate_hz=(context.sample_rate or 0) if is_audio else 0,
                channels=(context.channels or 0) if is_audio else 0,
                language=stream.language or "",
            )
        )
    duration = container.duration
    return SourceInfo(
        uri=where,
        container=container.format.name,
        tracks=tuple(tracks),
        video=chosen.video_codec,
        audio=chosen.audio_codec,
        duration_s=duration / av.time_base if duration and duration > 0 else None,
    )
