"""Sample entries: what an fMP4 track says of its codec, and the codec's name for players (RFC 6381).

Video is our own H.264. Audio is passed through as the source has it: AAC, MP3, Opus, AC-3. Sections: ISO/IEC 14496-12
(boxes), -15 (avcC), -1 and -3 (esds, AudioSpecificConfig, ADTS), ETSI TS 102 366 annex F (dac3), "Encapsulation of
Opus in ISO Base Media File Format" §4.3.2 (dOps).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pipeline.errors import UnsupportedMedia
from pipeline.media.boxes import box, boxes
from pipeline.wire.frames import ColorSpec, Size
from pipeline.wire.packets import Codec

_HIGH_PROFILES = frozenset({100, 110, 122, 144, 244})
_ADTS_RATES_HZ = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
_UNSPECIFIED = 2
_AAC = 0x40  # object type of MPEG-4 audio (14496-1 table 5)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A sample entry box (`data`), the codec's name for players, and a picture's size (0×0: audio) or channels."""

    data: bytes
    codecs: str
    width_px: int = 0
    height_px: int = 0
    channels: int = 0


# ---- video --------------------------------------------------------------------------------------------------------


def nal_units(annexb: bytes) -> list[bytes]:
    """Return the NAL units of a byte stream with start codes (H.264 annex B), without codes and trailing zeros."""
    units: list[bytes] = []
    start = annexb.find(b"\0\0\1")
    while start >= 0:
        following = annexb.find(b"\0\0\1", start + 3)
        unit = annexb[start + 3 : following if following >= 0 else len(annexb)].rstrip(b"\0")
        if unit:
            units.append(unit)
        start = following
    return units


def length_prefixed(annexb: bytes) -> bytes:
    """Return an access unit as a sample: each NAL unit behind its length (4 bytes), delimiters and filler left out."""
    kept = (unit for unit in nal_units(annexb) if unit[0] & 31 not in (9, 12))
    return b"".join(struct.pack(">I", len(unit)) + unit for unit in kept)


def avc_entry(parameter_sets: bytes, *, size: Size, color: ColorSpec) -> Entry:
    """Return the sample entry of H.264, 8 bit 4:2:0, whose SPS and PPS (annex B) an encoder gave as extradata."""
    units = nal_units(parameter_sets)
    sps = next(u for u in units if u[0] & 31 == 7)
    pps = next(u for u in units if u[0] & 31 == 8)
    high = struct.pack(">BBBB", 0xFC | 1, 0xF8, 0xF8, 0) if sps[1] in _HIGH_PROFILES else b""  # 4:2:0, 8 bit, 8 bit
    configuration = box(
        b"avcC",
        struct.pack(">BBBBBB", 1, sps[1], sps[2], sps[3], 0xFF, 0xE1),
        struct.pack(">H", len(sps)) + sps,
        struct.pack(">BH", 1, len(pps)) + pps,
        high,
    )
    codes = (color.primaries, color.transfer, color.matrix)
    meaning = b""
    if any(code != _UNSPECIFIED for code in codes) or color.full_range:
        meaning = box(b"colr", b"nclx", struct.pack(">HHHB", *codes, 0x80 if color.full_range else 0))
    visual = struct.pack(">HH12xHHIIIH", 0, 0, size.width_px, size.height_px, 0x480000, 0x480000, 0, 1)
    entry = box(b"avc1", bytes(6), b"\0\1", visual, bytes(32), struct.pack(">Hh", 24, -1), configuration, meaning)
    return Entry(data=entry, codecs=f"avc1.{sps[1:4].hex()}", width_px=size.width_px, height_px=size.height_px)


# ---- audio --------------------------------------------------------------------------------------------------------


def audio_entry(codec: Codec, first_packet: bytes) -> Entry:
    """Return the sample entry of an audio track that is passed through.

    Args:
        codec: of the track; without extradata its configuration is read from the packet.
        first_packet: the track's first packet as the source has it (AAC perhaps with its ADTS header).

    Raises:
        UnsupportedMedia: fMP4 cannot carry the codec here, or its configuration cannot be read.
    """
    if codec.name == "aac":
        config = codec.extradata or _aac_config(first_packet)
        return _mp4a(codec, _AAC, config, f"mp4a.40.{_aac_kind(config)}")
    if codec.name in ("mp3", "mp3float"):
        # MPEG-1 audio is 0x6B, the half rates of MPEG-2 are 0x69 (registered object types of mp4ra.org).
        kind = 0x6B if codec.sample_rate_hz >= 32000 else 0x69
        return _mp4a(codec, kind, b"", f"mp4a.{kind:02x}")
    if codec.name in ("opus", "libopus"):
        channels, specific = _opus_config(codec)
        return _audio(b"Opus", channels, 48000, box(b"dOps", specific), "opus")
    if codec.name == "ac3":
        return _audio(b"ac-3", codec.channels, codec.sample_rate_hz, box(b"dac3", _ac3_config(first_packet)), "ac-3")
    raise UnsupportedMedia(
        f"{codec.name} audio cannot be passed through to HLS",
        hint="the output has no audio; AAC, MP3, Opus and AC-3 do",
    )


def adts_header_bytes(packet: bytes) -> int:
    """Return how long the ADTS header is that an AAC packet starts with; 0 if it has none that fits the packet."""
    if len(packet) < 7 or packet[0] != 0xFF or packet[1] & 0xF6 != 0xF0:
        return 0
    length = (packet[3] & 3) << 11 | packet[4] << 3 | packet[5] >> 5
    header = 7 if packet[1] & 1 else 9
    return header if length == len(packet) > header else 0


def _aac_config(packet: bytes) -> bytes:
    """Return the AudioSpecificConfig (14496-3 §1.6.2.1) that an ADTS header (§1.A.2) stands for."""
    if not adts_header_bytes(packet):
        raise UnsupportedMedia("AAC audio says nothing of its configuration", hint="the output has no audio")
    profile, rate, channels = packet[2] >> 6, packet[2] >> 2 & 15, (packet[2] & 1) << 2 | packet[3] >> 6
    if rate >= len(_ADTS_RATES_HZ) or channels == 0:
        raise UnsupportedMedia("AAC audio of an unusual rate or channel layout", hint="the output has no audio")
    return struct.pack(">H", (profile + 1) << 11 | rate << 7 | channels << 3)


def _aac_kind(config: bytes) -> int:
    """Return the audio object type of an AudioSpecificConfig: 2 is AAC-LC, 5 HE-AAC (14496-3 §1.6.2.1)."""
    kind = config[0] >> 3
    return 32 + ((config[0] & 7) << 3 | config[1] >> 5) if kind == 31 and len(config) > 1 else kind


def _ac3_config(packet: bytes) -> bytes:
    """Return the content of dac3 from a sync frame (ETSI TS 102 366 §4.3, F.4)."""
    if len(packet) < 8 or packet[:2] != b"\x0b\x77" or packet[4] >> 6 == 3:
        raise UnsupportedMedia("AC-3 audio without a readable header", hint="the output has no audio")
    rate, size = packet[4] >> 6, packet[4] & 63
    bsid, bsmod, acmod = packet[5] >> 3, packet[5] & 7, packet[6] >> 5
    # Before the LFE flag lie the mix levels, 2 bits each, that the channel mode has (§4.4.2.4 to 4.4.2.6).
    levels = int(bool(acmod & 1) and acmod != 1) + int(bool(acmod & 4)) + int(acmod == 2)
    lfe = packet[6] >> (4 - 2 * levels) & 1
    bits = rate << 22 | bsid << 17 | bsmod << 14 | acmod << 11 | lfe << 10 | (size >> 1) << 5
    return bits.to_bytes(3)


def _opus_config(codec: Codec) -> tuple[int, bytes]:
    """Return channels and content of dOps from the OpusHead (RFC 7845 §5.1), whose numbers are little-endian."""
    head = codec.extradata
    if len(head) >= 19 and head[:8] == b"OpusHead":
        channels, skip, rate, gain, family = struct.unpack("<BHIhB", head[9:19])
        return channels, struct.pack(">BBHIhB", 0, channels, skip, rate, gain, family) + head[19:]
    if 1 <= codec.channels <= 2:
        return codec.channels, struct.pack(">BBHIhB", 0, codec.channels, 312, codec.sample_rate_hz, 0, 0)
    raise UnsupportedMedia("Opus audio says nothing of its channels", hint="the output has no audio")


def _mp4a(codec: Codec, object_type: int, config: bytes, codecs: str) -> Entry:
    specific = _descriptor(5, config) if config else b""
    decoder = _descriptor(4, struct.pack(">BB3xII", object_type, 0x15, 0, 0), specific)
    stream = _descriptor(3, bytes(3), decoder, _descriptor(6, b"\2"))
    return _audio(b"mp4a", codec.channels, codec.sample_rate_hz, box(b"esds", bytes(4), stream), codecs)


def _audio(kind: bytes, channels: int, rate_hz: int, specific: bytes, codecs: str) -> Entry:
    # The rate is a 16.16 number; what does not fit is left to the codec's own configuration.
    rate = rate_hz << 16 if rate_hz < 65536 else 0
    sound = struct.pack(">8xHHHHI", channels, 16, 0, 0, rate)
    return Entry(data=box(kind, bytes(6), b"\0\1", sound, specific), codecs=codecs, channels=channels)


def _descriptor(tag: int, *parts: bytes) -> bytes:
    size = sum(map(len, parts))
    length = bytes((size >> shift & 127) | (128 if shift else 0) for shift in (21, 14, 7, 0))
    return b"".join((bytes((tag,)), length, *parts))


# ---- reading back -------------------------------------------------------------------------------------------------


def read_entry(media: bytes) -> Entry:
    """Return the entry in the content of an `mdia` box that mux.init_segment made. Raises StorageError."""
    data = boxes(media, b"minf", b"stbl", b"stsd")[0][8:]
    kind = data[4:8]
    if kind == b"avc1":
        width_px, height_px = struct.unpack(">HH", data[32:36])
        profile = boxes(data[86:], b"avcC")[0][1:4]
        return Entry(data=data, codecs=f"avc1.{profile.hex()}", width_px=width_px, height_px=height_px)
    channels = int.from_bytes(data[24:26])
    names = {b"Opus": "opus", b"ac-3": "ac-3"}
    if kind in names:
        return Entry(data=data, codecs=names[kind], channels=channels)
    descriptors = boxes(data[36:], b"esds")[0]
    # Fixed places: version, ES descriptor (5 + 3), decoder descriptor's head (5), then the object type.
    object_type = descriptors[17]
    if object_type != _AAC:
        return Entry(data=data, codecs=f"mp4a.{object_type:02x}", channels=channels)
    return Entry(data=data, codecs=f"mp4a.40.{_aac_kind(descriptors[35:])}", channels=channels)
