"""Probe: what a source is and whether it can be used, before a stream is made of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter
from pydantic import StringConstraints

from actors.http.problem import RETRY_AFTER_S
from actors.http.service import Here
from pipeline.commands.probe import probe
from pipeline.errors import CapacityError
from pipeline.flow.sources import options_of
from pipeline.request import Part

router = APIRouter(tags=["sources"])

MAX_PROBES = 2
"""Sources that a process looks at at once (chosen): each decodes a few seconds, and streams come first."""

_threads = CapacityLimiter(MAX_PROBES)  # not the default ones: a slow source would take them from all other requests


class ProbeRequest(Part):
    """The source to look at."""

    uri: Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f\x7f]+$")]


@router.post(
    "/v1/probe",
    summary="What is this source?",
    description="Opens it and decodes up to 5 s of it: tracks, size, rate, GOP, problems, verdict.",
)
async def look(here: Here, request: ProbeRequest) -> dict[str, Any]:
    """Look at a source."""
    if not _threads.available_tokens:
        raise CapacityError(
            f"{MAX_PROBES} sources are being looked at", hint="ask again later", retry_after_s=RETRY_AFTER_S
        )
    options = replace(options_of(here.settings.source), reconnect_attempts=1)
    return await to_thread.run_sync(probe, request.uri, options, limiter=_threads)
