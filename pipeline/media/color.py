"""Decoded pictures as I420, 8 bit: copied where they are so already, else converted with bit-exact rules.

4:2:0 of 8 bit is copied plane by plane into the batch's own memory, once. Everything else (10 bit, 4:2:2, 4:4:4, RGB,
grey, another size) goes through swscale with its exact, thread-independent rounding, so that the same picture gives the
same bytes in every process.
"""

from __future__ import annotations

from typing import Any

import av
import av.error
import numpy as np
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from pipeline.errors import CorruptMedia
from pipeline.wire.frames import ColorSpec, Size

_PLAIN = ("yuv420p", "yuvj420p")
_EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INP
_MPEG, _JPEG = 1, 2  # AVColorRange
_BT709, _BT601 = 1, 6  # H.273 table 4: ITU-R BT.709, BT.601 (625 and 525 lines share the matrix)
# H.273 tables 2 to 4: what is defined for Y'CbCr; anything else (reserved, damaged) is unspecified.
_PRIMARIES = {1, 2, *range(4, 13), 22}
_TRANSFERS = {1, 2, *range(4, 19)}
_MATRICES = {1, 2, *range(4, 15)}
_UNSPECIFIED = 2
_HD_HEIGHT_PX = 576  # above it BT.709 is the usual matrix (chosen, as players do)


def color_of(frame: av.VideoFrame) -> ColorSpec:
    """Return what the code values of `frame`, once it is I420, mean.

    YUV keeps its codes. RGB and grey become limited-range YUV: BT.709 above 576 lines, else BT.601 (chosen).
    """
    full = frame.color_range == _JPEG or frame.format.name.startswith("yuvj")
    matrix = int(frame.colorspace)
    if frame.format.is_rgb:
        matrix, full = _matrix_for(frame), False
    return ColorSpec(
        matrix=_known(matrix, _MATRICES),
        primaries=_known(int(frame.color_primaries), _PRIMARIES),
        transfer=_known(int(frame.color_trc), _TRANSFERS),
        full_range=full,
    )


def _known(code: int, codes: set[int]) -> int:
    return code if code in codes else _UNSPECIFIED


def _matrix_for(frame: av.VideoFrame) -> int:
    return _BT709 if frame.height > _HD_HEIGHT_PX else _BT601


def _plane(plane: Any) -> NDArray[np.uint8]:
    """A plane as a (H, W) view; FFmpeg's rows may be padded, and run upwards where line_size is negative."""
    stride = abs(plane.line_size)
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, stride)[:, : plane.width]
    return rows[::-1] if plane.line_size < 0 else rows


class I420Writer:
    """Writes decoded frames of one stream into rows of a batch.

    Args:
        size: of the pictures as coded; other frames are scaled to it.
        rotation_deg: counter-clockwise turn (0, 90, 180, 270); the written picture has its sides swapped by 90 and 270.
    """

    def __init__(self, size: Size, rotation_deg: int = 0) -> None:
        self._coded = size
        self._quarters = rotation_deg // 90
        swapped = self._quarters % 2 == 1
        self.size = Size(width_px=size.height_px, height_px=size.width_px) if swapped else size
        self._reformatter = VideoReformatter()

    def write(self, frame: av.VideoFrame, out: NDArray[np.uint8]) -> bool:
        """Write `frame` into `out`, (size.frame_bytes,) uint8 and contiguous; say whether it had to be scaled.

        Raises:
            CorruptMedia: it cannot be converted.
        """
        coded = self._coded
        scaled = (frame.width, frame.height) != (coded.width_px, coded.height_px)
        if scaled or frame.format.name not in _PLAIN:
            frame = self._converted(frame)
        luma, chroma = self.size, self.size.chroma
        at = 0
        for plane, size in zip(frame.planes, (luma, chroma, chroma), strict=True):
            count = size.width_px * size.height_px
            target = out[at : at + count].reshape(size.height_px, size.width_px)
            source = _plane(plane)
            np.copyto(target, np.rot90(source, self._quarters) if self._quarters else source)
            at += count
        return scaled

    def _converted(self, frame: av.VideoFrame) -> av.VideoFrame:
        full = frame.color_range == _JPEG or frame.format.name.startswith("yuvj")
        rgb = frame.format.is_rgb
        # From Y'CbCr to Y'CbCr no matrix is applied. Naming one for both keeps reserved codes away from swscale, which
        # refuses them.
        matrix = Colorspace.ITU709 if not rgb or _matrix_for(frame) == _BT709 else Colorspace.ITU601
        try:
            return self._reformat(frame, matrix, full=full, rgb=rgb)
        except av.error.FFmpegError as error:
            raise CorruptMedia(f"a {frame.format.name} picture cannot be converted: {error}") from error

    def _reformat(self, frame: av.VideoFrame, matrix: Colorspace, *, full: bool, rgb: bool) -> av.VideoFrame:
        return self._reformatter.reformat(
            frame,
            width=self._coded.width_px,
            height=self._coded.height_px,
            format="yuv420p",
            src_colorspace=None if rgb else matrix,
            dst_colorspace=matrix,
            interpolation=_EXACT,
            src_color_range=_JPEG if full or rgb else _MPEG,
            dst_color_range=_JPEG if full and not rgb else _MPEG,
            threads=1,
        )
