"""What the HTTP API asks of the service, and what every route has at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from actors.http.tail import Tail
from pipeline.config import Settings
from pipeline.request import StreamRequest
from pipeline.store.objects import Store
from pipeline.store.servicelog import ServiceLog
from pipeline.wire.status import Capacity, StageStatus, StreamStatus, Verdict
from pipeline.wire.trials import Swap


class Service(Protocol):
    """Streams, stages and capacity. What is refused is a LimpidError; problem.py says which status it becomes."""

    async def create(self, request: StreamRequest, *, dry_run: bool) -> tuple[StreamStatus | Verdict, bool]:
        """Begin a stream; return its status and whether it is a new one. `dry_run`: only the verdict, and False.

        Raises:
            Conflict: another request has that id.
            ConfigError: settings that do not go together.
            Refused: an address that is not allowed.
            CapacityError: it does not fit (not for a dry run, whose verdict says so).
        """

    async def streams(self) -> Sequence[StreamStatus]:
        """Return all streams, in any order."""

    async def show(self, stream: str) -> StreamStatus:
        """Return a stream's status. Raises NotFound."""

    async def patch(self, stream: str, changes: Mapping[str, Any]) -> StreamStatus:
        """Merge `changes` (RFC 7396; a StreamPatch) into a request. Raises NotFound, ConfigError."""

    async def delete(self, stream: str, *, data: bool = False) -> None:
        """Stop a stream, from every state, and forget it; `data`: and what it has written. Raises NotFound."""

    async def push_model(self, stream: str, data: bytes) -> Swap:
        """Try a model on a stream; have it hold if it is better than the one in use.

        Raises:
            NotFound: there is no such stream.
            SignatureError: none of its publishers signed it.
            ModelFormatError: it is no model, or none for this stream.
            ModelRejected: it is no better, or older.
            CapacityError: it could not be tried now.
        """

    async def roll_back(self, stream: str) -> Swap:
        """Have a stream go back to the model before the one in use. Raises NotFound, ModelRejected."""

    async def key_frame_came(self, stream: str) -> None:
        """Hear that a key frame was put into a stream's directory. Raises NotFound."""

    async def stages(self) -> Sequence[StageStatus]:
        """Return the pooled stages."""

    async def patch_stage(
        self, name: str, *, min: int | None, max: int | None, target_utilisation: float | None
    ) -> StageStatus:
        """Change the limits of a stage's workers; None leaves a value. Raises NotFound, ConfigError."""

    async def capacity(self) -> Capacity:
        """Return what the cluster has and what is used."""

    async def ready(self) -> str:
        """Return "" if streams can be taken, else why not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What routes work with.

    Attributes:
        service: streams and stages.
        store: of the whole service: streams/<id>/, tokens, the events.
        log: the events.
        tail: how far they have got, for those who follow.
        settings: of the service.
        link_key: signs links; None where tokens are off.
    """

    service: Service
    store: Store
    log: ServiceLog
    tail: Tail
    settings: Settings
    link_key: bytes | None

    def stream_store(self, stream: str) -> Store:
        """Return the store of a stream's directory; `stream` must be a stream's id."""
        return self.store.part(f"streams/{stream}")


def context(connection: HTTPConnection) -> Context:
    """Return the application's Context."""
    return cast(Context, connection.app.state.context)


Here = Annotated[Context, Depends(context)]
