"""What the streamer sees."""

from __future__ import annotations

import io
import json
from dataclasses import replace

from rich.console import Console

from pipeline.publisher.display import Display, JsonLines, line
from pipeline.publisher.learner import Standing
from pipeline.publisher.monitor import Point
from pipeline.publisher.push import PushState
from pipeline.publisher.session import Status
from pipeline.wire.frames import Size

STANDING = Standing(
    point=Point(at_s=12.0, deployed_db=31.5, best_db=32.25), generic_db=31.0, training=True, sending=True, steps=120,
    total_steps=300, gain_db=0.75, target_db=0.9, trainings=2, deployed=1_700_000_000, why="the target is reached",
)  # fmt: skip
STATUS = Status(
    frames=300, pairs=24, at_s=12.0, late_s=0.0, size=Size(width_px=640, height_px=360),
    push=PushState(connected=True, pushed=299, dropped=50, waiting_s=0.1, connections=2, reason=""),
    standing=STANDING, state="training, uploading", video_bps=480e3, upload_bps=300e3, uplink_bps=1e6,
    sent_bytes=142_000, accepted=1, refused=0, failed=2, service="version 7",
    curve=(replace(STANDING.point, best_db=None), STANDING.point),
)  # fmt: skip
EMPTY = replace(STATUS, size=None, push=None, standing=None, state="starting", service="", curve=())


def test_a_terminal_shows_curves_state_and_uplink() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120, color_system=None)
    with Display(console=console) as show:
        show(EMPTY)
        show(STATUS)
    text = out.getvalue()
    for wanted in ("training, uploading", "31.50 dB", "32.25 dB", "640×360, 300 frames", "50 dropped", "+0.75 dB",
                   "video 480, uploads 300 of 1000 kb/s", "1 taken, 0 refused, 2 not reached"):  # fmt: skip
        assert wanted in text


def test_without_a_terminal_it_is_a_line_each_five_seconds() -> None:
    out = io.StringIO()
    with Display(console=Console(file=out, width=200)) as show:
        for _ in range(6):
            show(STATUS)
    assert out.getvalue().splitlines() == [line(STATUS)] * 2


def test_a_lost_connection_is_told() -> None:
    assert STATUS.push is not None
    away = replace(STATUS, push=replace(STATUS.push, connected=False, reason="refused"))
    assert line(away).endswith("not connected: refused")
    assert line(EMPTY).startswith("12 s · 300 frames · starting")


def test_json_is_a_line_a_status() -> None:
    out = io.StringIO()
    with JsonLines(out) as show:
        show(EMPTY)
        show(STATUS)
    first, second = (json.loads(each) for each in out.getvalue().splitlines())
    assert first["standing"] is None and "curve" not in first
    assert second["standing"]["point"] == {"at_s": 12.0, "deployed_db": 31.5, "best_db": 32.25}
    assert second["push"]["dropped"] == 50 and second["size"] == {"width_px": 640, "height_px": 360}
