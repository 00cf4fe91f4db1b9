"""`limpid`: finding commands, exit codes, one sentence an error, and what is not imported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.errors import ConfigError, GraphError, Unreachable


def _raises(error: BaseException) -> cli.Command:
    def command(argv: Sequence[str]) -> int:
        raise error

    globals()["_command"] = command
    return cli.Command(f"{__name__}:_command", "fails")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("no such key", where="f.yaml", hint="remove it"), 2),
        (GraphError("a cycle"), 2),
        (Unreachable("refused", where="http://a"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_code_says_whose_fault_it_was(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli.COMMANDS, "fail", _raises(error))
    assert cli.main(["fail"]) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("limpid fail: ")
    assert len(told.err.splitlines()) == 1


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.COMMANDS, "fail", _raises(ConfigError("no such key")))
    with pytest.raises(ConfigError):
        cli.main(["fail", "--debug"])


def test_bug_of_ours_is_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.COMMANDS, "fail", _raises(AssertionError("bug")))
    with pytest.raises(AssertionError):
        cli.main(["fail"])


def test_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rum"]) == 2
    assert "there is no command 'rum', did you mean 'run'?" in capsys.readouterr().err


def test_help_lists_every_command_on_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [name for name in cli.COMMANDS if not any(line.split()[:1] == [name] for line in lines)] == []


def test_no_command_is_wrong_use() -> None:
    assert cli.main([]) == 2


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_can_be_found_and_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: object = cli.main([name, "--help"])
    except SystemExit as ended:  # argparse's way
        code = ended.code
    assert code == 0
    assert f"limpid {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        (["--help"], ("numpy", "pydantic", "torch", "ray", "av")),
        (["probe", "--help"], ("torch", "ray")),
        (["graph", "--help"], ("ray",)),
        (["run", "--help"], ("ray",)),
    ],
)
def test_command_imports_only_what_it_needs(words: list[str], absent: tuple[str, ...]) -> None:
    code = (
        "import sys; from pipeline.cli import main\n"
        f"try:\n    main({words})\nexcept SystemExit:\n    pass\n"
        f"print('found:', *[name for name in {absent} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.splitlines()[-1] == "found:"
