"""Capture: paced, scaled, encoded, and pairs that fit the packets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from fractions import Fraction

import cv2
import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.media.degrade import Picture
from pipeline.media.live_encode import LiveDecoder
from pipeline.media.push import LivePacket
from pipeline.publisher.capture import Capture, CaptureConfig, low_size
from pipeline.publisher.frames import Frame, Frames, open_frames
from pipeline.publisher.pairs import Pair
from pipeline.wire.frames import ColorSpec, Size
from tests.pipeline.publisher.made import texture


class Made(Frames):
    """Pictures at 10 a second; `slow` says how long reading each takes, on the test's clock."""

    def __init__(self, count: int, *, live: bool = False, slow: Callable[[], None] = lambda: None) -> None:
        self.live, self._count, self._slow = live, count, slow
        self.closed = False

    @property
    def rate(self) -> Fraction:
        return Fraction(10)

    def frames(self) -> Iterator[Frame | None]:
        high = texture(1, height=96, width=128)
        for i in range(self._count):
            self._slow()
            picture = Picture.grey(np.ascontiguousarray(np.roll(high, 2 * i, axis=1)))
            yield Frame(picture=picture, color=ColorSpec(), at_s=i / 10, captured_ns=i)
            yield None

    def close(self) -> None:
        self.closed = True


class Clock(threading.Event):
    """A clock that a wait moves on; as `stop` it is never set."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 100.0
        self.waited: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waited.append(timeout)
        self.now_s += timeout
        return False


def captured(
    frames: Frames, clock: Clock, **config: object
) -> tuple[Capture, list[LivePacket], list[Pair], list[Size]]:
    packets: list[LivePacket] = []
    pairs: list[Pair] = []
    sizes: list[Size] = []

    def begin(size: Size) -> Callable[[LivePacket], None]:
        sizes.append(size)
        return packets.append

    capture = Capture(
        frames,
        CaptureConfig(**config),
        begin=begin,
        pair=pairs.append,
        stop=clock,
        clock=clock,  # type: ignore[arg-type]
    )
    capture.run()
    return capture, packets, pairs, sizes


def test_a_file_is_read_at_its_own_speed() -> None:
    clock, frames = Clock(), Made(25)
    capture, packets, _, sizes = captured(frames, clock)
    assert sizes == [Size(width_px=64, height_px=48)]
    assert clock.waited == pytest.approx([0.1] * 24)
    assert [packet.pts_ms for packet in packets] == [100 * i for i in range(25)]
    assert [i for i, packet in enumerate(packets) if packet.key] == [0, 20]
    assert (capture.counts.frames, capture.counts.late_s, frames.closed) == (25, 0.0, True)


def test_what_is_live_is_not_waited_for() -> None:
    clock = Clock()
    captured(Made(5, live=True), clock)
    assert clock.waited == []


def test_pairs_hold_what_a_viewer_decodes_and_what_was_true() -> None:
    _, packets, pairs, _ = captured(Made(25), Clock())
    decoder = LiveDecoder()
    seen = [decoder.decode(packet) for packet in packets]
    assert [pair.at_s for pair in pairs] == [0.0, 0.5, 1.0, 1.5, 2.0]
    for pair in pairs:
        assert np.array_equal(pair.low, seen[round(pair.at_s * 10)])
        true = np.roll(texture(1, height=96, width=128), round(20 * pair.at_s), axis=1)
        assert np.array_equal(pair.high, true)


def test_where_reading_is_too_slow_the_stream_is_late_and_whole() -> None:
    """0.6 s each, for pictures 0.1 s apart: the fourth would be 1.5 s late, so it is due when it comes; and so on."""
    clock = Clock()

    def slow() -> None:
        clock.now_s += 0.6

    capture, packets, _, _ = captured(Made(12, slow=slow), clock)
    assert [packet.pts_ms for packet in packets] == [100 * i for i in range(12)]
    assert capture.counts.late_s == pytest.approx(3 * 1.5)
    assert clock.waited == []


@pytest.mark.parametrize(
    ("source", "height", "scale", "wanted"),
    [
        ((1280, 720), None, 2, (640, 360)),
        ((1920, 1080), None, 2, (640, 360)),
        ((854, 480), None, 2, (428, 240)),
        ((1920, 1080), 540, 2, (960, 540)),
        ((1280, 720), 240, 3, (426, 240)),
        ((721, 541), None, 2, (360, 270)),
    ],
)
def test_the_low_size_is_even_and_the_source_is_its_truth(
    source: tuple[int, int], height: int | None, scale: int, wanted: tuple[int, int]
) -> None:
    size = low_size(Size(width_px=source[0], height_px=source[1]), CaptureConfig(height_px=height, scale=scale))
    assert (size.width_px, size.height_px) == wanted


@pytest.mark.parametrize(("source", "height"), [((1280, 720), 480), ((90, 90), None), ((1280, 720), 20)])
def test_a_source_that_is_too_small_is_refused(source: tuple[int, int], height: int | None) -> None:
    with pytest.raises(ConfigError, match="--height"):
        low_size(Size(width_px=source[0], height_px=source[1]), CaptureConfig(height_px=height))


def test_a_scene_and_a_device_are_sources() -> None:
    for uri, live in (
        ("synthetic://street?width=96&height=64&fps=10&seconds=1", False),
        ("device:lavfi:testsrc2=size=96x64:rate=10:duration=1", True),
    ):
        frames = open_frames(uri)
        found = [frame for frame in frames.frames() if frame is not None]
        frames.close()
        assert frames.live is live and frames.rate == 10
        assert [round(frame.at_s, 6) for frame in found] == [i / 10 for i in range(10)]
        assert found[0].picture.y.shape == (64, 96)


def test_a_larger_source_is_scaled_to_be_the_truth() -> None:
    _, _, pairs, sizes = captured(Made(2), Clock(), height_px=48, scale=2)
    assert sizes == [Size(width_px=64, height_px=48)] and pairs[0].high.shape == (96, 128)
    high = texture(1, height=96, width=128)
    assert pairs[0].low.shape == cv2.resize(high, (64, 48)).shape
