"""Stages and capacity: what works, how loaded it is, and between which limits it scales."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field, model_validator

from actors.http.service import Here
from pipeline.request import Part
from pipeline.wire.status import Capacity, StageStatus

router = APIRouter(tags=["stages"])

Workers = Annotated[int, Field(ge=0, le=1024)]


class StagePatch(Part):
    """New limits of a stage; what is left out stays."""

    min: Workers | None = None
    max: Annotated[int, Field(ge=1, le=1024)] | None = None
    target_utilisation: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _in_order(self) -> StagePatch:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class Stages(Part):
    """All pooled stages."""

    items: list[StageStatus]


@router.get("/v1/stages", summary="List the pooled stages")
async def listing(here: Here) -> Stages:
    """List stages."""
    return Stages(items=list(await here.service.stages()))


@router.patch("/v1/stages/{name}", summary="Change a stage's limits")
async def patch(
    here: Here, name: Annotated[str, Path(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")], changes: StagePatch
) -> StageStatus:
    """Change a stage's limits."""
    return await here.service.patch_stage(
        name, min=changes.min, max=changes.max, target_utilisation=changes.target_utilisation
    )


@router.get("/v1/capacity", summary="What there is and what is used")
async def capacity(here: Here) -> Capacity:
    """Return the cluster's capacity."""
    return await here.service.capacity()
