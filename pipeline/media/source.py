"""From a URI to packets on one timeline: `open_source(uri)` gives a `Source` for a file, a live address or a scene."""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import urlsplit

from pipeline.errors import LimpidError
from pipeline.media import hostile, source_hls
from pipeline.media.source_base import Source, SourceInfo, SourceOptions, TrackInfo
from pipeline.media.source_file import FileSource
from pipeline.media.source_live import LiveSource
from pipeline.media.source_synthetic import SyntheticSource

__all__ = ["Source", "SourceInfo", "SourceOptions", "TrackInfo", "is_live", "open_source"]


def is_live(uri: str, mode: str = "auto") -> bool:
    """Say whether `uri` passes whether it is read or not, as far as can be told without opening it.

    rtmp, rtsp, udp and tcp do. What http(s) names does in mode "live", and a playlist (*.m3u8) unless the mode is
    "file"; it may turn out to have an end. Paths and scenes wait until they are read.
    """
    try:
        scheme = hostile.scheme_of(uri)
    except LimpidError:
        return False
    if scheme in hostile.HTTP:
        return mode == "live" or (mode == "auto" and _is_named_playlist(uri))
    return scheme in hostile.LIVE


def _is_named_playlist(uri: str) -> bool:
    try:
        return PurePosixPath(urlsplit(uri).path.lower()).suffix in (".m3u8", ".m3u")
    except ValueError:
        return False


def open_source(uri: str, *, options: SourceOptions | None = None) -> Source:
    """Open what `uri` names: a path, `file:`, `http(s)://`, `rtmp://`, `rtsp://`, `udp://`, `tcp://`, `synthetic://`.

    A live one is not waited for: its first packets, or what is wrong with it, come from reading it.

    Raises:
        Unreachable: it is missing, refused, timed out, or of a kind that is not allowed.
        UnsupportedMedia: it holds no video that can be decoded, or one larger than the limit; or a protocol that needs
            a server in front.
        CorruptMedia: it is damaged beyond use.
        ConfigError: it is no address, or a `synthetic://` URI with wrong settings.
    """
    options = options or SourceOptions()
    scheme = hostile.scheme_of(uri, local=options.local)
    if scheme == "synthetic":
        return SyntheticSource(uri)
    remote = scheme in hostile.HTTP
    asks = remote and options.mode == "auto"
    if is_live(uri, options.mode) or (asks and source_hls.is_playlist(uri, options)):
        return LiveSource(uri, options=options)
    return FileSource(uri, remote=remote, options=options)
