"""Fragmented MP4 of our own: an initialisation segment a track, a media segment a run of samples; bytes in, bytes out.

FFmpeg's muxer numbers fragments, shifts times and flushes by its own state, so the same samples give other bytes
after a restart. Here a segment is a function of its samples alone (design.md §5). Boxes: ISO/IEC 14496-12 (section
numbers below); one track a file, one `moof` + `mdat` a contiguous run of samples, no index.

Times are the source's: decode time = pts, to the tick. Decode times cannot be negative, so a track that starts before
0 (the priming of AAC) has all of them raised by a `shift`, which an edit list (§8.6.6) takes back. Measured: FFmpeg
and Chromium give the negative times then; with negative composition offsets instead FFmpeg gives raised ones.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from pipeline.errors import StorageError
from pipeline.media.boxes import box, boxes, full_box
from pipeline.media.entries import Entry

TRACK_ID = 1
"""The only track of every file."""

MAX_TICKS = 2**32 - 1
"""Longest duration that a sample can have (32 bit); what lasts longer leaves a hole, its successor's time is exact."""

_MATRIX = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)  # no rotation, no scale
_SYNC = 0x02000000  # depends on no other sample (§8.8.3.1)
_NOT_SYNC = 0x01010000  # depends on others; not a random-access point


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One coded frame: `time` (presentation) and `duration` in ticks of the track, `key` a random-access point."""

    time: int
    duration: int
    key: bool
    data: bytes


def timescale(time_base: Fraction) -> int:
    """Return the ticks a second of a track that carries multiples of `time_base` exactly (`ticks` converts)."""
    return time_base.denominator


def ticks(pts: int, time_base: Fraction) -> int:
    """Return `pts` in ticks of a track of that time base."""
    return pts * time_base.numerator


def init_segment(entry: Entry, *, ticks_a_second: int, shift: int = 0) -> bytes:
    """Return the initialisation segment of a track: `ftyp` and `moov` without samples; `shift` as in media_segment."""
    handler, header = (b"vide", full_box(b"vmhd", 0, 1, bytes(8))) if entry.width_px else (b"soun", _SOUND_HEADER)
    volume = 0 if entry.width_px else 0x0100
    track_header = full_box(
        b"tkhd",
        0,
        7,  # enabled, in movie, in preview
        struct.pack(">IIIII", 0, 0, TRACK_ID, 0, 0),
        struct.pack(">QhhHH", 0, 0, 0, volume, 0),
        _MATRIX,
        struct.pack(">II", entry.width_px << 16, entry.height_px << 16),
    )
    media = box(
        b"mdia",
        full_box(b"mdhd", 0, 0, struct.pack(">IIIIHH", 0, 0, ticks_a_second, 0, _UNDETERMINED, 0)),
        full_box(b"hdlr", 0, 0, bytes(4), handler, bytes(12), b"limpid\0"),
        box(b"minf", header, _DATA_HERE, _no_samples(entry)),
    )
    movie_header = full_box(
        b"mvhd",
        0,
        0,
        struct.pack(">IIII", 0, 0, 1000, 0),
        struct.pack(">IHHQ", 0x10000, 0x0100, 0, 0),
        _MATRIX,
        bytes(24),
        struct.pack(">I", TRACK_ID + 1),
    )
    extends = full_box(b"trex", 0, 0, struct.pack(">IIIII", TRACK_ID, 1, 0, 0, 0))
    edit = struct.pack(">IQqI", 1, 0, shift, 0x10000)  # one edit: media time `shift` is presented at 0
    edits = box(b"edts", full_box(b"elst", 1, 0, edit)) if shift else b""
    return box(b"ftyp", b"iso6", bytes(4), b"iso6mp41") + box(
        b"moov", movie_header, box(b"trak", track_header, edits, media), box(b"mvex", extends)
    )


def media_segment(samples: Sequence[Sample], *, number: int, shift: int = 0) -> bytes:
    """Return the media segment of consecutive samples.

    Args:
        samples: in order, at least one. One `moof` + `mdat` each run in which a sample ends where the next starts.
        number: of the segment, from 0; a function of content (fragments are numbered from it).
        shift: ticks that decode times are raised by; the initialisation segment's, 0 unless times are negative.
    """
    assert samples, "a segment holds samples"
    parts = [box(b"styp", b"msdh", bytes(4), b"msdhiso6")]
    for i, run in enumerate(_runs(samples)):
        # At least one run a segment, mostly exactly one; 16 numbers a segment keep them rising.
        parts += _fragment(run, number=(number * 16 + min(i, 15) + 1) % 2**32, shift=shift)
    return b"".join(parts)


def live_fragment(sample: Sample, *, number: int, shift: int, captured_ns: int) -> bytes:
    """Return one sample as a fragment of its own, behind the time it was captured at (`prft`, §8.16.5).

    Args:
        sample: what it holds.
        number: of the sample in its epoch, from 0 (fragments are numbered from it).
        shift: as in media_segment.
        captured_ns: Unix time; 0 and less is unknown, the fragment then has no `prft`.
    """
    captured = b""
    if captured_ns > 0:
        seconds, rest_ns = divmod(captured_ns, 10**9)
        ntp = (seconds + _NTP_OF_1970) % 2**32 << 32 | (rest_ns << 32) // 10**9
        captured = full_box(b"prft", 1, _CAPTURED, struct.pack(">IQQ", TRACK_ID, ntp, sample.time + shift))
    return b"".join((captured, *_fragment([sample], number=(number + 1) % 2**32, shift=shift)))


def first_time_s(init: bytes, segment: bytes) -> Fraction:
    """Return when a media segment's first sample is presented, in seconds of the timeline. Raises StorageError."""
    header = boxes(init, b"moov", b"trak", b"mdia", b"mdhd")
    decode = boxes(segment, b"moof", b"traf", b"tfdt")
    if not header or not decode:
        raise StorageError("a media segment holds no samples", hint="the file is damaged")
    edits = boxes(init, b"moov", b"trak", b"edts", b"elst")
    shift = int.from_bytes(edits[0][16:24]) if edits else 0
    return Fraction(int.from_bytes(decode[0][4:12]) - shift, int.from_bytes(header[0][12:16]))


_CAPTURED = 24  # flags of `prft`: the time is that of capture
_NTP_OF_1970 = 2_208_988_800  # NTP counts seconds from 1900 on (RFC 5905 §6)
_UNDETERMINED = 0x55C4  # the language "und", three letters of 5 bits (§8.4.2)
_SOUND_HEADER = full_box(b"smhd", 0, 0, bytes(4))
_DATA_HERE = box(b"dinf", full_box(b"dref", 0, 0, struct.pack(">I", 1), full_box(b"url ", 0, 1)))


def _no_samples(entry: Entry) -> bytes:
    return box(
        b"stbl",
        full_box(b"stsd", 0, 0, struct.pack(">I", 1), entry.data),
        full_box(b"stts", 0, 0, bytes(4)),
        full_box(b"stsc", 0, 0, bytes(4)),
        full_box(b"stsz", 0, 0, bytes(8)),
        full_box(b"stco", 0, 0, bytes(4)),
    )


def _runs(samples: Sequence[Sample]) -> list[list[Sample]]:
    runs: list[list[Sample]] = []
    for sample in samples:
        if runs and runs[-1][-1].time + runs[-1][-1].duration == sample.time:
            runs[-1].append(sample)
        else:
            runs.append([sample])
    return runs


def _fragment(run: Sequence[Sample], *, number: int, shift: int) -> tuple[bytes, bytes]:
    assert run[0].time + shift >= 0, f"decode time {run[0].time} + {shift} is negative"
    flags = 0x000001 | 0x000100 | 0x000200 | 0x000400
    rows = [struct.pack(">III", s.duration, len(s.data), _SYNC if s.key else _NOT_SYNC) for s in run]

    def movie_fragment(data_offset: int) -> bytes:
        return box(
            b"moof",
            full_box(b"mfhd", 0, 0, struct.pack(">I", number)),
            box(
                b"traf",
                full_box(b"tfhd", 0, 0x020000, struct.pack(">I", TRACK_ID)),  # offsets count from the moof
                full_box(b"tfdt", 1, 0, struct.pack(">Q", run[0].time + shift)),
                full_box(b"trun", 1, flags, struct.pack(">Ii", len(run), data_offset), *rows),
            ),
        )

    size = len(movie_fragment(0))
    return movie_fragment(size + 8), box(b"mdat", *(s.data for s in run))
