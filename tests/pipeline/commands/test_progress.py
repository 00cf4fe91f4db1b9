"""The progress display: bars on a terminal, else a line every five seconds."""

from __future__ import annotations

import io

from rich.console import Console

from pipeline.commands.progress import Display
from pipeline.flow.job import Progress
from pipeline.wire.ids import stream_id

GATE = stream_id("gate")


def _at(frames: int) -> Progress:
    return Progress(stream=GATE, state="running", frames_done=frames, fps=25.0)


def test_pipe_gets_a_line_every_five_seconds() -> None:
    now, out = [0.0], io.StringIO()
    with Display({GATE: 250}, console=Console(file=out), clock=lambda: now[0]) as display:
        for now[0], frames in ((1.0, 10), (5.0, 50), (9.0, 90), (10.0, 100)):
            display(_at(frames))
    assert out.getvalue().splitlines() == ["gate: 50 of 250 frames, 25.0 fps", "gate: 100 of 250 frames, 25.0 fps"]


def test_unknown_length_is_left_out() -> None:
    now, out = [0.0], io.StringIO()
    with Display({GATE: None}, console=Console(file=out), clock=lambda: now[0]) as display:
        now[0] = 6.0
        display(_at(50))
    assert out.getvalue() == "gate: 50 frames, 25.0 fps\n"


def test_terminal_gets_a_bar() -> None:
    out = io.StringIO()
    with Display({GATE: 250}, console=Console(file=out, force_terminal=True, width=100)) as display:
        display(_at(50))
    assert "50/250" in out.getvalue()


def test_last_rate_is_kept_for_the_summary() -> None:
    with Display({GATE: None}, console=Console(file=io.StringIO())) as display:
        display(_at(50))
    assert display.fps == {GATE: 25.0}
