"""From a URI to packets on one timeline: `open_source(uri)` gives a `Source` for a file, an HTTP address or a scene."""

from __future__ import annotations

from pipeline.media.hostile import scheme_of
from pipeline.media.source_base import Source, SourceInfo, SourceOptions, TrackInfo
from pipeline.media.source_file import FileSource
from pipeline.media.source_synthetic import SyntheticSource

__all__ = ["Source", "SourceInfo", "SourceOptions", "TrackInfo", "open_source"]


def open_source(uri: str, *, options: SourceOptions | None = None) -> Source:
    """Open what `uri` names: a path, `file:`, `http://`, `https://` or `synthetic://…`.

    Raises:
        Unreachable: it is missing, refused, timed out, or of a kind that is not allowed.
        UnsupportedMedia: it holds no video that can be decoded, or one larger than the limit.
        CorruptMedia: it is damaged beyond use.
        ConfigError: a `synthetic://` URI with wrong settings.
    """
    options = options or SourceOptions()
    scheme = scheme_of(uri)
    if scheme == "synthetic":
        return SyntheticSource(uri)
    return FileSource(uri, remote=scheme in {"http", "https"}, options=options)
