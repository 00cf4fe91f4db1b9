"""The rendered scene: pure, exact in its truth, legal at every size, and clear about bad addresses."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.media.synthetic import SAMPLE_RATE_HZ, Scene, SceneConfig, iter_frames

ROOT = Path(__file__).resolve().parents[3]
SMALL = SceneConfig(width=96, height=64, cuts=1.0, seed=5)
MIDDLE = SceneConfig(width=400, height=225, cuts=1.0, seed=3)


@cache
def shared(**change: Any) -> Scene:
    """A scene that several tests look at: a frame depends on nothing that was rendered before."""
    return Scene(replace(MIDDLE, **change))


@pytest.fixture
def scene() -> Scene:
    return shared()


def luma(config: SceneConfig, i420: np.ndarray) -> np.ndarray:
    return i420[: config.width * config.height].reshape(config.height, config.width).astype(int)


def digest(config: SceneConfig, indexes: list[int]) -> list[str]:
    scene = Scene(config)
    return [hashlib.sha256(scene.frame(i).i420.tobytes()).hexdigest() for i in indexes]


def test_frame_depends_on_nothing_but_config_and_number() -> None:
    forward = digest(SMALL, [0, 7, 26, 60])
    backward = digest(SMALL, [60, 26, 7, 0])[::-1]
    assert forward == backward
    assert len(set(forward)) == 4


def test_frame_is_the_same_in_another_process() -> None:
    code = (
        "import hashlib\n"
        "from pipeline.media.synthetic import Scene, SceneConfig\n"
        "config = SceneConfig(width=96, height=64, cuts=1.0, seed=5)\n"
        "print(hashlib.sha256(Scene(config).frame(31).i420.tobytes()).hexdigest())\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert ran.stdout.strip() == digest(SMALL, [31])[0]


def test_seed_changes_the_picture() -> None:
    assert digest(SMALL, [3]) != digest(replace(SMALL, seed=6), [3])


def test_codes_stay_in_limited_range() -> None:
    i420 = Scene(replace(SMALL, noise=32.0)).frame(4).i420
    pixels = SMALL.width * SMALL.height
    assert i420.dtype == np.uint8
    assert i420[:pixels].min() >= 16
    assert i420[:pixels].max() <= 235
    assert i420[pixels:].min() >= 16
    assert i420[pixels:].max() <= 240


def test_whole_things_are_bounded_by_their_boxes(scene: Scene) -> None:
    """A thing that nothing hides has mask pixels in its box's first and last row and column, and none outside."""
    checked = 0
    for index in (0, 14, 30, 55, 130):
        truth = scene.frame(index).truth
        for identity, box, visible in zip(truth.ids, truth.boxes, truth.visible, strict=True):
            rows, columns = np.nonzero(truth.mask == identity)
            if rows.size:
                assert columns.min() >= box[0]
                assert rows.min() >= box[1]
                assert columns.max() < box[2]
                assert rows.max() < box[3]
            if visible == 1.0:
                found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                assert np.abs(np.array(found) - box).max() <= 1
                checked += 1
    assert checked > 20


def test_mask_marks_what_was_drawn(scene: Scene) -> None:
    """Against the same street without people and vehicles: masked pixels differ, and few others (shadows) do."""
    full, empty = shared(noise=0.0).frame(20), shared(noise=0.0, persons=0, vehicles=0).frame(20)
    changed = np.abs(luma(MIDDLE, full.i420) - luma(MIDDLE, empty.i420)) > 2
    mask = full.truth.mask
    assert empty.truth.mask.max() == 0
    assert (mask > 0).mean() > 0.03
    assert changed[mask > 0].mean() > 0.85
    assert changed[mask == 0].mean() < 0.1


def test_no_two_things_share_an_identity(scene: Scene) -> None:
    for index in (0, 40, 110):
        ids = scene.frame(index).truth.ids
        assert len(ids) > 10
        assert len(set(ids.tolist())) == len(ids)


def test_identity_stays_with_what_moves_and_comes_back() -> None:
    """At 25 frames a second nobody moves farther than a seventh of the width between frames of a shot."""
    scene = shared()
    before, after = scene.frame(10).truth, scene.frame(11).truth
    kept = set(before.ids.tolist()) & set(after.ids.tolist())
    assert len(kept) >= 0.8 * len(before.ids)
    for identity in kept:
        a, b = int(np.flatnonzero(before.ids == identity)[0]), int(np.flatnonzero(after.ids == identity)[0])
        assert before.classes[a] == after.classes[b]
        assert np.abs(before.boxes[a] - after.boxes[b]).max() < MIDDLE.width / 7
    # Three mounts: after three cuts the first camera sees again who is still in the street.
    later = scene.frame(75 + 10).truth
    assert later.pose.mount == before.pose.mount
    assert len(set(before.ids.tolist()) & set(later.ids.tolist())) > 5


def test_heads_lie_in_the_upper_third_of_their_persons(scene: Scene) -> None:
    truth = scene.frame(12).truth
    assert len(truth.heads) == np.count_nonzero(truth.classes == 0)
    for head, identity in zip(truth.heads, truth.head_ids, strict=True):
        body = truth.boxes[int(np.flatnonzero(truth.ids == identity)[0])]
        slack = 1.5
        assert head[0] >= body[0] - slack
        assert head[2] <= body[2] + slack
        assert head[1] >= body[1] - slack
        assert head[3] <= body[1] + (body[3] - body[1]) / 3 + slack


def test_depth_of_the_ground_is_that_of_its_homography() -> None:
    """Invert the homography at a pixel, take its third coordinate forward again: that is the ground's depth there.

    In the middle of the lowest rows every camera sees ground when nobody is there, and depth falls towards the lower
    edge, since the camera looks down and does not roll.
    """
    scene = shared(noise=0.0, persons=0, vehicles=0)
    for index in (5, 30, 55):
        truth = scene.frame(index).truth
        forward = truth.ground_to_image
        column = MIDDLE.width // 2
        rows = np.arange(MIDDLE.height * 3 // 4, MIDDLE.height)
        ground = np.linalg.solve(forward, np.stack([np.full(rows.size, column), rows, np.ones(rows.size)]))
        ground = ground / ground[2]
        expected = (forward @ ground)[2]
        np.testing.assert_allclose(truth.depth_m[rows, column], expected, rtol=1e-3)
        assert (np.diff(truth.depth_m[rows, column]) < 0).all()


def test_depth_of_things_is_that_of_their_place(scene: Scene) -> None:
    """A person's feet stand on the ground: the lowest mask pixel is as deep as the ground beside it, ±6 %."""
    truth = scene.frame(20).truth
    checked = 0
    for identity, kind, visible in zip(truth.ids, truth.classes, truth.visible, strict=True):
        rows, columns = np.nonzero(truth.mask == identity)
        if kind == 0 and visible == 1.0 and np.ptp(rows) > 20:
            lowest = rows.argmax()
            u, v = float(columns[lowest]), float(rows[lowest])
            ground = np.linalg.solve(truth.ground_to_image, np.array([u, v, 1.0]))
            expected = 1 / ground[2]
            assert truth.depth_m[rows[lowest], columns[lowest]] == pytest.approx(expected, rel=0.06)
            checked += 1
    assert checked > 3


def test_cut_changes_the_picture_and_says_so() -> None:
    """With a cut each second at 25 frames a second, frame 25 is the first of shot 1."""
    scene = shared()
    frames = {i: scene.frame(i) for i in (23, 24, 25, 26)}
    assert [frames[i].truth.is_cut for i in (23, 24, 25, 26)] == [False, False, True, False]
    assert [frames[i].truth.shot for i in (24, 25)] == [0, 1]

    def change(a: int, b: int) -> float:
        return float(np.abs(luma(MIDDLE, frames[a].i420) - luma(MIDDLE, frames[b].i420)).mean())

    assert change(24, 25) > 3 * change(23, 24)
    assert not any(Scene(replace(SMALL, cuts=0.0)).frame(i).truth.is_cut for i in (0, 25, 200))


def test_noise_has_the_deviation_asked_for() -> None:
    """Rounding adds 1/12 to the variance: √(16 + 1/12) = 4.01; compared away from the limits 16 and 235."""
    a, b = (luma(MIDDLE, shared(noise=sigma).frame(20).i420) for sigma in (0.0, 4.0))
    below = slice(MIDDLE.height // 3, None)  # the stamp is burnt in after the noise
    inner = (a[below] > 40) & (a[below] < 210)
    assert (b[below] - a[below])[inner].std() == pytest.approx(4.01, abs=0.08)


def test_light_scales_luma_above_black() -> None:
    """The same street at two gains g: mean of (Y' − 16) goes with g, within the swing of the camera."""
    config = replace(MIDDLE, noise=0.0, cuts=0.0, shake_px=0.0, persons=0, vehicles=0)
    scene = Scene(config)
    lights = {i: scene.frame(i).truth.light for i in range(0, 500, 60)}
    dark, bright = min(lights, key=lights.__getitem__), max(lights, key=lights.__getitem__)
    means = {i: float((luma(config, scene.frame(i).i420) - 16).mean()) for i in (dark, bright)}
    assert lights[bright] / lights[dark] > 1.2
    assert means[bright] / means[dark] == pytest.approx(lights[bright] / lights[dark], rel=0.12)


def test_stamp_says_the_time_of_the_frame() -> None:
    """Frame 1525 at 25 frames a second is 61 s after 08:30:00."""
    scene = shared(seconds=math.inf)
    stamp = scene.frame(1525).truth.texts[0]
    assert stamp.kind == "stamp"
    assert stamp.text.startswith("2026-03-14 08:31:01.00 CAM ")
    picture = luma(MIDDLE, scene.frame(1525).i420)
    x0, y0, x1, y1 = (int(v) for v in stamp.box)
    assert 0 <= x0 < x1 <= MIDDLE.width
    assert 0 <= y0 < y1 <= MIDDLE.height
    assert picture[y0:y1, x0:x1].max() >= 220


def test_plates_lie_on_vehicles_and_signs_on_houses(scene: Scene) -> None:
    found = {"plate": 0, "sign": 0, "stamp": 0}
    for index in (0, 30, 60):
        truth = scene.frame(index).truth
        for text in truth.texts:
            found[text.kind] += 1
            assert text.text
            assert 0 <= text.visible <= 1
            if text.kind == "plate":
                holders = truth.boxes[truth.classes == 1]
                low, high = text.box[:2] >= holders[:, :2] - 2, text.box[2:] <= holders[:, 2:] + 2
                assert (low.all(axis=1) & high.all(axis=1)).any()
    assert found["plate"] > 3
    assert found["sign"] > 3
    assert found["stamp"] == 3


def test_vehicles_wait_while_people_cross(scene: Scene) -> None:
    """In a minute no one on the roadway is within 2 m along the street of a vehicle's bumper in the same lane."""
    crossed = 0
    for t in np.arange(0, 60, 0.2):
        walks = [scene._people.walk(k, float(t)) for k in range(MIDDLE.persons)]
        rides = [scene._vehicles.ride(k, float(t)) for k in range(MIDDLE.vehicles)]
        for walk in walks:
            if abs(walk.x_m) < 5.5:
                crossed += 1
                for ride in rides:
                    beside = abs(ride.x_m - walk.x_m) < 1.3
                    assert not (beside and abs(ride.y_m - walk.y_m) < 2.6 + 0.4)
    assert crossed > 50


@pytest.mark.parametrize(("width", "height"), [(33, 17), (97, 55), (16, 16), (17, 64), (200, 16), (64, 200)])
def test_odd_small_and_tall_sizes_are_legal(width: int, height: int) -> None:
    """I420 of w × h is w·h + 2·⌈w/2⌉·⌈h/2⌉ bytes: 33 × 17 gives 561 + 2·17·9 = 867."""
    config = SceneConfig(width=width, height=height, persons=6, vehicles=4)
    frame = Scene(config).frame(2)
    assert frame.i420.shape == (width * height + 2 * -(-width // 2) * -(-height // 2),)
    assert frame.truth.mask.shape == frame.truth.depth_m.shape == (height, width)
    assert frame.i420.std() > 3
    assert SceneConfig(width=33, height=17).size.frame_bytes == 867


def test_empty_street_has_empty_truth() -> None:
    truth = Scene(replace(SMALL, persons=0, vehicles=0)).frame(0).truth
    assert truth.boxes.shape == truth.heads.shape == (0, 4)
    assert truth.ids.shape == truth.classes.shape == truth.visible.shape == (0,)


def test_length_is_whole_frames() -> None:
    """2.5 s · 30000/1001 = 74.9: 74 frames, 74·1001/30000·48000 = 118518.4 samples; less than a frame is one."""
    config = SceneConfig(width=16, height=16, fps=Fraction(30000, 1001), seconds=2.5)
    assert Scene(config).num_frames == 74
    assert Scene(config).num_samples == 118518
    assert Scene(replace(config, seconds=0.001)).num_frames == 1
    assert Scene(replace(config, seconds=math.inf)).num_frames is None
    assert Scene(replace(config, seconds=math.inf)).num_samples is None
    with pytest.raises(IndexError):
        Scene(config).frame(74)
    with pytest.raises(IndexError):
        Scene(config).frame(-1)
    short = replace(config, seconds=0.2)
    assert [f.i420.size for f in iter_frames(short, 2)] == [384] * 3


def test_sound_beeps_at_each_second_and_has_no_seams() -> None:
    scene = Scene(SMALL)
    whole = scene.audio(0, 2 * SAMPLE_RATE_HZ)
    assert whole.dtype == np.int16
    pieces = [scene.audio(a, 1024) for a in range(0, 2 * SAMPLE_RATE_HZ, 1024)]
    np.testing.assert_array_equal(np.concatenate(pieces)[: whole.size], whole)
    loud = np.abs(whole.astype(int)) > 6000
    assert loud[:2880].any()
    assert loud[SAMPLE_RATE_HZ : SAMPLE_RATE_HZ + 2880].any()
    assert not loud[2880:SAMPLE_RATE_HZ].any()
    assert np.abs(whole[2880:SAMPLE_RATE_HZ]).max() > 300
    assert scene.audio(5, 0).shape == (0,)


def test_address_gives_every_setting() -> None:
    uri = (
        "synthetic://street?width=641&height=359&fps=30000/1001&seconds=inf&seed=9&persons=3&vehicles=2"
        "&cuts=0&shake_px=0&noise=1.5&audio=no"
    )
    assert SceneConfig.parse(uri) == SceneConfig(
        width=641,
        height=359,
        fps=Fraction(30000, 1001),
        seconds=math.inf,
        seed=9,
        persons=3,
        vehicles=2,
        cuts=0.0,
        shake_px=0.0,
        noise=1.5,
        audio=False,
    )
    assert SceneConfig.parse("synthetic://street") == SceneConfig.parse("synthetic://") == SceneConfig()


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("widht=640", "nearest is 'width'"),
        ("person=3", "nearest is 'persons'"),
        ("zzz=3", "unknown key 'zzz'"),
        ("width=many", "width='many' is no value"),
        ("width=", "width='' is no value"),
        ("fps=1/0", "fps='1/0' is no value"),
        ("audio=maybe", "audio='maybe' is no value"),
        ("seed=1&seed=2", "seed is given twice"),
        ("width=15", "width is 15, not 16 to 8192"),
        ("width=1&height=1", "height is 1, not 16 to 8192"),
        ("height=9000", "height is 9000"),
        ("fps=0", "fps is 0"),
        ("seconds=0", "seconds is 0"),
        ("seconds=nan", "seconds is nan"),
        ("cuts=-1", "cuts is -1"),
        ("noise=nan", "noise is nan"),
        ("vehicles=61", "vehicles is 61, not 0 to 60"),
        ("widht=1&hieght=2", "nearest is 'height'"),
    ],
)
def test_bad_address_is_refused_saying_why(query: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SceneConfig.parse(f"synthetic://street?{query}")
    assert says in str(caught.value)


@pytest.mark.parametrize("uri", ["synthetic://beach", "file:///street", "synthetic://street/x?width=64", "street"])
def test_other_scenes_are_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match="not a rendered scene"):
        SceneConfig.parse(uri)
