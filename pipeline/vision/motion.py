"""Dense motion between two luma planes, and pictures carried along it.

Flow by DIS (Kroeger et al. 2016, "Fast optical flow using dense inverse search") as OpenCV has it. Convention: the flow
of (target, neighbour) is float32 pixels, x before y; what the target shows at p, the neighbour shows at p + flow(p). So
`warp(neighbour, flow)` looks like the target (backward warping). Deterministic: OpenCV's inverse search runs in a fixed
number of stripes whatever the number of threads, and a flow depends on its two planes alone.

Shapes: H × W pixels, s scale. Flow is (H, W, 2) in NumPy and (N, 2, H, W) in PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.vision.stability import in_source_band

if TYPE_CHECKING:
    from torch import Tensor

Plane = NDArray[np.uint8]
Flow = NDArray[np.float32]

PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}
"""OpenCV's own settings of DIS, by rising cost."""

LEAST_PX = 24  # of the shorter side; DIS has no pyramid for smaller planes: their flow is zero
WINDOW_PX = 9  # side of the neighbourhood whose error decides between the flow and none (chosen)
MISFIT = 16.0  # mean |difference| in code values (chosen; between aligned frames of two clips it is 0.6 and 1.2)
BOUNDS = cv2.BORDER_REPLICATE


def dense_flow(target_HW: Plane, neighbour_HW: Plane, preset: str = "medium") -> Flow:
    """Return where each pixel of `target_HW` is found in `neighbour_HW` (H, W, 2), zero where that is no better.

    A match that looks worse than the pixel that was there before is worse than none (textureless ground, what a frame's
    border or a thing in front hides, a cut): there the flow is zero (`zero_where_worse`).
    """
    assert target_HW.shape == neighbour_HW.shape, (target_HW.shape, neighbour_HW.shape)
    if min(target_HW.shape) < LEAST_PX:
        return np.zeros((*target_HW.shape, 2), np.float32)
    dis = cv2.DISOpticalFlow.create(PRESETS[preset])
    flow_HW2: Flow = dis.calc(target_HW, neighbour_HW, None)  # type: ignore[call-overload]
    return zero_where_worse(flow_HW2, target_HW, neighbour_HW)


def zero_where_worse(flow_HW2: Flow, target_HW: Plane, neighbour_HW: Plane) -> Flow:
    """Return the flow, 0 where the neighbour as it is lies nearer to the target than the neighbour carried along it.

    Nearer: by the mean absolute difference over WINDOW_PX × WINDOW_PX pixels.
    """
    moved_HW = _blurred_difference(warp(neighbour_HW, flow_HW2), target_HW)
    still_HW = _blurred_difference(neighbour_HW, target_HW)
    return flow_HW2 * (moved_HW <= still_HW)[:, :, None]


def enlarged(flow_HW2: Flow, scale: int) -> Flow:
    """Return a flow for planes `scale` times as large: (s·H, s·W, 2), bilinear, vectors times `scale`."""
    height, width = flow_HW2.shape[:2]
    out: Flow = cv2.resize(flow_HW2, (width * scale, height * scale), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    return out * np.float32(scale)


def aligned_plane(target_HW: Plane, neighbour_HW: Plane, scale: int) -> Plane:
    """Return `neighbour_HW` carried to the target's place by the flow between both, found on the low-resolution grid.

    Both planes (s·h, s·w) are averaged down by `scale` for it: it costs 1/s² of the time, and their fine detail is a
    network's guess, which moves with the grid and not with the picture. A neighbour that shows something else (across a
    cut) is no neighbour: where both still differ by more than MISFIT on average, the target itself comes back.
    """
    flow_HW2 = dense_flow(in_source_band(target_HW, scale), in_source_band(neighbour_HW, scale))
    aligned_HW = warp(neighbour_HW, enlarged(flow_HW2, scale))
    misfit = cv2.norm(aligned_HW, target_HW, cv2.NORM_L1) / target_HW.size
    return aligned_HW if misfit <= MISFIT else target_HW


def warp(plane_HW: Plane, flow_HW2: Flow) -> Plane:
    """Return the plane carried back along the flow (H, W): out(p) = plane(p + flow(p)), bicubic, borders repeat."""
    height, width = plane_HW.shape
    map_HW2 = flow_HW2 + _places(height, width)
    out: Plane = cv2.remap(plane_HW, map_HW2, None, cv2.INTER_CUBIC, borderMode=BOUNDS)  # type: ignore[call-overload]
    return out


def warp_tensor(x_NCHW: Tensor, flow_N2HW: Tensor, *, mode: str = "bicubic") -> Tensor:
    """Return `warp` of float tensors, differentiable in both; agrees with it to OpenCV's 1/32 pixel and rounding.

    `mode` is "bicubic" (Keys with a = −0.75, as OpenCV's) or "bilinear", whose gradient reaches less far.
    """
    import torch  # noqa: PLC0415  # what only moves pixels does without PyTorch
    from torch.nn import functional  # noqa: PLC0415

    height, width = x_NCHW.shape[2:]
    x_W = torch.arange(width, device=x_NCHW.device, dtype=flow_N2HW.dtype)
    y_H = torch.arange(height, device=x_NCHW.device, dtype=flow_N2HW.dtype)
    # Centres of pixels lie at (2·i + 1) / length − 1, as grid_sample has them without align_corners.
    grid_x = (2 * (x_W + flow_N2HW[:, 0]) + 1) / width - 1
    grid_y = (2 * (y_H[:, None] + flow_N2HW[:, 1]) + 1) / height - 1
    grid_NHW2 = torch.stack([grid_x, grid_y], dim=-1).to(x_NCHW.dtype)
    return functional.grid_sample(x_NCHW, grid_NHW2, mode=mode, padding_mode="border", align_corners=False)


def _places(height: int, width: int) -> Flow:
    """Return each pixel's own place (H, W, 2), x before y."""
    out = np.empty((height, width, 2), np.float32)
    out[..., 0] = np.arange(width, dtype=np.float32)
    out[..., 1] = np.arange(height, dtype=np.float32)[:, None]
    return out


def _blurred_difference(a_HW: Plane, b_HW: Plane) -> NDArray[np.float32]:
    difference = cv2.absdiff(a_HW, b_HW)
    out: NDArray[np.float32] = cv2.boxFilter(difference, cv2.CV_32F, (WINDOW_PX, WINDOW_PX), borderType=BOUNDS)  # type: ignore[assignment]
    return out
