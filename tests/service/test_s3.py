"""The service with everything it keeps in S3, on a real server that speaks S3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pipeline.store.objects import Store, open_store
from tests.s3_server import S3Server, s3_server
from tests.service.live_peer import LiveServer, transport_stream
from tests.service.serving import Served, serving

pytestmark = pytest.mark.timeout(240)
BUCKET = "limpid-site"
SECONDS = 100.0  # longer than the test looks


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[LiveServer]:
    server = LiveServer(transport_stream(tmp_path / "clip.ts", seconds=SECONDS), SECONDS)
    yield server
    server.close()


@pytest.fixture
def s3() -> Iterator[S3Server]:
    with s3_server(BUCKET) as server:
        yield server


def states(url: str, *, last: int = 0) -> Iterator[tuple[int, str]]:
    """Follow the states of streams behind an event, as they happen: numbers, and states."""
    number = 0
    query, headers = {"types": "stream.state_changed"}, {"Last-Event-ID": str(last)}
    with httpx2.stream("GET", f"{url}/v1/events", params=query, headers=headers, timeout=40) as answer:
        for line in answer.iter_lines():
            if line.startswith("id: "):
                number = int(line[4:])
            elif line.startswith("data: "):
                yield number, json.loads(line[6:])["data"]["state"]


def until(events: Iterator[tuple[int, str]], state: str) -> int:
    """Read on until a stream has a state; return that event's number."""
    return next(number for number, found in events if found == state)


def some(status: dict[str, Any]) -> bool:
    return bool(status["seq"] > 25)


def check_plays(service: Served, store: Store) -> str:
    """Check that what the API gives a player is what lies in the bucket; return the newest segment's name."""
    master = service.ask("GET", "/hls/gate/index.m3u8")[1].decode()
    (name,) = [line for line in master.splitlines() if line.endswith("main/index.m3u8")]
    playlist = service.ask("GET", f"/hls/gate/{name}")[1].decode()
    segment = [line for line in playlist.splitlines() if line.endswith(".m4s")][-1]
    status, data = service.ask("GET", f"/hls/gate/main/{segment}")
    assert status == 200 and b"moof" in data[:2000]
    assert data == store.get(f"streams/gate/hls/main/{segment}")
    return segment


def test_a_service_that_keeps_everything_in_s3(tmp_path: Path, camera: LiveServer, s3: S3Server) -> None:
    """A stream from its request to its picture, its events as they happen; and the next service takes it up."""
    store = open_store(f"s3://{BUCKET}/site")
    where = ("--store", store.url)
    body = {"id": "gate", "source": f"tcp://127.0.0.1:{camera.port}", "outputs": {"hls": {"segment_s": 1}}}
    with serving(tmp_path / "data", env=s3.env, arguments=where) as served:
        events = states(served.url)
        assert served.ask("POST", "/v1/streams", body)[0] == 201
        seen = until(events, "running")
        before = served.wait("gate", some)["frames"]
        segment = check_plays(served, store)
        rows = served.ask("GET", "/v1/streams/gate/frames?limit=5")[1]
        assert [row["seq"] for row in rows["items"]] == [0, 1, 2, 3, 4]
        assert served.ask("GET", "/v1/streams/gate/snapshot.jpg")[0] == 200
    with serving(tmp_path / "data", env=s3.env, arguments=where) as served:
        found = served.wait("gate", lambda s: s["epoch"] == 1 and s["frames"] > before and some(s))
        assert [gap["epoch"] for gap in found["gaps"]] == [1]
        assert until(states(served.url, last=seen), "running") > seen
        assert check_plays(served, store) > segment
        assert served.ask("DELETE", "/v1/streams/gate?data=true")[0] == 204
        assert until(states(served.url, last=seen), "deleted") > seen
    assert store.list("streams/") == [] and store.list("service/streams/") == []
    assert not (tmp_path / "data").exists()
