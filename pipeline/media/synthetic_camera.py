"""The camera of the rendered scene: where it stands, how it pans, zooms, shakes and cuts.

World: metres, x to the right, y along the street away from the camera, z up; the ground is z = 0.
Picture: pixels, u to the right, v down; pixel (column c, row r) has its centre at (c, r).
The camera only turns and zooms within a shot, so two pictures of a shot are related by a homography, exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Mount(NamedTuple):
    """Where a camera hangs: position in metres, yaw to the right and pitch up in degrees, field of view."""

    x_m: float
    y_m: float
    z_m: float
    yaw_deg: float
    pitch_deg: float
    hfov_deg: float


# Three mounts that see the street differently (chosen): left pavement, right pavement, above the road.
MOUNTS = (
    Mount(-7.6, -2.0, 6.2, 17.0, -14.0, 54.0),
    Mount(8.2, 3.0, 4.6, -19.0, -11.0, 50.0),
    Mount(1.2, -3.0, 8.5, -2.0, -19.0, 60.0),
)
PAN_DEG, TILT_DEG, ZOOM = 3.5, 0.8, 0.22  # largest swing of each; zoom goes from 1 to 1 + ZOOM
_MARGIN_DEG = 1.5  # of the panorama beyond the largest swing
_PANORAMA_PX = 4096  # widest panorama: beyond it the memory is not worth the sharpness (chosen)


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A pinhole camera.

    Attributes:
        centre: (3,) metres.
        rotation: (3, 3), rows are right, down, forward in world axes.
        focal_px: focal length.
        u0, v0: principal point, px; carries the shake.
        width_px, height_px: of the picture.
    """

    centre: Array
    rotation: Array
    focal_px: float
    u0: float
    v0: float
    width_px: int
    height_px: int

    @property
    def intrinsics(self) -> Array:
        """(3, 3) K."""
        return np.array([[self.focal_px, 0, self.u0], [0, self.focal_px, self.v0], [0, 0, 1.0]])

    @property
    def ground(self) -> Array:
        """(3, 3) homography from ground (x, y, 1) in metres to the picture (u, v, 1) times depth."""
        turn = self.intrinsics @ self.rotation
        return np.column_stack([turn[:, 0], turn[:, 1], -turn @ self.centre])

    def project(self, points: Array) -> tuple[Array, Array]:
        """Return (N, 2) px and (N,) depth in metres of (N, 3) points; depth ≤ 0 is behind the camera."""
        seen = (points - self.centre) @ self.rotation.T
        depth = seen[:, 2]
        safe = np.where(np.abs(depth) < 1e-6, 1e-6, depth)
        return seen[:, :2] / safe[:, None] * self.focal_px + (self.u0, self.v0), depth

    def rays(self) -> NDArray[np.float32]:
        """Return (H, W, 3) world directions through all pixels, of depth 1 m along the optical axis."""
        u = (np.arange(self.width_px, dtype=np.float32) - np.float32(self.u0)) / np.float32(self.focal_px)
        v = (np.arange(self.height_px, dtype=np.float32) - np.float32(self.v0)) / np.float32(self.focal_px)
        right, down, forward = self.rotation.astype(np.float32)
        rays: NDArray[np.float32] = u[None, :, None] * right + v[:, None, None] * down + forward
        return rays

    def homography_from(self, other: View) -> Array:
        """Return (3, 3) from the picture of `other`, which has the same centre, to this one."""
        assert np.array_equal(self.centre, other.centre)
        return self.intrinsics @ self.rotation @ other.rotation.T @ np.linalg.inv(other.intrinsics)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pose:
    """What the camera does at a frame: shot, mount, swing, and the view that results."""

    shot: int
    is_cut: bool
    mount: int
    pan_deg: float
    tilt_deg: float
    zoom: float
    shake_px: tuple[float, float]
    view: View


@dataclass(frozen=True, kw_only=True, slots=True)
class Camera:
    """The camera's whole plan; `pose` is a pure function of the frame's number."""

    width_px: int
    height_px: int
    fps: Fraction
    cut_s: Fraction
    shake_px: float
    phases: tuple[float, ...]  # six angles in radian, from the seed
    first_mount: int

    def pose(self, index: int) -> Pose:
        """Return the pose at frame `index`."""
        t = float(index / self.fps)
        shot = self._shot(index)
        mount = (self.first_mount + shot) % len(MOUNTS)
        a = self.phases
        pan = PAN_DEG * math.sin(2 * math.pi * t / 19 + a[0] + shot)
        tilt = TILT_DEG * math.sin(2 * math.pi * t / 23 + a[1])
        zoom = 1 + ZOOM * (0.5 - 0.5 * math.cos(2 * math.pi * t / 29 + a[2] + shot))
        du = self.shake_px * (0.6 * math.sin(10.7 * t + a[3]) + 0.4 * math.sin(27.1 * t + a[4]))
        dv = self.shake_px * (0.6 * math.sin(12.9 * t + a[4]) + 0.4 * math.sin(31.3 * t + a[5]))
        return Pose(
            shot=shot,
            is_cut=index > 0 and shot != self._shot(index - 1),
            mount=mount,
            pan_deg=pan,
            tilt_deg=tilt,
            zoom=zoom,
            shake_px=(du, dv),
            view=self._view(mount, pan, tilt, zoom, (du, dv)),
        )

    def panorama(self, mount: int) -> View:
        """Return the view that holds every picture of a mount, at the sharpness of half the zoom."""
        half = math.radians(MOUNTS[mount].hfov_deg / 2)
        focal = self._focal(mount) * (1 + 0.6 * ZOOM)
        half_u = math.atan(math.tan(half) * self.width_px / self._long_px) + math.radians(PAN_DEG + _MARGIN_DEG)
        half_v = math.atan(math.tan(half) * self.height_px / self._long_px)
        half_v += math.radians(TILT_DEG + _MARGIN_DEG)
        # A pan about the vertical lifts the corners of a camera that looks down: the secant covers it.
        width = 2 * (focal * math.tan(half_u) + 1.3 * self.shake_px) * 1.04 + 4
        height = 2 * (focal * math.tan(half_v) / math.cos(math.radians(PAN_DEG)) + 1.3 * self.shake_px) * 1.08 + 4
        shrink = min(1.0, _PANORAMA_PX / max(width, height))
        size = (math.ceil(width * shrink), math.ceil(height * shrink))
        base = self._view(mount, 0.0, 0.0, 1.0, (0.0, 0.0))
        return View(
            centre=base.centre,
            rotation=base.rotation,
            focal_px=focal * shrink,
            u0=(size[0] - 1) / 2,
            v0=(size[1] - 1) / 2,
            width_px=size[0],
            height_px=size[1],
        )

    @property
    def _long_px(self) -> float:
        # Portrait pictures keep the vertical field of view of 16:9, they do not see from sky to feet.
        return max(self.width_px, self.height_px * 16 / 9)

    def _focal(self, mount: int) -> float:
        return self._long_px / 2 / math.tan(math.radians(MOUNTS[mount].hfov_deg / 2))

    def _shot(self, index: int) -> int:
        return math.floor(index / self.fps / self.cut_s) if self.cut_s else 0

    def _view(self, mount: int, pan: float, tilt: float, zoom: float, shake: tuple[float, float]) -> View:
        m = MOUNTS[mount]
        yaw, pitch = math.radians(m.yaw_deg + pan), math.radians(m.pitch_deg + tilt)
        right = np.array([math.cos(yaw), -math.sin(yaw), 0.0])
        forward = np.array([math.sin(yaw) * math.cos(pitch), math.cos(yaw) * math.cos(pitch), math.sin(pitch)])
        return View(
            centre=np.array([m.x_m, m.y_m, m.z_m]),
            rotation=np.stack([right, np.cross(forward, right), forward]),
            focal_px=self._focal(mount) * zoom,
            u0=(self.width_px - 1) / 2 + shake[0],
            v0=(self.height_px - 1) / 2 + shake[1],
            width_px=self.width_px,
            height_px=self.height_px,
        )
