"""Health and metrics, for whoever runs the service."""

from __future__ import annotations

import asyncio
import math

from fastapi import APIRouter, Response

from actors.http.problem import RETRY_AFTER_S, Kind, Problem
from actors.http.service import Here
from pipeline import metrics
from pipeline.request import Part

router = APIRouter(tags=["health"])

NOT_READY = Kind(503, "not-ready", "The service cannot take streams")
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class Health(Part):
    """That all is well."""

    status: str


@router.get("/livez", summary="Does the process answer?")
async def livez() -> Health:
    """Say that the process answers."""
    return Health(status="alive")


@router.get("/readyz", summary="Can streams be taken?")
async def readyz(here: Here) -> Health:
    """Say whether streams can be taken."""
    reason = await here.service.ready()
    if reason:
        raise Problem(NOT_READY, reason, headers={"Retry-After": str(math.ceil(RETRY_AFTER_S))})
    return Health(status="ready")


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {PROMETHEUS.partition(";")[0]: {"schema": {"type": "string"}}}}},
)
async def measured(here: Here) -> Response:
    """Return metrics in Prometheus' text format."""
    streams, stages, capacity = await asyncio.gather(
        here.service.streams(), here.service.stages(), here.service.capacity()
    )
    return Response(metrics.render(streams, stages, capacity), headers={"Content-Type": PROMETHEUS})
