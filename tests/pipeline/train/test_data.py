"""Training pairs: aligned, deterministic, held out by time, made once."""

from __future__ import annotations

import os
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import CapacityError, ConfigError, StorageError
from pipeline.models.fedsr import bicubic
from pipeline.train.data import Pairs, PairsConfig, _made_by_processes, cached_pairs, make_pairs, training_files
from pipeline.train.drawn import marked, sheet
from pipeline.train.metrics import psnr_db
from tests.media_files import encode

TINY = PairsConfig(
    patch_px=32, clip_variants=1, window_frames=20, still_variants=1, sheets=11, scenes=0, patches=2, warm_frames=2
)


def quiet(_what: str, _share: float) -> None:
    pass


def same(one: Pairs, other: Pairs) -> bool:
    return np.array_equal(one.low, other.low) and np.array_equal(one.high, other.high)


@pytest.mark.parametrize(("scale", "least_db"), [(2, 3.0), (3, 2.0), (4, 2.0)])
def test_patches_are_aligned_and_compressed(scale: int, least_db: float) -> None:
    """Bicubic of a low patch resembles its high patch, much more than that patch moved by one low-resolution pixel."""
    train, held = make_pairs(None, replace(TINY, scale=scale), quiet, workers=1)
    assert train.low.shape[1:] == (32, 32)
    assert train.high.shape[1:] == (32 * scale, 32 * scale)
    assert len(train) == 10 * len(held)  # sheet 9 of 0…10 is held out
    aligned_db, moved_db = [], []
    for low, high in zip(train.low, train.high, strict=True):
        if high.std() > 8:  # a flat patch looks the same everywhere
            aligned_db.append(psnr_db(bicubic(low, scale), high))
            moved_db.append(max(psnr_db(bicubic(low, scale), np.roll(high, scale, axis)) for axis in (0, 1)))
    assert np.mean(aligned_db) > np.mean(moved_db) + least_db
    assert 15 < np.mean(aligned_db) < 45, "a lossless pair teaches nothing about compression"


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_clips_of_any_size_give_pairs_at_every_scale(tmp_path: Path, scale: int) -> None:
    """418×310 is a multiple of 2 alone: each second encoding keeps the size, the others have 240 to 270 lines."""
    (tmp_path / "clips" / "train").mkdir(parents=True)
    encode(tmp_path / "clips" / "train" / "odd.mp4", frames=20, width=418, height=310)
    config = replace(TINY, scale=scale, clip_variants=4, sheets=0, every_frames=2)
    train, held = make_pairs(tmp_path, config, quiet, workers=1)
    assert len(train) > len(held) > 0
    assert train.high.shape[1] == scale * train.low.shape[1] == scale * 32


def test_processes_make_the_pairs_of_one_process_in_its_order(tmp_path: Path) -> None:
    (tmp_path / "clips" / "train").mkdir(parents=True)
    encode(tmp_path / "clips" / "train" / "a.mp4", frames=20, width=160, height=120)
    config = replace(TINY, sheets=3, scenes=1, scene_variants=1, window_frames=12)
    names: list[list[str]] = [[], []]
    alone = make_pairs(tmp_path, config, lambda what, _: names[0].append(what), workers=1)
    together = make_pairs(tmp_path, config, lambda what, _: names[1].append(what), workers=2)
    assert names[0] == names[1] == ["a.mp4", "sheet 0", "sheet 1", "sheet 2", "scene 0", "done"]
    assert same(alone[0], together[0])
    assert same(alone[1], together[1])
    assert len(alone[0]) > 0


def test_an_error_in_another_process_is_the_same_error(tmp_path: Path) -> None:
    (tmp_path / "stills" / "val").mkdir(parents=True)
    (tmp_path / "stills" / "val" / "x.jpg").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match=r"x.jpg: cannot be read as a picture"):
        make_pairs(tmp_path, TINY, quiet, workers=2)


def die(_rng: np.random.Generator) -> None:
    os._exit(3)


def test_a_process_that_dies_is_named() -> None:
    with pytest.raises(CapacityError, match="has died"):
        next(_made_by_processes([("x", partial(die))], TINY, 1))  # type: ignore[list-item]


def test_the_same_seed_gives_the_same_pairs_and_another_one_others() -> None:
    first, again = (make_pairs(None, TINY, quiet, workers=1)[0] for _ in range(2))
    assert same(first, again)
    assert not same(first, make_pairs(None, replace(TINY, seed=2), quiet, workers=1)[0])


def test_the_rendered_scene_gives_pairs_and_holds_out_its_last_fifth() -> None:
    config = replace(TINY, sheets=0, scenes=1, scene_variants=1, every_frames=2)
    train, held = make_pairs(None, config, quiet, workers=1)
    assert len(train) > len(held) > 0


def test_pairs_are_made_once(tmp_path: Path) -> None:
    made: list[str] = []
    first = cached_pairs(None, TINY, tmp_path, lambda what, _: made.append(what), workers=1)
    count = len(made)
    again = cached_pairs(None, TINY, tmp_path, lambda what, _: made.append(what), workers=1)
    assert count == len(made) > 0
    assert same(first[0], again[0])
    assert same(first[1], again[1])


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="pairs cannot be kept"):
        cached_pairs(None, replace(TINY, sheets=2), tmp_path / "file", quiet, workers=1)


def test_stills_of_a_folder_are_used_and_each_tenth_is_held_out(tmp_path: Path) -> None:
    folder = tmp_path / "stills" / "train"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    for i in range(10):
        odd = sheet(202, 162, rng).y[:161, :201]
        cv2.imwrite(str(folder / f"{i}.png"), cv2.cvtColor(odd, cv2.COLOR_GRAY2BGR))
    assert len(training_files(tmp_path)) == 10
    train, held = make_pairs(tmp_path, replace(TINY, sheets=0), quiet, workers=1)
    assert len(train) == 9 * len(held) > 0


def test_clips_of_the_test_set_are_never_trained_on(shared_data: Path) -> None:
    files = training_files(shared_data)
    assert files
    assert not [path for path in files if "dev" in path.parts]


def test_a_folder_without_material_and_a_broken_still_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no training material"):
        make_pairs(tmp_path, TINY, quiet, workers=1)
    broken = tmp_path / "stills" / "val" / "x.jpg"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no picture")
    with pytest.raises(ConfigError, match="cannot be read as a picture"):
        make_pairs(tmp_path, TINY, quiet, workers=1)


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
