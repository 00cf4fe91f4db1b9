"""The bytes that decide a picture's size are found, and are equal as long as the size is."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from pipeline.media.parameters import size_signature
from tests import media_files as made


def keys(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        extradata = stream.codec_context.extradata or b""
        name = stream.codec_context.codec.canonical_name
        return [size_signature(name, bytes(p), extradata) for p in container.demux(stream) if p.size and p.is_keyframe]


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        ("ts", "libx264", None),
        ("h264", "libx264", None),
        ("ts", "libx265", made.X265_OPEN),
        ("ts", "mpeg2video", None),
        ("ts", "mpeg4", None),
        ("webm", "libvpx", {"cpu-used": "8", "deadline": "realtime"}),
        ("webm", "libvpx-vp9", {"cpu-used": "8", "deadline": "realtime"}),
        ("mkv", "libsvtav1", {"preset": "12"}),
        ("avi", "mjpeg", None),
    ],
)
def test_signature_follows_the_size(suffix: str, codec: str, options: dict[str, str] | None, tmp_path: Path) -> None:
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    found = []
    for width in (96, 128):
        path = made.encode(
            tmp_path / f"{width}.{suffix}", frames=25, gop=8, width=width, codec=codec, options=options, pix_fmt=pix_fmt
        )
        signatures = keys(path)
        assert len(signatures) >= 2
        # containers with a header of their own may leave it out of later key packets
        assert len({s for s in signatures if s}) == 1
        found.append(signatures[0])
    assert found[0] and found[1] and found[0] != found[1]


@pytest.mark.parametrize(
    "codec", ["h264", "hevc", "vp8", "vp9", "av1", "mpeg2video", "mpeg4", "mjpeg", "rawvideo", "unheard_of"]
)
def test_noise_has_some_signature_or_none(codec: str) -> None:
    for data in (b"", b"\x00", b"\x00\x00\x01", b"\xff" * 50, bytes(50), b"\x00\x00\x01\xb3", b"\x0a\xff\xff"):
        for extradata in (b"", b"\x01\x64\x00\x1f\xff\xe1\x00"):
            assert isinstance(size_signature(codec, data, extradata), bytes)
