"""The degradation of training and measurements: sizes, order, bitrate, repeatability."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError, CorruptMedia, Unreachable, UnsupportedMedia
from pipeline.media.degrade import Encoding, Picture, degrade, pictures_of, stream_facts


def textured(count: int, seed: int = 1, size: tuple[int, int] = (128, 192)) -> list[Picture]:
    """Smooth noise that moves 2 pixels a frame; frame i is brighter by i, so that order shows."""
    rng = np.random.default_rng(seed)
    ground = np.kron(rng.integers(40, 160, (size[0] // 8, size[1] // 8)), np.ones((8, 8))).astype(np.uint8)
    return [Picture.grey(np.roll(ground, 2 * i, axis=1) + np.uint8(3 * i)) for i in range(count)]


def test_as_many_come_out_as_go_in_at_half_the_size_and_in_order() -> None:
    pictures = textured(9)
    for tune in ("zerolatency", ""):  # the second one has B-frames
        out = degrade(pictures, Encoding(crf=18, tune=tune), scale=2)
        assert [p.y.shape for p in out] == [(64, 96)] * 9
        assert [p.u.shape for p in out] == [(32, 48)] * 9
        for low, high in zip(out, pictures, strict=True):
            assert abs(float(low.y.mean()) - float(high.y.mean())) < 1


def test_nothing_in_gives_nothing_out() -> None:
    assert degrade([], Encoding(crf=20), scale=2) == []


def test_the_same_pictures_give_the_same_bytes() -> None:
    one, two = (degrade(textured(6), Encoding(bitrate_bps=60_000), scale=2) for _ in range(2))
    assert all(np.array_equal(a.y, b.y) for a, b in zip(one, two, strict=True))


def test_fewer_bits_lose_more() -> None:
    pictures = textured(24)
    rich, poor = (degrade(pictures, Encoding(bitrate_bps=rate), scale=2)[12:] for rate in (2_000_000, 20_000))
    clean = [p.resized(96, 64) for p in pictures[12:]]

    def error(out: list[Picture]) -> float:
        return float(np.mean([np.square(a.y.astype(float) - b.y).mean() for a, b in zip(out, clean, strict=True)]))

    assert error(poor) > 2 * error(rich)


def test_area_scaling_is_the_mean_of_four() -> None:
    y = np.array([[0, 4], [8, 16]], np.uint8).repeat(2, axis=1).repeat(2, axis=0)
    y[0, 0] = 40  # the mean of 40, 0, 0, 0 is 10
    assert Picture.grey(y).resized(2, 2).y.tolist() == [[10, 4], [8, 16]]


def test_either_bitrate_or_quality_is_asked_for() -> None:
    for wrong in ({}, {"bitrate_bps": 1, "crf": 20.0}):
        with pytest.raises(ConfigError, match="either a bitrate or a crf"):
            Encoding(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown scaler 'cubic'"):
        Encoding(crf=20, scaler="cubic")


def test_i420_is_taken_apart_in_its_order() -> None:
    picture = Picture.from_i420(np.arange(4 * 6 * 3 // 2, dtype=np.uint8), width_px=6, height_px=4)
    assert picture.y[1].tolist() == [6, 7, 8, 9, 10, 11]
    assert picture.u.tolist() == [[24, 25, 26], [27, 28, 29]]
    assert picture.v.tolist() == [[30, 31, 32], [33, 34, 35]]


def test_pictures_of_a_clip(shared_data: Path) -> None:
    """tc_nasa has two video streams, 320×180 and 480×270; 270 is cut to a multiple of 4."""
    path = shared_data / "clips" / "train" / "tc_nasa.mp4"
    assert stream_facts(path) == [(320, 180, Fraction(25)), (480, 270, Fraction(30000, 1001))]
    first, second = (list(pictures_of(path, stream=i, start=2, count=3)) for i in (0, 1))
    assert [p.y.shape for p in first] == [(180, 320)] * 3
    assert [p.y.shape for p in second] == [(268, 480)] * 3
    with pytest.raises(UnsupportedMedia, match="no video stream 2"):
        next(pictures_of(path, stream=2))


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"gone\.mp4"):
        next(pictures_of(tmp_path / "gone.mp4"))
    (tmp_path / "x.mp4").write_bytes(b"<html>")
    with pytest.raises((Unreachable, CorruptMedia)):
        next(pictures_of(tmp_path / "x.mp4"))
    with pytest.raises(Unreachable):
        stream_facts(tmp_path / "x.mp4")
