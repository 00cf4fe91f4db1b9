"""Rows as JSON and Arrow, page by page; pictures."""

from __future__ import annotations

import io

import av
import numpy as np
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from pipeline.store.objects import Store
from pipeline.store.parquet import SCHEMAS, Part
from tests.actors.http import results

ARROW = "application/vnd.apache.arrow.stream"


@pytest.fixture
def gate(client: TestClient, store: Store) -> str:
    """25 frames at 10 Hz in epoch 0, in parts that overlap as those of a run that was stopped; 5 more in epoch 1."""
    client.post("/v1/streams", json={"id": "gate", "source": "http://e.org/a"})
    for table in ("frames", "quality"):
        for part in (Part(0, 0, 10), Part(0, 10, 13), Part(0, 10, 20), Part(0, 20, 25)):
            results.write_part(store, "gate", table, part)
        results.write_part(store, "gate", table, Part(1, 0, 5), start_s=2.5)
    return "/v1/streams/gate"


def test_rows_are_json(client: TestClient, gate: str) -> None:
    answer = client.get(f"{gate}/frames", params={"limit": 1})
    assert answer.headers["Vary"] == "Accept"
    (row,) = answer.json()["items"]
    assert list(row) == SCHEMAS["frames"].names
    assert (row["stream_id"], row["epoch"], row["seq"], row["t_s"]) == ("gate", 0, 0, 0.0)
    assert row["captured_at"] == "2023-11-14T22:13:20.000000Z"


def test_what_json_has_no_number_for_is_null(client: TestClient, gate: str) -> None:
    row = client.get(f"{gate}/quality", params={"limit": 1}).json()["items"][0]
    assert row["noise"] is None
    assert row["flags"] == ["frozen"]


def test_pages_give_each_frame_once_in_the_order_of_the_stream(client: TestClient, gate: str) -> None:
    seen: list[tuple[int, int]] = []
    cursor: str | None = None
    while True:
        page = client.get(f"{gate}/frames", params={"limit": 7, **({"cursor": cursor} if cursor else {})}).json()
        assert 0 < len(page["items"]) <= 7
        seen += [(row["epoch"], row["seq"]) for row in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [(0, n) for n in range(25)] + [(1, n) for n in range(5)]


def test_the_link_leads_to_the_next_page(client: TestClient, gate: str) -> None:
    first = client.get(f"{gate}/frames", params={"limit": 12, "from_s": 1.0, "to_s": 2.7})
    assert [row["seq"] for row in first.json()["items"]] == list(range(10, 22))
    second = client.get(first.links["next"]["url"])
    assert [(row["epoch"], row["seq"]) for row in second.json()["items"]] == [(0, 22), (0, 23), (0, 24), (1, 0), (1, 1)]
    assert "next" not in second.links


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"from_s": 0.95, "to_s": 1.25}, [(0, 10), (0, 11), (0, 12)]),
        ({"from_s": 2.4}, [(0, 24), *((1, n) for n in range(5))]),
        ({"from_s": 2.6, "to_s": 2.75}, [(1, 1), (1, 2)]),
        ({"to_s": 0.2}, [(0, 0), (0, 1)]),
        ({"from_s": 99}, []),
        ({"to_s": 0}, []),
        ({"from_s": 2, "to_s": 1}, []),
    ],
)
def test_bounds_are_seconds_from_the_start_of_the_stream(
    bounds: dict[str, float], expected: list[tuple[int, int]], client: TestClient, gate: str
) -> None:
    items = client.get(f"{gate}/frames", params=bounds).json()["items"]
    assert [(row["epoch"], row["seq"]) for row in items] == expected


def test_rows_are_an_arrow_stream_for_who_accepts_it(client: TestClient, gate: str) -> None:
    answer = client.get(f"{gate}/frames", params={"limit": 12}, headers={"Accept": ARROW})
    assert answer.headers["Content-Type"] == ARROW
    table = pa.ipc.open_stream(answer.content).read_all()
    assert table.schema == SCHEMAS["frames"]
    assert table["seq"].to_pylist() == list(range(12))
    rest = pa.ipc.open_stream(client.get(answer.links["next"]["url"], headers={"Accept": ARROW}).content).read_all()
    assert rest.num_rows == 12
    assert rest["seq"][0].as_py() == 12


def test_a_stream_without_rows_has_none(client: TestClient) -> None:
    client.post("/v1/streams", json={"id": "fresh", "source": "http://e.org/a"})
    assert client.get("/v1/streams/fresh/frames").json() == {"items": [], "next_cursor": None}
    answer = client.get("/v1/streams/fresh/quality", headers={"Accept": ARROW})
    assert pa.ipc.open_stream(answer.content).read_all().num_rows == 0


@pytest.mark.parametrize("path", ["frames", "quality", "snapshot.jpg", "events"])
def test_an_unknown_stream_is_404(path: str, client: TestClient) -> None:
    answer = client.get(f"/v1/streams/nobody/{path}")
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")


@pytest.mark.parametrize("cursor", ["x", "1", "-1-2", "1-2-3", "9999999999-1", "٣-١"])
def test_a_wrong_cursor_is_told(cursor: str, client: TestClient, gate: str) -> None:
    answer = client.get(f"{gate}/frames", params={"cursor": cursor})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == "query.cursor"


def test_a_snapshot_is_the_newest_segments_first_frame(client: TestClient, store: Store) -> None:
    client.post("/v1/streams", json={"id": "gate", "source": "http://e.org/a"})
    none = client.get("/v1/streams/gate/snapshot.jpg")
    assert none.status_code == 404
    results.write_hls(store, "gate")  # 25 frames at 10 Hz: segments of frames 0-9, 10-19, 20-24
    newest = client.get("/v1/streams/gate/snapshot.jpg")
    assert newest.headers["Content-Type"] == "image/jpeg"
    same = client.get("/v1/streams/gate/snapshot.jpg", params={"t_s": 2.0})
    assert newest.content == same.content
    assert _picture(newest.content).shape == (48, 64, 3)


def test_a_snapshot_at_a_time_is_the_frame_that_is_shown_then(client: TestClient, store: Store) -> None:
    """Chroma of frame i is 128 + i mod 16 (made.frames): frame 13 is shown from 1.3 s to 1.4 s.

    A JPEG's chroma has the full range: c there is 128 + (c − 128) · 255/224.
    """
    client.post("/v1/streams", json={"id": "gate", "source": "http://e.org/a"})
    results.write_hls(store, "gate")

    def chroma(t_s: float) -> float:
        data = client.get("/v1/streams/gate/snapshot.jpg", params={"t_s": t_s}).content
        with av.open(io.BytesIO(data), format="jpeg_pipe") as source:
            plane = next(source.decode(video=0)).planes[1]
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        return float(rows[:, : plane.width].mean())

    shown = {0.0: 0, 0.05: 0, 1.35: 13, 1.55: 15, 2.0: 4, 99.0: 8}
    for t_s, i in shown.items():
        assert abs(chroma(t_s) - (128 + i * 255 / 224)) < 1.5, t_s


def _picture(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with av.open(io.BytesIO(data), format="jpeg_pipe") as source:
        return next(source.decode(video=0)).to_ndarray(format="rgb24")  # type: ignore[return-value]
