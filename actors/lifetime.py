"""When the service ends: with Serve's application, whoever deletes it, and not when one of its replicas goes.

Registry and streams are detached: a replica that dies, or that another one replaces, takes nothing with it. So nothing
would end them either. Each replica therefore looks at the application that it belongs to, and when that is being
deleted (`serve shutdown`, Ctrl-C of `serve run`) it ends them, and their files in shared memory with them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from actors.http.app import Lifespan
from actors.service import RayService
from pipeline.errors import LimpidError

_LOOK_S = 1.0
DRAIN_S = 10.0
"""Seconds that a replica has for ending: event streams and live views do not end by themselves, and their clients come
back to another one."""


def lifespan_of(service: RayService, application: str) -> Lifespan:
    """Return what a replica does beside answering, for as long as it lives.

    Args:
        service: of the replica.
        application: its name in Serve.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        leaving = asyncio.Event()
        watching = asyncio.create_task(_watch(service, application, leaving))
        yield
        leaving.set()
        await watching

    return lifespan


async def _watch(service: RayService, application: str, leaving: asyncio.Event) -> None:
    settled = False
    while not await asyncio.to_thread(_deleted, application):
        if leaving.is_set():
            return
        if not settled:
            with contextlib.suppress(LimpidError):  # it is being restarted, or its store is away: at the next look
                settled = await service.settled()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(leaving.wait(), _LOOK_S)
    with contextlib.suppress(RayError):  # another replica was faster
        await service.end()


def _deleted(application: str) -> bool:
    try:
        found = serve.status().applications.get(application)
    except (RayError, RayServeException):
        return False  # Serve's controller is being restarted
    return found is not None and found.status == "DELETING"
