"""What Limpid writes, played to its end by headless Chromium."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from pipeline.media import hls
from pipeline.stages.audio import Audio, AudioConfig
from pipeline.stages.encode import Encode, EncodeConfig
from pipeline.store.objects import LocalStore
from pipeline.wire.frames import ColorSpec, Size
from tests.pipeline.media import made
from tests.service import browser

pytestmark = pytest.mark.skipif(browser.CHROMIUM is None, reason=browser.MISSING)


def video(folder: Path, pts: range, *, epoch: int = 0, size: Size | None = None, ticks_hz: int = 1000) -> None:
    batch = made.frames(pts, size=size, epoch=epoch, time_base=Fraction(1, ticks_hz), color=ColorSpec(matrix=1))
    stage = made.opened(Encode(EncodeConfig(segment_s=1.0)), folder, epoch)
    made.feed(stage, batch)
    stage.finish()


def audio(folder: Path, *, codec: str = "aac", container: str = "", start: int, seconds: float, epoch: int = 0) -> None:
    facts, packets = made.sound(codec, container=container, start=start, seconds=seconds)
    stage = made.opened(Audio(AudioConfig()), folder, epoch)
    made.feed(stage, made.packets(facts, packets, epoch=epoch))
    stage.finish()
    assert stage.problems == ()


def test_two_epochs_of_video_and_audio_play_to_their_end(tmp_path: Path) -> None:
    """3 s (75 frames), from before 0 on, then 2 s (50 frames) of another size, 100 s later on the source's clock."""
    video(tmp_path, range(-80, 2920, 40))
    audio(tmp_path, start=-80 * 48, seconds=3.1)
    video(tmp_path, range(100_000, 102_000, 40), epoch=1, size=Size(width_px=127, height_px=95))
    audio(tmp_path, start=100_000 * 48, seconds=2.0, epoch=1)
    hls.close_playlists(LocalStore(tmp_path))
    seen = browser.play(tmp_path / "hls")
    assert seen["error"] == ""
    assert seen["ended"]
    assert seen["frames"] == 125
    assert seen["duration_s"] == pytest.approx(5.0, abs=0.03)
    assert (seen["width"], seen["height"]) == (128, 96)
    # Chromium reports a range a packet wide at most beside what was written, and no hole between segments.
    assert len(seen["buffered"]["video"]) == 1
    assert seen["buffered"]["video"][0] == pytest.approx([0, 5], abs=0.001)
    assert seen["buffered"]["audio"][0][0] == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize(("codec", "container"), [("aac", "mpegts"), ("libopus", "matroska")])
def test_audio_that_is_passed_through_plays(tmp_path: Path, codec: str, container: str) -> None:
    video(tmp_path, range(0, 2000, 40))
    audio(tmp_path, codec=codec, container=container, start=0, seconds=2.0)
    hls.close_playlists(LocalStore(tmp_path))
    seen = browser.play(tmp_path / "hls")
    assert (seen["error"], seen["unsupported"], seen["ended"], seen["frames"]) == ("", [], True, 50)
    assert seen["buffered"]["audio"][0] == pytest.approx([0, 2], abs=0.06)


def test_audio_that_the_browser_lacks_does_not_keep_the_video_from_playing(tmp_path: Path) -> None:
    video(tmp_path, range(0, 2000, 40))
    audio(tmp_path, codec="ac3", start=0, seconds=2.0)
    hls.close_playlists(LocalStore(tmp_path))
    seen = browser.play(tmp_path / "hls")
    assert (seen["error"], seen["ended"], seen["frames"]) == ("", True, 50)
    assert seen["unsupported"] == ['audio/mp4; codecs="ac-3"']


def test_what_was_stopped_half_way_plays(tmp_path: Path) -> None:
    """Of 35 frames the segment of 1 s is complete: 25."""
    stage = made.opened(Encode(EncodeConfig(segment_s=1.0)), tmp_path)
    made.feed(stage, made.frames(range(0, 1400, 40)))
    stage.close()
    hls.close_playlists(LocalStore(tmp_path))
    seen = browser.play(tmp_path / "hls")
    assert (seen["error"], seen["ended"], seen["frames"]) == ("", True, 25)


def test_a_damaged_segment_is_reported_not_played_over(tmp_path: Path) -> None:
    """The judge itself: it must be able to say no."""
    video(tmp_path, range(0, 2000, 40))
    hls.close_playlists(LocalStore(tmp_path))
    second = tmp_path / "hls" / "main" / "000000-0000000025-0000000050.m4s"
    second.write_bytes(second.read_bytes().replace(b"moof", b"mooX"))
    seen = browser.play(tmp_path / "hls")
    assert seen["error"] or seen["frames"] < 50
