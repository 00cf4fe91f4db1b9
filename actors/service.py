"""The service as the HTTP API sees it: each question goes to the registry, which answers or says what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import ray
from ray.exceptions import ActorDiedError, RayActorError, RayError

from actors.crew import NAMESPACE
from actors.registry import NAME, RegistryActor
from pipeline.config import Settings
from pipeline.errors import CapacityError, LimpidError
from pipeline.request import StreamRequest
from pipeline.wire.status import Capacity, StageStatus, StreamStatus, Verdict
from pipeline.wire.trials import Swap

_AT_ONCE = 32  # questions that the registry answers at a time
_END_S = 60.0  # that ending may take


def registry_of(settings: Settings) -> Any:
    """Return the registry's handle, beginning it with these settings if there is none."""
    return RegistryActor.options(  # type: ignore[attr-defined]  # Ray adds it to the class
        name=NAME,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_concurrency=_AT_ONCE,
        num_cpus=0.01,
        enable_task_events=False,
    ).remote(settings.to_dict())


def end_service() -> None:
    """End streams so that they can be taken up, then the registry; nothing happens where there is none.

    Raises:
        RayError: the registry did not do so.
    """
    try:
        registry = ray.get_actor(NAME, namespace=NAMESPACE)
    except ValueError:
        return
    ray.get(registry.ask.remote("end", streams=True), timeout=_END_S)
    ray.kill(registry, no_restart=True)


class RayService:
    """Implements actors.http.service.Service.

    Args:
        settings: of the service; a registry is begun with them where there is none.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._registry = registry_of(settings)
        self._ended = False

    async def settled(self) -> bool:
        """Say whether the registry works with these settings; if not, put another one in its place.

        That one finds the streams at work, as after a death. In another store they are not its own: they are ended.

        Raises:
            LimpidError: the registry does not answer.
        """
        known, wanted = await self._ask("settings"), self._settings.to_dict()
        if known == wanted:
            return True
        before = self._registry
        with contextlib.suppress(LimpidError):
            await self._ask("end", streams=known["service"]["store"] != wanted["service"]["store"])
        ray.kill(before, no_restart=True)
        self._registry = registry_of(self._settings)
        return False

    async def end(self) -> None:
        """End streams so that they can be taken up, and the registry; from now on there is none to ask.

        Raises:
            RayError: the registry did not do so.
        """
        self._ended = True
        await asyncio.to_thread(end_service)

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

    async def push_model(self, stream: str, data: bytes) -> Swap:
        # By reference: the registry and the supervisor pass it on without looking at it.
        return cast(Swap, await self._ask("push", stream, [ray.put(data)]))

    async def roll_back(self, stream: str) -> Swap:
        return cast(Swap, await self._ask("roll_back", stream))

    async def key_frame_came(self, stream: str) -> None:
        await self._ask("key_frame", stream)

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
            if isinstance(error, ActorDiedError) and not self._ended:  # for good: Ray does not start it again
                self._registry = registry_of(self._settings)
            raise CapacityError(
                "the registry is being restarted", where="service", hint="ask again", retry_after_s=1.0
            ) from error
        except RayError as error:
            raise LimpidError(f"the registry failed: {error}", where="service", hint="see the log of Ray") from error
        if isinstance(answer, LimpidError):
            raise answer
        return answer
