"""What a user sees while streams are processed: a bar for each on a terminal, else a line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from pipeline.flow.job import Progress
from pipeline.wire.ids import StreamId

LINE_EVERY_S = 5.0


class Display:
    """Shows progress on stderr while it is entered; call it with each Progress, from any thread.

    Args:
        frames: how many frames each stream will have, None where that is not known.
        console: where to; None: stderr.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        frames: Mapping[StreamId, int | None],
        *,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fps: dict[StreamId, float] = {}
        self._frames = frames
        self._console = console or Console(stderr=True)
        self._clock = clock
        self._line_at_s = clock() + LINE_EVERY_S
        self._bars: Bars | None = None
        self._tasks: dict[StreamId, TaskID] = {}

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bars = Bars(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[fps]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._tasks = {s: self._bars.add_task(s, total=n, fps="") for s, n in self._frames.items()}
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, progress: Progress) -> None:
        """Show how far a stream is."""
        self.fps[progress.stream] = progress.fps
        if self._bars is not None:
            fps = f"{progress.fps:.0f} fps" if progress.fps else ""
            self._bars.update(self._tasks[progress.stream], completed=progress.frames_done, fps=fps)
        elif self._clock() >= self._line_at_s:
            self._line_at_s = self._clock() + LINE_EVERY_S
            total = self._frames.get(progress.stream)
            of = f" of {total}" if total else ""
            line = f"{progress.stream}: {progress.frames_done}{of} frames, {progress.fps:.1f} fps"
            self._console.print(line, highlight=False)
