from __future__ import annotations

from fractions import Fraction

import pytest

from pipeline.errors import UnsupportedMedia
from pipeline.media import mux
from pipeline.media.boxes import boxes
from pipeline.media.entries import (
    Entry,
    adts_header_bytes,
    audio_entry,
    avc_entry,
    length_prefixed,
    nal_units,
    read_entry,
)
from pipeline.wire.frames import ColorSpec, Size
from pipeline.wire.packets import Codec


def codec(name: str, extradata: bytes = b"", rate: int = 48000, channels: int = 2) -> Codec:
    return Codec(name=name, extradata=extradata, time_base=Fraction(1, rate), sample_rate_hz=rate, channels=channels)


def adts(payload: bytes, *, crc: bool = False) -> bytes:
    """AAC-LC, 44.1 kHz, stereo (14496-3 §1.A.2): profile 1, rate index 4, channels 2."""
    size = len(payload) + (9 if crc else 7)
    head = bytes(
        [0xFF, 0xF0 if crc else 0xF1, 1 << 6 | 4 << 2, 2 << 6 | size >> 11, size >> 3 & 255, (size & 7) << 5 | 31, 0xFC]
    )
    return head + (b"\0\0" if crc else b"") + payload


def test_nal_units_are_found_behind_both_start_codes() -> None:
    assert nal_units(b"\0\0\0\1\x67ab\0\0\1\x68c\0\0\0\1\x65de\0") == [b"\x67ab", b"\x68c", b"\x65de"]
    assert nal_units(b"no start code") == []


def test_a_sample_is_nal_units_behind_their_lengths_without_delimiters() -> None:
    assert length_prefixed(b"\0\0\1\x09\xf0\0\0\1\x65abc") == b"\0\0\0\4\x65abc"


def test_avcc_repeats_profile_and_parameter_sets() -> None:
    """14496-15 §5.3.3.1: version 1, SPS[1:4], 4-byte lengths, one SPS, one PPS; High (100) says 4:2:0, 8 bit."""
    entry = avc_entry(
        b"\0\0\0\1\x67\x64\x00\x1fS\0\0\0\1\x68P", size=Size(width_px=64, height_px=48), color=ColorSpec()
    )
    assert entry.codecs == "avc1.64001f"
    assert boxes(entry.data[86:], b"avcC") == [b"\1\x64\x00\x1f\xff\xe1\0\5\x67\x64\x00\x1fS\1\0\2\x68P\xfd\xf8\xf8\0"]
    assert boxes(entry.data[86:], b"colr") == []


def test_colour_is_told_where_it_is_known() -> None:
    entry = avc_entry(
        b"\0\0\1\x67\x42\xc0\x1fS\0\0\1\x68P",
        size=Size(width_px=64, height_px=48),
        color=ColorSpec(matrix=1, primaries=9, transfer=16, full_range=True),
    )
    assert boxes(entry.data[86:], b"colr") == [b"nclx\0\x09\0\x10\0\1\x80"]
    assert boxes(entry.data[86:], b"avcC")[0].endswith(b"\x68P")  # Baseline has no more to say


@pytest.mark.parametrize("crc", [False, True])
def test_adts_headers_are_recognised_by_their_own_length(crc: bool) -> None:
    packet = adts(b"payload", crc=crc)
    assert adts_header_bytes(packet) == (9 if crc else 7)
    assert adts_header_bytes(packet + b"x") == 0
    assert adts_header_bytes(packet[:-1]) == 0
    assert adts_header_bytes(b"\xff\xf1") == 0
    assert adts_header_bytes(b"raw aac data") == 0


def test_aac_without_configuration_takes_it_from_the_adts_header() -> None:
    """AudioSpecificConfig: 00010 (LC) 0100 (44.1 kHz) 0010 (stereo) 000 = 0x1210."""
    entry = audio_entry(codec("aac", rate=44100), adts(b"payload"))
    assert entry.codecs == "mp4a.40.2"
    assert entry.data.endswith(b"\x05\x80\x80\x80\x02\x12\x10\x06\x80\x80\x80\x01\x02")


@pytest.mark.parametrize(
    ("config", "name"), [(b"\x12\x10", "mp4a.40.2"), (b"\x2b\x92", "mp4a.40.5"), (b"\xf9\x40", "mp4a.40.42")]
)
def test_the_object_type_of_aac_is_in_its_name(config: bytes, name: str) -> None:
    """The first 5 bits; 31 says that 6 bits follow, counted from 32: 11111 001010 is 32 + 10."""
    assert audio_entry(codec("aac", config), b"").codecs == name


@pytest.mark.parametrize(("rate", "name"), [(44100, "mp4a.6b"), (22050, "mp4a.69")])
def test_mp3_is_named_by_its_generation(rate: int, name: str) -> None:
    assert audio_entry(codec("mp3", rate=rate), b"").codecs == name


def test_ac3_is_described_from_its_first_frame() -> None:
    """48 kHz (0), frmsizecod 28 (384 kbit/s), bsid 8, bsmod 0, acmod 7 (3/2: two mix levels), LFE.

    dac3 (TS 102 366 F.4): 00 01000 000 111 1 01110 00000 = 0x103DC0.
    """
    frame = b"\x0b\x77\0\0" + bytes([28, 8 << 3, 0b111_01_01_1, 0])
    entry = audio_entry(codec("ac3", channels=6), frame)
    assert entry.codecs == "ac-3"
    assert entry.data.endswith(b"\0\0\0\x0bdac3\x10\x3d\xc0")


def test_ac3_in_stereo_has_one_level_before_the_lfe_flag() -> None:
    """acmod 2, dsurmod 01, no LFE, 192 kbit/s (20): 00 01000 000 010 0 01010 00000 = 0x101140."""
    frame = b"\x0b\x77\0\0" + bytes([20, 8 << 3, 0b010_01_0_00, 0])
    assert audio_entry(codec("ac3"), frame).data.endswith(b"dac3\x10\x11\x40")


def test_opus_is_described_from_its_head() -> None:
    """OpusHead is little-endian, dOps big-endian: 1 channel, pre-skip 0x0138, 48000 Hz, gain 0, family 0."""
    head = b"OpusHead\1\1\x38\1\x80\xbb\0\0\0\0\0"
    entry = audio_entry(codec("opus", head), b"")
    assert entry.data.endswith(b"dOps\0\1\1\x38\0\0\xbb\x80\0\0\0")
    assert (entry.codecs, entry.channels) == ("opus", 1)
    assert audio_entry(codec("opus"), b"").data.endswith(b"dOps\0\2\1\x38\0\0\xbb\x80\0\0\0")


@pytest.mark.parametrize(
    ("what", "packet", "says"),
    [
        (codec("vorbis"), b"x", "vorbis"),
        (codec("pcm_s16le"), b"x", "pcm_s16le"),
        (codec("aac"), b"no header", "configuration"),
        (codec("aac"), adts(b"x")[:3] + b"\0" + adts(b"x")[4:], "unusual"),
        (codec("ac3"), b"\0" * 10, "AC-3"),
        (codec("opus", channels=6), b"x", "channels"),
    ],
)
def test_what_cannot_be_carried_is_told_with_its_reason(what: Codec, packet: bytes, says: str) -> None:
    with pytest.raises(UnsupportedMedia, match=says):
        audio_entry(what, packet)


@pytest.mark.parametrize(
    "entry",
    [
        audio_entry(codec("aac", b"\x12\x10"), b""),
        audio_entry(codec("mp3"), b""),
        audio_entry(codec("opus"), b""),
        audio_entry(codec("ac3", channels=6), b"\x0b\x77\0\0" + bytes([28, 64, 0xEB, 0])),
        avc_entry(b"\0\0\1\x67\x42\xc0\x1fS\0\0\1\x68P", size=Size(width_px=640, height_px=360), color=ColorSpec()),
    ],
    ids=lambda e: e.codecs,
)
def test_an_entry_can_be_read_back_from_its_initialisation_segment(entry: Entry) -> None:
    init = mux.init_segment(entry, ticks_a_second=48000)
    assert read_entry(boxes(init, b"moov", b"trak", b"mdia")[0]) == entry
