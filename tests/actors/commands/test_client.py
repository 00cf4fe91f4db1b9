"""The client commands against a service over real sockets."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.commands import client as clients
from actors.http.app import make_app
from pipeline import cli
from pipeline.config import Settings
from pipeline.store.objects import Store, open_store
from pipeline.store.tokens import find_token, new_token
from pipeline.wire.status import Gap, StreamStatus
from tests.actors.http import results
from tests.actors.http.memory import MemoryService
from tests.actors.http.serving import served


@pytest.fixture
def service() -> MemoryService:
    return MemoryService()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def server(service: MemoryService, store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.delenv("LIMPID_TOKEN", raising=False)
    with served(make_app(service, store.url, Settings())) as url:
        monkeypatch.setenv("LIMPID_SERVER", url)
        yield url


Captured = pytest.CaptureFixture[str]


def test_submit_says_where_to_watch(server: str, service: MemoryService, capsys: Captured) -> None:
    words = ["rtsp://u:secret@e.org/1", "--id", "gate", "--label", "site=a", "--scale", "2", "--segment-s", "1"]
    assert cli.main(["submit", *words, "--max-lag-s", "2.5", "--mode", "live", "--priority", "8"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines() == ["gate: queued", f"gate: {server}/hls/gate/index.m3u8"]
    asked = service.requests["gate"]
    assert asked.labels == {"site": "a"}
    assert (asked.source.mode, asked.outputs.hls.segment_s, asked.slo.max_lag_s) == ("live", 1.0, 2.5)
    assert asked.priority == 8
    assert asked.source.uri == "rtsp://u:secret@e.org/1" and asked.source.slate is None


def test_submit_with_a_slate(server: str, service: MemoryService, capsys: Captured) -> None:
    assert cli.main(["submit", "rtsp://e.org/1", "--id", "plain", "--slate"]) == 0
    assert cli.main(["submit", "rtsp://e.org/1", "--id", "own", "--slate", "Back soon"]) == 0
    slates = [service.requests[name].source.slate for name in ("plain", "own")]
    assert [slate and (slate.after_s, slate.text) for slate in slates] == [(2.0, "No signal"), (2.0, "Back soon")]
    assert cli.main(["submit", "rtsp://e.org/1", "--slate", "é"]) == 1
    assert "slate.text" in capsys.readouterr().err


def test_submit_again_changes_nothing_another_request_is_refused(server: str, capsys: Captured) -> None:
    assert cli.main(["submit", "http://e.org/a", "--id", "gate"]) == 0
    assert cli.main(["submit", "http://e.org/a", "--id", "gate"]) == 0
    assert cli.main(["submit", "http://e.org/b", "--id", "gate"]) == 1
    assert "there is a stream 'gate' with another request" in capsys.readouterr().err


def test_dry_run_tells_figures(server: str, service: MemoryService, capsys: Captured) -> None:
    assert cli.main(["submit", "http://e.org/a", "--dry-run"]) == 0
    assert capsys.readouterr().out == "it fits: takes about 1 cores of 4 that are free\n"
    for number in range(4):
        cli.main(["submit", "http://e.org/a", "--id", f"s{number}"])
    assert cli.main(["submit", "http://e.org/a", "--dry-run"]) == 1
    assert capsys.readouterr().err == "limpid submit: it takes 1 cores, 0 are free\n"


def test_what_the_service_refuses_is_one_sentence(server: str, capsys: Captured) -> None:
    assert cli.main(["submit", "http://e.org/a", "--id", "Gate 3"]) == 1
    told = capsys.readouterr()
    assert told.out == "" and len(told.err.splitlines()) == 1
    assert told.err.startswith("limpid submit: body.id: ")


def test_follow_tells_each_state_until_the_end(
    server: str, service: MemoryService, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.commands.submit.AGAIN_S", 0.01)
    steps = iter(
        [
            {"state": "running", "frames": 3},
            {"state": "degraded", "reason": "bicubic", "frames": 9},
            {"state": "failed", "last_error": "the camera is gone", "reason": "", "frames": 9},
        ]
    )
    show = service.show

    async def step(stream: str) -> object:
        service.become(stream, **next(steps))
        return await show(stream)

    monkeypatch.setattr(service, "show", step)
    assert cli.main(["submit", "http://e.org/a", "--id", "gate", "--follow"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "gate: queued",
        "gate: running, 3 frames",
        "gate: degraded, 9 frames (bicubic)",
        "gate: failed, 9 frames (the camera is gone)",
    ]


def test_list_show_and_stop(server: str, service: MemoryService, capsys: Captured) -> None:
    for name, site in (("a", "x"), ("b", "y")):
        cli.main(["submit", "http://e.org/a", "--id", name, "--label", f"site={site}"])
    gaps = (Gap(epoch=1, reason="away", seconds=2, slate=True), Gap(epoch=2, reason="back", seconds=9))
    service.become("b", state="running", width=1280, height=720, frames=7, reason="[/red]\x1b[31m", gaps=gaps)
    capsys.readouterr()
    assert cli.main(["list", "--state", "running"]) == 0
    table = capsys.readouterr().out
    assert "1280×720" in table and "site=y" in table and "site=x" not in table
    assert cli.main(["list", "--label", "site=x", "--json"]) == 0
    assert [one["id"] for one in json.loads(capsys.readouterr().out)] == ["a"]
    assert cli.main(["show", "b"]) == 0
    shown = capsys.readouterr().out
    assert "running ([/red]�[31m)" in shown and "\x1b" not in shown
    assert "2.0 s before epoch 1, a slate: away" in shown and "9.0 s before epoch 2: back" in shown
    assert "1280×720" in next(line for line in shown.splitlines() if line.startswith("source size"))
    assert cli.main(["stop", "a", "b"]) == 0
    assert service.statuses == {}
    assert cli.main(["show", "b"]) == 1
    assert "there is no stream 'b'" in capsys.readouterr().err


def test_a_long_list_comes_whole(server: str, service: MemoryService, capsys: Captured) -> None:
    for number in range(1005):
        name = f"s{number:04}"
        service.statuses[name] = StreamStatus(id=name, source="http://e.org/a", state="running")
    assert cli.main(["list", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 1005


def test_events_are_printed(server: str, store: Store, capsys: Captured) -> None:
    cli.main(["submit", "http://e.org/a", "--id", "gate"])
    results.say(store, "gate", "queued", "running")
    capsys.readouterr()
    assert cli.main(["events", "gate", "--no-follow"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2023-11-14T22:13:20.000+00:00  gate  stream.state_changed  state=queued"
    assert cli.main(["events", "--no-follow", "--json", "--types", "stream.state_changed"]) == 0
    assert [json.loads(line)["data"]["state"] for line in capsys.readouterr().out.splitlines()] == ["queued", "running"]
    assert cli.main(["events", "nobody", "--no-follow"]) == 1
    assert cli.main(["events", "--types", "gab", "--no-follow"]) == 1
    assert "did you mean 'gap'?" in capsys.readouterr().err


def test_events_go_on_when_the_service_restarts(
    service: MemoryService, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service goes while a client follows, comes back on its port, and the client sees 1 … 4, each once."""
    monkeypatch.setattr(clients, "AGAIN_S", 0.05)
    app = make_app(service, store.url, Settings())
    results.say(store, "gate", "a", "b")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    seen: list[int] = []
    two, four = threading.Event(), threading.Event()

    def follow() -> None:
        for event in clients.Client(f"http://127.0.0.1:{port}").events("/v1/events", query={}, follow=True):
            seen.append(event.number)
            if len(seen) == 2:
                two.set()
            if len(seen) == 4:
                four.set()
                return

    with served(app, port=port):
        watcher = threading.Thread(target=follow, daemon=True)
        watcher.start()
        assert two.wait(20)
    results.say(store, "gate", "c", "d", first=3)
    with served(app, port=port):
        assert four.wait(20)
    watcher.join(5)
    assert seen == [1, 2, 3, 4]


def test_a_service_that_is_not_there_is_told(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIMPID_SERVER", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert cli.main(["list", "--server", address]) == 1
    err = capsys.readouterr().err
    assert address in err and "the service does not answer" in err and "limpid serve" in err


@pytest.mark.parametrize(
    "words",
    [
        ["list", "--server", "ftp://e.org"],
        ["list", "--server", "http://[::1"],
        ["list", "--server", "nowhere"],
        ["submit", "http://e.org/a", "--label", "site"],
        ["token", "new", "--scope", "read", "--name", "Not A Name"],
    ],
)
def test_wrong_use_is_2(words: list[str], capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMPID_SERVICE__STORE", str(tmp_path))
    assert cli.main(words) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_something_else_that_answers_is_told(capsys: Captured) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://e.org/\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        assert cli.main(["list", "--server", address]) == 1
        thread.join(5)
    assert "answered 302" in capsys.readouterr().err


def test_tokens_are_made_used_listed_and_revoked(
    service: MemoryService, store: Store, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "limpid.yaml"
    config.write_text(f"service: {{store: {store.url}, tokens: 'on'}}\n", encoding="utf-8")
    at = ["--config", str(config)]
    assert cli.main(["token", "new", "--scope", "read", "--name", "alice", *at]) == 0
    token = capsys.readouterr().out.strip()
    assert find_token(store, token) is not None
    assert cli.main(["token", "new", "--scope", "read", "--name", "alice", *at]) == 1
    with served(make_app(service, store.url, Settings.from_dict({"service": {"tokens": "on"}}))) as url:
        monkeypatch.setenv("LIMPID_SERVER", url)
        monkeypatch.delenv("LIMPID_TOKEN", raising=False)
        assert cli.main(["list"]) == 1
        assert "send a token" in capsys.readouterr().err
        monkeypatch.setenv("LIMPID_TOKEN", token)
        assert cli.main(["list"]) == 0
        assert cli.main(["stop", "gate"]) == 1
        assert "needs a token with scope write" in capsys.readouterr().err
        assert cli.main(["token", "list", "--json", *at]) == 0
        listed = capsys.readouterr().out
        assert [one["name"] for one in json.loads(listed)] == ["alice"]
        assert token.partition(".")[2] not in listed
        assert cli.main(["token", "revoke", "alice", *at]) == 0
        assert cli.main(["list"]) == 1
    assert cli.main(["token", "revoke", "alice", *at]) == 1


def test_a_token_that_no_header_can_carry_is_wrong_use(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert new_token(store, "a", ["read"], now_s=0.0).isascii()
    monkeypatch.setenv("LIMPID_TOKEN", "a\r\nX: y")
    assert cli.main(["list"]) == 2
