from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from pipeline.store.objects import Store
from tests.actors.http.memory import MemoryService

GATE = {"id": "gate-3", "labels": {"site": "a"}, "source": {"uri": "rtsp://cam:secret@example.org/1", "mode": "live"}}


def test_a_stream_is_created_once(client: TestClient) -> None:
    first = client.post("/v1/streams", json=GATE)
    assert (first.status_code, first.headers["Location"]) == (201, "/v1/streams/gate-3")
    again = client.post("/v1/streams", json=GATE)
    assert again.status_code == 200 and "Location" not in again.headers
    assert again.json() == first.json() == client.get("/v1/streams/gate-3").json()


def test_an_id_with_another_request_is_a_conflict(client: TestClient) -> None:
    client.post("/v1/streams", json=GATE)
    other = client.post("/v1/streams", json={**GATE, "priority": 9})
    assert other.status_code == 409
    assert other.json()["type"] == "/problems/conflict"
    assert "gate-3" in other.json()["detail"]


def test_a_source_may_be_a_plain_string_and_the_id_be_left_out(client: TestClient) -> None:
    made = client.post("/v1/streams", json={"source": "http://example.org/a.mp4"})
    assert made.status_code == 201
    assert made.headers["Location"] == f"/v1/streams/{made.json()['id']}"


def test_no_answer_holds_a_secret(client: TestClient) -> None:
    answers = [client.post("/v1/streams", json=GATE), client.get("/v1/streams/gate-3"), client.get("/v1/streams")]
    assert all("secret" not in answer.text for answer in answers)
    assert client.get("/v1/streams/gate-3").json()["source"] == "rtsp://***@example.org/1"


def test_a_secret_that_the_service_lets_through_is_hidden_at_the_border(
    client: TestClient, service: MemoryService
) -> None:
    client.post("/v1/streams", json=GATE)
    service.become("gate-3", last_error="rtsp://cam:secret@example.org/1: gone", reason="http://a/?token=secret")
    assert "secret" not in client.get("/v1/streams/gate-3").text


def test_links_lead_to_the_streams_routes(client: TestClient) -> None:
    links = client.post("/v1/streams", json=GATE).json()["links"]
    assert links["self"] == "/v1/streams/gate-3"
    assert links["hls"] == "/hls/gate-3/index.m3u8"
    assert client.get(links["frames"]).status_code == 200


def test_a_dry_run_tells_whether_it_fits_and_begins_nothing(client: TestClient, service: MemoryService) -> None:
    fits = client.post("/v1/streams?dry_run=true", json=GATE)
    assert fits.status_code == 200
    assert fits.json() == {"fits": True, "wanted_cpus": 1.0, "room_cpus": 4.0, "reason": "", "retry_after_s": 7.5}
    assert service.requests == {}


def test_what_does_not_fit_is_refused_with_figures_and_when_to_ask_again(client: TestClient) -> None:
    for number in range(4):
        assert client.post("/v1/streams", json={"id": f"s{number}", "source": "http://e.org/a"}).status_code == 201
    for query in ("", "?dry_run=true"):
        refused = client.post(f"/v1/streams{query}", json=GATE)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "8")  # 7.5 s, rounded up
        assert refused.json()["type"] == "/problems/no-capacity"
        assert "1 cores, 0 are free" in refused.json()["detail"]
    assert refused.json()["room_cpus"] == 0.0


def test_an_address_that_is_not_allowed_is_403(client: TestClient) -> None:
    refused = client.post("/v1/streams", json={"source": "rtsp://user:secret@inner.example.org/"})
    assert refused.status_code == 403
    assert refused.json()["type"] == "/problems/refused"
    assert "secret" not in refused.text


def test_a_list_has_pages(client: TestClient) -> None:
    for name in ("c", "a", "b"):
        client.post("/v1/streams", json={"id": name, "source": "http://e.org/a"})
    first = client.get("/v1/streams", params={"limit": 2}).json()
    assert [one["id"] for one in first["items"]] == ["a", "b"]
    second = client.get("/v1/streams", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [one["id"] for one in second["items"]] == ["c"]
    assert second["next_cursor"] is None


def test_a_page_goes_on_where_it_was_although_streams_came_and_went(client: TestClient) -> None:
    for name in ("a", "b", "d"):
        client.post("/v1/streams", json={"id": name, "source": "http://e.org/a"})
    first = client.get("/v1/streams", params={"limit": 2}).json()
    client.delete("/v1/streams/b")
    client.post("/v1/streams", json={"id": "c", "source": "http://e.org/a"})
    second = client.get("/v1/streams", params={"cursor": first["next_cursor"]}).json()
    assert [one["id"] for one in second["items"]] == ["c", "d"]


def test_a_list_is_filtered_by_labels_and_state(client: TestClient, service: MemoryService) -> None:
    for name, site, kind in (("a", "x", "in"), ("b", "x", "out"), ("c", "y", "in")):
        body = {"id": name, "labels": {"site": site, "kind": kind}, "source": "http://e.org/a"}
        client.post("/v1/streams", json=body)
    service.become("b", state="running")
    service.become("c", state="failed")

    def ids(**params: object) -> list[str]:
        return [one["id"] for one in client.get("/v1/streams", params=params).json()["items"]]

    assert ids(label="site:x") == ["a", "b"]
    assert ids(label=["site:x", "kind:in"]) == ["a"]
    assert ids(state=["running", "failed"]) == ["b", "c"]
    assert ids(label="site:z") == []


@pytest.mark.parametrize(
    "params", [{"cursor": "%%"}, {"cursor": "ÿ"}, {"label": "site"}, {"state": "asleep"}, {"limit": 0}]
)
def test_wrong_filters_are_told(client: TestClient, params: dict[str, str]) -> None:
    answer = client.get("/v1/streams", params=params)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"].startswith(f"query.{next(iter(params))}")


def test_a_change_is_merged(client: TestClient) -> None:
    client.post("/v1/streams", json=GATE)
    changed = client.patch(
        "/v1/streams/gate-3",
        content='{"labels": {"site": null, "kind": "in"}, "slo": {"max_lag_s": 2.5}}',
        headers={"Content-Type": "application/merge-patch+json"},
    )
    assert changed.status_code == 200
    assert changed.json()["labels"] == {"kind": "in"}
    assert (changed.json()["max_lag_s"], changed.json()["priority"]) == (2.5, 5)


def test_what_cannot_be_changed_is_told(client: TestClient) -> None:
    client.post("/v1/streams", json=GATE)
    answer = client.patch("/v1/streams/gate-3", json={"source": "http://e.org/b"})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"path": "body.source", "message": "Extra inputs are not permitted"}]


def test_a_deleted_stream_is_gone(client: TestClient, store: Store) -> None:
    client.post("/v1/streams", json=GATE)
    gone = client.delete("/v1/streams/gate-3")
    assert (gone.status_code, gone.content) == (204, b"")
    for method, path in (("GET", ""), ("DELETE", ""), ("PATCH", ""), ("GET", "/frames"), ("GET", "/events")):
        answer = client.request(method, f"/v1/streams/gate-3{path}", **({"json": {}} if method == "PATCH" else {}))
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found"), path


def test_stages_are_listed_and_changed(client: TestClient) -> None:
    names = [stage["name"] for stage in client.get("/v1/stages").json()["items"]]
    assert names == ["enhance", "bicubic"]
    changed = client.patch("/v1/stages/enhance", json={"min": 2})
    assert (changed.json()["min"], changed.json()["max"]) == (2, 4)
    assert client.patch("/v1/stages/enhance", json={"min": 3, "max": 2}).status_code == 422
    assert client.patch("/v1/stages/enhance", json={"max": 1}).status_code == 422
    assert client.patch("/v1/stages/fly", json={"max": 1}).status_code == 404


def test_capacity_is_told(client: TestClient) -> None:
    client.post("/v1/streams", json=GATE)
    assert client.get("/v1/capacity").json() == {
        "cpus": 4.0,
        "gpus": 0.0,
        "used_cpus": 1.0,
        "streams": 1,
        "room_cpus": 3.0,
    }
