"""A page in headless Chromium, and streams for it: one that a run has written, and one that is being written."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from playwright.sync_api import Browser, Page, sync_playwright

from pipeline.config import Settings
from pipeline.flow.job import Job
from pipeline.flow.local import run_local
from pipeline.stages.encode import Encode, EncodeConfig
from pipeline.stages.original import Original, OriginalConfig
from pipeline.wire.frames import ColorSpec, FrameBatch, Size
from pipeline.wire.ids import Span, StreamId
from tests.media_files import encode, picture
from tests.pipeline.media import made
from tests.service import browser

DEADLINE_S = 30.0
FRAME_S = 0.04
SEGMENT_S = 1.0
SMALL = Size(width_px=160, height_px=96)

# Mean and spread of the picture's luma, by a canvas: what is really shown.
LOOK = """(id) => {
  const video = document.getElementById(id);
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [64, 36];
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0, 64, 36);
  const { data } = context.getImageData(0, 0, 64, 36);
  let sum = 0;
  let squares = 0;
  for (let i = 0; i < data.length; i += 4) {
    sum += data[i + 1];
    squares += data[i + 1] ** 2;
  }
  const mean = sum / (data.length / 4);
  return { mean, spread: Math.sqrt(Math.max(0, squares / (data.length / 4) - mean ** 2)) };
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Headless, as tests/service/browser.py starts it."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=browser.CHROMIUM, args=list(browser.FLAGS))
        try:
            yield found
        finally:
            found.close()


class Seen:
    """A page, and what it complained of."""

    def __init__(self, opened: Browser, address: str, **context: Any) -> None:
        self._context = opened.new_context(**context)
        self.page: Page = self._context.new_page()
        self.page.set_default_timeout(DEADLINE_S * 1000)
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._said)
        self.address = address

    def _said(self, message: Any) -> None:
        # Answers that are no success are told by the page itself: a thumbnail or an input picture that is not there.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def open(self, path: str = "/") -> Page:
        self.page.goto(f"{self.address}{path}")
        return self.page

    def close(self) -> None:
        self._context.close()


def until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Return the first true value of `condition`, asked ten times a second."""
    pause, stop = threading.Event(), time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < stop, what
        pause.wait(0.1)
    return found


def time_of(page: Page, video: str = "output") -> float:
    found: float = page.evaluate("(id) => document.getElementById(id).currentTime", video)
    return found


def recorded(work: Path, store: Path, *, original: bool = True, frames: int = 150) -> None:
    """A run of a clip with sound, 6 s of 320×180, twice as large afterwards; with its input's picture beside it."""
    start_first = {"movflags": "faststart"}
    clip = encode(
        work / "clip.mp4", frames=frames, width=320, height=180, gop=25, audio=True, container_options=start_first
    )
    stages = [
        {"stage": "decode", "after": "source"},
        {"stage": "enhance", "after": "decode"},
        {"stage": "guard", "after": ["enhance", "decode"]},
        {"stage": "encode", "after": "guard.frames"},
        {"stage": "audio", "after": "source"},
        {"stage": "record", "after": ["decode"]},
    ]
    if original:
        stages.append({"stage": "original", "after": "decode"})
    graph = work / "graph.yaml"
    graph.write_text(yaml.safe_dump({"name": "page", "stages": stages}))
    settings = Settings.from_dict(
        {
            "graph": str(graph),
            "enhance": {"model": "bicubic"},
            "encode": {"segment_s": SEGMENT_S},
            "original": {"segment_s": SEGMENT_S},
            "audio": {"segment_s": SEGMENT_S},
            "outputs": {"original": original},
        }
    )
    outcome = run_local(Job(stream=StreamId("clip"), source=str(clip), store=str(store), settings=settings))
    assert (outcome.state, outcome.frames) == ("completed", frames), outcome


class Camera:
    """Encodes a moving picture at 25 frames a second, as a live stream does, until it is closed."""

    def __init__(self, store: Path, *, original: bool = True, keep_s: float = 0.0) -> None:
        self._store = store
        self._original = original
        self._keep_s = keep_s
        self._stop = threading.Event()
        self._turn = threading.Event()
        self._size = SMALL
        self.frames = 0
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def turn(self, size: Size) -> None:
        """Begin another epoch, of another size."""
        self._size = size
        self._turn.set()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(20)
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            epoch = 0
            while not self._stop.is_set():
                self._turn.clear()
                self._epoch(epoch)
                epoch += 1
        except BaseException as error:  # noqa: BLE001  # told by close
            self.error = error

    def _epoch(self, epoch: int) -> None:
        size, twice = self._size, Size(width_px=2 * self._size.width_px, height_px=2 * self._size.height_px)
        settings: dict[str, Any] = {"segment_s": SEGMENT_S, "live": True, "keep_s": self._keep_s}
        stages = [(made.opened(Encode(EncodeConfig(preset="ultrafast", **settings)), self._store, epoch), twice)]
        if self._original:
            stages.append((made.opened(Original(OriginalConfig(**settings)), self._store, epoch), size))
        start, number = time.monotonic(), 0
        while not (self._stop.is_set() or self._turn.is_set()):
            for stage, large in stages:
                one = frame(number, large, epoch=epoch)
                made.feed(stage, one, start=number)
            number += 1
            self.frames += 1
            self._stop.wait(max(0.0, start + number * FRAME_S - time.monotonic()))
        for stage, _ in stages:
            stage.finish()
            stage.close()


def frame(number: int, size: Size, *, epoch: int) -> FrameBatch:
    """Frame `number` of a drifting gradient with a square, captured now."""
    import av

    rgb = picture(number, size.width_px, size.height_px)
    yuv = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p").to_ndarray().reshape(1, -1)
    return FrameBatch(
        span=Span(stream=made.STREAM, epoch=epoch, start=number, stop=number + 1),
        size=size,
        color=ColorSpec(),
        time_base=Fraction(1, 1000),
        pts=np.array([number * 40 + 100_000 * (epoch + 1)], np.int64),
        duration=np.array([40], np.int64),
        captured_ns=np.array([time.time_ns()], np.int64),
        keyframe=np.array([number == 0]),
        data=np.ascontiguousarray(yuv),
    )
