"""Makes the odd inputs that tests need: small videos with known pictures, times and faults, written with PyAV."""

from __future__ import annotations

import ssl
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from numpy.typing import NDArray

from pipeline.wire.packets import Packet

X264 = {"preset": "ultrafast", "crf": "20", "threads": "1"}
B_FRAMES = X264 | {"preset": "veryfast", "x264-params": "bframes=3:b-adapt=0:b-pyramid=1:scenecut=0"}
OPEN_GOP = X264 | {"preset": "veryfast", "x264-params": "bframes=3:b-adapt=0:scenecut=0:open-gop=1"}
X265_OPEN = {
    "preset": "ultrafast",
    "x265-params": "bframes=3:b-adapt=0:scenecut=0:open-gop=1:pools=1:frame-threads=1:log-level=0",
}
RATE = 25
TICKS = 512  # a frame, in MP4


def picture(index: int, width: int, height: int) -> NDArray[np.uint8]:
    """Picture `index` as RGB (H, W, 3): a gradient that drifts, and a bright square that moves with the index."""
    y, x = np.mgrid[0:height, 0:width]
    out = np.empty((height, width, 3), np.uint8)
    out[..., 0] = (x * 255 // max(1, width - 1) + 3 * index) % 256
    out[..., 1] = (y * 255 // max(1, height - 1) + 5 * index) % 256
    out[..., 2] = (x + y + 7 * index) % 256
    side = max(1, min(width, height) // 6)
    left, top = (index * 5) % max(1, width - side), (index * 3) % max(1, height - side)
    out[top : top + side, left : left + side] = 255 - index % 32
    return out


def encode(
    path: Path,
    *,
    frames: int = 30,
    width: int = 96,
    height: int = 64,
    rate: int | Fraction = RATE,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    gop: int = 10,
    pts: Sequence[int] | None = None,
    audio: bool = False,
    container: str | None = None,
    container_options: dict[str, str] | None = None,
    shift: Callable[[int, Any], int] = lambda number, packet: 0,
    interlaced: bool = False,
    first: int = 0,
) -> Path:
    """Write a video and return its path.

    Args:
        pts: of the frames, in units of 1 / (512 × rate) s; by default 512 apart.
        shift: ticks (of the packet's time base) to add to a packet, given its number in its track and itself.
        first: number of the first picture.
    """
    with av.open(str(path), "w", format=container, options=container_options or {}) as out:
        stream: Any = out.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.gop_size = gop
        stream.codec_context.thread_count = 1
        base = 1 / (Fraction(rate) * TICKS)
        # AVI takes its frame rate from the time base; MPEG-2 knows no other
        coarse = path.suffix == ".avi" or codec == "mpeg2video"
        stream.codec_context.time_base = 1 / Fraction(rate) if coarse else base
        stream.options = X264 if options is None and codec == "libx264" else options or {}
        if interlaced:
            stream.codec_context.flags |= int(av.codec.context.Flags.interlaced_dct)
        sound: Any = None
        if audio:
            sound = out.add_stream("aac", rate=48000)
            sound.layout = "mono"
            sound.codec_context.thread_count = 1
        counts = {0: 0, 1: 0}
        packets: list[Any] = []

        def mux(packet: Any) -> None:
            index = packet.stream.index
            ticks = shift(counts[index], packet)
            if packet.pts is not None:
                packet.pts += ticks
            if packet.dts is not None:
                packet.dts += ticks
            counts[index] += 1
            packets.append(packet)

        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(first + i, width, height), format="rgb24")
            frame = frame.reformat(format=pix_fmt)
            if interlaced:
                frame = _woven(first + i, width, height, pix_fmt)
            frame.pts = i * TICKS if pts is None else pts[i]
            frame.time_base = base
            for packet in stream.encode(frame):
                mux(packet)
        for packet in stream.encode(None):
            mux(packet)
        if sound is not None:
            total = round(frames / Fraction(rate) * 48000)
            tone = (0.2 * np.sin(np.arange(total) * 2 * np.pi * 440 / 48000)).astype(np.float32)
            for start in range(0, total, 1024):
                block: Any = av.AudioFrame.from_ndarray(tone[np.newaxis, start : start + 1024], "fltp", "mono")
                block.sample_rate, block.pts, block.time_base = 48000, start, Fraction(1, 48000)
                for packet in sound.encode(block):
                    mux(packet)
            for packet in sound.encode(None):
                mux(packet)
        packets.sort(key=lambda p: (float(p.dts * p.time_base), p.stream.index))
        for packet in packets:
            out.mux(packet)
    return path


def _woven(index: int, width: int, height: int, pix_fmt: str) -> Any:
    """An interlaced frame: even lines of one instant, odd lines of the next."""
    rgb = picture(2 * index, width, height)
    rgb[1::2] = picture(2 * index + 1, width, height)[1::2]
    return av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pix_fmt)


def several_tracks(path: Path) -> Path:
    """An MKV with a small video track, a larger one, and a larger one still at so low a rate that it counts less."""
    with av.open(str(path), "w") as out:
        streams: list[Any] = []
        for width, height, rate in ((64, 48, 25), (160, 96, 25), (192, 112, 5)):
            stream: Any = out.add_stream("libx264", rate=rate)
            stream.width, stream.height, stream.pix_fmt, stream.options = width, height, "yuv420p", X264
            streams.append(stream)
        for stream, count in zip(streams, (25, 25, 5), strict=True):
            for i in range(count):
                frame = av.VideoFrame.from_ndarray(picture(i, stream.width, stream.height), format="rgb24")
                frame.pts, frame.time_base = i, 1 / Fraction(stream.codec_context.framerate)
                out.mux(stream.encode(frame.reformat(format="yuv420p")))
            out.mux(stream.encode(None))
    return path


def audio_only(path: Path) -> Path:
    """An M4A with a tone."""
    with av.open(str(path), "w") as out:
        sound: Any = out.add_stream("aac", rate=48000)
        sound.layout = "mono"
        tone = (0.2 * np.sin(np.arange(24 * 1024) * 2 * np.pi * 440 / 48000)).astype(np.float32)
        for start in range(0, len(tone), 1024):
            block: Any = av.AudioFrame.from_ndarray(tone[np.newaxis, start : start + 1024], "fltp", "mono")
            block.sample_rate, block.pts, block.time_base = 48000, start, Fraction(1, 48000)
            out.mux(sound.encode(block))
        out.mux(sound.encode(None))
    return path


def rotated(path: Path, source: Path, clockwise_deg: int) -> Path:
    """A copy of an MP4 whose track header asks the player to turn the picture clockwise (ISO/IEC 14496-12 8.3.2)."""
    data = bytearray(source.read_bytes())
    cos, sin = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[clockwise_deg]
    at = data.index(b"tkhd") + 4
    matrix = at + 4 + (32 if data[at] == 1 else 20) + 16
    for offset, value in ((0, cos), (4, sin), (12, -sin), (16, cos)):
        struct.pack_into(">i", data, matrix + offset, value << 16)
    path.write_bytes(data)
    return path


def flipped(path: Path, source: Path, *, share: float, seed: int = 1, keep: int = 0) -> Path:
    """A copy with that share of its bytes replaced by random ones, but for the first `keep`."""
    rng = np.random.default_rng(seed)
    data = np.frombuffer(source.read_bytes(), np.uint8).copy()
    count = max(1, int(share * (len(data) - keep)))
    where = rng.integers(keep, len(data), count)
    data[where] = rng.integers(0, 256, count, dtype=np.uint8)
    path.write_bytes(data.tobytes())
    return path


def truncated(path: Path, source: Path, share: float) -> Path:
    """A copy of the first part of a file."""
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def joined(path: Path, *sources: Path) -> Path:
    """Files one behind the other: legal for MPEG-TS and raw streams."""
    path.write_bytes(b"".join(s.read_bytes() for s in sources))
    return path


def pyav_pass(path: Path, stream: int | None = None, limit: int | None = None) -> list[tuple[int | None, Any]]:
    """What one plain PyAV pass yields: (pts, frame) of each frame of a video stream (the first one by default)."""
    out: list[tuple[int | None, Any]] = []
    with av.open(str(path)) as container:
        track = container.streams.video[0] if stream is None else container.streams[stream]
        track.thread_count = 1  # threads change what damage looks like
        for packet in container.demux(track):
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                continue
            for frame in frames:
                out.append((frame.pts, frame))
                if limit is not None and len(out) == limit:
                    return out
    return out


def i420(frame: Any) -> NDArray[np.uint8]:
    """A decoded 4:2:0 frame of 8 bit as the bytes that a FrameBatch holds for it, taken plane by plane."""
    rows = []
    for plane in frame.planes:
        rows.append(np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, : plane.width].reshape(-1))
    return np.concatenate(rows)


def with_data(packet: Packet, data: bytes) -> Packet:
    """The packet with other bytes."""
    return replace(packet, data=data)


def with_pts(packet: Packet, pts: int | None) -> Packet:
    """The packet at another time."""
    return replace(packet, pts=pts, dts=pts)


def with_edit(path: Path, source: Path, *, start_ticks: int) -> Path:
    """A copy of an MP4 of one track, shown from a media time on by its edit list (ISO/IEC 14496-12 8.6.6)."""
    data = bytearray(source.read_bytes())
    at = data.index(b"elst") + 4
    assert data[at] == 0 and struct.unpack_from(">I", data, at + 4)[0] == 1
    struct.pack_into(">i", data, at + 12, start_ticks)
    path.write_bytes(data)
    return path


def own_certificate(folder: Path) -> ssl.SSLContext:
    """A server's TLS context with a certificate for localhost that it signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=3650))
        .not_valid_after(now + timedelta(days=36500))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "server.pem"
    path.write_bytes(pem + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context
