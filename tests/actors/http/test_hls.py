"""Media for players: ranges, CORS, caching, signed links, and no way out of a stream's hls folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from actors.http import links
from pipeline.store.objects import LocalStore, Store
from pipeline.store.tokens import link_key
from tests.actors.http import results
from tests.actors.http.conftest import local_client


@pytest.fixture
def written(store: Store) -> Store:
    results.write_hls(store, "gate")
    return store


@pytest.fixture
def viewer(guarded: FastAPI, written: Store) -> Iterator[TestClient]:
    with local_client(guarded) as made:
        yield made


def _segment(client: TestClient) -> str:
    playlist = client.get("/hls/gate/main/index.m3u8").text
    return "/hls/gate/main/" + next(line for line in playlist.splitlines() if line.endswith(".m4s"))


def test_playlists_are_asked_for_again_segments_never(client: TestClient, written: Store) -> None:
    for name in ("index.m3u8", "main/index.m3u8"):
        playlist = client.get(f"/hls/gate/{name}")
        assert playlist.headers["Content-Type"] == "application/vnd.apple.mpegurl"
        assert playlist.headers["Cache-Control"] == "no-cache"
        again = client.get(f"/hls/gate/{name}", headers={"If-None-Match": playlist.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
    segment = client.get(_segment(client))
    assert segment.headers["Content-Type"] == "video/iso.segment"
    assert "immutable" in segment.headers["Cache-Control"]


def test_pages_of_other_origins_may_play(client: TestClient, written: Store) -> None:
    for answer in (client.get("/hls/gate/index.m3u8"), client.get(_segment(client), headers={"Range": "bytes=0-3"})):
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
    asked = client.options(
        "/hls/gate/index.m3u8", headers={"Origin": "https://e.org", "Access-Control-Request-Method": "GET"}
    )
    assert asked.status_code == 204
    assert "Authorization" in asked.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Origin" not in client.get("/v1/streams").headers


@pytest.mark.parametrize(
    ("asked", "first", "stop"),
    [("bytes=0-0", 0, 1), ("bytes=10-19", 10, 20), ("bytes=100-", 100, None), ("bytes=-5", -5, None)],
)
def test_ranges(asked: str, first: int, stop: int | None, client: TestClient, written: Store) -> None:
    url = _segment(client)
    whole = client.get(url).content
    part = client.get(url, headers={"Range": asked})
    assert part.status_code == 206
    assert part.content == whole[first:stop]
    begin = first % len(whole)
    assert part.headers["Content-Range"] == f"bytes {begin}-{begin + len(part.content) - 1}/{len(whole)}"


@pytest.mark.parametrize("asked", ["bytes=0-", "bytes=5-2", "bytes=0-1,4-5", "bytes=-", "frames=0-1", "bytes=a-b"])
def test_what_is_no_single_range_gives_all(asked: str, client: TestClient, written: Store) -> None:
    url = _segment(client)
    answer = client.get(url, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, client.get(url).content)


@pytest.mark.parametrize("asked", ["bytes=999999999-", "bytes=-0"])
def test_a_range_behind_the_end_is_416(asked: str, client: TestClient, written: Store) -> None:
    url = _segment(client)
    answer = client.get(url, headers={"Range": asked})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(client.get(url).content)}"


def test_head_tells_the_length_alone(client: TestClient, written: Store) -> None:
    url = _segment(client)
    head = client.head(url)
    assert head.status_code == 200
    assert int(head.headers["Content-Length"]) == len(client.get(url).content)


@pytest.mark.parametrize(
    "path",
    [
        "../manifest.json",
        "..%2fmanifest.json",
        "%2e%2e/manifest.json",
        "main/../../manifest.json",
        "main/..%2f..%2f..%2f..%2fservice/link-key",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "main//index.m3u8",
        "main\\..\\index.m3u8",
        "index.m3u8%00",
        "index.m3u8%0a",
        ".tmp-1-abc",
        "main/.tmp-1-abc",
        "manifest.json",
        "",
    ],
)
def test_no_path_leads_elsewhere(path: str, client: TestClient, written: Store) -> None:
    written.put("streams/gate/manifest.json", b"{}")
    answer = client.get(f"/hls/gate/{path}")
    assert answer.status_code in (404, 422)
    assert answer.headers["Content-Type"] == "application/problem+json"


@given(path=st.text(alphabet=st.sampled_from("./\\%2eabindexm3u80\n\0-~"), max_size=30))
def test_only_names_of_ours_reach_the_store(path: str) -> None:
    from actors.http.hls import _NAME

    if _NAME.fullmatch(path):
        assert not path.startswith("/") and ".." not in path and path.count("/") <= 1


def test_a_stream_id_leads_nowhere_else(client: TestClient, written: Store) -> None:
    for stream in ("..", "%2e%2e", "..%2fstreams%2fgate", "GATE"):
        assert client.get(f"/hls/{stream}/index.m3u8").status_code in (404, 422)


def test_media_need_a_link_or_a_token_where_tokens_are_on(
    viewer: TestClient, token: Callable[..., dict[str, str]]
) -> None:
    assert viewer.get("/hls/gate/index.m3u8").status_code == 401
    assert viewer.get("/hls/gate/index.m3u8", headers=token("read")).status_code == 200
    assert viewer.get("/hls/gate/index.m3u8", headers=token("models")).status_code == 403


def test_a_link_opens_every_file_of_its_stream_and_nothing_else(
    viewer: TestClient, written: Store, token: Callable[..., dict[str, str]]
) -> None:
    viewer.post("/v1/streams", json={"id": "gate", "source": "http://e.org/a"}, headers=token("write"))
    given_links = viewer.get("/v1/streams/gate", headers=token("read")).json()["links"]
    seen = _play(viewer, given_links["hls"])
    folder = Path(written.part("streams/gate/hls").url)
    assert seen == {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert viewer.get(given_links["snapshot"]).status_code == 200
    sig = given_links["hls"].partition("sig=")[2]
    results.write_hls(written, "other")
    assert viewer.get(f"/hls/other/index.m3u8?sig={sig}").status_code == 401
    assert viewer.get(f"/v1/streams/gate/frames?sig={sig}").status_code == 401
    assert viewer.get(f"/v1/streams/gate?sig={sig}").status_code == 401


def _play(viewer: TestClient, url: str) -> set[str]:
    """Follow every address of a playlist as a player does; return the files' names."""
    answer = viewer.get(url)
    assert answer.status_code == 200, url
    path = url.partition("?")[0]
    seen = {path.removeprefix("/hls/gate/")}
    if path.endswith(".m3u8"):
        base = path.rpartition("/")[0]
        addresses = [line for line in answer.text.splitlines() if not line.startswith("#")]
        addresses += re.findall(r'URI="([^"]+)"', answer.text)
        for address in addresses:
            seen |= _play(viewer, f"{base}/{address}")
    return seen


def test_a_link_expires_and_cannot_be_changed(viewer: TestClient, written: Store) -> None:
    key = link_key(written)
    good = links.sign(key, "gate", expires_s=1 << 34)
    assert viewer.get(f"/hls/gate/index.m3u8?sig={good}").status_code == 200
    expiry, _, digest = good.partition("-")
    wrong = [
        links.sign(key, "gate", expires_s=1_000_000),
        links.sign(b"another key", "gate", expires_s=1 << 34),
        f"{int(expiry) + 1}-{digest}",
        f"{expiry}-{digest[:-1]}",
        digest,
        "",
    ]
    assert [viewer.get("/hls/gate/index.m3u8", params={"sig": sig}).status_code for sig in wrong] == [401] * 6


def test_every_replica_makes_and_takes_the_same_links(tmp_path: Path) -> None:
    assert link_key(LocalStore(tmp_path)) == link_key(LocalStore(tmp_path))
    assert len(link_key(LocalStore(tmp_path))) == 32
