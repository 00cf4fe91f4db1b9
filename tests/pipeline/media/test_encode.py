from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.config import LIGHTER_PRESETS
from pipeline.media.encode import EncodeParameters, SegmentEncoder, even
from pipeline.stages.encode import PRESETS
from pipeline.wire.frames import ColorSpec, FrameBatch, Size
from tests.pipeline.media import made

ROOT = Path(__file__).resolve().parents[3]


def parameters(
    crf: float = 21, preset: str = "superfast", max_kbps: int = 16_000, threads: int = 1
) -> EncodeParameters:
    return EncodeParameters(crf=crf, preset=preset, max_kbps=max_kbps, threads=threads)


def encoded(batch: FrameBatch, how: EncodeParameters) -> tuple[bytes, list[bytes], list[bool]]:
    encoder = SegmentEncoder(how, size=batch.size, color=batch.color, time_base=batch.time_base)
    for picture, pts in zip(batch.data, batch.pts, strict=True):
        encoder.add(picture, int(pts))
    coded = encoder.finish()
    return encoder.entry().data, [c.data for c in coded], [c.key for c in coded]


def decoded(entry: bytes, data: list[bytes]) -> list[av.VideoFrame]:
    decoder = av.CodecContext.create("h264", "r")
    at = entry.index(b"avcC")
    decoder.extradata = entry[at + 4 : at - 4 + int.from_bytes(entry[at - 4 : at])]
    return [f for d in [*map(av.Packet, data), None] for f in decoder.decode(d)]


def test_every_frame_gives_one_sample_and_only_the_first_is_a_random_access_point() -> None:
    batch = made.frames(range(0, 12_000, 40))  # 300 frames: more than x264's own 250 between key frames
    entry, data, keys = encoded(batch, parameters())
    assert keys == [True] + [False] * 299
    assert len(decoded(entry, data)) == 300


@pytest.mark.parametrize("preset", PRESETS)
def test_a_lighter_segment_follows_others_of_the_same_preset(preset: str) -> None:
    """The initialisation segment is the epoch's: both kinds have its parameter sets."""
    batch = made.frames(range(0, 320, 40))
    how = parameters(preset=preset)
    normal, lighter = encoded(batch, how), encoded(batch, replace(how, lighter=True))
    assert lighter[0] == normal[0] and lighter[2] == normal[2]
    assert (lighter[1] != normal[1]) is (preset in LIGHTER_PRESETS)
    for frame, luma in zip(decoded(normal[0], lighter[1]), batch.planes().y, strict=True):
        assert np.mean((frame.to_ndarray()[: luma.shape[0]].astype(float) - luma) ** 2) < 20


def test_a_cut_of_the_scene_makes_no_key_frame() -> None:
    batch = made.frames(range(0, 400, 40))
    batch.data[5:] = 255 - batch.data[5:]
    assert encoded(batch, parameters())[2] == [True] + [False] * 9


def test_pictures_survive_with_little_loss() -> None:
    batch = made.frames(range(0, 400, 40))
    entry, data, _ = encoded(batch, parameters(crf=12))
    for picture, frame in zip(batch.data, decoded(entry, data), strict=True):
        difference = picture.astype(float) - frame.to_ndarray().reshape(-1)
        assert np.sqrt(np.mean(difference**2)) < 3


@pytest.mark.parametrize(
    "how", [parameters(), parameters(max_kbps=300), parameters(max_kbps=0, threads=2), parameters(preset="veryfast")]
)
def test_the_same_frames_give_the_same_bytes(how: EncodeParameters) -> None:
    batch = made.frames(range(0, 1200, 40), size=Size(width_px=320, height_px=180))
    assert encoded(batch, how) == encoded(batch, how)


def test_bytes_depend_on_the_distances_of_pts_not_on_where_they_start() -> None:
    early, late = made.frames(range(0, 400, 40)), made.frames(range(9_000_000, 9_000_400, 40))
    assert encoded(early, parameters()) == encoded(late, parameters())


def test_another_process_gives_the_same_bytes() -> None:
    code = (
        "import hashlib; from tests.pipeline.media import made, test_encode as t;"
        "e = t.encoded(made.frames(range(0, 800, 40)), t.parameters());"
        "print(hashlib.sha256(repr(e).encode()).hexdigest())"
    )
    there = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    here = hashlib.sha256(repr(encoded(made.frames(range(0, 800, 40)), parameters())).encode()).hexdigest()
    assert there.stdout.strip() == here


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 2), (15, 9), (64, 47), (63, 48), (1366, 768)])
def test_odd_sides_are_rounded_up_by_repeating_the_last_column_and_row(width: int, height: int) -> None:
    size = Size(width_px=width, height_px=height)
    batch = made.frames(range(0, 120, 40), size=size)
    entry, data, _ = encoded(batch, parameters(crf=5, max_kbps=0))
    frames = decoded(entry, data)
    assert [(f.width, f.height) for f in frames] == [(width + width % 2, height + height % 2)] * 3
    assert (even(size).width_px, even(size).height_px) == (frames[0].width, frames[0].height)
    luma = frames[0].to_ndarray()[: even(size).height_px].astype(int)
    want = batch.planes().y[0].astype(int)
    assert np.abs(luma[:height, :width] - want).max() < 16
    assert np.abs(luma[:height, -1] - want[:, -1]).max() < 16
    assert np.abs(luma[-1, :width] - want[-1]).max() < 16


@pytest.mark.parametrize(
    "color",
    [
        ColorSpec(matrix=1, primaries=1, transfer=1, full_range=False),
        ColorSpec(matrix=6, primaries=6, transfer=6, full_range=True),
        ColorSpec(),
    ],
)
def test_the_meaning_of_the_code_values_is_signalled(color: ColorSpec) -> None:
    entry, data, _ = encoded(made.frames(range(0, 120, 40), color=color), parameters())
    frame = decoded(entry, data)[0]
    assert (frame.colorspace, frame.color_primaries, frame.color_trc) == (color.matrix, color.primaries, color.transfer)
    # x264 leaves the whole description out when nothing of it is known; a range that is not said is the limited one.
    assert (frame.color_range == 2) == color.full_range


def test_the_cap_holds_by_time_whatever_the_frame_rate_is() -> None:
    """8 s of noise at 10 frames a second, capped at 400 kbit/s: 8 · 400 and the half full buffer of 400 · ½ kbit."""
    rng = np.random.default_rng(1)
    batch = made.frames(range(0, 8000, 100), size=Size(width_px=320, height_px=180))
    batch.data[:] = rng.integers(16, 236, batch.data.shape, np.uint8)
    _, data, _ = encoded(batch, parameters(max_kbps=400))
    kbit = sum(map(len, data)) * 8 / 1000
    assert 0.7 * 3400 < kbit < 1.25 * 3400


def test_variable_distances_and_fine_time_bases_are_taken() -> None:
    pts = [0, 1, 999_999_999, 1_000_000_000, 1_999_999_998]
    entry, data, _ = encoded(made.frames(pts, time_base=Fraction(1, 1_000_000_000)), parameters())
    assert len(decoded(entry, data)) == 5
