"""Pictures become I420 without a needless change: planes are copied, colour codes kept, conversions exact."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import pytest

from pipeline.media.color import I420Writer, color_of
from pipeline.wire.frames import ColorSpec, Size


def filled(width: int, height: int, pix_fmt: str, seed: int = 1) -> Any:
    frame: Any = av.VideoFrame(width, height, pix_fmt)
    rng = np.random.default_rng(seed)
    for plane in frame.planes:
        plane.update(rng.integers(0, 256, plane.buffer_size, np.uint8).tobytes())
    return frame


def plane(frame: Any, index: int) -> np.ndarray[Any, Any]:
    p = frame.planes[index]
    return np.frombuffer(p, np.uint8).reshape(p.height, p.line_size)[:, : p.width]


def written(frame: Any, size: Size, rotation_deg: int = 0) -> tuple[np.ndarray[Any, Any], bool]:
    writer = I420Writer(size, rotation_deg)
    out = np.full(writer.size.frame_bytes, 77, np.uint8)
    return out, writer.write(frame, out)


@pytest.mark.parametrize(("width", "height"), [(64, 48), (33, 17), (1, 1), (2, 3)])
def test_420_of_8_bit_is_copied(width: int, height: int) -> None:
    size = Size(width_px=width, height_px=height)
    frame = filled(width, height, "yuv420p")
    out, scaled = written(frame, size)
    assert not scaled
    assert np.array_equal(out, np.concatenate([plane(frame, i).reshape(-1) for i in range(3)]))


def test_turning_swaps_the_sides() -> None:
    size = Size(width_px=6, height_px=4)
    frame = filled(6, 4, "yuv420p")
    out, _ = written(frame, size, 90)
    assert I420Writer(size, 90).size == Size(width_px=4, height_px=6)
    assert np.array_equal(out[:24].reshape(6, 4), np.rot90(plane(frame, 0)))
    assert np.array_equal(out[24:30].reshape(3, 2), np.rot90(plane(frame, 1)))


def test_luma_of_444_and_422_is_kept_and_constant_chroma_too() -> None:
    for pix_fmt in ("yuv444p", "yuv422p", "yuv440p", "yuv411p"):
        frame = filled(64, 48, pix_fmt)
        for index in (1, 2):
            frame.planes[index].update(bytes([90 + index]) * frame.planes[index].buffer_size)
        out, _ = written(frame, Size(width_px=64, height_px=48))
        assert np.array_equal(out[: 64 * 48].reshape(48, 64), plane(frame, 0)), pix_fmt
        assert set(out[64 * 48 :]) == {91, 92}, pix_fmt


def test_10_bit_loses_its_last_two_bits_only() -> None:
    """A constant 10-bit value v becomes v / 4, rounded or dithered by at most one."""
    frame: Any = av.VideoFrame(64, 48, "yuv420p10le")
    for index, value in enumerate((401, 512, 640)):
        frame.planes[index].update(np.full(frame.planes[index].buffer_size // 2, value, np.uint16).tobytes())
    out, _ = written(frame, Size(width_px=64, height_px=48))
    assert np.abs(out[: 64 * 48].astype(int) - 100).max() <= 1
    assert set(out[64 * 48 : 64 * 48 + 768]) == {128} and set(out[64 * 48 + 768 :]) == {160}


def test_range_is_kept() -> None:
    frame = filled(64, 48, "yuvj444p")
    out, _ = written(frame, Size(width_px=64, height_px=48))
    assert np.array_equal(out[: 64 * 48].reshape(48, 64), plane(frame, 0))
    assert color_of(frame).full_range


def test_white_and_black_of_rgb_are_235_and_16() -> None:
    for value, luma in ((255, 235), (0, 16)):
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), value, np.uint8), format="rgb24")
        out, _ = written(frame, Size(width_px=64, height_px=48))
        assert set(out[: 64 * 48]) == {luma}
        assert set(out[64 * 48 :]) == {128}


def test_rgb_says_which_matrix_it_was_given() -> None:
    assert color_of(av.VideoFrame(640, 480, "rgb24")) == ColorSpec(matrix=6, primaries=2, transfer=2)
    assert color_of(av.VideoFrame(1280, 720, "rgb24")).matrix == 1


def test_colour_codes_are_kept_and_reserved_ones_are_unspecified() -> None:
    frame: Any = filled(64, 48, "yuv420p")
    frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range = 9, 9, 16, 2
    assert color_of(frame) == ColorSpec(matrix=9, primaries=9, transfer=16, full_range=True)
    frame.colorspace, frame.color_primaries, frame.color_trc = 3, 200, 0
    assert color_of(frame) == ColorSpec(full_range=True)


def test_reserved_codes_do_not_stop_a_conversion() -> None:
    frame: Any = filled(64, 48, "yuv422p")
    frame.colorspace = 3
    out, _ = written(frame, Size(width_px=64, height_px=48))
    assert np.array_equal(out[: 64 * 48].reshape(48, 64), plane(frame, 0))


def test_another_size_is_scaled_and_said() -> None:
    frame = filled(32, 24, "yuv420p")
    for p in frame.planes:
        p.update(bytes([50]) * p.buffer_size)
    out, scaled = written(frame, Size(width_px=64, height_px=48))
    assert scaled
    assert set(out) == {50}
