"""From what a demuxer gives to packets on the timeline: what files and live sources do alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import av
import av.error

from pipeline.errors import CorruptMedia, Unreachable
from pipeline.media import hostile
from pipeline.media.decode import MEDIA_ERRORS
from pipeline.media.parameters import size_signature
from pipeline.media.timeline import Placed, RawPacket, Timeline
from pipeline.media.tracks import Chosen, choose, first_picture
from pipeline.wire.packets import Codec, Packet, Track

_ERRORS_IN_A_ROW = 50  # failed reads without a packet in between, after which a source is given up
_WRAP_BITS = {"mpegts": 33, "mpeg": 33, "flv": 32, "live_flv": 32}  # ISO/IEC 13818-1 2.4.3.7; FLV: 32 bits of ms
_REORDERING = ("h264", "hevc", "vvc")  # codecs whose order FFmpeg does not work out for containers with dts only


def choose_noting(container: Any, where: str) -> tuple[Chosen, list[Any]]:
    """Choose the tracks, and return also the packets of all tracks that this has read: what cannot go back needs them.

    Raises:
        UnsupportedMedia, CorruptMedia: see tracks.choose.
    """
    noting = _Noting(container)
    return choose(noting, where), noting.read


def demuxed(
    container: Any,
    chosen: Chosen,
    *,
    read: Sequence[Any] = (),
    where: str,
    read_timeout_s: float,
    problems: Counter[str],
    check: Callable[[Exception | None], None],
    closed: Callable[[], bool],
) -> Iterator[tuple[Track, Any]]:
    """Yield the packets of the two tracks to the end; reading goes on behind damage, as far as the demuxer can.

    Args:
        read: what choosing the tracks has read; it comes first.
        problems: "read_error" is counted there.
        check: raises what went wrong below the container, which sees an end there (None) or an error.
        closed: asked after each packet; True ends the pass.

    Raises:
        Unreachable: nothing came within `read_timeout_s`.
        CorruptMedia: 50 reads in a row failed.
        whatever `check` raises.
    """
    wanted = [container.streams[i] for i in (chosen.video, chosen.audio) if i is not None]
    for packet in read:
        if packet.stream_index in (chosen.video, chosen.audio):
            yield (Track.VIDEO if packet.stream_index == chosen.video else Track.AUDIO), packet
    failed = 0
    while True:
        packets = container.demux(wanted)
        try:
            for packet in packets:
                if packet.size == 0:
                    continue  # PyAV's own "flush"
                failed = 0
                yield (Track.VIDEO if packet.stream_index == chosen.video else Track.AUDIO), packet
                if closed():
                    return
            check(None)
            return
        except (av.error.ExitError, TimeoutError) as error:
            raise Unreachable(f"no data for {read_timeout_s:g} s", where=where, hint="check the network") from error
        except MEDIA_ERRORS as error:
            check(error)
            problems["read_error"] += 1
            failed += 1
            if failed >= _ERRORS_IN_A_ROW:
                raise CorruptMedia(
                    f"cannot be read any further: {error}", where=where, hint="get the file again"
                ) from error
        finally:
            packets.close()


class Placing:
    """Places one opened container's packets into epochs, which count from `first`.

    `problems` counts what timeline.Timeline counts, and "undecodable_key".
    """

    def __init__(self, container: Any, chosen: Chosen, *, where: str, problems: Counter[str], first: int = 0) -> None:
        self._names = container.format.name.split(",")
        self._chosen = chosen
        self._problems = problems
        self._watch = _PictureWatch(chosen.video_codec, where, problems)
        self.wrap_bits = max(_WRAP_BITS.get(n, 0) for n in self._names)
        self._first = first  # the timeline's epoch 0 is this one
        self._timeline = self._new_timeline()

    def push(self, track: Track, packet: Any) -> list[Placed]:
        """Take the demuxer's next packet; return what can be placed now, in order.

        Raises:
            UnsupportedMedia: pictures have become larger than the limit.
        """
        raw = RawPacket(
            track=track,
            pts=packet.pts,
            dts=packet.dts,
            duration=packet.duration or 0,
            key=packet.is_keyframe,
            data=bytes(packet),
            discard=packet.is_discard,
        )
        if track is Track.VIDEO and raw.key:
            raw = self._watch.seen(raw, packet)
        return self._numbered(self._timeline.push(raw))

    @property
    def epoch(self) -> int:
        """The epoch that the last packet was placed in; behind `flush` the one that the next packet begins."""
        return self._first + self._timeline.epoch

    def flush(self) -> list[Placed]:
        """Take the end, or a break behind which time starts anew, in a new epoch; return what was held back."""
        placed = self._numbered(self._timeline.flush())
        self._first = self.epoch + 1
        self._timeline = self._new_timeline()
        return placed

    def _new_timeline(self) -> Timeline:
        codec = self._watch.codec
        timeline = Timeline(
            video=codec,
            audio=self._chosen.audio_codec,
            wrap_bits=self.wrap_bits,
            trust_pts=not ("avi" in self._names and codec.name in _REORDERING),
        )
        timeline.problems = self._problems
        return timeline

    def _numbered(self, placed: list[Placed]) -> list[Placed]:
        if self._first == 0:
            return placed
        return [replace(item, epoch=item.epoch + self._first) for item in placed]


class _Noting:
    """A container that notes the packets of all its tracks while some of them are read."""

    def __init__(self, container: Any) -> None:
        self._container = container
        self.read: list[Any] = []

    @property
    def streams(self) -> Any:
        return self._container.streams

    def demux(self, streams: list[Any]) -> Iterator[Any]:
        wanted = {stream.index for stream in streams}
        for packet in self._container.demux():
            if packet.size:
                self.read.append(packet)
            if packet.stream_index in wanted:
                yield packet


class _PictureWatch:
    """Notices that a key packet brings another picture than the ones before, and finds out which."""

    def __init__(self, codec: Codec, where: str, problems: Counter[str]) -> None:
        self.codec = codec
        self._where = where
        self._problems = problems
        self._signature: bytes | None = None

    def seen(self, raw: RawPacket, packet: Any) -> RawPacket:
        """Return the packet, with a Codec if it starts pictures of another size or with another configuration."""
        side = bytes(packet.get_sidedata("new_extradata")) if packet.has_sidedata("new_extradata") else b""
        extradata = side or self.codec.extradata
        signature = size_signature(self.codec.name, raw.data, extradata)
        first = self._signature is None
        same = signature == self._signature or not signature
        self._signature = signature or self._signature or b""
        if extradata == self.codec.extradata and (same or first):
            return raw
        candidate = replace(self.codec, extradata=extradata)
        # without the size so far: a decoder that is told one may take another for damage (MJPEG does)
        shown = first_picture(replace(candidate, size=None, pix_fmt=""), [_off_timeline(raw)])
        if shown is None:
            self._problems["undecodable_key"] += 1
            return raw
        changed = replace(candidate, size=shown.size, pix_fmt=shown.pix_fmt)
        if changed == self.codec:
            return raw
        assert changed.size is not None
        hostile.check_size(changed.size, where=self._where)
        self.codec = changed
        return replace(raw, codec=changed)


def _off_timeline(raw: RawPacket) -> Packet:
    return Packet(track=raw.track, pts=raw.pts, dts=raw.dts, duration=raw.duration, key=raw.key, data=raw.data)
