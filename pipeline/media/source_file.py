"""Files of any container, local or behind HTTP: probed once, then demuxed anew from the start for each pass."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import av.error

from pipeline.errors import CorruptMedia, LimpidError, Unreachable
from pipeline.media import hostile
from pipeline.media.decode import MEDIA_ERRORS
from pipeline.media.http_file import HttpFile
from pipeline.media.parameters import size_signature
from pipeline.media.source_base import Source, SourceOptions, batched
from pipeline.media.timeline import Placed, RawPacket, Timeline
from pipeline.media.tracks import choose, first_picture, source_info
from pipeline.wire.ids import StreamId
from pipeline.wire.packets import Codec, Packet, PacketBatch, Track

_ERRORS_IN_A_ROW = 50  # failed reads without a packet in between, after which a file is given up
_WRAP_BITS = {"mpegts": 33, "mpeg": 33, "flv": 32, "live_flv": 32}  # ISO/IEC 13818-1 2.4.3.7; FLV: 32 bits of ms
_REORDERING = ("h264", "hevc", "vvc")  # codecs whose order FFmpeg does not work out for containers with dts only


class FileSource(Source):
    """A file: the best video track (largest area × rate that can be decoded) and the best audio track of it."""

    def __init__(self, uri: str, *, remote: bool, options: SourceOptions) -> None:
        self._uri = uri
        self._where = hostile.without_secrets(uri)
        self._options = options
        self._path = None if remote else hostile.local_path(uri)
        self._closed = False
        self.problems = Counter()
        with self._opened() as opened:
            try:
                self._chosen = choose(opened.container, self._where)
            except CorruptMedia:
                opened.check(no_pictures=True)
                raise
            self.info = source_info(opened.container, self._chosen, self._where)

    def batches(self, *, epoch: int = 0, packet: int = 0, stream: StreamId) -> Generator[PacketBatch]:
        """Demux from the start, leaving out what lies before the position: the timeline's state is then the same."""
        self.problems = Counter()
        placed = self._placed()
        try:
            yield from batched(placed, stream=stream, audio=self._chosen.audio_codec, epoch=epoch, packet=packet)
        finally:
            placed.close()

    def close(self) -> None:
        # A container that is closed under its demuxer brings the process down: the pass closes it itself.
        self._closed = True

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
                    if self._closed:
                        return
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
        try:
            yield opened
        finally:
            opened.close()


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
        shown = first_picture(replace(candidate, size=None, pix_fmt=""), [_off_timeline(raw)])
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
