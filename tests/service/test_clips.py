"""Every real clip through the whole pipeline: frames, order, pts, audio, playback, by the rules of benchmarks/clips.py.

The first 60 frames here; `python benchmarks/clips.py --play` takes all of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT, SHARED
from tests.service import browser

FRAMES = 60
CLIPS = sorted(SHARED.glob("clips/*/*.mp4"))


@pytest.mark.skipif(not CLIPS, reason="the shared clips are not on this machine")
@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.stem)
def test_a_clip_comes_out_whole_and_plays(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from clips import check

    found = check(clip, FRAMES, "bicubic", "local", play=browser.CHROMIUM is not None)
    assert found["faults"] == []
    assert found["frames"] >= min(FRAMES, found["expected"])
