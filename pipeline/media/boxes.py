"""Boxes, what MP4 files are made of (ISO/IEC 14496-12 §4.2): made, and found again."""

from __future__ import annotations

import struct

from pipeline.errors import StorageError


def box(kind: bytes, *parts: bytes) -> bytes:
    """Return a box (§4.2): its size, its four-letter kind, its content."""
    size = 8 + sum(map(len, parts))
    return b"".join((struct.pack(">I", size), kind, *parts))


def full_box(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    """Return a box with version and flags (§4.2)."""
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def boxes(data: bytes, *path: bytes) -> list[bytes]:
    """Return the contents of all boxes at `path` below `data` (boxes one after the other).

    Raises:
        StorageError: the data ends in the middle of a box.
    """
    if not path:
        return [data]
    found: list[bytes] = []
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4]) if at + 8 <= len(data) else 0
        if size < 8 or at + size > len(data):
            raise StorageError(f"a box of fMP4 is cut off at byte {at}", hint="the file is damaged")
        if data[at + 4 : at + 8] == path[0]:
            found += boxes(data[at + 8 : at + size], *path[1:])
        at += size
    return found
