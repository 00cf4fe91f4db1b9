"""The end of a run: exit code and what is said of the streams."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from pipeline.commands.summary import facts, report
from pipeline.errors import Unreachable
from pipeline.flow.job import Outcome
from pipeline.store import manifest as manifests
from pipeline.store.manifest import Epoch, Manifest
from pipeline.store.objects import open_store
from pipeline.wire.ids import stream_id


def _outcome(name: str, state: str, *, frames: int = 10, error: Unreachable | None = None) -> Outcome:
    return Outcome(stream=stream_id(name), state=state, frames=frames, epochs=1, seconds=2.0, error=error)


@pytest.mark.parametrize(
    ("states", "stopped", "code"),
    [
        (["completed"], 0, 0),
        (["completed"], 130, 0),
        (["stopped"], 130, 130),
        (["completed", "stopped"], 143, 143),
        (["failed", "stopped"], 130, 1),
        (["failed"], 0, 1),
    ],
)
def test_exit_code_follows_from_how_the_streams_ended(
    tmp_path: Path, states: list[str], stopped: int, code: int
) -> None:
    outcomes = {str(tmp_path / str(i)): _outcome(f"s{i}", state) for i, state in enumerate(states)}
    assert report(outcomes, fps={}, stopped=stopped) == code


def test_only_stream_of_which_nothing_came_raises_its_error(tmp_path: Path) -> None:
    error = Unreachable("refused")
    with pytest.raises(Unreachable):
        report({str(tmp_path): _outcome("a", "failed", frames=0, error=error)}, fps={}, stopped=0)


def test_each_failure_is_told_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = {
        str(tmp_path / "a"): _outcome("a", "failed", frames=0, error=Unreachable("refused", where="http://a")),
        str(tmp_path / "b"): _outcome("b", "completed"),
    }
    assert report(outcomes, fps={}, stopped=0) == 1
    told = capsys.readouterr()
    assert told.err == "a: http://a: refused\n"
    assert [line.split()[:3] for line in told.out.splitlines()] == [
        ["stream", "state", "frames"],
        ["a", "failed", "0"],
        ["b", "completed", "10"],
    ]


def test_facts_say_sizes_model_and_runtime(tmp_path: Path) -> None:
    """The output's size is the source's times enhance's scale: 320×180 by 2 is 640×360."""
    found = Manifest(
        id=stream_id("a"),
        source="synthetic://street",
        graph={"stages": [{"stage": "enhance", "config": {"scale": 2}}]},
        epochs=(Epoch(epoch=0, width=320, height=180, time_base=Fraction(1, 25)),),
        models={"enhance": "f-edsr-x2@1"},
        runtime="onnx",
    )
    manifests.save(open_store(str(tmp_path)), found)
    told = dict(facts(str(tmp_path), _outcome("a", "completed"), 25.0))
    assert told["size"] == "320×180 → 640×360"
    assert told["model"] == "f-edsr-x2@1 on onnx"
    assert told["fps"] == "25.0 over 2.0 s"
    assert "playlist" not in told
