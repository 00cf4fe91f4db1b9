"""Which bytes of a key packet say how large the picture is, so that a change of size is seen before it is decoded.

A container's header speaks for the first picture only; in MPEG-TS, FLV, MKV and raw streams a later key packet may
bring another size. Parsing every codec's headers to the bit would be a second decoder; comparing the bytes that hold
the size is enough, and only where they change is the packet decoded to see what it really is.
"""

from __future__ import annotations

import re

_START = re.compile(rb"\x00\x00\x01")
_H264_SPS = 7  # H.264 table 7-1
_HEVC_SPS = 33  # H.265 table 7-1
_CODECS_WITH_PARAMETERS = ("h264", "hevc")


def nal_units(data: bytes, length_bytes: int) -> list[bytes]:
    """The NAL units of an access unit: Annex B if `length_bytes` is 0, else each behind its length."""
    if length_bytes == 0:
        starts = [m.end() for m in _START.finditer(data)]
        stops = [*(s - 3 for s in starts[1:]), len(data)] if starts else []
        return [data[a:b].rstrip(b"\x00") for a, b in zip(starts, stops, strict=True)]
    units, at = [], 0
    while at + length_bytes <= len(data):
        size = int.from_bytes(data[at : at + length_bytes], "big")
        at += length_bytes
        units.append(data[at : at + size])
        at += size
    return units


def _length_bytes(codec: str, extradata: bytes) -> int:
    """Bytes of a NAL unit's length field in the packets: 0 for Annex B (ISO/IEC 14496-15 5.3.3.1, 8.3.3.1)."""
    if codec == "h264" and len(extradata) >= 7 and extradata[0] == 1:
        return (extradata[4] & 3) + 1
    if codec == "hevc" and len(extradata) >= 23 and (extradata[0] == 1 or extradata[:3] == b"\x00\x00\x00"):
        return (extradata[21] & 3) + 1 if extradata[0] == 1 else 0
    return 0


def size_signature(codec: str, data: bytes, extradata: bytes = b"") -> bytes:
    """Return the bytes of a key packet that decide the picture's size; b"" where it carries none.

    Args:
        codec: FFmpeg's codec name.
        data: the packet.
        extradata: of its track; says how the packet's NAL units are framed.
    """
    if codec in _CODECS_WITH_PARAMETERS:
        units = nal_units(data, _length_bytes(codec, extradata))
        if codec == "h264":
            return b"".join(u for u in units if u and u[0] & 31 == _H264_SPS)
        return b"".join(u for u in units if u and u[0] >> 1 & 63 == _HEVC_SPS)
    if codec == "vp8":
        return data[6:10]  # RFC 6386 9.1: width and height behind the start code
    if codec == "vp9":
        return data[1:10]  # uncompressed_header(): sync code, colour configuration, frame size
    if codec in {"mpeg2video", "mpeg1video"}:
        at = data.find(b"\x00\x00\x01\xb3")  # sequence_header_code, then 12 + 12 bits
        return data[at + 4 : at + 7] if at >= 0 else b""
    if codec == "mpeg4":
        found = re.search(rb"\x00\x00\x01[\x20-\x2f].{1,32}?(?=\x00\x00\x01|$)", data[:512], re.DOTALL)
        return found[0] if found else b""  # video_object_layer
    if codec == "mjpeg":
        found = re.search(rb"\xff[\xc0-\xc2]..(.{5})", data[:4096], re.DOTALL)
        return found[1] if found else b""  # SOF: precision, height, width
    if codec == "av1":
        return _av1_sequence(data)
    return b""


def _av1_sequence(data: bytes) -> bytes:
    """The sequence header OBU (AV1 5.3, 5.5) of a temporal unit."""
    at = 0
    while at < len(data):
        header = data[at]
        at += 2 if header & 4 else 1
        size, shift = 0, 0
        if header & 2:
            while at < len(data):
                byte = data[at]
                at += 1
                size |= (byte & 127) << shift
                shift += 7
                if byte < 128 or shift > 56:
                    break
        else:
            size = len(data) - at
        if header >> 3 & 15 == 1:
            return data[at : at + size]
        at += size
    return b""
