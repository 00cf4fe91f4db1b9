"""What a source may be and where it may lie: the limits that hold off hostile or hopeless input.

FFmpeg by itself opens far more than a video: `concat:` and `subfile:` read any file, a playlist names others, a
redirect leads into the local network. So FFmpeg never gets an address from outside: local files are opened through
`file:` with all other protocols off, what comes over HTTP is read by `http_file` (which connects to the very address
that was checked), and only container formats that cannot refer elsewhere are allowed.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from pipeline.errors import CorruptMedia, SourceError, Unreachable, UnsupportedMedia
from pipeline.wire.frames import Size

MAX_LONG_SIDE_PX = 8192
MAX_SHORT_SIDE_PX = 4320

CONTAINERS = (
    "mov,matroska,mpegts,mpeg,flv,live_flv,avi,asf,ogg,mxf,nut,ivf,obu,gif,dv,"
    "h264,hevc,m4v,mpegvideo,mjpeg,yuv4mpegpipe,"
    # without video, but telling "no video" from "no media" is worth it
    "mp3,wav,flac,aac,ac3"
)
"""FFmpeg's names of the demuxers that may be chosen: each keeps to the bytes that it is given (no playlists)."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):")
_LIVE = {"rtmp", "rtmps", "rtmpt", "rtsp", "rtsps", "udp", "rtp", "srt", "tcp", "whep", "webrtc", "rist", "mms", "mmsh"}


def scheme_of(uri: str) -> str:
    """Return the scheme of `uri` in lower case; "file" for a path (also one with a colon that exists).

    Raises:
        Unreachable: the scheme is one that Limpid does not open.
    """
    found = _SCHEME.match(uri)
    if found is None or Path(uri).exists():
        return "file"
    scheme = found[1].lower()
    if scheme in {"file", "http", "https", "synthetic"}:
        return scheme
    if scheme in _LIVE:
        raise Unreachable(
            f"live sources over {scheme}: are not supported",
            where=without_secrets(uri),
            hint="use a file, an http(s):// address of a file, or synthetic://",
        )
    raise Unreachable(
        f"the scheme '{scheme}:' is not allowed",
        where=without_secrets(uri),
        hint="use a file, http(s):// or synthetic://; if it is a file's name, put ./ before it",
    )


def without_secrets(uri: str) -> str:
    """Return `uri` fit for messages and manifests: without user, password and query (which may hold a token)."""
    if "://" not in uri or uri.startswith("synthetic:"):
        return uri
    parts = urlsplit(uri)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "…" if parts.query else "", ""))


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


def checked_address(host: str, port: int, *, allow_private: bool, where: str) -> tuple[str, int]:
    """Return the numeric address of `host` to connect to, after checking that it may be reached.

    Every address that the name resolves to must pass, so that a name with a public and a private one is refused.

    Raises:
        Unreachable: the name does not resolve, or an address is private and those are not allowed.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"the host '{host}' is not known", where=where, hint="check the address") from error
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    if not allow_private:
        for text in addresses:
            address = ipaddress.ip_address(text)
            mapped = getattr(address, "ipv4_mapped", None) or address
            if not mapped.is_global or mapped.is_multicast:
                raise Unreachable(
                    f"'{host}' is a private address, which is not allowed here",
                    where=where,
                    hint="allow private addresses in the settings if the network is trusted",
                )
    return addresses[0], port


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
