"""Segments of one small clip, as MPEG-TS and as fragmented MP4, and playlists of them."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from fractions import Fraction

import av

from tests.media_files import picture

GOP = 10
RATE = 25
SEGMENT_S = GOP / RATE


@functools.cache
def ts(count: int, *, width: int = 96, height: int = 64, start: int = 0) -> tuple[bytes, ...]:
    """`count` TS segments of 10 frames; their pictures and times go on from one to the next."""
    out = []
    for i in range(count):
        file = io.BytesIO()
        with av.open(file, "w", format="mpegts", options={"mpegts_copyts": "1"}) as container:
            _write(container, range(start + i * GOP, start + (i + 1) * GOP), width, height)
        out.append(file.getvalue())
    return tuple(out)


@functools.cache
def mp4(count: int, *, width: int = 96, height: int = 64) -> tuple[bytes, tuple[bytes, ...]]:
    """An initialisation segment, and `count` segments of 10 frames."""
    file = io.BytesIO()
    flags = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    with av.open(file, "w", format="mp4", options=flags) as container:
        _write(container, range(count * GOP), width, height)
    data = file.getvalue()
    cuts = [i - 4 for i in range(len(data)) if data[i : i + 4] == b"moof"]
    mfra = data.rfind(b"mfra") - 4
    ends = [*cuts[1:], mfra]
    return data[: cuts[0]], tuple(data[a:b] for a, b in zip(cuts, ends, strict=True))


def _write(container: av.container.OutputContainer, frames: range, width: int, height: int) -> None:
    options = {"preset": "ultrafast", "x264-params": f"bframes=0:keyint={GOP}:scenecut=0:log-level=none"}
    stream = container.add_stream("libx264", rate=RATE, options=options)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    for i in frames:
        frame = av.VideoFrame.from_ndarray(picture(i, width, height), format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = i, Fraction(1, RATE)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def playlist(
    names: Sequence[str], *, first: int = 0, ended: bool = True, target_s: float = 1, before: Sequence[str] = ()
) -> bytes:
    """A media playlist; a name may bring lines of tags in front of it, and `before` stands in front of all."""
    lines = ["#EXTM3U", "#EXT-X-VERSION:7", f"#EXT-X-TARGETDURATION:{target_s:g}", f"#EXT-X-MEDIA-SEQUENCE:{first}"]
    lines += before
    for name in names:
        *tags, uri = name.split("\n")
        lines += [*tags, f"#EXTINF:{SEGMENT_S:.3f},", uri]
    return ("\n".join(lines) + "\n" + ("#EXT-X-ENDLIST\n" if ended else "")).encode()
