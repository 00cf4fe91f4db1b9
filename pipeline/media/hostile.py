"""What a source may be and where it may lie: the limits that hold off hostile or hopeless input.

FFmpeg by itself opens far more than a video: `concat:` and `subfile:` read any file, a playlist names others, a
redirect leads into the local network. So FFmpeg never gets an address from outside: local files are opened through
`file:` with all other protocols off, what comes over HTTP is read by `fetch`, live protocols through connections of
our own (`relay`), always to the very address that was checked, and only container formats that cannot refer elsewhere
are allowed.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from pipeline.errors import CorruptMedia, Refused, SourceError, Unreachable, UnsupportedMedia
from pipeline.media.address import reachable, split, without_secrets
from pipeline.media.source_base import SourceOptions
from pipeline.wire.frames import Size

__all__ = [
    "CONTAINERS",
    "ELSEWHERE",
    "HTTP",
    "LIVE",
    "MAX_LONG_SIDE_PX",
    "MAX_SHORT_SIDE_PX",
    "check_size",
    "check_uri",
    "local_path",
    "scheme_of",
    "why_not_media",
    "without_secrets",
]

MAX_LONG_SIDE_PX = 8192
MAX_SHORT_SIDE_PX = 4320

CONTAINERS = (
    "mov,matroska,mpegts,mpeg,flv,live_flv,avi,asf,ogg,mxf,nut,ivf,obu,gif,dv,"
    "h264,hevc,m4v,mpegvideo,mjpeg,yuv4mpegpipe,"
    # without video, but telling "no video" from "no media" is worth it
    "mp3,wav,flac,aac,ac3"
)
"""FFmpeg's names of the demuxers that may be chosen: each keeps to the bytes that it is given (no playlists)."""

HTTP = frozenset({"http", "https"})
LIVE = frozenset({"rtmp", "rtmps", "rtmp+listen", "rtsp", "rtsps", "udp", "tcp"})
"""Schemes of live protocols."""

ELSEWHERE = {
    "srt": "receive it with MediaMTX or ffmpeg and give its RTSP, RTMP or HLS address",
    "rist": "receive it with ffmpeg and give its RTSP, RTMP or HLS address",
    "rtp": "wrap it into MPEG-TS over udp:, or receive it with MediaMTX and give its RTSP address",
    "webrtc": "let MediaMTX receive it and give its RTSP address",
    "whip": "let MediaMTX receive it and give its RTSP address",
    "whep": "let MediaMTX read it and give its RTSP address",
    "rtmpt": "ask the server for rtmp: or HLS",
    "rtmpe": "ask the server for rtmps: or HLS",
    "mms": "ask the server for HLS or RTSP",
    "mmsh": "ask the server for HLS or RTSP",
}
"""Live protocols that Limpid does not speak, each with the way round."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):")
_OPENED = HTTP | LIVE | {"synthetic"}


def scheme_of(uri: str, *, local: bool = True) -> str:
    """Return the scheme of `uri` in lower case; "file" for a path (also one with a colon that exists).

    Args:
        local: whether files of this machine may be opened (and the disk be looked at for such a path).

    Raises:
        Refused: the scheme is one that Limpid does not open, or files are not allowed.
        UnsupportedMedia: it is a live protocol that Limpid does not speak.
    """
    found = _SCHEME.match(uri)
    scheme = found[1].lower() if found else "file"
    if scheme == "file" or (local and scheme not in _OPENED and _is_path(uri)):
        if local:
            return "file"
        raise Refused(
            "is a file of this machine, which is not allowed here",
            where=without_secrets(uri),
            hint="give an http(s), rtmp, rtsp or other network address",
        )
    if scheme in _OPENED:
        return scheme
    if scheme in ELSEWHERE:
        raise UnsupportedMedia(
            f"{scheme}: is not supported directly", where=without_secrets(uri), hint=ELSEWHERE[scheme]
        )
    raise Refused(
        f"the scheme '{scheme}:' is not allowed",
        where=without_secrets(uri),
        hint="use a file, http(s)://, rtmp://, rtsp://, udp://, tcp:// or synthetic://; "
        "if it is a file's name, put ./ before it",
    )


def check_uri(uri: str, options: SourceOptions) -> None:
    """Check what can be known of `uri` without opening it: scheme, form, and where it leads (a name is resolved).

    It is for telling a user early. A name may lead elsewhere a moment later, so whoever connects checks again, and
    connects to the very address that was checked (`address.reachable`).

    Raises:
        Refused: its scheme, form or address is not allowed.
        ConfigError: it is no address.
        UnsupportedMedia: a live protocol that Limpid does not speak.
        Unreachable: its name does not resolve, or not within `open_timeout_s`.
    """
    if scheme_of(uri, local=options.local) in HTTP | LIVE:
        reachable(split(uri), options=options, timeout_s=options.open_timeout_s, where=without_secrets(uri))


def _is_path(uri: str) -> bool:
    try:
        return Path(uri).exists()
    except OSError:  # too long for a path
        return False


def local_path(uri: str) -> Path:
    """Return the regular file that `uri` (a path or file: URL) names.

    Raises:
        Unreachable: there is none, or it cannot be read.
        UnsupportedMedia: it is empty.
    """
    text = uri
    if uri.startswith("file:") and not Path(uri).exists():
        text = unquote(uri.removeprefix("file://localhost").removeprefix("file://").removeprefix("file:"))
    if "\0" in text:
        raise Unreachable("is no path: it holds a NUL character", where=repr(uri), hint="check the path")
    path = Path(text)
    try:
        if path.is_dir():
            raise Unreachable("is a directory, not a video", where=uri, hint="name a file inside it")
        if not path.exists():
            raise Unreachable("no such file", where=uri, hint="check the path")
        if not path.is_file():
            raise Unreachable("is no regular file", where=uri, hint="copy it into a file first")
        with path.open("rb") as file:
            if not file.read(1):
                raise UnsupportedMedia("is empty", where=uri, hint="the recording or download failed")
    except Unreachable:
        raise
    except OSError as error:
        raise Unreachable(f"cannot be read: {error.strerror}", where=uri, hint="check its permissions") from error
    return path


def check_size(size: Size, *, where: str) -> None:
    """Refuse pictures that are larger than the limit.

    Raises:
        UnsupportedMedia: a side is longer than the limit.
    """
    sides = sorted((size.width_px, size.height_px))
    if sides[0] > MAX_SHORT_SIDE_PX or sides[1] > MAX_LONG_SIDE_PX:
        raise UnsupportedMedia(
            f"pictures of {size} pixels are larger than the limit of {MAX_LONG_SIDE_PX}×{MAX_SHORT_SIDE_PX}",
            where=where,
            hint="scale the video down first",
        )


def why_not_media(head: bytes, *, where: str, size_bytes: int | None = None) -> SourceError:
    """Return the error for bytes that no demuxer took, by what they look like; `head` are the first ones (4 KiB do)."""
    text = head[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return UnsupportedMedia("is empty", where=where, hint="the recording or download failed")
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or b"<html" in text:
        return UnsupportedMedia(
            "is a web page (HTML), not a video", where=where, hint="use the address of the video file itself"
        )
    if text.startswith((b"#extm3u", b"ffconcat", b"[playlist]", b"<?xml", b"<mpd", b"v=0")):
        return UnsupportedMedia(
            "is a playlist or description that points elsewhere, which is not followed",
            where=where,
            hint="name the video file itself",
        )
    if head[4:8] in {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"}:
        return CorruptMedia(
            "is an MP4/MOV file without a usable index (moov): the recording or download broke off",
            where=where,
            hint="get the file again, or repair it with a tool that rebuilds the index",
        )
    if head.startswith((b"\xff\xd8\xff", b"\x89PNG", b"BM", b"RIFF")) and head[8:12] != b"AVI ":
        return UnsupportedMedia("is a still picture or sound, not a video", where=where)
    if head.startswith((b"\x1a\x45\xdf\xa3", b"FLV\x01", b"RIFF")) or head[:1] == b"\x47":
        return CorruptMedia("is damaged: its beginning cannot be read", where=where, hint="get the file again")
    return UnsupportedMedia("is no video that can be read", where=where, hint="MP4, MKV, TS, FLV, AVI and the like are")
