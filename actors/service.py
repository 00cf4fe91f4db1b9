"""The service as the HTTP API sees it: each question goes to the registry, which answers or says what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from ray.exceptions import RayActorError, RayError

from actors.crew import NAMESPACE
from actors.registry import NAME, RegistryActor
from pipeline.config import Settings
from pipeline.errors import CapacityError, LimpidError
from pipeline.request import StreamRequest
from pipeline.wire.status import Capacity, StageStatus, StreamStatus, Verdict

_AT_ONCE = 32  # questions that the registry answers at a time


def registry_of(settings: Settings) -> Any:
    """Return the registry's handle, beginning it if there is none."""
    return RegistryActor.options(  # type: ignore[attr-defined]  # Ray adds it to the class
        name=NAME,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_concurrency=_AT_ONCE,
        num_cpus=0.01,
        enable_task_events=False,
    ).remote(settings.to_dict())


class RayService:
    """Implements actors.http.service.Service.

    Args:
        registry: its handle.
    """

    def __init__(self, registry: Any) -> None:
        self._registry = registry

    async def create(self, request: StreamRequest, *, dry_run: bool) -> tuple[StreamStatus | Verdict, bool]:
        return cast("tuple[StreamStatus | Verdict, bool]", await self._ask("create", request, dry_run=dry_run))

    async def streams(self) -> Sequence[StreamStatus]:
        return cast("list[StreamStatus]", await self._ask("streams"))

    async def show(self, stream: str) -> StreamStatus:
        return cast(StreamStatus, await self._ask("show", stream))

    async def patch(self, stream: str, changes: Mapping[str, Any]) -> StreamStatus:
        return cast(StreamStatus, await self._ask("patch", stream, dict(changes)))

    async def delete(self, stream: str, *, data: bool = False) -> None:
        await self._ask("delete", stream, data=data)

    async def stages(self) -> Sequence[StageStatus]:
        return cast("list[StageStatus]", await self._ask("stages"))

    async def patch_stage(
        self, name: str, *, min: int | None, max: int | None, target_utilisation: float | None
    ) -> StageStatus:
        limits = {"min": min, "max": max, "target_utilisation": target_utilisation}
        return cast(StageStatus, await self._ask("patch_stage", name, **limits))

    async def capacity(self) -> Capacity:
        return cast(Capacity, await self._ask("capacity"))

    async def ready(self) -> str:
        try:
            return cast(str, await self._ask("ready"))
        except LimpidError as error:
            return str(error)

    async def _ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        try:
            answer = await self._registry.ask.remote(method, *args, **kwargs)
        except RayActorError as error:
            raise CapacityError(
                "the registry is being restarted", where="service", hint="ask again", retry_after_s=1.0
            ) from error
        except RayError as error:
            raise LimpidError(f"the registry failed: {error}", where="service", hint="see the log of Ray") from error
        if isinstance(answer, LimpidError):
            raise answer
        return answer
