"""What is exactly true of a picture of the rendered scene; computed when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.media.synthetic_camera import Pose
from pipeline.media.synthetic_layer import PERSON, STATIC, Layer, Words
from pipeline.media.synthetic_street import Board, Static, moved, placed, surfaces, words


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A string in the picture.

    Attributes:
        text: what it says.
        kind: `stamp` (burnt in), `plate` or `sign`.
        box: (4,) float32 xyxy px, of all of it, also beyond the picture's edge.
        visible: fraction of it inside the picture with nothing before it, 0..1.
    """

    text: str
    kind: str
    box: NDArray[np.float32]
    visible: float


class Truth:
    """Everything about one frame. Boxes are xyxy px; pixel c covers [c, c + 1), so a box's width is x1 − x0.

    Listed are the things whose full extent meets the picture and shows at least one pixel unoccluded by the edge;
    N of them, in drawing order, far ones first.
    """

    def __init__(
        self,
        pose: Pose,
        light: float,
        static: Static,
        layers: Sequence[Layer],
        *,
        boards: list[Board],
        stamp: Text | None,
    ) -> None:
        self.pose = pose  # camera: shot, is_cut, pan, tilt, zoom, shake, view (focal length, position, rotation)
        self.light = light  # gain of the scene's light, 1 is the mean
        self._static, self._boards, self._layers, self._stamp = static, boards, layers, stamp

    @property
    def ground_to_image(self) -> NDArray[np.float64]:
        """(3, 3) homography from the ground (x, y, 1), metres, to the picture (u·w, v·w, w), px; w is depth."""
        return self.pose.view.ground

    @property
    def shot(self) -> int:
        """Number of the shot, from 0."""
        return self.pose.shot

    @property
    def is_cut(self) -> bool:
        """Whether this is the first frame of a shot that is not the first."""
        return self.pose.is_cut

    @cached_property
    def ids(self) -> NDArray[np.int32]:
        """(N,) identities, 1..65535, the same over all frames of a passage through the street."""
        return np.array([layer.id for layer in self._seen], np.int32)

    @cached_property
    def classes(self) -> NDArray[np.int32]:
        """(N,) 0 person, 1 vehicle."""
        return np.array([layer.kind for layer in self._seen], np.int32)

    @cached_property
    def boxes(self) -> NDArray[np.float32]:
        """(N, 4) boxes of the whole body, also where it is hidden or beyond the picture's edge."""
        return np.array([_extent(layer) for layer in self._seen], np.float32).reshape(-1, 4)

    @cached_property
    def visible(self) -> NDArray[np.float32]:
        """(N,) pixels in the mask over pixels of the whole body, 0..1."""
        counts = np.bincount(self.mask.ravel(), minlength=65536)
        whole = [max(int(np.count_nonzero(layer.drawn())), 1) for layer in self._seen]
        return np.array([counts[layer.id] / n for layer, n in zip(self._seen, whole, strict=True)], np.float32)

    @cached_property
    def heads(self) -> NDArray[np.float32]:
        """(M, 4) boxes of the persons' heads, hair included; also of those that are hidden."""
        boxes = [layer.head for layer in self._seen if layer.head is not None]
        return (np.array(boxes, np.float32).reshape(-1, 4) + np.float32(0.5)).astype(np.float32)

    @cached_property
    def head_ids(self) -> NDArray[np.int32]:
        """(M,) whose heads they are."""
        return np.array([layer.id for layer in self._seen if layer.kind == PERSON], np.int32)

    @cached_property
    def mask(self) -> NDArray[np.uint16]:
        """(H, W) identity that each pixel shows; 0 where it shows the street, a tree or a lamp."""
        numbers = np.array([0, *(layer.id for layer in self._all)], np.uint16)
        return numbers[self._owner]

    @cached_property
    def depth_m(self) -> NDArray[np.float32]:
        """(H, W) metres along the optical axis; +inf in the sky."""
        view = self.pose.view
        depth = surfaces(view).depth_m
        warp = view.homography_from(self._static.view)
        size = (view.width_px, view.height_px)
        sky = cv2.warpPerspective(
            self._static.open_sky, warp, size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE
        )
        depth[sky > 0] = np.inf
        for number, layer in enumerate(self._all):
            window = layer.window(*size)
            if window is None:
                continue
            rows, columns, patch_rows, patch_columns = window
            mine = self._owner[rows, columns] == number + 1
            if mine.any():
                depth[rows, columns][mine] = layer.depth(view)[patch_rows, patch_columns][mine]
        return depth

    @cached_property
    def texts(self) -> tuple[Text, ...]:
        """Stamp, then shop signs, then plates at least 4 px wide, whose outline meets the picture."""
        found = [self._stamp] if self._stamp is not None else []
        for sign in words(self._boards, self.pose.view):
            found += self._text(sign, 0)
        seen = set(self.ids.tolist())
        for number, layer in enumerate(self._all):
            if layer.id in seen:
                for plate in layer.words:
                    found += self._text(plate, number + 1)
        return tuple(found)

    def _text(self, seen: Words, owner: int) -> list[Text]:
        height, width = self._owner.shape
        low, high = seen.outline.min(axis=0) + 0.5, seen.outline.max(axis=0) + 0.5
        if (high <= 0).any() or low[0] >= width or low[1] >= height:
            return []
        area = np.zeros((height, width), np.uint8)
        cv2.fillConvexPoly(area, np.rint(np.clip(seen.outline, -30000, 30000) * 16).astype(np.int32), 1, shift=4)
        whole = max(float(cv2.contourArea(seen.outline.astype(np.float32))), float(np.count_nonzero(area)), 1.0)
        shown = float(np.count_nonzero((area > 0) & (self._owner == owner)))
        return [Text(text=seen.text, kind=seen.kind, box=np.array([*low, *high], np.float32), visible=shown / whole)]

    @cached_property
    def _all(self) -> list[Layer]:
        view, panorama = self.pose.view, self._static.view
        warp = view.homography_from(panorama)
        still = [moved(thing, warp) for thing in placed(self._static, view, warp)]
        return sorted([*self._layers, *still], key=lambda layer: layer.key)

    @cached_property
    def _seen(self) -> list[Layer]:
        width, height = self.pose.view.width_px, self.pose.view.height_px
        found = []
        for layer in self._all:
            window = layer.window(width, height)
            if layer.kind != STATIC and window is not None and layer.drawn()[window[2], window[3]].any():
                found.append(layer)
        return found

    @cached_property
    def _owner(self) -> NDArray[np.int32]:
        """(H, W) number in `_all` of the layer on top, from 1; 0 is the street."""
        view = self.pose.view
        owner = np.zeros((view.height_px, view.width_px), np.int32)
        for number, layer in enumerate(self._all):
            window = layer.window(view.width_px, view.height_px)
            if window is not None:
                rows, columns, patch_rows, patch_columns = window
                owner[rows, columns][layer.drawn()[patch_rows, patch_columns]] = number + 1
        return owner


def _extent(layer: Layer) -> tuple[float, float, float, float]:
    drawn = layer.drawn()
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    return (
        float(columns[0] + layer.left),
        float(rows[0] + layer.top),
        float(columns[-1] + 1 + layer.left),
        float(rows[-1] + 1 + layer.top),
    )
