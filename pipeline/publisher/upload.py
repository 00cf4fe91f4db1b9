"""Uploads: a model and the key frames that show its worth, over HTTP, never faster than the video leaves room for."""

from __future__ import annotations

import http.client
import json
import queue
import random
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, quote, urlsplit

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipeline.errors import ConfigError
from pipeline.media.source_live import Backoff
from pipeline.publisher.learner import Offer
from pipeline.publisher.pace import Bucket
from pipeline.store import keyframes, modelfile

_PIECE_BYTES = 1400  # a packet on the wire
_TIMEOUT_S = 30.0
_ANSWER_BYTES = 64 << 10
_PAUSES_S = (1.0, 30.0)  # after a failure, at first and at most
_OK, _WORSE = 200, 409


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How an upload has ended.

    Attributes:
        accepted: the service uses it from now on.
        final: it answered; asking again would bring the same answer.
        says: what it answered, in a line.
    """

    accepted: bool
    final: bool
    says: str


class _Closed(Exception):
    """The uploader is being closed in the middle of an upload."""


class Uploader:
    """Uploads one offer at a time in a thread of its own; connection errors end an upload, never the publisher.

    Args:
        service: its address, http(s)://host[:port][/path].
        stream: id there.
        key: signs the models.
        token: bearer token of scope `models`; "": none.
        video_bps: what the video takes now.
        ended: called with each upload's end, from the thread; after a failure only when the pause has passed.
    """

    def __init__(
        self,
        service: str,
        stream: str,
        *,
        key: Ed25519PrivateKey,
        token: str,
        bucket: Bucket,
        video_bps: Callable[[], float],
        ended: Callable[[Outcome], None],
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        parts = _split(service)
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname or "", parts.port
        self._path = f"{parts.path.rstrip('/')}/v1/streams/{quote(stream)}"
        self._key, self._token = key, token
        self._bucket, self._video_bps, self._ended, self._clock = bucket, video_bps, ended, clock
        self._backoff = Backoff(initial_s=_PAUSES_S[0], max_s=_PAUSES_S[1], rng=rng or random.Random())
        self._offers: queue.Queue[Offer | None] = queue.Queue()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None
        self.sent_bytes = 0
        self.accepted = self.refused = self.failed = 0
        self._thread = threading.Thread(target=self._run, name="limpid-upload", daemon=True)
        self._thread.start()

    def offer(self, offer: Offer) -> None:
        """Have a model uploaded; the one before has ended."""
        self._offers.put(offer)

    def close(self) -> None:
        """End at once; what is under way is given up."""
        self._closed.set()
        self._offers.put(None)
        with self._lock:
            if self._connection is not None and self._connection.sock is not None:
                self._shut(self._connection.sock)
        self._thread.join(2.0)

    @staticmethod
    def _shut(sock: socket.socket) -> None:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it was closed already

    def _run(self) -> None:
        failed = 0
        while (offer := self._offers.get()) is not None:
            try:
                outcome = self._upload(offer)
            except _Closed:
                return
            except (OSError, http.client.HTTPException) as error:
                outcome = Outcome(accepted=False, final=False, says=f"the service is not reached: {error}")
            if outcome.final:
                failed = 0
            else:
                failed += 1
                self.failed += 1
                if self._closed.wait(self._backoff.pause_s(failed)):
                    return
            if outcome.final:
                self.accepted += outcome.accepted
                self.refused += not outcome.accepted
            self._ended(outcome)

    def _upload(self, offer: Offer) -> Outcome:
        for frame in offer.key_frames:
            status, says = self._put("key-frames", keyframes.dumps(frame))
            if status >= 500:
                return Outcome(accepted=False, final=False, says=says)
            if status >= 300:  # the canary then judges by what it has
                break
        status, says = self._put("models/f-edsr", signed(offer, self._key))
        if status == _OK:
            return Outcome(accepted=True, final=True, says=says)
        return Outcome(
            accepted=False, final=status < 500, says="not better there: " + says if status == _WORSE else says
        )

    def _put(self, what: str, body: bytes) -> tuple[int, str]:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=_TIMEOUT_S)
        with self._lock:
            if self._closed.is_set():
                raise _Closed
            self._connection = connection
        try:
            connection.putrequest("PUT", f"{self._path}/{what}")
            connection.putheader("Content-Type", "application/octet-stream")
            connection.putheader("Content-Length", str(len(body)))
            if self._token:
                connection.putheader("Authorization", f"Bearer {self._token}")
            connection.endheaders()
            try:
                self._send(connection, body)
            except (BrokenPipeError, ConnectionResetError):
                # It may have answered before the body was through: too large, not allowed.
                answer = connection.getresponse()
            else:
                answer = connection.getresponse()
            return answer.status, _line(answer.status, answer.read(_ANSWER_BYTES))
        finally:
            with self._lock:
                self._connection = None
            connection.close()

    def _send(self, connection: http.client.HTTPConnection, body: bytes) -> None:
        for at in range(0, len(body), _PIECE_BYTES):
            piece = body[at : at + _PIECE_BYTES]
            while wait_s := self._bucket.wait_s(len(piece), video_bps=self._video_bps(), now_s=self._clock()):
                if self._closed.wait(wait_s):
                    raise _Closed
            connection.send(piece)
            self.sent_bytes += len(piece)


def signed(offer: Offer, key: Ed25519PrivateKey) -> bytes:
    """Return the offer's model file, signed."""
    with tempfile.TemporaryDirectory(prefix="limpid-") as folder:
        path = Path(folder) / "model.safetensors"
        modelfile.save(path, offer.header, {name: torch.from_numpy(array) for name, array in offer.state.items()})
        modelfile.sign(path, key)
        return path.read_bytes()


def check_service(service: str) -> None:
    """Raise ConfigError unless `service` is an address that can be uploaded to."""
    _split(service)


def _split(service: str) -> SplitResult:
    hint = "give http(s)://host[:port]"
    try:
        parts = urlsplit(service)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"'{service}' is no address: {error}", where="--service", hint=hint) from error
    del port
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"'{service}' is no address of a service", where="--service", hint=hint)
    return parts


def _line(status: int, body: bytes) -> str:
    """Return what an answer says: its figures, or the problem's title and detail."""
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, Mapping):
        return f"HTTP {status}"
    if status == _OK:
        return ", ".join(f"{name} {value}" for name, value in found.items() if not isinstance(value, dict | list))
    return " ".join([f"HTTP {status}:", *(str(found[name]) for name in ("detail",) if name in found)])
