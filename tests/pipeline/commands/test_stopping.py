"""Signals: the first asks, the second ends at once, a close that hangs is ended; in processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.commands.stopping import stop_on_signals

ROOT = Path(__file__).parents[3]

WAITS = """
import sys
from pipeline.commands.stopping import stop_on_signals
with stop_on_signals(close_within_s={within}) as stopping:
    print("ready", flush=True)
    stopping.event.wait(60)
    print("asked", flush=True)
    {then}
sys.exit(stopping.exit_code)
"""
CLEAN, HANGS = "pass", "import threading; threading.Event().wait(60)"


def _started(then: str, *, within: float = 30.0) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS.format(within=within, then=then)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _asked(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "asked\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_first_signal_asks_for_a_clean_end(number: signal.Signals, code: int) -> None:
    process = _started(CLEAN)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert "stopping" in errors


def test_second_signal_ends_at_once() -> None:
    process = _started(HANGS)
    process.send_signal(signal.SIGINT)
    _asked(process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130


def test_close_that_hangs_is_ended() -> None:
    process = _started(HANGS, within=0.2)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "not closed within" in errors


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signals() as stopping:
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
    assert stopping.exit_code == 0
