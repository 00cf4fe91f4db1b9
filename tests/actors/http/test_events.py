"""Server-Sent Events: the log's events, each once, whoever comes back when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, cast

import httpx2
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from actors.http import events
from actors.http.tail import Tail
from pipeline.errors import StorageError
from pipeline.store.objects import Store
from pipeline.store.servicelog import ServiceLog
from tests.actors.http import results
from tests.actors.http.serving import served

STATES = ("queued", "connecting", "running")


@pytest.fixture
def gate(client: TestClient, store: Store) -> str:
    client.post("/v1/streams", json={"id": "gate", "source": "http://e.org/a"})
    client.post("/v1/streams", json={"id": "door", "source": "http://e.org/b"})
    results.say(store, "gate", *STATES)
    results.say(store, "door", "queued")
    return "/v1/streams/gate"


def _parse(text: str) -> list[tuple[int, dict[str, Any]]]:
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append((int(fields["id"]), json.loads(fields["data"])))
    return found


def test_what_there_is_comes_as_cloud_events(client: TestClient, gate: str) -> None:
    answer = client.get(f"{gate}/events", params={"follow": "false"})
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    found = _parse(answer.text)
    assert [event["data"]["state"] for _, event in found] == list(STATES)
    number, event = found[0]
    assert number == 1
    assert event == {
        "specversion": "1.0",
        "id": "gate-0--1-stream.state_changed-1",
        "source": "/v1/streams/gate",
        "type": "stream.state_changed",
        "time": "2023-11-14T22:13:20.000+00:00",
        "datacontenttype": "application/json",
        "stream": "gate",
        "epoch": 0,
        "seq": -1,
        "data": {"state": "queued"},
    }


def test_all_streams_share_one_order(client: TestClient, gate: str) -> None:
    found = _parse(client.get("/v1/events", params={"follow": "false"}).text)
    assert [(number, event["stream"]) for number, event in found] == [
        (1, "gate"),
        (2, "gate"),
        (3, "gate"),
        (4, "door"),
    ]


def test_types_choose(client: TestClient, gate: str) -> None:
    params = {"follow": "false", "types": "gap, stream.state_changed"}
    assert len(_parse(client.get("/v1/events", params=params).text)) == 4
    assert _parse(client.get("/v1/events", params={"follow": "false", "types": "gap"}).text) == []


def test_an_unknown_type_names_the_nearest(client: TestClient) -> None:
    answer = client.get("/v1/events", params={"types": "gab"})
    assert answer.status_code == 422
    assert "did you mean 'gap'?" in answer.json()["detail"]


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "٣"])
def test_a_wrong_last_event_id_is_told(last: str, client: TestClient) -> None:
    answer = client.get("/v1/events", headers={"Last-Event-ID": last.encode()})
    assert answer.status_code == 422


@pytest.mark.parametrize("last", range(5))
def test_who_comes_back_gets_what_follows(last: int, client: TestClient, gate: str) -> None:
    headers = {"Last-Event-ID": str(last)}
    found = _parse(client.get("/v1/events", params={"follow": "false"}, headers=headers).text)
    assert [number for number, _ in found] == list(range(last + 1, 5))


def test_no_secret_is_told(client: TestClient, store: Store) -> None:
    client.post("/v1/streams", json={"id": "gate", "source": "http://e.org/a"})
    results.say(store, "gate", "rtsp://u:secret@e.org")
    text = client.get("/v1/events", params={"follow": "false"}).text
    assert "rtsp://***@e.org" in text and "secret" not in text


def test_more_than_a_batch_comes_whole(
    client: TestClient, gate: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_BATCH", 3)
    results.say(store, "gate", *[f"s{n}" for n in range(7)], first=4)
    found = _parse(client.get("/v1/events", params={"follow": "false"}).text)
    assert [number for number, _ in found] == list(range(1, 12))


def _follow(lines: Iterator[str], count: int) -> list[tuple[int, str]]:
    """Read until `count` events are there."""
    found: list[tuple[int, str]] = []
    number = 0
    for line in lines:
        if line.startswith("id: "):
            number = int(line[4:])
        elif line.startswith("data: "):
            found.append((number, json.loads(line[6:])["data"]["state"]))
            if len(found) == count:
                return found
    raise AssertionError(f"the answer ended after {found}")


def test_followers_get_each_event_once_over_broken_connections(app: FastAPI, gate: str, store: Store) -> None:
    """A client that is cut off three times, while events come, sees 1 … 12 without hole or repetition."""
    seen: list[int] = []
    states = iter(f"s{n}" for n in range(100))
    written = 4
    with served(app) as url, httpx2.Client(base_url=url, timeout=20) as client:
        while len(seen) < 12:
            headers = {"Last-Event-ID": str(seen[-1])} if seen else {}
            with client.stream("GET", "/v1/events", headers=headers) as answer:
                lines = answer.iter_lines()
                assert next(lines) == "retry: 1000"
                if written > len(seen):
                    seen += [number for number, _ in _follow(lines, written - len(seen))]
                results.say(store, "gate", next(states), next(states), first=written)
                written += 2
                seen += [number for number, _ in _follow(lines, 1)]  # cut off before the second one is read
    assert seen == list(range(1, len(seen) + 1))


def test_a_quiet_connection_has_heartbeats(
    app: FastAPI, gate: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.5)
    headers = {"Last-Event-ID": "4"}
    with served(app) as url, httpx2.stream("GET", f"{url}{gate}/events", headers=headers, timeout=20) as answer:
        lines = answer.iter_lines()
        assert [next(lines) for _ in range(4)] == ["retry: 1000", "", ":", ""]
        results.say(store, "gate", "degraded", first=4)
        assert _follow(lines, 1) == [(5, "degraded")]


class Counted:
    """A log of which only the number of the last event is asked: it rises to `last` at the look `at`."""

    def __init__(self, *, at: int, last: int, broken: int = 0) -> None:
        self.looks, self._at, self._last, self._broken = 0, at, last, broken

    def last(self) -> int:
        self.looks += 1
        if self.looks <= self._broken:
            raise StorageError("S3 does not answer")
        return self._last if self.looks >= self._at else 0


def test_all_who_wait_share_one_look() -> None:
    log = Counted(at=4, last=9, broken=2)
    tail = Tail(cast(ServiceLog, log), every_s=0.01)

    async def wait() -> list[int]:
        return await asyncio.gather(*[tail.beyond(number, 20.0) for number in (0, 0, 3, 8, 5)])

    assert asyncio.run(wait()) == [9] * 5
    assert log.looks == 4


def test_who_waits_in_vain_is_told_so_and_one_who_is_behind_at_once() -> None:
    log = Counted(at=1, last=9)
    tail = Tail(cast(ServiceLog, log), every_s=0.01)

    async def wait() -> list[int]:
        return [await tail.beyond(9, 0.1), await tail.beyond(8, 20.0), await tail.beyond(0, 0.0)]

    assert asyncio.run(wait()) == [9, 9, 9]


def test_five_followers_read_the_store_as_one_does(
    app: FastAPI, gate: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of blocks too, behind which the log has moved on; each hears what it asked for, once."""
    monkeypatch.setattr(ServiceLog, "BLOCK_EVENTS", 5)
    read, asked = ServiceLog.read, []

    def watched(self: ServiceLog, after: int, *, fresh: bool = True, **wanted: Any) -> Any:
        asked.append(fresh)
        return read(self, after, fresh=fresh, **wanted)

    monkeypatch.setattr(ServiceLog, "read", watched)
    paths = ["/v1/events", "/v1/events?types=gap,stream.state_changed", f"{gate}/events", "/v1/streams/door/events"]
    wanted = [14, 14, 13, 1, 10]
    with served(app) as url, httpx2.Client(base_url=url, timeout=20) as client, ExitStack() as open_:
        answers = [open_.enter_context(client.stream("GET", path)) for path in paths]
        answers.append(open_.enter_context(client.stream("GET", "/v1/events", headers={"Last-Event-ID": "4"})))
        lines = [answer.iter_lines() for answer in answers]
        assert [next(each) for each in lines] == ["retry: 1000"] * 5
        for first in range(4, 14, 2):
            results.say(store, "gate", f"s{first}", f"s{first + 1}", first=first)
        found = [[number for number, _ in _follow(each, count)] for each, count in zip(lines, wanted, strict=True)]
    everything = list(range(1, 15))
    assert found == [everything, everything, [1, 2, 3, *range(5, 15)], [4], list(range(5, 15))]
    assert asked.count(True) == 5  # each once, before its answer began


def test_a_store_that_fails_for_a_while_loses_nothing(
    app: FastAPI, gate: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, failures = ServiceLog.read, 0

    def failing(self: ServiceLog, after: int, **wanted: Any) -> Any:
        nonlocal failures
        if after >= 4 and failures < 2:
            failures += 1
            raise StorageError("S3 does not answer")
        return read(self, after, **wanted)

    monkeypatch.setattr(ServiceLog, "read", failing)
    with served(app) as url, httpx2.stream("GET", f"{url}/v1/events", timeout=20) as answer:
        lines = answer.iter_lines()
        _follow(lines, 4)
        results.say(store, "gate", "degraded", first=4)
        assert _follow(lines, 1) == [(5, "degraded")]
    assert failures == 2
