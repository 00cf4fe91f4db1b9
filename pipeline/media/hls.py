"""Playlists (RFC 8216, version 7 for fMP4) of a stream's directory, kept in the store and nowhere else.

    hls/index.m3u8                                 master: video and audio, so far as they have segments
    hls/main/index.m3u8                            video; hls/audio/ is laid out alike, and hls/input/, which no master
                                                   names: the source's picture, to compare with (stages/original.py)
    hls/main/init-<epoch>.mp4
    hls/main/<epoch>-<first>-<stop>.m4s            a segment; units [first, stop): frames, in hls/audio packets

A playlist only grows (type EVENT), or, with `keep_s`, is a window: its last `keep_s` seconds, three target durations
at least (§6.2.2). `append` reads the stored one, drops what is at or behind the segment's place (a restart makes those
again, with the same bytes), and writes it with the segment: so no object holds a list that grows, and whoever restarts
finds what is there. The discontinuity sequence of a segment is its epoch in every rendition, even if an epoch left no
segment in one of them: players match renditions by it.

What leaves the window stays a comment in the playlist, with the time that it left, until no player can still ask for
it: §6.2.2 has a segment available for as long as the longest playlist that it was in lasts, and its own duration. Then
it is deleted. What a restart makes again from in front of the window is passed over: it was there, and is gone.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import Protocol

from pipeline.errors import Conflict, NotFound, StorageError
from pipeline.media.boxes import boxes
from pipeline.media.entries import Entry, read_entry

MAIN = "hls/main"
AUDIO = "hls/audio"
INPUT = "hls/input"
MASTER = "hls/index.m3u8"
_PLAYLIST = "index.m3u8"
_PLAYED_EVERYWHERE = ("mp4a.40", "opus")  # measured: Chromium's Media Source Extensions refuse MP3 and AC-3 in fMP4
_END = "#EXT-X-ENDLIST\n"
_LEFT = "#LIMPID-LEFT"  # a comment for players: no tag, which would begin with #EXT
_NAME = re.compile(r"(\d+)-(\d+)-(\d+)\.m4s")


class Objects(Protocol):
    """What playlists need of a store (pipeline.store.objects.Store)."""

    def put_new(self, name: str, data: bytes, /) -> bool:
        """Write an object unless one of that name exists; say whether it was written."""

    def put(self, name: str, data: bytes, /) -> None:
        """Write or replace an object."""

    def get(self, name: str, /) -> bytes:
        """Return an object. Raises NotFound."""

    def delete(self, name: str, /) -> None:
        """Remove an object; nothing happens where there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """One line of a playlist.

    Attributes:
        epoch, first, stop: units [first, stop) of the epoch.
        duration_s: exact; written with nine decimals.
        kbps: kbit/s of its bytes over its duration, rounded up (EXT-X-BITRATE).
        date: Unix time in ms of its first unit; None where no such time is known.
    """

    epoch: int
    first: int
    stop: int
    duration_s: Fraction
    kbps: int
    date_ms: int | None = None

    @property
    def name(self) -> str:
        """The object's name in its rendition's folder; names sort in the order of the content."""
        return f"{self.epoch:06d}-{self.first:010d}-{self.stop:010d}.m4s"


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """A segment that a window has left, `name`, but that a player may still ask for until `until_ms` (Unix time)."""

    name: str
    until_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Playlist:
    """A media playlist as it is stored.

    Attributes:
        segments: that it names.
        ended: nothing will come (EXT-X-ENDLIST).
        window: whether it moves on; else it only grows.
        sequence: number of its first segment (EXT-X-MEDIA-SEQUENCE).
        left: segments in front of it that are not deleted yet, in order.
    """

    target_s: int
    segments: tuple[Segment, ...] = ()
    ended: bool = False
    window: bool = False
    sequence: int = 0
    left: tuple[Left, ...] = ()

    @property
    def duration_s(self) -> Fraction:
        """Of its segments."""
        return sum((s.duration_s for s in self.segments), Fraction(0))

    def text(self) -> str:
        """Return the playlist file."""
        lines = [
            "#EXTM3U",
            "#EXT-X-VERSION:7",
            f"#EXT-X-TARGETDURATION:{self.target_s}",
            f"#EXT-X-MEDIA-SEQUENCE:{self.sequence}",
            *([] if self.window else ["#EXT-X-PLAYLIST-TYPE:EVENT"]),
            "#EXT-X-INDEPENDENT-SEGMENTS",
            *(f"{_LEFT}:{left.until_ms},{left.name}" for left in self.left),
        ]
        if self.segments and self.segments[0].epoch:
            lines.append(f"#EXT-X-DISCONTINUITY-SEQUENCE:{self.segments[0].epoch}")
        previous = None
        for segment in self.segments:
            lines += _lines(segment, None if previous is None else previous.epoch)
            previous = segment
        return "\n".join(lines) + "\n" + (_END if self.ended else "")

    @staticmethod
    def parse(text: str, *, where: str = "playlist") -> Playlist:
        """Return the playlist that `text` made. Raises StorageError for what is none of ours."""
        target_s, sequence, segments, left = 0, 0, [], []
        duration_s, kbps, date_ms = Fraction(0), 0, None
        for line in text.splitlines():
            tag, _, value = line.partition(":")
            try:
                if tag == "#EXT-X-TARGETDURATION":
                    target_s = int(value)
                elif tag == "#EXT-X-MEDIA-SEQUENCE":
                    sequence = int(value)
                elif tag == _LEFT:
                    until_ms, _, name = value.partition(",")
                    _numbers(name)
                    left.append(Left(name=name, until_ms=int(until_ms)))
                elif tag == "#EXT-X-PROGRAM-DATE-TIME":
                    date_ms = round(datetime.fromisoformat(value).timestamp() * 1000)
                elif tag == "#EXT-X-BITRATE":
                    kbps = int(value)
                elif tag == "#EXTINF":
                    duration_s = Fraction(value.rstrip(","))
                elif line and not line.startswith("#"):
                    epoch, first, stop = _numbers(line)
                    segments.append(
                        Segment(epoch=epoch, first=first, stop=stop, duration_s=duration_s, kbps=kbps, date_ms=date_ms)
                    )
                    date_ms = None
            except ValueError as error:
                raise StorageError(f"a playlist holds '{line}'", where=where, hint="it is damaged") from error
        if not target_s:
            raise StorageError("a playlist has no target duration", where=where, hint="it is damaged")
        return Playlist(
            target_s=target_s,
            segments=tuple(segments),
            ended="#EXT-X-ENDLIST" in text,
            window="#EXT-X-PLAYLIST-TYPE" not in text,
            sequence=sequence,
            left=tuple(left),
        )


def target_duration(segment_s: float) -> int:
    """Return the target duration in whole seconds for segments that start every `segment_s`; at least 1.

    A segment lasts up to `segment_s` and what its last frame lasts longer. That is covered, EXTINF being compared
    rounded to the second, as long as frames come at two a second at least. A stream that pauses for longer has a
    longer segment there; `close_playlists` then raises the finished playlist's target.
    """
    return max(1, math.ceil(segment_s))


def read(store: Objects, folder: str) -> Playlist | None:
    """Return the playlist of a rendition (MAIN or AUDIO), None where there is none. Raises StorageError."""
    name = f"{folder}/{_PLAYLIST}"
    try:
        data = store.get(name)
    except NotFound:
        return None
    return Playlist.parse(data.decode(), where=name)


def write_segment(
    store: Objects,
    folder: str,
    segment: Segment,
    *,
    data: bytes,
    init: bytes,
    target_s: int,
    keep_s: Fraction = Fraction(0),
) -> None:
    """Make a segment durable: its epoch's initialisation segment, its data, then its line in the playlist.

    What exists wins: made again it would be the same.

    Args:
        keep_s: of the window; 0: the playlist only grows.

    Raises:
        StorageError: it cannot be written; Conflict where the epoch was begun with other settings, whose segments
            players could not join with these.
    """
    if keep_s and _is_past(read(store, folder), segment):
        return
    name = init_name(folder, segment.epoch)
    if not store.put_new(name, init) and store.get(name) != init:
        raise Conflict(
            "the stream was begun with other settings of encode or another source",
            where=name,
            hint="go on with those settings, or overwrite the output",
        )
    store.put_new(f"{folder}/{segment.name}", data)
    if keep_s:
        move_on(store, folder, segment, target_s=target_s, keep_s=keep_s, now_ms=time.time_ns() // 1_000_000)
    else:
        append(store, folder, segment, target_s=target_s)


def move_on(store: Objects, folder: str, segment: Segment, *, target_s: int, keep_s: Fraction, now_ms: int) -> None:
    """Write a rendition's window with `segment` as its last, and delete what no player can still ask for.

    A segment that is there already (a restart makes it again) changes nothing. Raises StorageError.
    """
    old = read(store, folder) or Playlist(target_s=target_s)
    if _is_past(old, segment) or segment.name in (s.name for s in old.segments):
        return
    moved, gone = moved_on(old, segment, keep_s=keep_s, now_ms=now_ms)
    # Deleted first: who dies in between finds their names again.
    for name in gone:
        store.delete(f"{folder}/{name}")
    store.put(f"{folder}/{_PLAYLIST}", moved.text().encode())


def moved_on(old: Playlist, segment: Segment, *, keep_s: Fraction, now_ms: int) -> tuple[Playlist, tuple[str, ...]]:
    """Return a playlist's next window, and the names in its folder that are to be deleted.

    Args:
        old: the playlist so far; what it has at or behind the segment's place is replaced.
        segment: the new last one.
        keep_s: of the window; at least three target durations are kept.
        now_ms: Unix time.
    """
    place = (segment.epoch, segment.first)
    segments = (*(s for s in old.segments if (s.epoch, s.first) < place), segment)
    replaced = tuple(s for s in old.segments if (s.epoch, s.first) >= place)
    wanted_s = max(keep_s, Fraction(3 * old.target_s))
    first, kept_s = len(segments), Fraction(0)
    while first and kept_s < wanted_s:
        first -= 1
        kept_s += segments[first].duration_s
    before = [item for item in old.left if item.name != segment.name]
    gone = [item.name for item in before if item.until_ms < now_ms]
    stay = (
        *(item for item in before if item.until_ms >= now_ms),
        # The longest playlist that they were in is the one that they leave.
        *(
            Left(name=s.name, until_ms=now_ms + math.ceil((s.duration_s + old.duration_s) * 1000))
            for s in (*segments[:first], *replaced)
        ),
    )
    moved = Playlist(
        target_s=old.target_s,
        segments=segments[first:],
        window=True,
        sequence=old.sequence + first,
        left=stay,
    )
    alive = {s.epoch for s in moved.segments} | {_numbers(item.name)[0] for item in stay}
    empty = dict.fromkeys(_numbers(name)[0] for name in gone)
    return moved, (*gone, *(f"init-{epoch}.mp4" for epoch in empty if epoch not in alive))


def _is_past(playlist: Playlist | None, segment: Segment) -> bool:
    """Say whether a window has moved past the segment's place."""
    if playlist is None or not playlist.sequence or not playlist.segments:
        return False
    first = playlist.segments[0]
    return (segment.epoch, segment.first) < (first.epoch, first.first)


def append(store: Objects, folder: str, segment: Segment, *, target_s: int) -> None:
    """Write a rendition's growing playlist with `segment` as its last; its object must be durable already.

    What the playlist has at or behind the segment's place is dropped. Raises StorageError.
    """
    name = f"{folder}/{_PLAYLIST}"
    try:
        text = store.get(name).decode().removesuffix(_END)
    except NotFound:
        text = Playlist(target_s=target_s).text()
    last = _last(text)
    if last is not None and last < (segment.epoch, segment.first):
        # The common case, without reading a list that may have a day's lines.
        store.put(name, (text + "\n".join(_lines(segment, last[0])) + "\n").encode())
        return
    old = Playlist.parse(text, where=name)
    kept = tuple(s for s in old.segments if (s.epoch, s.first) < (segment.epoch, segment.first))
    store.put(name, replace(old, segments=(*kept, segment)).text().encode())


def reopen(store: Objects, folder: str) -> None:
    """Take back the end of a rendition's playlist, if it has one: more is to come. Raises StorageError."""
    name = f"{folder}/{_PLAYLIST}"
    try:
        text = store.get(name).decode()
    except NotFound:
        return
    if text.endswith(_END):
        store.put(name, text.removesuffix(_END).encode())


def close_playlists(store: Objects) -> None:
    """End all playlists of a stream and write its master, so that the directory plays as a whole. Raises StorageError.

    For the end of a stream and for a stop; running on takes the end back (`reopen`).
    """
    for folder in (MAIN, AUDIO, INPUT):
        playlist = read(store, folder)
        if playlist is not None:
            # Compared as RFC 8216 §4.3.3.1 does: rounded to the nearest second.
            longest = max((math.floor(s.duration_s + Fraction(1, 2)) for s in playlist.segments), default=0)
            ended = replace(playlist, target_s=max(playlist.target_s, longest), ended=True)
            store.put(f"{folder}/{_PLAYLIST}", ended.text().encode())
    write_master(store)


def write_master(store: Objects) -> None:
    """Write the master playlist from the renditions that are there; nothing while there is no video.

    Video and audio come from two processes that both write it: each looks again after writing, so that the one
    that is last to look has seen the other's rendition. Raises StorageError.
    """
    written = None
    while (text := _master(store)) is not None and text != written:
        store.put(MASTER, text.encode())
        written = text


def _master(store: Objects) -> str | None:
    video = read(store, MAIN)
    if video is None or not video.segments:
        return None
    video_entries = _entries(store, MAIN, video)
    audio = read(store, AUDIO)
    audio_entries = _entries(store, AUDIO, audio) if audio is not None else []
    largest = max(video_entries, key=lambda e: e.width_px * e.height_px)
    size = f"RESOLUTION={largest.width_px}x{largest.height_px}"
    lines = ["#EXTM3U", "#EXT-X-VERSION:7", "#EXT-X-INDEPENDENT-SEGMENTS"]
    if audio is not None and audio_entries:
        lines += [
            (
                '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="audio",DEFAULT=YES,AUTOSELECT=YES,'
                f'CHANNELS="{audio_entries[0].channels}",URI="audio/{_PLAYLIST}"'
            ),
            f'#EXT-X-STREAM-INF:{_rates(video, audio)},{_codecs(video_entries + audio_entries)},{size},AUDIO="audio"',
            f"main/{_PLAYLIST}",
        ]
    if not audio_entries or not all(e.codecs.startswith(_PLAYED_EVERYWHERE) for e in audio_entries):
        # For players that would refuse the variant above for its audio. Not always: FFmpeg opens every variant.
        lines += [f"#EXT-X-STREAM-INF:{_rates(video)},{_codecs(video_entries)},{size}", f"main/{_PLAYLIST}"]
    return "\n".join(lines) + "\n"


def _rates(*playlists: Playlist) -> str:
    peak = sum(max(s.kbps for s in p.segments) for p in playlists)
    mean = sum(_mean_kbps(p.segments) for p in playlists)
    return f"BANDWIDTH={peak * 1000},AVERAGE-BANDWIDTH={mean * 1000}"


def _codecs(entries: Sequence[Entry]) -> str:
    return f'CODECS="{",".join(dict.fromkeys(e.codecs for e in entries))}"'


def init_name(folder: str, epoch: int) -> str:
    """Return the name of an epoch's initialisation segment in a rendition."""
    return f"{folder}/init-{epoch}.mp4"


def _entries(store: Objects, folder: str, playlist: Playlist) -> list[Entry]:
    epochs = dict.fromkeys(s.epoch for s in playlist.segments)
    return [read_entry(boxes(store.get(init_name(folder, e)), b"moov", b"trak", b"mdia")[0]) for e in epochs]


def _mean_kbps(segments: Sequence[Segment]) -> int:
    total_s = sum((s.duration_s for s in segments), Fraction(0))
    return math.ceil(sum(s.kbps * s.duration_s for s in segments) / total_s) if total_s else 0


def _lines(segment: Segment, previous_epoch: int | None) -> list[str]:
    lines = []
    if segment.epoch != previous_epoch:
        if previous_epoch is not None:
            lines += ["#EXT-X-DISCONTINUITY"] * (segment.epoch - previous_epoch)
        lines.append(f'#EXT-X-MAP:URI="init-{segment.epoch}.mp4"')
    if segment.date_ms is not None:
        date = datetime.fromtimestamp(segment.date_ms / 1000, UTC).isoformat(timespec="milliseconds")
        lines.append(f"#EXT-X-PROGRAM-DATE-TIME:{date.replace('+00:00', 'Z')}")
    return [*lines, f"#EXT-X-BITRATE:{segment.kbps}", f"#EXTINF:{_decimal(segment.duration_s)},", segment.name]


def _decimal(value: Fraction) -> str:
    whole, nano = divmod(math.floor(value * 10**9 + Fraction(1, 2)), 10**9)
    return f"{whole}.{nano:09d}".rstrip("0").ljust(len(str(whole)) + 2, "0")


def _numbers(name: str) -> tuple[int, int, int]:
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name} is no segment's name")
    return int(match[1]), int(match[2]), int(match[3])


def _last(text: str) -> tuple[int, int] | None:
    """Return (epoch, first unit) of a playlist's last segment; None if it has none, or ends in something else."""
    match = _NAME.fullmatch(text[text.rstrip("\n").rfind("\n") + 1 :].rstrip("\n"))
    return None if match is None else (int(match[1]), int(match[2]))
