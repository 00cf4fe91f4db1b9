"""Two fields of different instants to one progressive picture: as many pictures as came, at the same times.

FFmpeg's bwdif, one picture a frame (the first field's instant), touching only pictures that are marked interlaced.
It looks one picture back and one ahead, so it lags by one picture. Keeping the comb instead would have enhancement
sharpen it and the encoder spend its bits on it; one picture a field would double the frame rate that a source has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import av
import av.error
import av.filter

from pipeline.media.picture import Picture

_SMALLEST_PX = 4  # bwdif refuses less


class Deinterlacer:
    """Passes pictures through the filter and gives them their numbers and times back, first in, first out."""

    def __init__(self) -> None:
        self._graph: av.filter.Graph | None = None
        self._kind: tuple[str, int, int] | None = None
        self._inside: deque[Picture] = deque()
        self._count = 0

    def push(self, picture: Picture) -> Iterator[Picture]:
        """Take the next picture; give those that are ready."""
        frame = picture.frame
        kind = (frame.format.name, frame.width, frame.height)
        if kind != self._kind:
            yield from self.flush()
            self._start(frame)
            self._kind = kind
        if self._graph is None:
            yield picture
            return
        self._inside.append(picture)
        # The filter interpolates times; ours go round it.
        frame.pts = self._count
        frame.time_base = Fraction(1, 1000)
        self._count += 1
        self._graph.vpush(frame)
        yield from self._pull()

    def flush(self) -> Iterator[Picture]:
        """Give what the filter holds back."""
        if self._graph is not None:
            self._graph.vpush(None)
            yield from self._pull()
            self._graph = None
        self._kind = None
        yield from self._inside  # nothing, unless the filter swallowed a picture: then it stays as it was
        self._inside.clear()

    def _start(self, frame: av.VideoFrame) -> None:
        if min(frame.width, frame.height) < _SMALLEST_PX:
            self._graph = None
            return
        graph = av.filter.Graph()
        graph.threads = 1
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
        )
        bwdif = graph.add("bwdif", "mode=send_frame:deint=interlaced")
        sink = graph.add("buffersink")
        graph.link_nodes(source, bwdif, sink)
        graph.configure()
        self._graph = graph

    def _pull(self) -> Iterator[Picture]:
        assert self._graph is not None
        while True:
            try:
                frame = self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            yield replace(self._inside.popleft(), frame=frame)
