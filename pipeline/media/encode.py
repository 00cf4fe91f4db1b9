"""Frames to H.264, a fresh encoder for each segment, so that a segment's bytes depend on its frames alone.

Measured (design.md §5): an encoder that goes on behind an IDR carries rate control over, and one restarted there
gives other bytes in every packet. So an encoder lives for one segment; its first frame is the only IDR, nothing
refers past it, no frame is reordered. A VBV cap with two threads did not repeat its own bytes; one thread does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.codec.context import Flags
from av.video.plane import VideoPlane
from numpy.typing import NDArray

from pipeline.media.entries import Entry, avc_entry, length_prefixed
from pipeline.wire.frames import ColorSpec, Size

LEVEL_RATE = Fraction(60)
"""Frames a second that the level in the stream leaves room for (chosen): the same whatever the source's rate is, so
that every segment has the parameter sets of the initialisation segment. Durations come from pts, not from it."""

_LIGHTEST = "ultrafast"
_REFERENCES = {"superfast": 1, "veryfast": 1, "faster": 2}  # of the presets that can be made lighter
_NEVER = 1 << 20  # frames: no key frame beside the first


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeParameters:
    """How x264 encodes.

    Attributes:
        crf: 0 best, 51 worst.
        preset: x264's.
        max_kbps: 0: no cap.
        threads: of the encoder.
        lighter: with the effort of the preset "ultrafast" and what else costs little, under the parameter sets of
            `preset`, so that segments of both follow each other. Measured at 720p against superfast: 5.9 instead of
            7.9 ms a frame, 10 % more bits (ultrafast itself: 4.7 ms, 47 % more). Presets above "faster" and "ultrafast"
            stay as they are.
    """

    crf: float
    preset: str
    max_kbps: int
    threads: int
    lighter: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Coded:
    """A coded frame as an fMP4 sample (length-prefixed NAL units), and whether decoding can start at it."""

    data: bytes
    key: bool


def even(size: Size) -> Size:
    """Return the size that is encoded: 4:2:0 H.264 has whole chroma samples, so odd sides are rounded up."""
    return Size(width_px=size.width_px + size.width_px % 2, height_px=size.height_px + size.height_px % 2)


class SegmentEncoder:
    """Encodes the frames of one segment; the first is an IDR frame."""

    def __init__(self, parameters: EncodeParameters, *, size: Size, color: ColorSpec, time_base: Fraction) -> None:
        self._size = size
        self._coded_size = even(size)
        self._color = color
        self._time_base = time_base
        self._start = 0
        self._coded: list[Coded] = []
        context = av.CodecContext.create("libx264", "w")
        assert isinstance(context, av.VideoCodecContext)
        context.width, context.height = self._coded_size.width_px, self._coded_size.height_px
        context.pix_fmt = "yuv420p"
        context.time_base = time_base
        context.framerate = LEVEL_RATE
        context.gop_size = _NEVER
        context.thread_count = parameters.threads
        context.flags |= Flags.global_header  # parameter sets apart, for avcC
        context.color_primaries = color.primaries
        context.color_trc = color.transfer
        context.colorspace = color.matrix
        context.color_range = 2 if color.full_range else 1  # AVCOL_RANGE_JPEG, _MPEG
        context.options = _options(parameters)
        context.open()
        self._context = context

    def add(self, picture: NDArray[np.uint8], pts: int) -> Sequence[Coded]:
        """Encode the next frame and return what is ready: the one before it (x264 waits to see how long it lasts).

        Args:
            picture: (size.frame_bytes,) uint8, I420 without padding.
            pts: in ticks of the time base.
        """
        # Not VideoFrame.from_numpy_buffer: PyAV 18.1 takes a height that is no multiple of 4 for a smaller one there,
        # and its encoder then scales the picture without a word.
        frame = av.VideoFrame(self._coded_size.width_px, self._coded_size.height_px, "yuv420p")
        chroma = self._size.chroma
        at = 0
        for plane, size in zip(frame.planes, (self._size, chroma, chroma), strict=True):
            area = size.width_px * size.height_px
            _fill(plane, picture[at : at + area].reshape(size.height_px, size.width_px))
            at += area
        if not self._coded:
            # x264 counts 32-bit durations from 0: pts go in relative to the segment, which is also what keeps
            # a segment the same wherever its epoch starts.
            self._start = pts
        frame.pts = pts - self._start
        frame.time_base = self._time_base
        return self._take(frame)

    def finish(self) -> list[Coded]:
        """Return the coded frames, one for each frame added, in order; the encoder is used up."""
        self._take(None)
        coded, self._coded = self._coded, []
        return coded

    def entry(self) -> Entry:
        """Return the sample entry of what this encoder gives; the same for equal parameters, size, colour."""
        return avc_entry(self._context.extradata or b"", size=self._coded_size, color=self._color)

    def _take(self, frame: av.VideoFrame | None) -> Sequence[Coded]:
        packets = self._context.encode(frame)
        coded = [Coded(data=length_prefixed(bytes(packet)), key=packet.is_keyframe) for packet in packets]
        self._coded += coded
        return coded


def _options(parameters: EncodeParameters) -> dict[str, str]:
    # zerolatency: no look-ahead, so little memory is held (up to superfast there is none anyway: same bytes, same
    # time). It also sets a constant frame rate: force-cfr=0 takes that back, else the cap would count frames at
    # LEVEL_RATE instead of by their pts (measured: 25 frames a second got half of it). The price is a frame of delay:
    # a frame's packet comes out when the next frame goes in.
    private = "force-cfr=0"
    preset = parameters.preset
    if parameters.lighter and preset in _REFERENCES:
        private += f":cabac=1:8x8dct=1:no-deblock=0:weightp=1:ref={_REFERENCES[preset]}"
        preset = _LIGHTEST
    options = {
        "preset": preset,
        "tune": "zerolatency",
        "crf": f"{parameters.crf:g}",
        "bf": "0",
        "sc_threshold": "0",
        "forced-idr": "1",
    }
    if parameters.max_kbps:
        # One second of buffer, half full at the start of every segment (design.md §5).
        options |= {"maxrate": f"{parameters.max_kbps}k", "bufsize": f"{parameters.max_kbps}k"}
        private += ":vbv-init=0.5"
    return options | {"x264-params": private}


def _fill(plane: VideoPlane, picture: NDArray[np.uint8]) -> None:
    """Copy (h, w) into a plane that is as large, or larger by a column or a row, which repeat the last ones."""
    h, w = picture.shape
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
    rows[:h, :w] = picture
    rows[:h, w:] = picture[:, -1:]
    rows[h:] = rows[h - 1]
