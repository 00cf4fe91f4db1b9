"""What a live encoder does to a picture: scale down, compress, decode; for training pairs and measurements.

The protocol of the project's super-resolution figures is `Encoding(bitrate_bps=…)` with its defaults: area ÷ scale,
x264 veryfast, zerolatency, decoded again, luma compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, CorruptMedia, Unreachable, UnsupportedMedia

Plane = NDArray[np.uint8]  # (H, W)

SCALERS = {"area": cv2.INTER_AREA, "bicubic": cv2.INTER_CUBIC, "bilinear": cv2.INTER_LINEAR}


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One 4:2:0 picture: y (H, W), u and v (H/2, W/2), uint8; H and W are even."""

    y: Plane
    u: Plane
    v: Plane

    def __post_init__(self) -> None:
        height, width = self.y.shape
        assert height % 2 == width % 2 == 0, self.y.shape
        assert self.u.shape == self.v.shape == (height // 2, width // 2), (self.y.shape, self.u.shape)

    @classmethod
    def grey(cls, y_HW: Plane) -> Picture:
        """Return the colourless picture of a luma plane."""
        chroma = np.full((y_HW.shape[0] // 2, y_HW.shape[1] // 2), 128, np.uint8)
        return cls(y=y_HW, u=chroma, v=chroma)

    @classmethod
    def from_i420(cls, i420: NDArray[np.uint8], *, width_px: int, height_px: int) -> Picture:
        """Return the picture of one I420 frame without padding (any shape of H·W·3/2 bytes; H and W even)."""
        flat = i420.reshape(-1)
        y, quarter = height_px * width_px, height_px * width_px // 4
        chroma_shape = (height_px // 2, width_px // 2)
        return cls(
            y=flat[:y].reshape(height_px, width_px),
            u=flat[y : y + quarter].reshape(chroma_shape),
            v=flat[y + quarter : y + 2 * quarter].reshape(chroma_shape),
        )

    def cropped(self, multiple: int) -> Picture:
        """Return the upper left part whose sides are multiples of `multiple` (even) pixels."""
        height, width = (side // multiple * multiple for side in self.y.shape)
        return Picture(
            y=self.y[:height, :width],
            u=self.u[: height // 2, : width // 2],
            v=self.v[: height // 2, : width // 2],
        )

    def resized(self, width_px: int, height_px: int, scaler: str = "area") -> Picture:
        """Return the picture at another (even) size; each plane is scaled by itself."""
        method = SCALERS[scaler]

        def plane(source: Plane, width: int, height: int) -> Plane:
            out: Plane = cv2.resize(source, (width, height), interpolation=method)  # type: ignore[assignment]
            return out

        return Picture(
            y=plane(self.y, width_px, height_px),
            u=plane(self.u, width_px // 2, height_px // 2),
            v=plane(self.v, width_px // 2, height_px // 2),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """How a live encoder is set; one of `bitrate_bps` and `crf` decides the quality."""

    bitrate_bps: int | None = None
    crf: float | None = None
    preset: str = "veryfast"
    tune: str = "zerolatency"  # "" leaves B-frames and look-ahead on
    gop_frames: int = 250
    scaler: str = "area"
    rate: Fraction = Fraction(30)  # frames a second; with the bitrate it gives the bits of a frame

    def __post_init__(self) -> None:
        if (self.bitrate_bps is None) == (self.crf is None):
            raise ConfigError("give either a bitrate or a crf", where="encoding")
        if self.scaler not in SCALERS:
            raise ConfigError(
                f"unknown scaler '{self.scaler}'", where="encoding", hint=f"known are {', '.join(SCALERS)}"
            )


def degrade(pictures: Sequence[Picture], encoding: Encoding, *, scale: int) -> list[Picture]:
    """Return what a viewer's decoder gives of `pictures`, scaled down by `scale` and encoded by x264.

    As many as go in, in the same order, H/scale × W/scale; both must come out even. One thread, so that the same
    pictures give the same result on every machine.
    """
    if not pictures:
        return []
    height, width = pictures[0].y.shape
    low = [p.resized(width // scale, height // scale, encoding.scaler) for p in pictures]
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height = width // scale, height // scale
    encoder.pix_fmt = "yuv420p"
    encoder.time_base = 1 / encoding.rate
    encoder.framerate = encoding.rate
    encoder.gop_size = encoding.gop_frames
    encoder.thread_count = 1
    options = {"preset": encoding.preset, "threads": "1"}
    if encoding.tune:
        options["tune"] = encoding.tune
    if encoding.crf is not None:
        options["crf"] = str(encoding.crf)
    else:
        encoder.bit_rate = encoding.bitrate_bps
    encoder.options = options
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.thread_count = 1
    out: list[Picture] = []
    for i, picture in enumerate([*low, None]):
        for packet in encoder.encode(_frame(picture, i) if picture is not None else None):
            out += [picture_of(frame) for frame in decoder.decode(packet)]
    out += [picture_of(frame) for frame in decoder.decode(None)]
    assert len(out) == len(pictures), (len(out), len(pictures))
    return out


def pictures_of(path: Path, *, stream: int = 0, start: int = 0, count: int | None = None) -> Iterator[Picture]:
    """Yield the pictures [start, start + count) of a video stream of a file, as 4:2:0, sides cut to multiples of 4.

    Raises:
        Unreachable: the file cannot be opened.
        UnsupportedMedia: it has no such stream.
        CorruptMedia: it cannot be decoded to that place.
    """
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise Unreachable(f"cannot be opened: {error}", where=str(path), hint="give a video file") from error
    with container:
        if stream >= len(container.streams.video):
            raise UnsupportedMedia(f"it has no video stream {stream}", where=str(path))
        try:
            for i, frame in enumerate(container.decode(video=stream)):
                if count is not None and i >= start + count:
                    return
                if i >= start:
                    yield picture_of(frame).cropped(4)
        except av.FFmpegError as error:
            raise CorruptMedia(f"cannot be decoded: {error}", where=str(path)) from error


def stream_facts(path: Path) -> list[tuple[int, int, Fraction]]:
    """Return width, height (px) and frames a second of each video stream of a file.

    Raises:
        Unreachable: the file cannot be opened.
    """
    try:
        with av.open(str(path)) as container:
            return [
                (s.codec_context.width, s.codec_context.height, s.average_rate or Fraction(25))
                for s in container.streams.video
            ]
    except (av.FFmpegError, OSError) as error:
        raise Unreachable(f"cannot be opened: {error}", where=str(path), hint="give a video file") from error


def _frame(picture: Picture, pts: int) -> av.VideoFrame:
    height, width = picture.y.shape
    flat = np.concatenate([picture.y.reshape(-1), picture.u.reshape(-1), picture.v.reshape(-1)])
    frame = av.VideoFrame.from_ndarray(flat.reshape(height * 3 // 2, width), format="yuv420p")
    frame.pts = pts
    return frame


def picture_of(frame: av.VideoFrame) -> Picture:
    """Return a decoded frame as 4:2:0, sides cut to even ones; a copy."""
    if frame.format.name not in ("yuv420p", "yuvj420p"):
        frame = frame.reformat(format="yuv420p")
    width, height = frame.width // 2 * 2, frame.height // 2 * 2

    def plane(index: int, shape: tuple[int, int]) -> Plane:
        source = frame.planes[index]
        rows = np.frombuffer(memoryview(source), np.uint8).reshape(-1, source.line_size)
        out: Plane = rows[: shape[0], : shape[1]].copy()
        return out

    half = (height // 2, width // 2)
    return Picture(y=plane(0, (height, width)), u=plane(1, half), v=plane(2, half))
