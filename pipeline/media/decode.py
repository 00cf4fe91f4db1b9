"""Packets to pictures: a decoder that gives, for each picture, the packet that it came from.

Which frames come, and their order and pts, is what one plain PyAV pass over the same packets gives, and behind a lost
key frame of H.264 those that FFmpeg would withhold (h264_order.py). One thread decodes:
where packets are damaged, what is put in the place of lost blocks differs with the number of threads (measured: nearly
every pixel up to the next key frame), and frame threads can hang beside torch. Streams decode side by side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import av
import av.error
from av.codec.context import CodecContext

from pipeline.errors import CorruptMedia, UnsupportedMedia
from pipeline.media.deinterlace import Deinterlacer
from pipeline.media.h264_order import H264Order
from pipeline.media.hostile import MAX_LONG_SIDE_PX, MAX_SHORT_SIDE_PX
from pipeline.media.picture import Picture
from pipeline.wire.packets import Codec, Packet

MEDIA_ERRORS = (av.error.FFmpegError, IndexError, ValueError, OverflowError, EOFError)
"""What PyAV raises for damaged media: its own errors are no OSErrors throughout, and a broken TS gives IndexError."""

_ERRORS_IN_A_ROW = 300  # packets that fail one after the other before a source is given up: 10 s at 30 Hz (chosen)
_DECODERS = {"av1": "libdav1d"}  # FFmpeg's own "av1" decodes on hardware only


@dataclass(frozen=True, slots=True)
class _Origin:
    number: int
    dts: int | None
    key: bool
    discard: bool
    arrived_ns: int


def av_packet(packet: Packet, codec: Codec) -> av.Packet[Any]:
    """Return the packet as FFmpeg's, with the zeroed padding behind its data that decoders may read into.

    (`av.Packet(bytes)` has none: pictures then depend on what follows in memory.)
    """
    out: av.Packet[Any] = av.Packet(len(packet.data))
    out.update(packet.data)
    out.pts, out.dts, out.duration = packet.pts, packet.dts, packet.duration
    out.time_base = codec.time_base
    out.is_keyframe = packet.key
    return out


class VideoDecoder:
    """Decodes the video packets of one epoch, and deinterlaces them if the codec says so.

    `problems` counts "decode_error": packets that were skipped; "key_frame_lost": of H.264 in Annex B, not reordered.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._failed = 0
        self.problems: Counter[str] = Counter()
        try:
            context = CodecContext.create(_DECODERS.get(codec.name, codec.name), "r")
        except MEDIA_ERRORS as error:
            raise UnsupportedMedia(f"no decoder for {codec.name} video here") from error
        assert isinstance(context, av.VideoCodecContext)
        if codec.extradata:
            context.extradata = codec.extradata
        if codec.size is not None:
            context.width, context.height = codec.size.width_px, codec.size.height_px
        if codec.pix_fmt:
            context.pix_fmt = codec.pix_fmt
        if codec.tag:
            context.codec_tag = codec.tag
        if codec.bits_per_sample:
            context.bits_per_coded_sample = codec.bits_per_sample
        context.reorder_depth = codec.reorder_frames
        context.thread_count = 1
        context.copy_opaque = True
        # a header may claim any size later on: FFmpeg refuses before it allocates
        context.options = {"max_pixels": str(MAX_LONG_SIDE_PX * MAX_SHORT_SIDE_PX)}
        try:
            context.open()
        except MEDIA_ERRORS as error:
            raise CorruptMedia(f"the {codec.name} decoder refuses the stream's configuration: {error}") from error
        self._context = context
        annex_b = codec.name == "h264" and not codec.extradata.startswith(b"\x01")
        self._order = H264Order(codec.extradata) if annex_b and not codec.reorder_frames else None
        self._deinterlacer = Deinterlacer() if codec.interlaced else None

    def decode(self, packet: Packet, number: int, arrived_ns: int = 0) -> Iterator[Picture]:
        """Give the pictures that are ready once `packet` (video, the `number`-th of its epoch) is in.

        A packet that cannot be decoded is skipped and counted.

        Raises:
            CorruptMedia: 300 packets in a row could not be decoded.
        """
        if self._order is not None:
            packet = replace(packet, data=self._order.mended(packet.data))
            if self._order.lost:
                self.problems["key_frame_lost"] = self._order.lost
        fed = av_packet(packet, self._codec)
        fed.opaque = _Origin(number, packet.dts, packet.key, packet.discard, arrived_ns)
        try:
            frames = self._context.decode(fed)
        except MEDIA_ERRORS as error:
            self.problems["decode_error"] += 1
            self._failed += 1
            if self._failed >= _ERRORS_IN_A_ROW:
                raise CorruptMedia(
                    f"{self._failed} packets in a row cannot be decoded, the last one (number {number}): {error}",
                    hint="the source is damaged or encrypted",
                ) from error
            return
        self._failed = 0
        yield from self._pictures(frames)

    def flush(self) -> Iterator[Picture]:
        """Give the pictures that were held back for reordering; nothing can be decoded afterwards."""
        try:
            frames = self._context.decode(None)
        except MEDIA_ERRORS:
            self.problems["decode_error"] += 1
            frames = []
        yield from self._pictures(frames)
        if self._deinterlacer is not None:
            yield from self._deinterlacer.flush()

    def _pictures(self, frames: list[av.VideoFrame]) -> Iterator[Picture]:
        for frame in frames:
            origin = frame.opaque
            assert isinstance(origin, _Origin), "the decoder lost a packet's origin"
            if origin.discard:
                continue
            picture = Picture(
                frame=frame,
                number=origin.number,
                pts=frame.pts,
                dts=origin.dts,
                duration=max(0, frame.duration or 0),
                key=origin.key,
                arrived_ns=origin.arrived_ns,
            )
            if self._deinterlacer is None:
                yield picture
            else:
                yield from self._deinterlacer.push(picture)
