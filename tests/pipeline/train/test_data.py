"""Training pairs: aligned, deterministic, held out by time, made once."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import ConfigError, StorageError
from pipeline.models.fedsr import bicubic
from pipeline.train.data import Pairs, PairsConfig, cached_pairs, make_pairs, training_files
from pipeline.train.drawn import marked, sheet
from pipeline.train.metrics import psnr_db

TINY = PairsConfig(
    patch_px=32, clip_variants=1, window_frames=20, still_variants=1, sheets=11, scenes=0, patches=2, warm_frames=2
)


def quiet(_what: str, _share: float) -> None:
    pass


def same(one: Pairs, other: Pairs) -> bool:
    return np.array_equal(one.low, other.low) and np.array_equal(one.high, other.high)


def test_patches_are_aligned_and_compressed() -> None:
    """Bicubic of a low patch resembles its high patch, much more than it resembles that patch moved by 2 pixels."""
    train, held = make_pairs(None, TINY, quiet)
    assert train.low.shape[1:] == (32, 32)
    assert train.high.shape[1:] == (64, 64)
    assert len(train) == 10 * len(held)  # sheet 9 of 0…10 is held out
    aligned_db, moved_db = [], []
    for low, high in zip(train.low, train.high, strict=True):
        if high.std() > 8:  # a flat patch looks the same everywhere
            aligned_db.append(psnr_db(bicubic(low, 2), high))
            moved_db.append(max(psnr_db(bicubic(low, 2), np.roll(high, 2, axis)) for axis in (0, 1)))
    assert np.mean(aligned_db) > np.mean(moved_db) + 3
    assert 15 < np.mean(aligned_db) < 45, "a lossless pair teaches nothing about compression"


def test_the_same_seed_gives_the_same_pairs_and_another_one_others() -> None:
    first, again = (make_pairs(None, TINY, quiet)[0] for _ in range(2))
    assert same(first, again)
    assert not same(first, make_pairs(None, PairsConfig(**(fields(TINY) | {"seed": 2})), quiet)[0])


def fields(config: PairsConfig) -> dict[str, int]:
    return {name: getattr(config, name) for name in PairsConfig.__slots__}


def test_the_rendered_scene_gives_pairs_and_holds_out_its_last_fifth() -> None:
    config = PairsConfig(**(fields(TINY) | {"sheets": 0, "scenes": 1, "scene_variants": 1, "every_frames": 2}))
    train, held = make_pairs(None, config, quiet)
    assert len(train) > len(held) > 0


def test_pairs_are_made_once(tmp_path: Path) -> None:
    made: list[str] = []
    first = cached_pairs(None, TINY, tmp_path, lambda what, _: made.append(what))
    count = len(made)
    again = cached_pairs(None, TINY, tmp_path, lambda what, _: made.append(what))
    assert count == len(made) > 0
    assert same(first[0], again[0])
    assert same(first[1], again[1])


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="pairs cannot be kept"):
        cached_pairs(None, PairsConfig(**(fields(TINY) | {"sheets": 2})), tmp_path / "file", quiet)


def test_stills_of_a_folder_are_used_and_each_tenth_is_held_out(tmp_path: Path) -> None:
    folder = tmp_path / "stills" / "train"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    for i in range(10):
        odd = sheet(202, 162, rng).y[:161, :201]
        cv2.imwrite(str(folder / f"{i}.png"), cv2.cvtColor(odd, cv2.COLOR_GRAY2BGR))
    assert len(training_files(tmp_path)) == 10
    config = PairsConfig(**(fields(TINY) | {"sheets": 0}))
    train, held = make_pairs(tmp_path, config, quiet)
    assert len(train) == 9 * len(held) > 0


def test_clips_of_the_test_set_are_never_trained_on(shared_data: Path) -> None:
    files = training_files(shared_data)
    assert files
    assert not [path for path in files if "dev" in path.parts]


def test_a_folder_without_material_and_a_broken_still_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no training material"):
        make_pairs(tmp_path, TINY, quiet)
    broken = tmp_path / "stills" / "val" / "x.jpg"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no picture")
    with pytest.raises(ConfigError, match="cannot be read as a picture"):
        make_pairs(tmp_path, TINY, quiet)


def test_marks_change_luma_alone_and_leave_the_picture_they_are_drawn_on() -> None:
    picture = sheet(120, 80, np.random.default_rng(1))
    before = picture.y.copy()
    out = marked(picture, np.random.default_rng(2))
    assert np.array_equal(picture.y, before)
    assert not np.array_equal(out.y, before)
    assert np.array_equal(out.u, picture.u)


def test_a_frame_rate_is_a_fraction_of_the_clip(shared_data: Path) -> None:
    """Bits a frame follow from it: 179/6 of intel_bottle must not become 29."""
    from pipeline.media.degrade import stream_facts

    assert stream_facts(shared_data / "clips" / "train" / "intel_bottle.mp4") == [(640, 360, Fraction(179, 6))]
