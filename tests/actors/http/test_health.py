"""Health, metrics, probe, and pages that load nothing from elsewhere."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from actors.http import page, probe
from actors.http.app import make_app
from actors.http.reference import STYLE, STYLE_SOURCE
from pipeline.config import Settings
from pipeline.store.objects import Store
from tests.actors.http.conftest import local_client
from tests.actors.http.memory import MemoryService


def test_live_and_ready(client: TestClient, service: MemoryService) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}
    service.reason = "the registry starts"
    waiting = client.get("/readyz")
    assert (waiting.status_code, waiting.json()["detail"]) == (503, "the registry starts")
    assert "Retry-After" in waiting.headers
    assert client.get("/livez").status_code == 200


def test_metrics_are_prometheus_text_without_secrets(client: TestClient) -> None:
    client.post("/v1/streams", json={"id": "gate", "source": "rtsp://u:secret@e.org/1?token=secret"})
    answer = client.get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "limpid_" in answer.text and "secret" not in answer.text


def test_probe_says_what_a_source_is(client: TestClient) -> None:
    answer = client.post("/v1/probe", json={"uri": "synthetic://street?width=160&height=96&fps=12&seconds=1"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["video"]["width"] == 160
    assert answer.json()["verdict"] == "usable"


@pytest.mark.parametrize("uri", ["/etc/passwd", "file:///etc/passwd", "concat:/etc/passwd", "data:text/plain,a"])
def test_probe_reads_no_file_of_the_server(uri: str, service: MemoryService, store: Store) -> None:
    """The service's settings say that files are not for those who ask over HTTP."""
    settings = Settings.from_dict({"source": {"local": False, "allow_private": False}})
    with local_client(make_app(service, store.url, settings)) as client:
        answer = client.post("/v1/probe", json={"uri": uri})
        assert (answer.status_code, answer.json()["type"]) == (403, "/problems/refused")
        inner = client.post("/v1/probe", json={"uri": "http://127.0.0.1:1/a.mp4"})
        assert (inner.status_code, inner.json()["type"]) == (403, "/problems/refused")


@pytest.mark.parametrize("uri", ["http://no-such-host.invalid/a?token=secret", "http://u:secret@e.invalid/a.mp4"])
def test_probe_tells_what_is_wrong_without_secrets(uri: str, client: TestClient) -> None:
    answer = client.post("/v1/probe", json={"uri": uri})
    assert answer.status_code == 422
    assert ".invalid/a" in answer.json()["detail"]
    assert "secret" not in answer.text


def test_too_many_probes_at_once_are_asked_to_wait(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_threads", SimpleNamespace(available_tokens=0))
    answer = client.post("/v1/probe", json={"uri": "synthetic://street"})
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers


def test_docs_load_nothing_from_elsewhere(client: TestClient) -> None:
    answer = client.get("/docs")
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self'; media-src 'self' blob:")
    assert STYLE_SOURCE in policy and f"<style>{STYLE}</style>" in answer.text
    assert "/v1/streams/{id}/events" in answer.text
    assert not re.search(r"<script|<link|<img|src=|https?://", answer.text)


def test_the_page_is_served_from_the_package(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"index.html": page._File(b"<p>", "text/html; charset=utf-8", '"e"')}
    monkeypatch.setattr(page, "_files", lambda: files)
    index = client.get("/")
    assert (index.status_code, index.text) == (200, "<p>")
    assert index.headers["Content-Security-Policy"] == page.CSP
    assert client.get("/", headers={"If-None-Match": '"e"'}).status_code == 304
    assert client.get("/web/index.html").status_code == 200
    for name in ("nothing.js", "..%2f__init__.py", "%2e%2e", "__init__.py"):
        assert client.get(f"/web/{name}").status_code == 404


def test_answers_have_the_headers_that_browsers_need(client: TestClient) -> None:
    headers = client.get("/v1/streams").headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["Referrer-Policy"] == "no-referrer"
