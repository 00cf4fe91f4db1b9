"""Windows for TCSR: aligned, held out by time, made once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import ConfigError, StorageError
from pipeline.train.data import PairsConfig
from pipeline.train.drawn import sheet
from pipeline.train.metrics import psnr_db
from pipeline.train.windows import Plane, Windows, cached_windows, make_windows
from pipeline.vision.upscale import bicubic
from tests.media_files import encode

TINY = PairsConfig(
    patch_px=32, patches=2, clip_variants=2, window_frames=16, every_frames=3, warm_frames=2, still_variants=1,
    still_frames=6, scenes=0,
)  # fmt: skip

SCENE = replace(TINY, scenes=1, scene_variants=1, window_frames=8)


def quiet(_what: str, _share: float) -> None:
    pass


def twice(y: Plane) -> Plane:
    return bicubic(y, 2)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten stills, of which the last is held out, and a clip."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "clips" / "train").mkdir(parents=True)
    (folder / "stills" / "train").mkdir(parents=True)
    encode(folder / "clips" / "train" / "a.mp4", frames=20, width=160, height=128)
    rng = np.random.default_rng(4)
    for i in range(9):
        cv2.imwrite(str(folder / "stills" / "train" / f"{i}.png"), sheet(200, 160, rng).y)
    return folder


@pytest.fixture(scope="module")
def made(material: Path) -> tuple[Windows, Windows]:
    return make_windows(material, TINY, twice, quiet, k=1, aligned=True)


def test_windows_hold_target_neighbours_and_truth(made: tuple[Windows, Windows]) -> None:
    for windows in made:
        assert len(windows) > 0
        assert windows.near.shape[1:] == (3, 64, 64) and windows.near.dtype == np.uint8
        assert windows.true.shape == (len(windows), 64, 64)


def test_the_target_resembles_the_truth_and_aligned_neighbours_the_target(
    material: Path, made: tuple[Windows, Windows]
) -> None:
    train, _ = made
    plain, _ = make_windows(material, TINY, twice, quiet, k=1, aligned=False)
    assert np.array_equal(plain.near[:, 0], train.near[:, 0]) and np.array_equal(plain.true, train.true)
    textured = [i for i in range(len(train)) if train.true[i].std() > 8]
    assert np.median([psnr_db(train.near[i, 0], train.true[i]) for i in textured]) > 15
    errors = [
        np.mean([np.abs(windows.near[i, 1:].astype(int) - windows.near[i, :1]).mean() for i in textured])
        for windows in (train, plain)
    ]
    assert errors[0] < 0.8 * errors[1]


def test_windows_are_the_same_each_time(material: Path, made: tuple[Windows, Windows]) -> None:
    again = make_windows(material, TINY, twice, quiet, k=1, aligned=True)
    for one, other in zip(made, again, strict=True):
        assert np.array_equal(one.near, other.near) and np.array_equal(one.true, other.true)


def test_more_neighbours_on_each_side_are_in_order_of_time() -> None:
    windows, _ = make_windows(None, SCENE, twice, quiet, k=2, aligned=False)
    assert windows.near.shape[1] == 5


def test_windows_are_made_once(tmp_path: Path) -> None:
    told: list[str] = []

    def cached(**changes: int) -> tuple[Windows, Windows]:
        config = replace(SCENE, **changes)
        return cached_windows(
            None, config, twice, tmp_path, lambda what, _: told.append(what), enhanced_by="bicubic", k=1, aligned=True
        )

    first = cached()
    assert told[-1] == "done"
    told.clear()
    again = cached()
    assert not told and np.array_equal(first[0].near, again[0].near)
    cached(seed=2)
    assert told


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="--cache"):
        cached_windows(
            None, replace(SCENE, scenes=0), twice, tmp_path / "file", quiet, enhanced_by="x", k=1, aligned=True
        )


def test_a_folder_without_material_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no training material"):
        make_windows(tmp_path, TINY, twice, quiet, k=1, aligned=True)
