"""`limpid serve` with live streams: from a request to a sharper picture, and whatever dies on the way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.live_peer import LiveServer, transport_stream
from tests.service.serving import Served, check_whole, frames_of, serving

pytestmark = pytest.mark.timeout(240)
SECONDS = 150.0  # longer than any test looks: its end would be a gap
TICKS = 3600  # of 1/90 000 s a frame, at 25 a second


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return transport_stream(tmp_path_factory.mktemp("clip") / "clip.ts", seconds=SECONDS)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service") / "data"


@pytest.fixture(scope="module")
def service(store: Path) -> Iterator[Served]:
    with serving(store) as served:
        yield served


@pytest.fixture
def camera(clip: Path) -> Iterator[LiveServer]:
    server = LiveServer(clip, SECONDS)
    yield server
    server.close()


def body(name: str, camera: LiveServer, **more: Any) -> dict[str, Any]:
    return {"id": name, "source": f"tcp://127.0.0.1:{camera.port}", "outputs": {"hls": {"segment_s": 1}}} | more


def flows(status: dict[str, Any]) -> bool:
    """Whether pictures come out at the rate at which they come in, in time."""
    return status["fps_out"] > 20 and 0 < status["lag_s"]["p50"] < 1 and status["frames"] > 0


def begun_again(status: dict[str, Any]) -> bool:
    """Whether frames behind the first gap are durable: in the tables too, not only on their way."""
    return status["epoch"] == 1 and status["seq"] > 0


def test_a_stream_from_its_request_to_its_end(service: Served, store: Path, camera: LiveServer) -> None:
    asked = time.monotonic()
    status, made = service.ask("POST", "/v1/streams", body("one", camera, labels={"site": "a"}))
    assert (status, made["id"]) == (201, "one")
    segments = store / "streams" / "one" / "hls" / "main"
    service.wait("one", lambda _: any(segments.glob("*.m4s")))
    print(f"from POST to the first segment: {time.monotonic() - asked:.1f} s")
    assert service.ask("POST", "/v1/streams", body("one", camera, labels={"site": "a"}))[0] == 200
    assert service.ask("POST", "/v1/streams", body("one", camera))[0] == 409
    found = service.wait("one", flows)
    assert (found["width"], found["height"], found["epoch"]) == (128, 64, 0)
    assert found["model"] == "f-edsr-x2@2"
    assert [s["id"] for s in service.ask("GET", "/v1/streams?label=site:a")[1]["items"]] == ["one"]
    playlist = service.ask("GET", "/hls/one/main/index.m3u8")[1].decode()
    assert ".m4s" in playlist and "#EXT-X-ENDLIST" not in playlist
    rows = service.ask("GET", "/v1/streams/one/frames?limit=5")[1]
    assert [row["seq"] for row in rows["items"]] == [0, 1, 2, 3, 4]
    assert service.ask("PATCH", "/v1/streams/one", {"slo": {"max_lag_s": 3}})[1]["max_lag_s"] == 3
    assert b"limpid_" in service.ask("GET", "/metrics")[1]
    asked = time.monotonic()
    assert service.ask("DELETE", "/v1/streams/one")[0] == 204
    assert time.monotonic() - asked < 2
    assert service.ask("GET", "/v1/streams/one")[0] == 404
    assert check_whole(store / "streams" / "one", ticks_a_frame=TICKS) == 1
    events = service.ask("GET", "/v1/events?follow=false")[1].decode()
    assert events.count("stream.state_changed") >= 3


def test_a_source_that_goes_and_comes_back_costs_one_gap(
    service: Served, store: Path, camera: LiveServer, clip: Path
) -> None:
    service.ask("POST", "/v1/streams", body("gone", camera))
    service.wait("gone", flows)
    camera.close()
    service.wait("gone", lambda s: s["state"] == "reconnecting")
    back = LiveServer(clip, SECONDS, port=camera.port)
    try:
        found = service.wait("gone", lambda s: s["epoch"] == 1 and s["state"] in ("running", "degraded"))
        assert [gap["epoch"] for gap in found["gaps"]] == [1]
        service.wait("gone", begun_again)
        assert service.ask("DELETE", "/v1/streams/gone")[0] == 204
    finally:
        back.close()
    assert check_whole(store / "streams" / "gone", ticks_a_frame=TICKS) == 2


def test_a_slate_is_shown_while_a_source_is_away(service: Served, store: Path, camera: LiveServer, clip: Path) -> None:
    source = {"uri": f"tcp://127.0.0.1:{camera.port}", "slate": {"after_s": 1, "text": "Back soon"}}
    service.ask("POST", "/v1/streams", body("slate", camera, source=source))
    service.wait("slate", flows)
    camera.close()
    away = service.wait("slate", lambda s: begun_again(s) and s["fps_out"] > 7)
    assert away["state"] == "reconnecting" and [gap["slate"] for gap in away["gaps"]] == [True]
    back = LiveServer(clip, SECONDS, port=camera.port)
    try:
        found = service.wait("slate", lambda s: s["epoch"] == 2 and s["seq"] > 0 and flows(s))
        assert [gap["slate"] for gap in found["gaps"]] == [True, False]
        assert service.ask("DELETE", "/v1/streams/slate")[0] == 204
    finally:
        back.close()
    rows = frames_of(store / "streams" / "slate")
    shown = [row["pts"] for row in rows if row["epoch"] == 1]
    assert shown == [9000 * number for number in range(len(shown))]
    playlist = (store / "streams" / "slate" / "hls" / "main" / "index.m3u8").read_text()
    assert playlist.count("#EXT-X-DISCONTINUITY\n") == 2


@pytest.mark.parametrize("role", ["ray::Supervisor", "ray::RegistryActor", "ray::ServeReplica"])
def test_who_controls_dies_and_no_frame_is_lost(service: Served, store: Path, camera: LiveServer, role: str) -> None:
    """What reads the source lives on, and keeps what comes meanwhile."""
    name = role.removeprefix("ray::").lower()
    service.ask("POST", "/v1/streams", body(name, camera))
    before = service.wait(name, flows)["frames"]
    service.kill(role)
    found = service.wait(name, lambda s: s["frames"] >= before + 100 and flows(s), within_s=60)
    assert found["gaps"] == []
    assert service.ask("DELETE", f"/v1/streams/{name}")[0] == 204
    assert check_whole(store / "streams" / name, ticks_a_frame=TICKS) == 1


def test_whoever_works_dies_and_only_gaps_are_missing(service: Served, store: Path, camera: LiveServer) -> None:
    """All hosts at once: what reads the source is among them, so that a gap is due."""
    service.ask("POST", "/v1/streams", body("hosts", camera))
    service.wait("hosts", flows)
    service.kill("ray::StageHost")
    found = service.wait("hosts", lambda s: begun_again(s) and flows(s), within_s=60)
    assert [gap["epoch"] for gap in found["gaps"]] == [1]
    assert service.ask("DELETE", "/v1/streams/hosts")[0] == 204
    assert check_whole(store / "streams" / "hosts", ticks_a_frame=TICKS) == 2


def test_an_address_that_never_answers_is_given_up_at_once(service: Served) -> None:
    status, _ = service.ask("POST", "/v1/streams", {"id": "dead", "source": "tcp://127.0.0.2:9"})
    assert status == 201
    service.wait("dead", lambda s: s["state"] == "connecting" and s["reason"] != "")
    asked = time.monotonic()
    assert service.ask("DELETE", "/v1/streams/dead?data=true")[0] == 204
    assert time.monotonic() - asked < 2


def test_what_is_refused_says_why(service: Served) -> None:
    for source, status in (
        ("http://10.0.0.1/x.m3u8", 403),
        ("/etc/passwd", 403),
        ("srt://example.org:9000", 422),
        ("ftp://example.org/x", 403),
    ):
        found, problem = service.ask("POST", "/v1/streams", {"source": source})
        assert found == status, (source, problem)
        assert problem["detail"]


def test_a_restarted_service_takes_its_streams_up(tmp_path: Path, camera: LiveServer) -> None:
    store = tmp_path / "data"
    with serving(store) as served:
        served.ask("POST", "/v1/streams", body("again", camera))
        before = served.wait("again", flows)["frames"]
    with serving(store) as served:
        found = served.wait("again", lambda s: s["frames"] > before and begun_again(s) and flows(s), within_s=60)
        assert [gap["epoch"] for gap in found["gaps"]] == [1]
    assert check_whole(store / "streams" / "again", ticks_a_frame=TICKS) == 2
