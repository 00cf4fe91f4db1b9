"""One publishing: capture, push, trainer and uploads, wired; what a user sees of it is a `Status`."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipeline.errors import LimpidError
from pipeline.media.push import LivePacket
from pipeline.publisher.capture import Capture, CaptureConfig
from pipeline.publisher.frames import Frames
from pipeline.publisher.learner import LearnConfig, Standing
from pipeline.publisher.monitor import Point
from pipeline.publisher.pace import Bucket
from pipeline.publisher.push import Pusher, PushState
from pipeline.publisher.trainer import Trainer
from pipeline.publisher.upload import Outcome, Uploader
from pipeline.wire.frames import Size

_CURVE_POINTS = 240  # that a display may show: two minutes
_DRAIN_S = 10.0  # that the push has for what waits when the source has ended


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionConfig:
    """What is published, where to, and how it is learned."""

    rtmp_url: str
    service: str
    stream: str
    key: Ed25519PrivateKey
    token: str
    model: Path
    uplink_bps: float
    capture: CaptureConfig = field(default_factory=CaptureConfig)
    learn: LearnConfig = field(default_factory=LearnConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """How it stands.

    Attributes:
        size: of the low-resolution stream, None before the first frame.
        push: None before the first frame.
        standing: of the learner, None before the first pair.
        state: "idle", "training", "uploading", "training, uploading", "starting" or "trainer died".
        video_bps, upload_bps: of the uplink, over the last seconds.
        sent_bytes: of uploads so far.
        accepted, refused, failed: uploads so far.
        service: what it said last.
        curve: the last minutes, oldest first.
    """

    frames: int
    pairs: int
    at_s: float
    late_s: float
    size: Size | None
    push: PushState | None
    standing: Standing | None
    state: str
    video_bps: float
    upload_bps: float
    uplink_bps: float
    sent_bytes: int
    accepted: int
    refused: int
    failed: int
    service: str
    curve: tuple[Point, ...]


class Session:
    """Publishes from construction on. `ended` is set when the source has ended, by itself or by an error."""

    def __init__(self, frames: Frames, config: SessionConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._config, self._clock = config, clock
        self.ended = threading.Event()
        self._stop = threading.Event()
        self._failure: LimpidError | None = None
        self._size: Size | None = None
        self._pusher: Pusher | None = None
        self._standing: Standing | None = None
        self._curve: deque[Point] = deque(maxlen=_CURVE_POINTS)
        self._service = ""
        self._measured = (clock(), 0, 0.0)  # when uploads were measured last, bytes by then, bits a second before
        self._uploader = Uploader(
            config.service,
            config.stream,
            key=config.key,
            token=config.token,
            bucket=Bucket(config.uplink_bps),
            video_bps=self._video_bps,
            ended=self._uploaded,
            clock=clock,
        )
        self._trainer = Trainer(config.model, config.learn, offer=self._uploader.offer, standing=self._stands)
        self._capture = Capture(
            frames, config.capture, begin=self._begin, pair=self._trainer.look, stop=self._stop, clock=clock
        )
        self._frames = frames
        self._thread = threading.Thread(target=self._run, name="limpid-capture", daemon=True)
        self._thread.start()

    def status(self) -> Status:
        """Return how it stands; call it about once a second (rates are measured from call to call)."""
        standing, counts = self._standing, self._capture.counts
        now_s, sent = self._clock(), self._uploader.sent_bytes
        at_s, before, upload_bps = self._measured
        if now_s - at_s >= 0.5:
            upload_bps = 8 * (sent - before) / (now_s - at_s)
            self._measured = (now_s, sent, upload_bps)
        return Status(
            frames=counts.frames,
            pairs=counts.pairs,
            at_s=counts.at_s,
            late_s=counts.late_s,
            size=self._size,
            push=self._pusher.state() if self._pusher is not None else None,
            standing=standing,
            state=self._state(standing),
            video_bps=self._pusher.video_bps() if self._pusher is not None else 0.0,
            upload_bps=upload_bps,
            uplink_bps=self._config.uplink_bps,
            sent_bytes=sent,
            accepted=self._uploader.accepted,
            refused=self._uploader.refused,
            failed=self._uploader.failed,
            service=self._service,
            curve=tuple(self._curve),
        )

    def close(self, *, drain: bool) -> None:
        """End it; with `drain` what waits is still pushed.

        Raises:
            LimpidError: what ended the source, if it was an error.
        """
        self._stop.set()
        self._frames.close()
        self._thread.join(5.0)
        self._uploader.close()
        self._trainer.close()
        if self._pusher is not None:
            self._pusher.close(_DRAIN_S if drain else 0.0)
        if self._failure is not None:
            raise self._failure

    # --- what the parts call -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._capture.run()
        except LimpidError as error:
            self._failure = error
        finally:
            self.ended.set()

    def _begin(self, size: Size) -> Callable[[LivePacket], None]:
        self._size = size
        self._pusher = Pusher(self._config.rtmp_url, size=size)
        return self._pusher.put

    def _video_bps(self) -> float:
        """What the video takes of the uplink: all of it while packets wait, so that uploads stand back."""
        pusher = self._pusher
        if pusher is None:
            return 0.0
        if pusher.state().waiting_s > 0.5:
            return self._config.uplink_bps
        return pusher.video_bps()

    def _stands(self, standing: Standing) -> None:
        self._standing = standing
        self._curve.append(standing.point)

    def _uploaded(self, outcome: Outcome) -> None:
        self._service = outcome.says
        self._trainer.sent(accepted=outcome.accepted, final=outcome.final)

    def _state(self, standing: Standing | None) -> str:
        if not self._trainer.alive and not self._stop.is_set():
            return "trainer died"
        if standing is None:
            return "starting"
        states = [name for name, on in (("training", standing.training), ("uploading", standing.sending)) if on]
        return ", ".join(states) or "idle"
