"""What HLS segments consist of, fetched whole: bytes of a range, an initialisation segment, a key, decryption."""

from __future__ import annotations

from typing import TypeVar

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from pipeline.errors import ConfigError, CorruptMedia, Refused, SourceError, Unreachable, UnsupportedMedia
from pipeline.media import hostile
from pipeline.media.address import without_secrets
from pipeline.media.fetch import Answer, Client
from pipeline.media.m3u8 import Key, Part, Segment
from pipeline.media.source_base import SourceOptions

MAX_SEGMENT_BYTES = 64 << 20  # ten seconds at 50 Mbit/s; all of a segment is in memory while it is read
_MAX_INIT_BYTES = 1 << 20
_KEY_BYTES = 16
_BLOCK_BYTES = 16
_CACHED = 8
_TS_PACKET = 188
_K = TypeVar("_K")
_BOXES = frozenset({b"styp", b"moof", b"sidx", b"emsg", b"prft", b"ftyp", b"free", b"skip", b"mdat", b"uuid", b"ssix"})


class Gone(Unreachable):
    """The server has this segment no more (or not yet): 404 or 410."""


class Away(Unreachable):
    """The server itself cannot be reached, or does not answer."""


class Parts:
    """Fetches the parts of segments; keys and initialisation segments once."""

    def __init__(self, client: Client, options: SourceOptions) -> None:
        self._client = client
        self._options = options
        self._keys: dict[str, bytes] = {}
        self._inits: dict[tuple[Part, Key | None], bytes] = {}

    def init(self, segment: Segment) -> bytes:
        """Return the initialisation segment that `segment` needs, b"" where it needs none. Raises as `media`."""
        if segment.init is None:
            return b""
        name = (segment.init, segment.init_key)
        if name not in self._inits:
            where = without_secrets(segment.init.uri)
            data = self._bytes(segment.init, limit=_MAX_INIT_BYTES, timeout_s=self._options.read_timeout_s)
            if segment.init_key is not None:
                if segment.init_key.iv is None:  # RFC 8216 §4.3.2.5: it has no sequence number that could stand in
                    raise CorruptMedia("has an encrypted EXT-X-MAP without its vector", where=where)
                data = self._decrypted(data, segment.init_key, segment.init_key.iv, where)
            _put(self._inits, name, data)
        return self._inits[name]

    def media(self, segment: Segment, *, timeout_s: float | None) -> bytes:
        """Return the bytes of `segment`, decrypted.

        Args:
            timeout_s: for its body; None: only silence ends it.

        Raises:
            Gone: the server does not have it.
            Away: the server cannot be reached.
            Unreachable: it cannot be had, now.
            CorruptMedia: it does not decrypt, or its range is not there.
            UnsupportedMedia: it is larger than the limit.
            Refused: it lies where that is not allowed.
        """
        data = self._bytes(segment.part, limit=MAX_SEGMENT_BYTES, timeout_s=timeout_s)
        if segment.key is None:
            return data
        iv = segment.key.iv if segment.key.iv is not None else segment.sequence.to_bytes(_BLOCK_BYTES)
        return self._decrypted(data, segment.key, iv, without_secrets(segment.part.uri))

    def _bytes(self, part: Part, *, limit: int, timeout_s: float | None) -> bytes:
        where = without_secrets(part.uri)
        if part.stop is None:
            return self._answer(part).read_all(limit=limit, timeout_s=timeout_s)
        length = part.stop - part.start
        if length > limit:
            raise UnsupportedMedia(f"is longer than {limit:,} bytes, the limit", where=where)
        answer = self._answer(part)
        if answer.ranged:
            data = answer.read_all(limit=length, timeout_s=timeout_s)
        else:  # the server knows no ranges
            data = answer.read_all(limit=limit, timeout_s=timeout_s)[part.start : part.stop]
        if len(data) != length:
            raise CorruptMedia("is shorter than its playlist says", where=where)
        return data

    def _answer(self, part: Part) -> Answer:
        start = None if part.stop is None else part.start
        try:
            answer = self._client.get(part.uri, timeout_s=self._options.read_timeout_s, start=start, stop=part.stop)
        except Refused:
            raise
        except ConfigError as error:
            raise CorruptMedia("is an address in a playlist that is none", where=without_secrets(part.uri)) from error
        except Unreachable as error:
            raise Away(error.what, where=error.where, hint=error.hint) from error
        if answer.status in {404, 410}:
            answer.close()
            raise Gone(f"the server answers {answer.status}", where=without_secrets(part.uri))
        return answer.require()

    def _decrypted(self, data: bytes, key: Key, iv: bytes, where: str) -> bytes:
        if key.uri not in self._keys:
            value = self._answer(Part(uri=key.uri)).read_all(limit=1024, timeout_s=self._options.read_timeout_s)
            if len(value) != _KEY_BYTES:
                raise CorruptMedia("has a key that is not 16 bytes long", where=without_secrets(key.uri))
            _put(self._keys, key.uri, value)
        cipher = Cipher(algorithms.AES(self._keys[key.uri]), modes.CBC(iv)).decryptor()
        unpadder = padding.PKCS7(8 * _BLOCK_BYTES).unpadder()
        try:
            return unpadder.update(cipher.update(data) + cipher.finalize()) + unpadder.finalize()
        except ValueError as error:
            raise CorruptMedia("cannot be decrypted", where=where, hint="its key may have changed") from error


def kind_of(init: bytes, data: bytes, *, where: str) -> str:
    """Return FFmpeg's format of a segment: "mp4" or "mpegts".

    Raises:
        UnsupportedMedia: sound alone, subtitles, a web page and the like.
        CorruptMedia: neither, or MP4 without EXT-X-MAP.
    """
    if init and data[4:8] in _BOXES:
        return "mp4"
    if not init and any(
        data[i : i + 1] == data[i + _TS_PACKET : i + _TS_PACKET + 1] == b"G" for i in range(_TS_PACKET)
    ):
        return "mpegts"
    raise _no_video(init, data, where)


def _no_video(init: bytes, data: bytes, where: str) -> SourceError:
    if data[4:8] in _BOXES:
        return CorruptMedia("has MP4 segments without EXT-X-MAP", where=where, hint="the playlist is incomplete")
    if data.startswith((b"ID3", b"\xff\xf1", b"\xff\xf9", b"\xff\xf0", b"\x0b\x77")):
        return UnsupportedMedia("holds sound only", where=where, hint="give the playlist of the video")
    if data.startswith(b"WEBVTT"):
        return UnsupportedMedia("holds subtitles only", where=where, hint="give the playlist of the video")
    if init:
        return CorruptMedia("has a segment that is no MP4 fragment", where=where, hint="the recording broke off")
    return hostile.why_not_media(data[:4096], where=where)


def _put(cache: dict[_K, bytes], name: _K, value: bytes) -> None:
    while len(cache) >= _CACHED:
        del cache[next(iter(cache))]
    cache[name] = value
