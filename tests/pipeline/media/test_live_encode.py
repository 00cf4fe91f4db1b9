"""The publisher's encoder: a packet a picture, a key frame every two seconds, and what viewers see of it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from pipeline.media.degrade import Picture
from pipeline.media.live_encode import LiveDecoder, LiveEncoder
from pipeline.media.push import FlvOut
from pipeline.wire.frames import ColorSpec, Size
from tests.media_files import picture

SIZE = Size(width_px=96, height_px=64)


def grey(index: int) -> Picture:
    return Picture.grey(np.ascontiguousarray(picture(index, 96, 64)[..., 0]))


def test_each_picture_gives_a_packet_and_each_packet_a_picture() -> None:
    encoder = LiveEncoder(size=SIZE, rate=Fraction(10), bitrate_bps=400_000, color=ColorSpec(matrix=1))
    decoder = LiveDecoder()
    keys = []
    for index in range(41):
        packet = encoder.encode(grey(index), 100 * index)
        assert packet.pts_ms == 100 * index and packet.data.startswith(b"\0\0\0\1")
        keys += [index] if packet.key else []
        seen = decoder.decode(packet)
        assert seen.shape == (64, 96)
        assert np.abs(seen.astype(int) - grey(index).y).mean() < 12
    assert keys == [0, 20, 40]


def test_what_is_pushed_is_what_was_decoded(tmp_path: Path) -> None:
    """Through FLV and back: times, key frames and every pixel."""
    encoder = LiveEncoder(size=SIZE, rate=Fraction(10), bitrate_bps=400_000, color=ColorSpec())
    decoder = LiveDecoder()
    path = tmp_path / "out.flv"
    out = FlvOut(str(path), size=SIZE)
    seen = []
    for index in range(25):
        packet = encoder.encode(grey(index), 100 * index + 40)
        out.write(packet)
        seen.append(decoder.decode(packet))
    out.close()
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert [round(float(frame.time) * 1000) for frame in frames] == [100 * i + 40 for i in range(25)]
    assert all(np.array_equal(f.to_ndarray()[:64], y) for f, y in zip(frames, seen, strict=True))
