"""What every runtime of F-EDSR offers: luma planes in, up-scaled luma planes out, at one fixed shape.

The network sees one *window* at a time: the whole frame, or for large frames a strip of full width, so that an 8K
frame takes no more memory than a 1080p one. Windows of one frame have the same shape and overlap by what the network
reaches, so that a strip's rows are those that the whole frame would have given. Fixed shapes also keep a frame's
result independent of the others in its batch (docs/design.md, "Fixed shapes").

Shapes: N frames, R windows a call, H × W pixels of luma that comes in, s scale.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.models.fedsr import FEdsr
from pipeline.vision.upscale import bicubic
from pipeline.wire.frames import Size

Ranges = Mapping[str, tuple[float, float]]
"""(min, max) of the input of each convolution by its name, as in a model's header; int8 runtimes need them."""

WINDOW_PX = 2_100_000  # a little over 1080p; the network's buffers take about 100 bytes a pixel of it


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A strip of a frame: the network reads rows [top, bottom), of which [start, stop) are kept."""

    top: int
    bottom: int
    start: int
    stop: int


def windows(size: Size, reach_px: int, limit_px: int) -> tuple[Window, ...]:
    """Return the strips, all of one height, whose [start, stop) tile a frame's rows; one where it fits `limit_px`.

    The `reach_px` (even) rows at a strip's inner borders are not kept. Strips start at even rows, so that an
    unshuffle by 2 pairs the same pixels as in the whole frame.
    """
    assert reach_px % 2 == 0, reach_px
    height = size.height_px
    step = max(2, limit_px // size.width_px // 2 * 2 - 2 * reach_px)
    tall = step + 2 * reach_px + height % 2  # so that the last strip starts at an even row too
    if height * size.width_px <= limit_px or tall >= height:
        return (Window(top=0, bottom=height, start=0, stop=height),)
    tops = [*range(0, height - tall, step), height - tall]
    cuts = [0, *(top + tall - reach_px for top in tops[:-1]), height]
    return tuple(
        Window(top=top, bottom=top + tall, start=start, stop=stop)
        for top, (start, stop) in zip(tops, itertools.pairwise(cuts), strict=True)
    )


class Engine(ABC):
    """An F-EDSR made ready for one frame size, device and thread count."""

    name: ClassVar[str]
    """As in Stamp.runtime and in the table of runtimes."""

    rows: int = 1
    """R, windows a call. 1 on a CPU, where a larger batch gains nothing (at most 8 % measured)."""

    def __init__(self, net: FEdsr, size: Size, *, device: str, threads: int, ranges: Ranges) -> None:
        """Compile the folded `net` for frames of `size`; `ranges` may be empty where no int8 is asked for.

        Raises:
            ModelError: the runtime cannot run this network.
        """
        self.scale = net.config.scale
        self.size = size
        self.threads = threads
        reach_px = sum(conv.kernel_size[0] // 2 for _, conv in net.layers()) * net.config.unshuffle
        self._windows = windows(size, reach_px + reach_px % 2, WINDOW_PX)
        first = self._windows[0]
        self.window = Size(width_px=size.width_px, height_px=first.bottom - first.top)
        self.compile(net, device, ranges)

    @abstractmethod
    def compile(self, net: FEdsr, device: str, ranges: Ranges) -> None:
        """Build the network for `rows` windows of size `window`."""

    @abstractmethod
    def run(self, y_RHW: NDArray[np.uint8]) -> NDArray[np.int8]:
        """Return the residual (R, s·H, s·W) of `rows` windows in code values, rounded, clipped to int8.

        The array may be a buffer of the engine's, valid until the next call.
        """

    def residual(self, y_NHW: NDArray[np.uint8]) -> NDArray[np.int8]:
        """Return what the bicubic up-scale of luma (N, H, W) lacks: (N, s·H, s·W) int8 code values.

        Beyond −128..127 it is clipped, which natural pictures do not reach.
        """
        out_NHW = np.empty((len(y_NHW), *self._out_shape), np.int8)
        for i, rows, part_HW in self._parts(y_NHW):
            out_NHW[i, rows] = part_HW
        return out_NHW

    def upscale(self, y_NHW: NDArray[np.uint8], out_NHW: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Return luma (N, H, W) up-scaled to (N, s·H, s·W): bicubic plus residual, clipped to 0..255.

        Written into `out_NHW` where it is given; each of its frames is contiguous.
        """
        if out_NHW is None:
            out_NHW = np.empty((len(y_NHW), *self._out_shape), np.uint8)
        for y_HW, out_HW in zip(y_NHW, out_NHW, strict=True):
            bicubic(y_HW, self.scale, out_HW)
        # ^ 128 maps 0..255 to −128..127, where OpenCV adds int8 with saturation 4 times faster than uint8 to int8.
        np.bitwise_xor(out_NHW, 128, out=out_NHW)
        signed_NHW = out_NHW.view(np.int8)
        for i, rows, part_HW in self._parts(y_NHW):
            target_HW = signed_NHW[i, rows]
            cv2.add(target_HW, part_HW, dst=target_HW)
        np.bitwise_xor(out_NHW, 128, out=out_NHW)
        return out_NHW

    @property
    def _out_shape(self) -> tuple[int, int]:
        return self.scale * self.size.height_px, self.scale * self.size.width_px

    def _parts(self, y_NHW: NDArray[np.uint8]) -> Iterator[tuple[int, slice, NDArray[np.int8]]]:
        """Yield (frame, rows of the output, residual of those rows) for all frames and windows."""
        assert y_NHW.shape[1:] == (self.size.height_px, self.size.width_px), (y_NHW.shape, self.size)
        s = self.scale
        pieces = [(i, window) for i in range(len(y_NHW)) for window in self._windows]
        for k in range(0, len(pieces), self.rows):
            chunk = pieces[k : k + self.rows]
            if self.rows == 1:
                i, window = chunk[0]
                y_RHW = y_NHW[i : i + 1, window.top : window.bottom]
            else:
                padded = chunk + [chunk[-1]] * (self.rows - len(chunk))
                y_RHW = np.stack([y_NHW[i, window.top : window.bottom] for i, window in padded])
            residual_RHW = self.run(y_RHW)
            for (i, window), residual_HW in zip(chunk, residual_RHW, strict=False):
                inner = slice(s * (window.start - window.top), s * (window.stop - window.top))
                yield i, slice(s * window.start, s * window.stop), residual_HW[inner]
