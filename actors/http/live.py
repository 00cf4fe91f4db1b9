"""The live view: a stream's frames over a WebSocket, each a fragment of fMP4, for Media Source Extensions.

The server sends, in this order and again whenever an epoch begins:
    text    {"type": "epoch", "epoch": 0, "codecs": "avc1.64001f", "width": 1280, "height": 720}
    binary  the initialisation segment
    binary  fragments, a frame each, from the newest segment's start on (its first frame is a key frame)
and between them
    text    {"type": "skipped", "segments": 3}    the client was too slow: the next fragment begins a later segment
    text    {"type": "ended"}                     nothing will come any more; then the server closes

What the encoder writes is followed file by file (store/livetap.py), so a viewer costs no memory and never holds the
encoder up: its place in the files is its queue. A client may tell how many binary bytes it has taken,
    text    {"type": "taken", "bytes": 123456}    of this connection, in all
if it asks for `?window=`: then no more than that many bytes are on their way to it, whatever lies between (a proxy may
take everything at once and keep it).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Annotated, Literal

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Query, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from actors.http.service import Context, Here
from actors.http.streams import StreamPath
from pipeline.errors import LimpidError, NotFound
from pipeline.media.boxes import boxes
from pipeline.media.entries import read_entry
from pipeline.store import livetap
from pipeline.store.livetap import Began, Fragments, LiveReader, Skipped
from pipeline.store.redact import redact
from pipeline.wire.status import ENDED

router = APIRouter(tags=["media"])

POLL_S = 0.01
"""Seconds between two looks at the files (chosen: half of it is what following costs on average)."""

STATE_S = 1.0
"""Seconds without a frame after which the service is asked whether the stream has ended."""

NO_STREAM, NO_VIEW, BROKEN = 4404, 4409, 4503
"""Close codes: there is no such stream (any more); it has no live view; the store does not work."""

_LARGEST_TAKEN = 1 << 53
_readers = CapacityLimiter(4)  # short reads of what was just written: never behind slow requests, nor before them all


class _Taken:
    """How many of the bytes that were sent the client has told to have taken."""

    def __init__(self, window: int | None) -> None:
        self._window = window
        self._sent = 0
        self._taken = 0
        self._changed = asyncio.Event()

    def sent(self, size: int) -> None:
        self._sent += size

    def told(self, text: str) -> None:
        """Take a client's message; what it does not understand it ignores."""
        with contextlib.suppress(ValueError):
            message = json.loads(text)
            if isinstance(message, dict) and message.get("type") == "taken":
                taken = message.get("bytes")
                if type(taken) is int and self._taken < taken <= _LARGEST_TAKEN:
                    self._taken = taken
                    self._changed.set()

    async def room(self) -> None:
        """Return as soon as less than a window is on its way."""
        while self._window is not None and self._sent - self._taken >= self._window:
            self._changed.clear()
            await self._changed.wait()


@router.websocket("/v1/streams/{id}/live")
async def live(
    here: Here,
    socket: WebSocket,
    stream: StreamPath,
    view: Literal["main", "input"] = "main",
    window: Annotated[int | None, Query(ge=1 << 16, le=1 << 26)] = None,
) -> None:
    """Send a stream's frames as they are made; `view`: the output, or the source's picture beside it."""
    await socket.accept()
    try:
        await here.service.show(stream)
    except NotFound:
        await socket.close(NO_STREAM, "there is no such stream")
        return
    folder = livetap.folder(here.stream_store(stream), view)
    if folder is None:
        await socket.close(NO_VIEW, "the store is no directory: play the segments instead")
        return
    reader, taken = LiveReader(folder), _Taken(window)
    sending = asyncio.create_task(_send(here, socket, stream, reader, taken))
    listening = asyncio.create_task(_listen(socket, taken))
    try:
        await asyncio.wait((sending, listening), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sending, listening):
            task.cancel()
        results = await asyncio.gather(sending, listening, return_exceptions=True)
        reader.close()
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError | WebSocketDisconnect):
            raise result


async def _listen(socket: WebSocket, taken: _Taken) -> None:
    """Take the client's messages until it goes."""
    while (message := await socket.receive())["type"] != "websocket.disconnect":
        taken.told(message.get("text") or "")


async def _send(here: Context, socket: WebSocket, stream: str, reader: LiveReader, taken: _Taken) -> None:
    """Send until the stream ends; then close."""
    code, reason = 1000, ""
    try:
        await _follow(here, socket, stream, reader, taken)
        await socket.send_json({"type": "ended"})
    except NotFound:
        code, reason = NO_STREAM, "the stream was deleted"
    except LimpidError as error:
        code, reason = BROKEN, redact(error.what)[:100]
    if socket.application_state is WebSocketState.CONNECTED:
        await socket.close(code, reason)


async def _follow(here: Context, socket: WebSocket, stream: str, reader: LiveReader, taken: _Taken) -> None:
    """Send what the reader finds, until the stream has ended and all is sent. Raises NotFound, StorageError."""
    quiet_s = 0.0
    ended = False
    while True:
        await taken.room()
        found = await to_thread.run_sync(reader.read, limiter=_readers)
        match found:
            case None if ended:
                return
            case None:
                await asyncio.sleep(POLL_S)
                quiet_s += POLL_S
                if quiet_s >= STATE_S:
                    quiet_s = 0.0
                    # Looked at again afterwards: the last frames may have come in between.
                    ended = (await here.service.show(stream)).state in ENDED
                continue
            case Began(epoch=epoch, init=init):
                entry = read_entry(boxes(init, b"moov", b"trak", b"mdia")[0])
                size = {"width": entry.width_px, "height": entry.height_px}
                await socket.send_json({"type": "epoch", "epoch": epoch, "codecs": entry.codecs, **size})
                await _send_bytes(socket, init, taken)
            case Skipped(segments=segments):
                await socket.send_json({"type": "skipped", "segments": segments})
            case Fragments(data=data):
                for fragment in data:
                    await taken.room()
                    await _send_bytes(socket, fragment, taken)
        quiet_s = 0.0


async def _send_bytes(socket: WebSocket, data: bytes, taken: _Taken) -> None:
    taken.sent(len(data))
    await socket.send_bytes(data)
