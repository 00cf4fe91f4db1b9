"""A picture of a stream's output as JPEG: the newest, or the one that is shown at a time; read from its segments."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import cv2
import numpy as np

from pipeline.errors import CorruptMedia, NotFound
from pipeline.media import hls
from pipeline.media.decode import MEDIA_ERRORS

QUALITY = 85
"""Of the JPEG, 0 to 100 (chosen)."""


def snapshot(store: hls.Objects, *, t_s: float | None = None) -> bytes | None:
    """Return a JPEG of the last written segment's first frame, or of the frame that is shown `t_s` into the output.

    Args:
        store: the stream's.
        t_s: seconds from the playlist's start; after its end gives the last frame.

    Returns:
        None where there is no segment yet.

    Raises:
        CorruptMedia: the segment cannot be decoded.
        StorageError: it cannot be read.
    """
    playlist = hls.read(store, hls.MAIN)
    if playlist is None or not playlist.segments:
        return None
    segment, inside_s = playlist.segments[-1], Fraction(0)
    if t_s is not None:
        segment, inside_s = _at(playlist, Fraction(t_s))
    name = f"{hls.MAIN}/{segment.name}"
    try:
        data = store.get(hls.init_name(hls.MAIN, segment.epoch)) + store.get(name)
    except NotFound:
        return None  # the stream has just been deleted
    return _jpeg(_frame(data, inside_s, name))


def _at(playlist: hls.Playlist, t_s: Fraction) -> tuple[hls.Segment, Fraction]:
    """Return the segment that is shown at `t_s`, and how far inside it that is."""
    start = Fraction(0)
    for segment in playlist.segments:
        if t_s < start + segment.duration_s:
            return segment, t_s - start
        start += segment.duration_s
    last = playlist.segments[-1]
    return last, last.duration_s


def _frame(data: bytes, inside_s: Fraction, where: str) -> av.VideoFrame:
    """Return the last frame of a segment that is not after `inside_s` seconds from its first."""
    found: av.VideoFrame | None = None
    first: int | None = None
    try:
        with av.open(io.BytesIO(data), mode="r", format="mp4") as container:
            stream = container.streams.video[0]
            for frame in container.decode(stream):
                if frame.pts is None or stream.time_base is None:
                    continue
                first = frame.pts if first is None else first
                if found is not None and (frame.pts - first) * stream.time_base > inside_s:
                    break
                found = frame
                if not inside_s:
                    break
    except MEDIA_ERRORS as error:
        raise CorruptMedia(f"this segment cannot be decoded ({error})", where=where) from error
    if found is None:
        raise CorruptMedia("this segment holds no frame", where=where)
    return found


def _jpeg(frame: av.VideoFrame) -> bytes:
    done, data = cv2.imencode(".jpg", frame.to_ndarray(format="bgr24"), (cv2.IMWRITE_JPEG_QUALITY, QUALITY))
    assert done, "an 8 bit picture can always be a JPEG"
    return np.asarray(data).tobytes()
