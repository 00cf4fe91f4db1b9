"""An application over a service without a cluster, and a store with one stream's results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from actors.http.app import make_app
from pipeline.config import Settings
from pipeline.store.objects import Store, open_store
from pipeline.store.tokens import new_token
from tests.actors.http.memory import MemoryService

LOCAL = "http://127.0.0.1:8000"


@pytest.fixture
def service() -> MemoryService:
    return MemoryService()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def app(service: MemoryService, store: Store) -> FastAPI:
    """Without tokens, for this machine only."""
    return make_app(service, store.url, Settings())


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with local_client(app) as made:
        yield made


@pytest.fixture
def guarded(service: MemoryService, store: Store) -> FastAPI:
    """With tokens."""
    return make_app(service, store.url, Settings.from_dict({"service": {"tokens": "on"}}))


@pytest.fixture
def token(store: Store) -> Callable[..., dict[str, str]]:
    """Make a token with these scopes; return the header that sends it."""
    made = 0

    def make(*scopes: str) -> dict[str, str]:
        nonlocal made
        made += 1
        return {"Authorization": f"Bearer {new_token(store, f't{made}', scopes, now_s=0.0)}"}

    return make


def local_client(app: FastAPI) -> TestClient:
    return TestClient(app, base_url=LOCAL, client=("127.0.0.1", 50000), raise_server_exceptions=False)
