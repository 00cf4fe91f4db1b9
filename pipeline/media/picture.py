"""A decoded picture and what its packet says of it."""

from __future__ import annotations

from dataclasses import dataclass

import av


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A decoded picture.

    Attributes:
        frame: FFmpeg's.
        number: of the packet that it came from, in the epoch.
        pts: ticks; None where neither source nor container knows.
        dts: of its packet, ticks; None likewise.
        duration: ticks; 0 if unknown.
        key: whether its packet is a random-access point.
        arrived_ns: Unix time at which its packet arrived.
    """

    frame: av.VideoFrame
    number: int
    pts: int | None
    dts: int | None
    duration: int
    key: bool
    arrived_ns: int
