"""The slate: what a stream shows while its source is away, a card with a line of text, in silence.

It comes as packets, like a source's, so that everything behind the source treats it as any other video: it is enhanced,
cut into segments, recorded, replayed. A second of it is coded once; what follows repeats that.
"""

from __future__ import annotations

from fractions import Fraction

import av
import av.error
import cv2
import numpy as np
from av.codec.context import Flags
from numpy.typing import NDArray

from pipeline.media.encode import even
from pipeline.wire.frames import Size
from pipeline.wire.packets import Codec, Packet, Track

RATE = 10
"""Frames a second: enough for a card that stands still, and for players that expect something all the time."""

_TICKS = 9000  # a frame at 90 kHz
_GROUND, _INK, _GREY = 56, 225, 128  # code values; the ground is no black picture, which would raise an alert
_WIDEST, _HIGHEST = 0.8, 0.08  # of the picture, for the text
_BLOCK = 1024  # samples of an AAC packet


class Slate:
    """Packets of a card from a beginning on.

    Args:
        size: of the picture; odd sides are rounded up.
        text: a line, ASCII.
        sound: the source's audio track, if it has one: the slate's is AAC of the same rate and channels.

    Attributes:
        video, audio: how its tracks are coded; no audio where AAC knows no such rate or channels.
    """

    def __init__(self, *, size: Size, text: str, sound: Codec | None) -> None:
        size = even(size)
        rate = Fraction(RATE)
        self.video = Codec(
            name="h264", extradata=b"", time_base=Fraction(1, 90_000), size=size, pix_fmt="yuv420p", frame_rate=rate
        )
        self._pictures = _coded(card(size, text))
        silence = _silence(sound) if sound is not None else None
        self.audio: Codec | None = None
        self._quiet = b""
        if silence is not None:
            self.audio, self._quiet = silence
        self._frames = self._blocks = 0  # given

    def due(self, until_s: float) -> list[Packet]:
        """Return what is to be shown up to `until_s` seconds from the slate's beginning, and was not returned yet."""
        packets = []
        while self._frames / RATE <= until_s:
            packets += self._sound(self._frames / RATE)
            packets.append(self._picture())
        return packets

    def _picture(self) -> Packet:
        place = self._frames % RATE
        pts = self._frames * _TICKS
        self._frames += 1
        return Packet(track=Track.VIDEO, pts=pts, dts=pts, duration=_TICKS, key=place == 0, data=self._pictures[place])

    def _sound(self, until_s: float) -> list[Packet]:
        packets: list[Packet] = []
        if self.audio is None:
            return packets
        while (pts := self._blocks * _BLOCK) < until_s * self.audio.sample_rate_hz:
            packets.append(Packet(track=Track.AUDIO, pts=pts, dts=pts, duration=_BLOCK, key=True, data=self._quiet))
            self._blocks += 1
        return packets


def card(size: Size, text: str) -> NDArray[np.uint8]:
    """Return the picture: (height, width) uint8 luma, limited range."""
    luma = np.full((size.height_px, size.width_px), _GROUND, np.uint8)
    font = cv2.FONT_HERSHEY_SIMPLEX
    (width, height), _ = cv2.getTextSize(text, font, 1.0, 2)
    scale = min(_WIDEST * size.width_px / max(width, 1), _HIGHEST * size.height_px / max(height, 1))
    thick = max(1, round(2 * scale))
    (width, height), _ = cv2.getTextSize(text, font, scale, thick)
    place = ((size.width_px - width) // 2, (size.height_px + height) // 2)
    cv2.putText(luma, text, place, font, scale, (_INK,), thick, cv2.LINE_AA)
    return luma


def _coded(luma: NDArray[np.uint8]) -> list[bytes]:
    """Return a second of a still picture, H.264 with its parameter sets inside."""
    height, width = luma.shape
    context = av.CodecContext.create("libx264", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.time_base, context.framerate = Fraction(1, RATE), Fraction(RATE)
    context.gop_size = RATE
    context.thread_count = 1
    context.options = {"preset": "veryfast", "tune": "zerolatency", "crf": "20", "bf": "0"}
    grey = np.full((height // 2, width), _GREY, np.uint8)
    packets = []
    for number in range(RATE):
        frame = av.VideoFrame.from_ndarray(np.vstack([luma, grey]), format="yuv420p")
        frame.pts = number
        packets += context.encode(frame)
    packets += context.encode(None)
    return [bytes(packet) for packet in packets]


def _silence(sound: Codec) -> tuple[Codec, bytes] | None:
    """Return how silence is coded, and a packet of it; None where AAC cannot have that rate or so many channels."""
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}.get(sound.channels)
    if layout is None:
        return None
    context = av.CodecContext.create("aac", "w")
    assert isinstance(context, av.AudioCodecContext)
    context.sample_rate, context.layout, context.format = sound.sample_rate_hz, layout, "fltp"
    context.time_base = Fraction(1, max(1, sound.sample_rate_hz))
    context.flags |= Flags.global_header
    quiet = av.AudioFrame.from_ndarray(np.zeros((sound.channels, _BLOCK), np.float32), format="fltp", layout=layout)
    quiet.sample_rate = sound.sample_rate_hz
    packets = []
    try:
        for number in range(4):  # the first ones carry the encoder's start
            quiet.pts = number * _BLOCK
            packets += context.encode(quiet)
    except (av.error.FFmpegError, ValueError):
        return None
    codec = Codec(
        name="aac",
        extradata=bytes(context.extradata or b""),
        time_base=Fraction(1, sound.sample_rate_hz),
        sample_rate_hz=sound.sample_rate_hz,
        channels=sound.channels,
    )
    return codec, bytes(packets[-1])
