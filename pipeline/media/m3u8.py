"""Playlists of others (RFC 8216): what a text says, within limits. Nothing is opened here.

Addresses come out absolute, joined to where the playlist came from; whoever opens them checks them like any other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urljoin

from pipeline.errors import CorruptMedia, UnsupportedMedia
from pipeline.wire.frames import Size

MAX_BYTES = 8 << 20  # a day of 2 s segments with dates has 6 MB
MAX_LINES = 200_000
MAX_LINE_CHARS = 16 << 10
MAX_SEGMENT_S = 7200.0
_MAX_VARIANTS = 200
_LAST = 64  # segments that are held in any case
_INTEGER = re.compile(r"[0-9]{1,18}")
_ATTRIBUTE = re.compile(r'([A-Z0-9-]{1,64})=("[^"]*"|[^",]*)(?:,|$)')
_PLAIN = re.compile(r"[A-Za-z0-9_\-][A-Za-z0-9_.\-]*(?:/[A-Za-z0-9_\-][A-Za-z0-9_.\-]*)*")
_RANGE = re.compile(r"([0-9]{1,15})(?:@([0-9]{1,15}))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One rendering of the whole in a master playlist; `audio_apart`: its sound is a playlist of its own."""

    uri: str
    bandwidth_bps: int
    size: Size | None
    codecs: str
    audio_apart: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A resource or a range of it, [start, stop); stop is None for all of it."""

    uri: str
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """How segments are encrypted with AES-128 in CBC mode; without `iv` it is the segment's sequence number."""

    uri: str
    iv: bytes | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """One segment.

    Attributes:
        sequence: its media sequence number.
        discontinuity: its discontinuity sequence number.
        breaks: whether EXT-X-DISCONTINUITY stands before it.
        init, init_key: EXT-X-MAP, and how that is encrypted.
        gap: listed, but absent (EXT-X-GAP).
    """

    sequence: int
    part: Part
    duration_s: float
    discontinuity: int
    breaks: bool
    init: Part | None
    init_key: Key | None
    key: Key | None
    gap: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Master:
    """A master playlist, best variant first."""

    variants: tuple[Variant, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Media:
    """A media playlist.

    Attributes:
        first, stop: the media sequence numbers of all its segments, [first, stop).
        segments: the last of them: those that were asked for.
    """

    target_s: float
    first: int
    stop: int
    segments: tuple[Segment, ...]
    ended: bool

    def segment(self, sequence: int) -> Segment | None:
        """Return the segment of that number; None where it is not held."""
        at = sequence - self.stop + len(self.segments)
        return self.segments[at] if 0 <= at < len(self.segments) else None


def looks_like_one(head: bytes) -> bool:
    """Whether a resource that starts with `head` is a playlist."""
    return head.removeprefix(b"\xef\xbb\xbf").startswith(b"#EXTM3U")


def parse(data: bytes, uri: str, *, where: str, since: int = 0) -> Master | Media:
    """Return what the playlist `data`, fetched from `uri`, says.

    Args:
        since: the first media sequence number that matters. Segments before it, but for the last 64, are left out:
            a live playlist may list a day, and is read again every few seconds.

    Raises:
        CorruptMedia: it is no playlist, breaks the rules beyond doubt, or is beyond the limits.
        UnsupportedMedia: it asks for what is not supported: DRM, SAMPLE-AES, I-frames only, variables; or has no video.
    """
    if not looks_like_one(data):
        raise CorruptMedia("is no HLS playlist: #EXTM3U is not its first line", where=where, hint="check the address")
    # Not splitlines(): that splits at characters which may stand inside a line.
    lines = data.decode("utf-8", "replace").removeprefix("\ufeff").split("\n")
    if len(lines) > MAX_LINES or any(len(line) > MAX_LINE_CHARS for line in lines):
        raise CorruptMedia("is a playlist with more or longer lines than the limit", where=where)
    lines = [line.strip() for line in lines]
    if any(line.startswith("#EXT-X-DEFINE") for line in lines):
        raise UnsupportedMedia("is a playlist with variables (EXT-X-DEFINE)", where=where, hint="ask for one without")
    if any(line.startswith("#EXT-X-STREAM-INF") for line in lines):
        return _master(lines, uri, where)
    folder = uri.partition("?")[0].rpartition("/")[0] + "/"
    return _Reader(uri, where, folder).media(lines, since)


def _master(lines: list[str], uri: str, where: str) -> Master:
    apart: dict[str, bool] = {}  # of an audio group: whether each of its renditions has a playlist
    found: list[tuple[dict[str, str], str]] = []
    pending: dict[str, str] | None = None
    for line in lines:
        tag, _, value = line.partition(":")
        if tag == "#EXT-X-MEDIA":
            media = _attributes(value)
            if media.get("TYPE") == "AUDIO":
                group = media.get("GROUP-ID", "")
                apart[group] = apart.get(group, True) and "URI" in media
        elif tag == "#EXT-X-STREAM-INF":
            pending = _attributes(value)
        elif line and not line.startswith("#") and pending is not None:
            found.append((pending, line))
            pending = None
    variants = [
        Variant(
            uri=_joined(uri, line, where),
            bandwidth_bps=_integer(attributes.get("BANDWIDTH", ""), 0),
            size=_size(attributes.get("RESOLUTION", "")),
            codecs=attributes.get("CODECS", ""),
            audio_apart=apart.get(attributes.get("AUDIO", ""), False),
        )
        for attributes, line in found[:_MAX_VARIANTS]
        if not _sound_only(attributes)
    ]
    if not variants:
        raise UnsupportedMedia("is a playlist without video", where=where)
    # A variant with sound in it comes before an equal one without: RFC 8216 leaves which is which to the groups.
    variants.sort(key=lambda v: (_pixels(v.size), v.bandwidth_bps, not v.audio_apart), reverse=True)
    return Master(variants=tuple(variants))


_Facts = tuple[int, float, int, bool, Part | None, Key | None, Key | None, bool]


@dataclass(slots=True)
class _Reader:
    """Reads a media playlist line by line: what tags say holds for the segments behind them."""

    uri: str
    where: str
    folder: str = ""  # the address up to the last slash of its path
    init: Part | None = None
    init_key: Key | None = None
    key: Key | None = None
    foreign_key: str = ""  # of a key that is not for us; fatal if there is no other one
    ends: dict[str, int] = field(default_factory=dict)  # where the last range of a resource ended

    def media(self, lines: list[str], since: int) -> Media:
        target_s, first, discontinuity, ended = 0.0, 0, 0, False
        duration_s, breaks, gap, span = None, False, False, ""
        listed: list[tuple[str, Part | None, _Facts]] = []
        longest_s = 0.0
        for line in lines:
            tag, _, value = line.partition(":")
            if tag == "#EXTINF":
                duration_s = self._seconds(value.partition(",")[0])
            elif tag == "#EXT-X-TARGETDURATION":
                target_s = self._seconds(value)
            elif tag == "#EXT-X-MEDIA-SEQUENCE":
                first = _integer(value, 0)
            elif tag == "#EXT-X-DISCONTINUITY-SEQUENCE":
                discontinuity = _integer(value, 0)
            elif tag == "#EXT-X-DISCONTINUITY":
                breaks = True
                discontinuity += 1
            elif tag == "#EXT-X-BYTERANGE":
                span = value
            elif tag == "#EXT-X-GAP":
                gap = True
            elif tag == "#EXT-X-KEY":
                self._take_key(_attributes(value))
            elif tag == "#EXT-X-MAP":
                self._take_init(_attributes(value))
            elif tag == "#EXT-X-ENDLIST":
                ended = True
            elif tag == "#EXT-X-I-FRAMES-ONLY":
                raise UnsupportedMedia("is a playlist of key frames only", where=self.where, hint="give the whole one")
            elif line and not line.startswith("#"):
                if duration_s is None:
                    raise CorruptMedia("is a playlist with a segment without its duration", where=self.where)
                if self.foreign_key and self.key is None:
                    raise UnsupportedMedia(
                        f"is protected ({self.foreign_key})", where=self.where, hint="give a stream without DRM"
                    )
                # A range may refer to the one before, so it is worked out in order; all else can wait.
                part = self._part(line, span) if span else None
                facts = (
                    first + len(listed),
                    duration_s,
                    discontinuity,
                    breaks,
                    self.init,
                    self.init_key,
                    self.key,
                    gap,
                )
                listed.append((line, part, facts))
                longest_s = max(longest_s, duration_s)
                duration_s, breaks, gap, span = None, False, False, ""
        if listed and listed[0][2][0] != first:
            raise CorruptMedia("is a playlist that numbers its segments late", where=self.where)
        held = listed[max(0, min(since - first, len(listed) - _LAST)) :]
        return Media(
            target_s=target_s or longest_s,
            first=first,
            stop=first + len(listed),
            segments=tuple(self._segment(*entry) for entry in held),
            ended=ended,
        )

    def _segment(self, line: str, part: Part | None, facts: _Facts) -> Segment:
        sequence, duration_s, discontinuity, breaks, init, init_key, key, gap = facts
        return Segment(
            sequence=sequence,
            part=part or self._part(line, ""),
            duration_s=duration_s,
            discontinuity=discontinuity,
            breaks=breaks,
            init=init,
            init_key=init_key,
            key=key,
            gap=gap,
        )

    def _take_key(self, attributes: dict[str, str]) -> None:
        method, form = attributes.get("METHOD", ""), attributes.get("KEYFORMAT", "identity")
        if method == "NONE":
            self.key, self.foreign_key = None, ""
        elif method == "AES-128" and form == "identity":
            text = attributes.get("IV", "")
            if text and not re.fullmatch(r"0[xX][0-9A-Fa-f]{1,32}", text):
                raise CorruptMedia("is a playlist with an odd initialisation vector", where=self.where)
            iv = int(text, 16).to_bytes(16) if text else None
            self.key = Key(uri=self._address(attributes.get("URI", "")), iv=iv)
        elif form == "identity":
            self.key, self.foreign_key = None, method[:40] or "no method named"
        else:
            self.foreign_key = f"{method[:40]}, {form[:80]}"

    def _take_init(self, attributes: dict[str, str]) -> None:
        span = attributes.get("BYTERANGE", "")
        if span and "@" not in span:
            span += "@0"
        self.init = self._part(attributes.get("URI", ""), span)
        self.init_key = self.key

    def _part(self, name: str, span: str) -> Part:
        uri = self._address(name)
        if not span:
            return Part(uri=uri)
        found = _RANGE.fullmatch(span)
        start = None if found is None else (int(found[2]) if found[2] else self.ends.get(uri))
        if found is None or start is None or int(found[1]) == 0:
            raise CorruptMedia("is a playlist with an odd byte range", where=self.where)
        stop = start + int(found[1])
        self.ends[uri] = stop
        return Part(uri=uri, start=start, stop=stop)

    def _address(self, name: str) -> str:
        # Nearly all names are plain ones, and joining is most of the work of reading a long list.
        return f"{self.folder}{name}" if _PLAIN.fullmatch(name) else _joined(self.uri, name, self.where)

    def _seconds(self, text: str) -> float:
        # Not float(): that takes "nan", "inf" and "1_0".
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{0,30})?", text.strip()) or float(text) > MAX_SEGMENT_S:
            raise CorruptMedia("is a playlist with an odd duration", where=self.where)
        return float(text)


def _attributes(text: str) -> dict[str, str]:
    """The attributes of a tag (RFC 8216 §4.2), quotes taken off; what breaks the rules ends the list."""
    found: dict[str, str] = {}
    at = 0
    while match := _ATTRIBUTE.match(text, at):
        found[match[1]] = match[2].strip('"')
        at = match.end()
        while text[at : at + 1] == " ":  # not allowed, but written
            at += 1
    return found


def _joined(base: str, uri: str, where: str) -> str:
    try:
        joined = urljoin(base, uri)
    except ValueError as error:
        raise CorruptMedia("is a playlist with an address that is none", where=where) from error
    if not uri:
        raise CorruptMedia("is a playlist with an empty address", where=where)
    return joined


def _integer(text: str, default: int) -> int:
    return int(text) if _INTEGER.fullmatch(text.strip()) else default


def _size(text: str) -> Size | None:
    found = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    if found is None or 0 in (int(found[1]), int(found[2])):
        return None
    return Size(width_px=int(found[1]), height_px=int(found[2]))


def _pixels(size: Size | None) -> int:
    return size.width_px * size.height_px if size is not None else 0


def _sound_only(attributes: dict[str, str]) -> bool:
    codecs = [c.strip() for c in attributes.get("CODECS", "").split(",") if c.strip()]
    sounds = ("mp4a", "ac-3", "ec-3", "opus", "Opus", "flac", "fLaC", "mp3")
    return bool(codecs) and "RESOLUTION" not in attributes and all(c.startswith(sounds) for c in codecs)
