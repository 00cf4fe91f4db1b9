"""What every runtime of F-EDSR offers: luma planes in, up-scaled luma planes out, at one fixed shape.

A frame is first *padded* by repeating its border: the network's own padding is zero, which reads as black and draws a
ring around a bright frame (up to 4 code values, 12 where a picture has an edge there; with MARGIN_PX 1 and 5, against
a margin of 24). The network then sees one
*window* at a time: the whole padded frame, or for large frames a strip of full width, so that an 8K frame takes no
more memory than a 1080p one. Windows of one frame have the same shape and overlap by what the network reaches, so that
a strip's rows are those that the whole frame would have given. Fixed shapes also keep a frame's result independent of
the others in its batch (docs/design.md, "Fixed shapes").

Shapes: N frames, R windows a call, H × W pixels of luma that comes in, s scale, m margin.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.vision.upscale import bicubic
from pipeline.wire.frames import Size

if TYPE_CHECKING:
    from pipeline.models.fedsr import FEdsr

Ranges = Mapping[str, tuple[float, float]]
"""(min, max) of the input of each convolution by its name, as in a model's header; int8 runtimes need them."""

MARGIN_PX = 2  # m; even; 4 would cost 3 % more time at 180p for one code value less
WINDOW_PX = 2_100_000  # a little over 1080p; the network's buffers take about 100 bytes a pixel of it


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A strip of a padded frame: the network reads rows [top, bottom), of which [start, stop) are kept."""

    top: int
    bottom: int
    start: int
    stop: int


def windows(size: Size, reach_px: int, limit_px: int) -> tuple[Window, ...]:
    """Return the strips, all of one height, whose [start, stop) tile a frame's rows; one where it fits `limit_px`.

    The `reach_px` rows at a strip's inner borders are not kept. It and the frame's height are even, and so is where
    strips start: an unshuffle by 2 pairs the same pixels as in the whole frame.
    """
    height = size.height_px
    assert reach_px % 2 == height % 2 == 0, (reach_px, height)
    step = max(2, limit_px // size.width_px // 2 * 2 - 2 * reach_px)
    tall = step + 2 * reach_px
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
        padded = Size(width_px=_even(size.width_px) + 2 * MARGIN_PX, height_px=_even(size.height_px) + 2 * MARGIN_PX)
        self._frame = np.zeros((padded.height_px, padded.width_px), np.uint8)
        reach_px = sum(conv.kernel_size[0] // 2 for _, conv in net.layers()) * net.config.unshuffle
        self._windows = windows(padded, _even(reach_px), WINDOW_PX)
        first = self._windows[0]
        self.window = Size(width_px=padded.width_px, height_px=first.bottom - first.top)
        self.compile(net, device, ranges)
        self._batch = np.zeros((self.rows, self.window.height_px, self.window.width_px), np.uint8)

    @abstractmethod
    def compile(self, net: FEdsr, device: str, ranges: Ranges) -> None:
        """Build the network for `rows` windows of size `window`, which is even."""

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
        pieces = [(i, window) for i in range(len(y_NHW)) for window in self._windows]
        for k in range(0, len(pieces), self.rows):
            chunk = pieces[k : k + self.rows]
            for row, (i, window) in enumerate(chunk):
                if window.top == 0:
                    self._pad(y_NHW[i])
                self._batch[row] = self._frame[window.top : window.bottom]
            for (i, window), residual_HW in zip(chunk, self.run(self._batch), strict=False):
                yield i, *self._kept(window, residual_HW)

    def _pad(self, y_HW: NDArray[np.uint8]) -> None:
        bottom, right = (len_ - MARGIN_PX - side for len_, side in zip(self._frame.shape, y_HW.shape, strict=True))
        cv2.copyMakeBorder(y_HW, MARGIN_PX, bottom, MARGIN_PX, right, cv2.BORDER_REPLICATE, dst=self._frame)

    def _kept(self, window: Window, residual_HW: NDArray[np.int8]) -> tuple[slice, NDArray[np.int8]]:
        """Return a window's rows of the output, and their residual without margin."""
        s, (height, width) = self.scale, self._out_shape
        first = max(s * (window.start - MARGIN_PX), 0)
        last = min(s * (window.stop - MARGIN_PX), height)
        shift = s * (MARGIN_PX - window.top)
        left = s * MARGIN_PX
        return slice(first, last), residual_HW[first + shift : last + shift, left : left + width]


def _even(number: int) -> int:
    return number + number % 2
