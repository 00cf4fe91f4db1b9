"""The application: its routers, and the borders that every request passes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import cache
from importlib import metadata
from typing import Any

from fastapi import APIRouter, FastAPI

from actors.http import events, health, hls, live, models, page, probe, problem, publishers, results, stages, streams
from actors.http.auth import Guard, tokens_needed
from actors.http.limits import Bodies, SameHeaders
from actors.http.openapi import describe
from actors.http.service import Context, Service
from actors.http.tail import LOOK_S, REMOTE_LOOK_S, Tail
from pipeline.config import Settings
from pipeline.store.objects import LocalStore, open_store
from pipeline.store.servicelog import ServiceLog
from pipeline.store.tokens import link_key

ROUTERS: tuple[APIRouter, ...] = (
    streams.router,
    models.router,
    results.router,
    events.router,
    stages.router,
    probe.router,
    publishers.router,
    hls.router,
    live.router,
    live.router,
    health.router,
    page.router,
)


Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def make_app(service: Service, store: str, settings: Settings, *, lifespan: Lifespan | None = None) -> FastAPI:
    """Return the HTTP API.

    Args:
        service: what runs the streams.
        store: path or s3:// prefix of the service's store.
        settings: of the service.
        lifespan: what goes on beside the answers, for as long as there are any.

    Raises:
        ConfigError: tokens are off on an address that other machines reach.
        StorageError: the store cannot be used.
    """
    tokens = tokens_needed(settings)
    opened = open_store(store)
    log = ServiceLog(opened)
    context = Context(
        service=service,
        store=opened,
        log=log,
        tail=Tail(log, every_s=LOOK_S if isinstance(opened, LocalStore) else REMOTE_LOOK_S),
        settings=settings,
        link_key=link_key(opened) if tokens else None,
    )
    app = FastAPI(
        title="Limpid",
        version=metadata.version("limpid"),
        description="Live video in, a sharper HLS stream and data out.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.context = context
    for router in ROUTERS:
        app.include_router(router)
    problem.install(app)
    # The last is the outermost: who may not call has no body read, and every answer has the headers.
    app.add_middleware(Bodies)
    app.add_middleware(Guard, context=context)
    app.add_middleware(SameHeaders)

    @cache
    def openapi() -> dict[str, Any]:
        return describe(app, tokens=tokens)

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way
    return app
