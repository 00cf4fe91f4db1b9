"""Files of any container, local or behind HTTP: probed once, then demuxed anew from the start for each pass."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from pipeline.errors import CorruptMedia, LimpidError, Unreachable, UnsupportedMedia
from pipeline.media import hostile
from pipeline.media.decode import MEDIA_ERRORS, VideoDecoder
from pipeline.media.http_file import HttpFile
from pipeline.media.parameters import size_signature
from pipeline.media.source_base import Source, SourceInfo, SourceOptions, TrackInfo, batched
from pipeline.media.timeline import Placed, RawPacket, Timeline
from pipeline.wire.frames import Size
from pipeline.wire.ids import StreamId
from pipeline.wire.packets import Codec, Packet, PacketBatch, Track

_PROBE_PACKETS = 250  # of a track, looked at for its first picture
_PROBE_BYTES = 32 << 20
_ERRORS_IN_A_ROW = 50  # failed reads without a packet in between, after which a file is given up
_WRAP_BITS = {"mpegts": 33, "mpeg": 33, "flv": 32, "live_flv": 32}  # ISO/IEC 13818-1 2.4.3.7; FLV: 32 bits of ms
_FIELD_ORDERS = (2, 3, 4, 5)  # AVFieldOrder: all but unknown and progressive
_REORDERING = ("h264", "hevc", "vvc")  # codecs whose order FFmpeg does not work out for containers with dts only


@dataclass(frozen=True, kw_only=True, slots=True)
class _Chosen:
    """The tracks that are processed, by index in the container, and how they are coded."""

    video: int
    audio: int | None
    video_codec: Codec
    audio_codec: Codec | None


class FileSource(Source):
    """A file: the best video track (largest area × rate that can be decoded) and the best audio track of it."""

    def __init__(self, uri: str, *, remote: bool, options: SourceOptions) -> None:
        self._uri = uri
        self._where = hostile.without_secrets(uri)
        self._options = options
        self._path = None if remote else hostile.local_path(uri)
        self._open: list[_Opened] = []
        self.problems = Counter()
        with self._opened() as opened:
            try:
                self._chosen = _choose(opened.container, self._where)
            except CorruptMedia:
                opened.check(no_pictures=True)
                raise
            self.info = _info(opened.container, self._chosen, self._where)

    def batches(self, *, epoch: int = 0, packet: int = 0, stream: StreamId) -> Generator[PacketBatch]:
        """Demux from the start, leaving out what lies before the position: the timeline's state is then the same."""
        self.problems = Counter()
        placed = self._placed()
        try:
            yield from batched(placed, stream=stream, audio=self._chosen.audio_codec, epoch=epoch, packet=packet)
        finally:
            placed.close()

    def close(self) -> None:
        for opened in list(self._open):
            opened.close()
        self._open.clear()

    def _placed(self) -> Generator[Placed]:  # a generator: `batches` closes it
        with self._opened() as opened:
            container, chosen = opened.container, self._chosen
            names = container.format.name.split(",")
            timeline = Timeline(
                video=chosen.video_codec,
                audio=chosen.audio_codec,
                wrap_bits=max(_WRAP_BITS.get(n, 0) for n in names),
                trust_pts=not ("avi" in names and chosen.video_codec.name in _REORDERING),
            )
            timeline.problems = self.problems
            watch = _PictureWatch(chosen.video_codec, self._where, self.problems)
            for track, packet in self._read(opened):
                raw = _raw(track, packet)
                if track is Track.VIDEO and raw.key:
                    raw = watch.seen(raw, packet)
                yield from timeline.push(raw)
            yield from timeline.flush()

    def _read(self, opened: _Opened) -> Iterator[tuple[Track, Any]]:
        """Packets of the two tracks; reading goes on behind damage, as far as the demuxer finds its way."""
        container, chosen = opened.container, self._chosen
        wanted = [container.streams[i] for i in (chosen.video, chosen.audio) if i is not None]
        failed = 0
        while True:
            packets = container.demux(wanted)
            try:
                for packet in packets:
                    if packet.size == 0:
                        continue  # PyAV's own "flush"
                    failed = 0
                    yield (Track.VIDEO if packet.stream_index == chosen.video else Track.AUDIO), packet
                opened.check()
                return
            except (av.error.ExitError, TimeoutError) as error:
                raise Unreachable(
                    f"no data for {self._options.read_timeout_s:g} s", where=self._where, hint="check the network"
                ) from error
            except MEDIA_ERRORS as error:
                opened.check()
                self.problems["read_error"] += 1
                failed += 1
                if failed >= _ERRORS_IN_A_ROW:
                    raise CorruptMedia(
                        f"cannot be read any further: {error}", where=self._where, hint="get the file again"
                    ) from error
            finally:
                packets.close()

    @contextlib.contextmanager
    def _opened(self) -> Iterator[_Opened]:
        opened = _Opened(self._uri, self._where, self._path, self._options)
        self._open.append(opened)
        try:
            yield opened
        finally:
            opened.close()
            if opened in self._open:
                self._open.remove(opened)


class _Opened:
    """A container and what it reads from; closes both."""

    def __init__(self, uri: str, where: str, path: Path | None, options: SourceOptions) -> None:
        self._file: HttpFile | None = None
        self.container: Any = None
        limits = {"format_whitelist": ",".join(_demuxers())}
        try:
            if path is None:
                self._file = HttpFile(uri, where=where, options=options)
                self.container = av.open(self._file, mode="r", options=limits, buffer_size=64 << 10)
                self.check()
                self._file.opened()
            else:
                self.container = av.open(
                    f"file:{path.resolve()}",
                    mode="r",
                    options={**limits, "protocol_whitelist": "file"},
                    timeout=(options.open_timeout_s, options.read_timeout_s),
                )
        except LimpidError:
            self.close()
            raise
        except (av.error.ExitError, TimeoutError) as error:
            self.close()
            raise Unreachable(
                f"did not open within {options.open_timeout_s:g} s", where=where, hint="check the network"
            ) from error
        except MEDIA_ERRORS as error:
            head = self._file.head() if self._file is not None else _head(path)
            failure = self._file.failure if self._file is not None else None
            self.close()
            raise failure or hostile.why_not_media(head, where=where) from error

    def check(self, *, no_pictures: bool = False) -> None:
        """Raise what went wrong below the container (which sees an end there)."""
        if self._file is not None:
            failure = self._file.why_no_pictures() if no_pictures else self._file.failure
            if failure is not None:
                raise failure

    def close(self) -> None:
        if self.container is not None:
            self.container.close()
        if self._file is not None:
            self._file.close()


def _head(path: Path | None) -> bytes:
    assert path is not None
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError:
        return b""


def _demuxers() -> tuple[str, ...]:
    # FFmpeg compares a demuxer's whole name list with each entry, so all aliases of a demuxer have to be named.
    return (*hostile.CONTAINERS.split(","), "mp4", "m4a", "3gp", "3g2", "mj2", "webm")


def _raw(track: Track, packet: Any) -> RawPacket:
    return RawPacket(
        track=track,
        pts=packet.pts,
        dts=packet.dts,
        duration=packet.duration or 0,
        key=packet.is_keyframe,
        data=bytes(packet),
        discard=packet.is_discard,
    )


class _PictureWatch:
    """Notices that a key packet brings another picture than the ones before, and finds out which."""

    def __init__(self, codec: Codec, where: str, problems: Counter[str]) -> None:
        self._codec = codec
        self._where = where
        self._problems = problems
        self._signature: bytes | None = None

    def seen(self, raw: RawPacket, packet: Any) -> RawPacket:
        """Return the packet, with a Codec if it starts pictures of another size or with another configuration."""
        side = bytes(packet.get_sidedata("new_extradata")) if packet.has_sidedata("new_extradata") else b""
        extradata = side or self._codec.extradata
        signature = size_signature(self._codec.name, raw.data, extradata)
        first = self._signature is None
        same = signature == self._signature or not signature
        self._signature = signature or self._signature or b""
        if extradata == self._codec.extradata and (same or first):
            return raw
        candidate = replace(self._codec, extradata=extradata)
        # without the size so far: a decoder that is told one may take another for damage (MJPEG does)
        shown = _first_picture(replace(candidate, size=None, pix_fmt=""), [_off_timeline(raw)])
        if shown is None:
            self._problems["undecodable_key"] += 1
            return raw
        changed = replace(candidate, size=shown.size, pix_fmt=shown.pix_fmt)
        if changed == self._codec:
            return raw
        assert changed.size is not None
        hostile.check_size(changed.size, where=self._where)
        self._codec = changed
        return replace(raw, codec=changed)


def _off_timeline(raw: RawPacket) -> Packet:
    return Packet(track=raw.track, pts=raw.pts, dts=raw.dts, duration=raw.duration, key=raw.key, data=raw.data)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shown:
    """What a track's first picture tells: more than a container's header knows."""

    size: Size
    pix_fmt: str
    rotation_deg: int
    interlaced: bool


def _shown(frame: Any) -> _Shown:
    return _Shown(
        size=Size(width_px=frame.width, height_px=frame.height),
        pix_fmt=frame.format.name,
        rotation_deg=round(frame.rotation / 90) * 90 % 360,
        interlaced=frame.interlaced_frame,
    )


def _first_picture(codec: Codec, packets: list[Packet]) -> _Shown | None:
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


def _choose(container: Any, where: str) -> _Chosen:
    """Choose the tracks, decoding the first pictures of the candidates until one decodes."""
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
        return _Chosen(
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


def _area_rate(stream: Any, shown: _Shown | None) -> float:
    size = (shown.size.width_px * shown.size.height_px) if shown else 0
    return float(size * (_rate(stream) or Fraction(1)))


def _rate(stream: Any) -> Fraction | None:
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    # raw and damaged sources claim absurd rates (a time base's inverse): no rate is better than those
    return Fraction(rate) if rate and 0 < rate <= 1000 else None


def _first_pictures(container: Any, candidates: list[Any]) -> dict[int, _Shown]:
    """The first picture of each track by its index, from as few packets as it takes."""
    found: dict[int, _Shown] = {}
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


def _video_codec(stream: Any, shown: _Shown) -> Codec:
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


def _info(container: Any, chosen: _Chosen, where: str) -> SourceInfo:
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
