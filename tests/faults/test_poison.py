"""A batch that kills or fails whoever processes it is set aside after three tries; all else is as if it were not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.actors.runs import FRAMES, Made, job_of, made_by, run

pytestmark = pytest.mark.usefixtures("ray_session")

POISON_FRAME = 75  # in the batch [72, 80), in segments [50, 75) and [75, 100)


@pytest.mark.parametrize(("plan", "how"), [("unchained", "exit"), ("unchained", "raise"), ("chained", "exit")])
def test_a_poison_batch_is_set_aside(plan: str, how: str, clip: Path, reference: Made, tmp_path: Path) -> None:
    job = job_of(clip, tmp_path / "out", tmp_path, plan=plan, poison_frame=POISON_FRAME, poison=how)
    outcome = run(job)
    assert (outcome.state, outcome.frames, outcome.error) == ("completed", FRAMES, None)
    assert outcome.counts["set_aside.twice"] == 1
    made = made_by(tmp_path / "out")
    (event,) = [e for e in made.pop("events") if e["type"] == "batch.set_aside"]  # type: ignore[attr-defined]
    assert (event["epoch"], event["seq"]) == (0, 72)
    name = "tables/quality/part-0-64-96.parquet"
    rows, expected = made.pop(name), reference[name]
    assert isinstance(rows, list)
    assert isinstance(expected, list)
    outside = [i for i in range(32) if not 72 <= 64 + i < 80]
    assert [rows[i] for i in outside] == [expected[i] for i in outside]
    differ = {name for name in made if made[name] != reference.get(name)}
    touched = {f"hls/main/000000-{a:010d}-{b:010d}.m4s" for a, b in ((50, 75), (75, 100))}
    # The playlists tell the bit rates of the segments.
    assert touched <= differ <= touched | {"hls/index.m3u8", "hls/main/index.m3u8"}
