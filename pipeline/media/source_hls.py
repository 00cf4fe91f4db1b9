"""HLS from others, live or not, as a stream of bytes for FFmpeg's demuxers: playlists and segments fetched by us.

FFmpeg's own HLS reader goes wherever a playlist points. This one checks every address inside like the first one, and
gives the demuxer bytes only:

    stream = open_hls(uri, options)
    while True:
        demux(av.open(stream, format=stream.format))    # reads until stream.read() gives b""
        if not stream.next_session():                    # the end; else segments of another kind follow
            break

A *session* is a run of segments that one demuxer can read: it ends in front of another initialisation segment
(EXT-X-MAP of other content), a discontinuity, and a publisher that begins anew. Nothing is lost between two sessions.

Segments are fetched whole, one after the other, when they are read: what breaks off is fetched again, and the reader
sees all of a segment or nothing. A live stream begins at the last segment but two (RFC 8216 §6.3.3), is reloaded as
§6.3.4 asks, and goes on by media sequence numbers: none is read twice, and those that went unread are counted. That
holds from one connection to the next: a stream's `place` says how far it was read, and one that is opened with it goes
on there.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from pipeline.errors import ConfigError, CorruptMedia, Refused, SourceError, Unreachable, UnsupportedMedia
from pipeline.media import m3u8
from pipeline.media.address import without_secrets
from pipeline.media.fetch import Client
from pipeline.media.hls_parts import Away, Gone, Parts, kind_of
from pipeline.media.m3u8 import Master, Media, Segment
from pipeline.media.source_base import SourceOptions

_FROM_END = 3  # segments from the end at which a live stream is begun
_TRIES = 3  # for a segment that comes broken
_VARIANTS = 3  # that are tried, the best first
_PAUSE_S = 0.5  # before a segment is asked for again
_REMEMBERED = 64  # segments by which an old copy of a playlist is told from a new beginning
_BACK = 2  # playlists in a row that must lie behind what was read until that counts as a new beginning
_PLAYLIST_TYPES = frozenset(
    {"application/vnd.apple.mpegurl", "application/x-mpegurl", "audio/mpegurl", "audio/x-mpegurl"}
)
_FILES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".ts", ".flv", ".avi", ".mpg", ".mpeg", ".h264", ".hevc", ".mxf")


def is_playlist(uri: str, options: SourceOptions) -> bool:
    """Say whether an http(s) address is an HLS playlist: by its name; where that tells nothing, its first bytes.

    Raises:
        ConfigError, Refused, Unreachable, UnsupportedMedia: as `fetch.Client.get`, where the server has to be asked.
    """
    with contextlib.suppress(ValueError):
        path = urlsplit(uri).path.lower()
        if path.endswith((".m3u8", ".m3u")):
            return True
        if path.endswith(_FILES):
            return False
    with contextlib.closing(Client(options)) as client:
        answer = client.get(uri, timeout_s=options.open_timeout_s)
        with contextlib.closing(answer):
            if answer.status != 200:
                return False  # reading it as a file tells why
            if answer.media_type in _PLAYLIST_TYPES:
                return True
            head = b""
            while len(head) < 16 and (data := answer.read(16)):
                head += data
            return m3u8.looks_like_one(head)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """How far a live playlist has been read.

    Attributes:
        following: number of the segment to read next.
        given: the last ones read, by number: address without query.
        whole: the last one was read to its end.
    """

    following: int
    given: Mapping[int, str]
    whole: bool

    def is_in(self, media: Media) -> bool:
        """Say whether a playlist goes on from here, as far as can be told: a segment that was read is in it.

        One that ends before it has begun anew: a copy from before would have been waited for long enough to catch up.
        """
        if media.stop < self.following:
            return False
        return media.first == self.following or any(self.given.get(s.sequence) == _name(s) for s in media.segments)


def open_hls(
    uri: str, options: SourceOptions, *, client: Client | None = None, place: Place | None = None
) -> HlsStream:
    """Open a playlist, master or media, and fetch its first segment (or the next one from a place on).

    Of a master playlist the variant with most pixels, then most bits, is taken; the next ones if it cannot be had.

    Args:
        client: closing it from another thread ends the opening (and later the stream).
        place: of an earlier stream of this playlist. If it still goes on from there, so does this stream; what comes
            next is waited for as `read` does.

    Raises:
        ConfigError: `uri` is no http(s) address.
        Refused: it, or an address inside, is not allowed.
        Unreachable: it, or its first segment, cannot be had within `open_timeout_s` each.
        UnsupportedMedia: protected, no video, or larger than the limits.
        CorruptMedia: no playlist, or one that makes no sense.
    """
    client = client or Client(options)
    try:
        deadline_s = time.monotonic() + options.open_timeout_s
        playlist = _Playlist(client, uri)
        found = playlist.load(timeout_s=options.open_timeout_s)
        problems: Counter[str] = Counter()
        if isinstance(found, Master):
            playlist, found = _variant(client, found, deadline_s, problems)
        stream = HlsStream(client, options, playlist, found, problems, place)
        if stream.live or place is None:  # else it has ended, and all of it was read
            stream.start()
    except BaseException:
        client.close()
        raise
    return stream


class HlsStream:
    """An opened stream; `read` gives the bytes of its current session.

    Attributes:
        format: FFmpeg's name of the session's container, "mpegts" or "mp4" (fragmented, beginning with its header).
        live: whether segments were still to come when it was opened, of an earlier stream's place: to be read.
        resumed: it goes on where an earlier stream has ended, and nothing is missing.
        problems: what was met, by name: audio_apart (the sound is a playlist of its own and is left out),
            segments_expired (went from the playlist unread), segments_missing (404), segments_lost (broken),
            reload_failed, sequence_reset (the publisher began anew).
        failure: what `read` raised, for a caller behind a library that loses exceptions.
    """

    def __init__(
        self,
        client: Client,
        options: SourceOptions,
        playlist: _Playlist,
        media: Media,
        problems: Counter[str],
        place: Place | None,
    ) -> None:
        self.format = ""
        if place is not None and not place.is_in(media):
            place = None
        self._next = _begin(media) if place is None else place.following
        self._given: dict[int, str] = {} if place is None else dict(place.given)  # see Place
        self.resumed = place is not None and place.whole
        self.live = not media.ended or (place is not None and self._next < media.stop)
        self.problems = problems
        self.failure: SourceError | None = None
        self._client, self._options, self._playlist, self._media = client, options, playlist, media
        self._parts = Parts(client, options)
        self._back = 0
        self._anew = False  # the next segment begins a session whatever it says
        self._changed = True  # whether the last reload brought something
        self._session: _Loaded | None = None  # its last segment
        self._waiting: _Loaded | None = None  # the first one of the next session
        self._data = b""
        self._at = 0
        self._over = False

    def read(self, size: int) -> bytes:
        """Return 1 to `size` bytes, waiting for the next segment if need be; b"" at the session's end or when closed.

        Raises:
            Unreachable: nothing came for `read_timeout_s` (or two target durations, if those are longer).
            Refused, UnsupportedMedia, CorruptMedia: what follows may not, or cannot, be read.
        """
        if self.failure is not None:
            raise self.failure
        since_s = time.monotonic()
        while self._at >= len(self._data):
            if self._waiting is not None or self._over:
                return b""
            self._advance(since_s)
        data = self._data[self._at : self._at + size]
        self._at += len(data)
        return data

    @property
    def place(self) -> Place:
        """How far it has been read."""
        following = self._next if self._waiting is None else self._waiting.segment.sequence
        return Place(following=following, given=dict(self._given), whole=self._at >= len(self._data))

    def next_session(self) -> bool:
        """Go on to the segments behind the session whose end `read` has told; False at the end of the stream."""
        loaded, self._waiting = self._waiting, None
        if loaded is None:
            return False
        self._take(loaded, loaded.init + loaded.data)
        self.format = loaded.kind
        return True

    def close(self) -> None:
        """End the stream; a read that waits in another thread returns at once. Safe to call twice."""
        self._client.close()

    def start(self) -> None:
        """Fetch the first segment and begin its session (`open_hls` does). Raises what `open_hls` raises."""
        since_s = time.monotonic()
        while self._waiting is None:
            if self._over:
                if self._client.closed:
                    raise Unreachable("was closed while it was opened", where=self._playlist.where)
                raise UnsupportedMedia("is a playlist without segments", where=self._playlist.where)
            self._advance(since_s)
        self.next_session()

    # --- the next segment -------------------------------------------------------------------------------------------

    def _advance(self, since_s: float) -> None:
        """Make the next segment the one to read, or the one that waits for its session, or note the end."""
        try:
            segment = self._following(since_s)
            if segment is None:
                self._over = True
                return
            loaded = self._loaded(segment, since_s)
            self._next = segment.sequence + 1
            if loaded is None:
                return
            if self._begins_session(loaded):
                self._waiting = loaded
            else:
                self._take(loaded, loaded.data)
        except SourceError as error:
            if self._client.closed:
                self._over = True
                return
            self.failure = error
            raise

    def _take(self, loaded: _Loaded, data: bytes) -> None:
        self._session, self._data, self._at, self._anew = loaded, data, 0, False
        self._given[loaded.segment.sequence] = _name(loaded.segment)
        while len(self._given) > _REMEMBERED:
            del self._given[next(iter(self._given))]

    def _begins_session(self, loaded: _Loaded) -> bool:
        last, segment = self._session, loaded.segment
        if last is None or self._anew or loaded.kind != last.kind or loaded.init != last.init:
            return True
        # Where segments went unread, the tag may have gone with them; else its number is not relied on, since
        # servers that forget to count it up as the list moves are common.
        skipped = segment.sequence != last.segment.sequence + 1
        return segment.breaks or (skipped and segment.discontinuity != last.segment.discontinuity)

    def _following(self, since_s: float) -> Segment | None:
        """The segment with the next number, waited for; None at the end. Raises SourceError."""
        while True:
            media = self._media
            if media.first < media.stop and self._next < media.first:
                self.problems["segments_expired"] += media.first - self._next
                self._next = media.first
            if (segment := media.segment(self._next)) is not None:
                return segment
            if media.ended:
                return None
            self._reload(since_s)

    def _loaded(self, segment: Segment, since_s: float) -> _Loaded | None:
        """The segment's content; None where it is given up. Raises SourceError."""
        if segment.gap:
            self.problems["segments_missing"] += 1
            return None
        # Live, a segment that takes much longer than it lasts is not worth waiting for; a file has time.
        timeout_s = max(self._options.read_timeout_s, 2 * segment.duration_s) if self.live else None
        tries = 0
        while True:
            try:
                init = self._parts.init(segment)
                data = self._parts.media(segment, timeout_s=timeout_s)
                kind = kind_of(init, data, where=without_secrets(segment.part.uri))
                return _Loaded(segment=segment, init=init, data=data, kind=kind)
            except Gone as error:
                if self._session is None and not self.live:
                    raise Unreachable(error.what, where=error.where, hint="check the playlist") from error
                self.problems["segments_missing"] += 1
                self._patience(error, since_s)
                return None
            except Refused:
                raise
            except SourceError as error:
                self._patience(error, since_s)
                # A live server that is away is waited for; what comes broken again and again is given up.
                if not (isinstance(error, Away) and self.live and self._session is not None):
                    tries += 1
                if tries == _TRIES or (isinstance(error, UnsupportedMedia) and self._session is None):
                    if self._session is None or not self.live:
                        raise
                    self.problems["segments_lost"] += 1
                    return None
            if self._client.wait(_PAUSE_S):
                raise Unreachable("was closed while it was read", where=self._playlist.where)

    def _patience(self, error: SourceError, since_s: float) -> None:
        """Raise `error` if nothing has come for too long."""
        if time.monotonic() - since_s > self._silence_s:
            raise error

    # --- the playlist -----------------------------------------------------------------------------------------------

    @property
    def target_s(self) -> float:
        """Seconds that a segment lasts at most, as the playlist says; 1 to 60."""
        return min(max(self._media.target_s, 1.0), 60.0)

    @property
    def _silence_s(self) -> float:
        return max(self._options.read_timeout_s, 2 * self.target_s)

    def _reload(self, since_s: float) -> None:
        """Wait until the playlist may be asked for again, and take what it says. Raises SourceError."""
        pause_s = self.target_s if self._changed else self.target_s / 2
        if self._client.wait(max(0.0, self._playlist.asked_s + pause_s - time.monotonic())):
            raise Unreachable("was closed while it was read", where=self._playlist.where)
        self._changed = False
        try:
            timeout_s = min(self._options.read_timeout_s, max(2.0, self.target_s))
            media = self._playlist.load(timeout_s=timeout_s, since=self._next)
            if isinstance(media, Master):
                raise CorruptMedia("was a media playlist and is a master playlist now", where=self._playlist.where)
        except (Refused, UnsupportedMedia):
            raise
        except SourceError as error:
            self.problems["reload_failed"] += 1
            self._patience(error, since_s)
            return
        if media.stop < self._next and not media.ended:
            self._went_back(media)
        else:
            self._back = 0
            self._changed = (media.first, media.stop) != (self._media.first, self._media.stop)
            self._media = media
        if self._media.stop <= self._next and not self._media.ended:
            silent = f"no new segment for {self._silence_s:g} s"
            self._patience(Unreachable(silent, where=self._playlist.where, hint="check its publisher"), since_s)

    def _went_back(self, media: Media) -> None:
        """Tell an old copy of the playlist (a cache's), which is passed over, from a publisher that began anew."""
        if not media.segments or any(self._given.get(s.sequence) == _name(s) for s in media.segments):
            return
        self._back += 1
        if self._back >= _BACK:
            self.problems["sequence_reset"] += 1
            self._back, self._changed, self._anew = 0, True, True
            self._media, self._next = media, _begin(media)
            self._given.clear()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Loaded:
    segment: Segment
    init: bytes
    data: bytes
    kind: str


class _Playlist:
    """A playlist that can be loaded again; `asked_s` says when that began last."""

    def __init__(self, client: Client, uri: str) -> None:
        self.where = without_secrets(uri)
        self.asked_s = 0.0
        self._client, self._uri = client, uri

    def load(self, *, timeout_s: float, since: int = 0) -> Master | Media:
        """Return what it says now, see m3u8.parse. Raises what `open_hls` raises."""
        self.asked_s = time.monotonic()
        answer = self._client.get(self._uri, timeout_s=timeout_s).require()
        left_s = max(0.01, self.asked_s + timeout_s - time.monotonic())
        # Addresses inside are relative to where it came from at last, but each load begins at the first address.
        data = answer.read_all(limit=m3u8.MAX_BYTES, timeout_s=left_s)
        return m3u8.parse(data, answer.uri, where=self.where, since=since)


def _variant(client: Client, master: Master, deadline_s: float, problems: Counter[str]) -> tuple[_Playlist, Media]:
    """The best variant whose playlist can be had."""
    failure: SourceError | None = None
    for variant in master.variants[:_VARIANTS]:
        playlist = _Playlist(client, variant.uri)
        try:
            media = playlist.load(timeout_s=max(0.01, deadline_s - time.monotonic()))
        except Refused:
            raise
        except Unreachable as error:
            failure = failure or error
            continue
        except ConfigError as error:
            raise CorruptMedia("is an address in a playlist that is none", where=playlist.where) from error
        if isinstance(media, Master):
            raise CorruptMedia("is a master playlist inside another one", where=playlist.where)
        if variant.audio_apart:
            problems["audio_apart"] += 1
        return playlist, media
    assert failure is not None
    raise failure


def _begin(media: Media) -> int:
    """The number of the segment at which to begin."""
    return media.first if media.ended else max(media.first, media.stop - _FROM_END)


def _name(segment: Segment) -> str:
    part = segment.part
    return f"{part.uri.partition('?')[0]}@{part.start}"
