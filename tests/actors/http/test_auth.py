"""Who may call what: the whole matrix, and what is refused without tokens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from actors.http.app import ROUTERS, make_app
from actors.http.auth import ROUTES, is_loopback, need_of, tokens_needed
from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.store.objects import Store
from pipeline.store.tokens import new_token, revoke_token
from tests.actors.http.conftest import LOCAL, local_client
from tests.actors.http.memory import MemoryService

ALLOWS = {"read": {"read"}, "write": {"read", "write"}, "models": {"models"}}
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/v1/streams"): {"id": "made", "source": "http://e.org/a"},
    ("PATCH", "/v1/streams/{id}"): {},
    ("POST", "/v1/probe"): {"uri": "synthetic://nothing-like-it"},
    ("PATCH", "/v1/stages/{name}"): {},
    ("PUT", "/v1/streams/{id}/models/f-edsr"): b"no model",
    ("PUT", "/v1/streams/{id}/key-frames"): b"no key frame",
    ("POST", "/v1/publishers"): {"id": "made", "stream": "gate", "public_key": "A" * 43 + "="},
}
VALUES = {"{id}": "gate", "{name}": "enhance", "{path:path}": "index.m3u8"}


@pytest.fixture
def viewer(guarded: FastAPI) -> Iterator[TestClient]:
    with local_client(guarded) as made:
        yield made


def test_every_route_is_in_the_table_and_every_line_is_a_route() -> None:
    found = set()
    for router in ROUTERS:
        for route in router.routes:
            if isinstance(route, APIWebSocketRoute):
                found.add(("WS", route.path))
            elif isinstance(route, APIRoute):
                found |= {(method, route.path) for method in route.methods if method != "HEAD"}
            else:
                raise AssertionError(route)
    assert found | {("GET", "/openapi.json")} == set(ROUTES)


def _call(client: TestClient, method: str, path: str, headers: dict[str, str]) -> int:
    body = BODIES.get((method, path))
    for name, value in VALUES.items():
        path = path.replace(name, value)
    if method == "WS":
        try:
            with client.websocket_connect(path, headers=headers) as socket:
                socket.receive()
                return 101
        except WebSocketDenialResponse as refused:
            return refused.status_code
        except WebSocketDisconnect as closed:
            return closed.code
    params = {"follow": "false"} if "events" in path else {}
    sent = {} if body is None else {"json": body}
    if isinstance(body, bytes):
        sent, headers = {"content": body}, {**headers, "Content-Type": "application/octet-stream"}
    return client.request(method, path, headers=headers, params=params, **sent).status_code


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=lambda word: word)
def test_the_matrix_of_routes_and_scopes(
    method: str, path: str, viewer: TestClient, token: Callable[..., dict[str, str]]
) -> None:
    """Each route with no token, wrong ones, and each scope: 401, 401, and 403 unless the table says otherwise."""
    need = ROUTES[method, path]
    wanted = "read" if need == "link" else need
    if path == "/ingest/on-publish":
        assert _call(viewer, method, path, {}) == 403  # no push key
        return
    unknown = {"Authorization": "Bearer t1.wrong"}, {"Authorization": "Bearer x"}, {"Authorization": "Basic YTpi"}
    good = {scope: token(scope) for scope in ALLOWS}
    for headers in ({}, *unknown):
        assert (_call(viewer, method, path, headers) == 401) == (need != "public"), headers
    for scope, header in good.items():
        status = _call(viewer, method, path, header)
        assert status != 401
        if need != "public":
            assert (status == 403) == (wanted not in ALLOWS[scope]), (scope, status)


def test_a_token_with_several_scopes_has_all(viewer: TestClient, token: Callable[..., dict[str, str]]) -> None:
    both = token("read", "models")
    assert viewer.get("/v1/streams", headers=both).status_code == 200
    assert viewer.post("/v1/streams", headers=both, json={}).status_code == 403


def test_refusals_say_how_to_authenticate(viewer: TestClient, token: Callable[..., dict[str, str]]) -> None:
    assert viewer.get("/v1/streams").headers["WWW-Authenticate"] == 'Bearer realm="limpid"'
    wrong = viewer.get("/v1/streams", headers={"Authorization": "Bearer nobody.secret"})
    assert wrong.headers["WWW-Authenticate"] == 'Bearer realm="limpid", error="invalid_token"'
    narrow = viewer.post("/v1/streams", headers=token("read"), json={})
    assert 'error="insufficient_scope", scope="write"' in narrow.headers["WWW-Authenticate"]
    for answer in (wrong, narrow):
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_revoked_token_is_refused_at_once(viewer: TestClient, store: Store) -> None:
    header = {"Authorization": f"Bearer {new_token(store, 'short', ['read'], now_s=0.0)}"}
    assert viewer.get("/v1/streams", headers=header).status_code == 200
    revoke_token(store, "short")
    assert viewer.get("/v1/streams", headers=header).status_code == 401


@pytest.mark.parametrize("path", ["/v1/streams%0a", "/v1/streams%00", "/v1/streams/gate%0A", "/v1/streams%7f"])
def test_control_characters_in_paths_do_not_get_round_the_table(
    path: str, viewer: TestClient, token: Callable[..., dict[str, str]]
) -> None:
    assert viewer.post(path, headers=token("read"), json=BODIES["POST", "/v1/streams"]).status_code == 404
    assert viewer.delete(path, headers=token("read")).status_code == 404


@given(
    path=st.text(alphabet=st.sampled_from("/v1streamgx.%{}"), max_size=24),
    method=st.sampled_from(["GET", "POST", "WS"]),
)
def test_what_is_in_no_table_is_not_public(path: str, method: str) -> None:
    need, _ = need_of(method, f"/v1/{path}")
    assert need != "public"
    assert method != "POST" or need == "write"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(text=st.text(max_size=80))
def test_no_header_breaks_the_guard(text: str, viewer: TestClient) -> None:
    header = f"Bearer {text}".encode("utf-8", "replace").replace(b"\n", b"").replace(b"\r", b"").replace(b"\0", b"")
    assert viewer.get("/v1/streams", headers={"Authorization": header}).status_code == 401


def test_no_secret_reaches_log_or_store(
    viewer: TestClient, store: Store, token: Callable[..., dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    header = token("write")
    secret = header["Authorization"].partition(".")[2]
    viewer.get("/v1/streams", headers=header)
    viewer.get("/v1/streams", headers={"Authorization": f"Bearer nobody.{secret}"})
    made = viewer.post("/v1/publishers", headers=header, json=BODIES["POST", "/v1/publishers"]).json()
    push = made["push_key"].partition(".")[2]
    kept = b"".join(store.get(name) for name in store.list())
    for hidden in (secret, push):
        assert hidden.encode() not in kept
        assert hidden not in caplog.text


# ---- without tokens -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "tokens", "needed"),
    [
        ("127.0.0.1", "auto", False),
        ("localhost", "auto", False),
        ("::1", "auto", False),
        ("127.0.0.1", "on", True),
        ("127.0.0.1", "off", False),
        ("0.0.0.0", "auto", True),
        ("::", "auto", True),
        ("192.168.1.5", "auto", True),
        ("limpid.example.org", "on", True),
    ],
)
def test_tokens_are_needed_off_loopback(host: str, tokens: str, needed: bool) -> None:
    assert tokens_needed(Settings.from_dict({"service": {"host": host, "tokens": tokens}})) is needed


def test_tokens_cannot_be_off_off_loopback(service: MemoryService, store: Store) -> None:
    with pytest.raises(ConfigError, match=r"0\.0\.0\.0"):
        make_app(service, store.url, Settings.from_dict({"service": {"host": "0.0.0.0", "tokens": "off"}}))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "LOCALHOST", "::ffff:127.0.0.1"]
)
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "10.0.0.1", "localhost.evil.org", "127.0.0.1.evil.org", "2130706433"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_other_machines_are_refused_without_tokens(app: FastAPI) -> None:
    with TestClient(app, base_url=LOCAL, client=("192.168.1.9", 5000)) as far:
        answer = far.get("/v1/streams")
        assert (answer.status_code, answer.json()["type"]) == (403, "/problems/not-local")
        assert far.get("/livez").status_code == 200


@pytest.mark.parametrize("host", ["evil.example.org", "127.0.0.1.nip.io:8000", "]", "["])
def test_a_rebound_name_is_refused_without_tokens(host: str, client: TestClient) -> None:
    assert client.get("/v1/streams", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000"])
def test_this_machines_names_are_not(host: str, client: TestClient) -> None:
    assert client.get("/v1/streams", headers={"Host": host}).status_code == 200


def test_a_page_of_another_origin_cannot_watch(client: TestClient) -> None:
    headers = {"Origin": "https://evil.example.org"}
    assert _call(client, "WS", "/v1/streams/{id}/live", headers) in (401, 403)
