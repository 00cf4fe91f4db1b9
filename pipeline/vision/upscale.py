"""Conventional up-scaling: bicubic, planes and I420 frames, by a whole factor.

Keys, "Cubic convolution interpolation for digital image processing", 1981, with a = −0.75, as OpenCV computes it on
8-bit planes: sample centres map to sample centres, borders repeat. Chroma is scaled like luma *(chosen: the half
sample that MPEG-2 siting moves chroma to the left becomes a quarter sample; nobody sees it)*.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.wire.frames import FrameBatch


def bicubic(plane_HW: NDArray[np.uint8], scale: int, out_HW: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Return a plane (H, W) up-scaled to (s·H, s·W), written into `out_HW` (contiguous) where it is given."""
    height, width = plane_HW.shape
    size = (width * scale, height * scale)
    if out_HW is None:
        out_HW = np.empty(size[::-1], np.uint8)
    assert out_HW.shape == size[::-1] and out_HW.flags.c_contiguous, (out_HW.shape, size)
    cv2.resize(plane_HW, size, dst=out_HW, interpolation=cv2.INTER_CUBIC)
    return out_HW


def upscale_chroma(batch: FrameBatch, scale: int, out: FrameBatch) -> None:
    """Fill u and v of `out` (size of `batch` times `scale`) from `batch`.

    Of an odd frame the up-scaled chroma plane may be a row or column larger than `out` asks for; it is cut at the
    bottom and right, where the frame was padded.
    """
    for source_NHW, target_NHW in zip(batch.planes()[1:], out.planes()[1:], strict=True):
        height, width = target_NHW.shape[1:]
        fits = (source_NHW.shape[1] * scale, source_NHW.shape[2] * scale) == (height, width)
        for source_HW, target_HW in zip(source_NHW, target_NHW, strict=True):
            if fits:
                bicubic(source_HW, scale, target_HW)
            else:
                target_HW[...] = bicubic(source_HW, scale)[:height, :width]


def empty_like(batch: FrameBatch, scale: int) -> FrameBatch:
    """Return a batch `scale` times as large, about the same frames, whose pictures are not filled yet."""
    size = batch.size.times(scale)
    return replace(batch, size=size, data=np.empty((len(batch), size.frame_bytes), np.uint8))


def upscale(batch: FrameBatch, scale: int) -> FrameBatch:
    """Return the batch up-scaled to exactly `scale` times its size, luma and chroma; everything else is kept."""
    out = empty_like(batch, scale)
    for source_HW, target_HW in zip(batch.planes().y, out.planes().y, strict=True):
        bicubic(source_HW, scale, target_HW)
    upscale_chroma(batch, scale, out)
    return out
