"""The decoder gives each picture with the packet that it came from, and what damage does is bounded."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import CorruptMedia, UnsupportedMedia
from pipeline.media.decode import VideoDecoder, av_packet
from pipeline.media.picture import Picture
from pipeline.media.source import open_source
from pipeline.wire.ids import StreamId
from pipeline.wire.packets import Codec, Packet, Track
from tests import media_files as made


def opened(path: Path) -> tuple[Codec, list[Packet]]:
    source = open_source(str(path))
    out = [p for b in source.batches(stream=StreamId("s")) for p in b.packets if p.track is Track.VIDEO]
    source.close()
    return source.info.video, out


def pictures(codec: Codec, packets: list[Packet]) -> list[Picture]:
    decoder = VideoDecoder(codec)
    out = [p for i, packet in enumerate(packets) for p in decoder.decode(packet, i, arrived_ns=1000 + i)]
    return out + list(decoder.flush())


def test_picture_knows_its_packet(tmp_path: Path) -> None:
    codec, packets = opened(made.encode(tmp_path / "a.mp4", frames=20, options=made.B_FRAMES))
    found = pictures(codec, packets)
    assert [p.pts for p in found] == sorted(p.pts for p in packets if p.pts is not None)
    for picture in found:
        packet = packets[picture.number]
        assert (picture.pts, picture.dts, picture.key) == (packet.pts, packet.dts, packet.key)
        assert picture.arrived_ns == 1000 + picture.number


def test_discarded_packet_is_decoded_but_not_shown(tmp_path: Path) -> None:
    codec, packets = opened(made.encode(tmp_path / "a.mp4", frames=10, gop=100))
    whole = pictures(codec, packets)
    hidden = [replace(p, discard=i < 4) for i, p in enumerate(packets)]
    found = pictures(codec, hidden)
    assert [p.number for p in found] == [4, 5, 6, 7, 8, 9]
    for a, b in zip(found, whole[4:], strict=True):
        assert np.array_equal(made.i420(a.frame), made.i420(b.frame))


def test_packet_has_zeros_behind_its_data() -> None:
    """FFmpeg's readers run over the end: 64 bytes of zeros make that harmless (AV_INPUT_BUFFER_PADDING_SIZE)."""
    codec = Codec(name="h264", extradata=b"", time_base=Fraction(1, 25))
    packet = Packet(track=Track.VIDEO, pts=3, dts=2, duration=1, key=True, data=b"abc")
    fed = av_packet(packet, codec)
    assert (bytes(fed), fed.pts, fed.dts, fed.duration, fed.is_keyframe) == (b"abc", 3, 2, 1, True)
    assert fed.time_base == Fraction(1, 25)
    address = fed.buffer_ptr
    import ctypes

    assert ctypes.string_at(address + 3, 64) == bytes(64)


def test_failing_packets_are_counted_and_in_the_end_fatal(tmp_path: Path) -> None:
    codec, packets = opened(made.encode(tmp_path / "a.mp4", frames=2))
    decoder = VideoDecoder(codec)
    noise = replace(packets[0], data=b"\xff" * 40)
    for number in range(299):
        assert list(decoder.decode(noise, number)) == []
    assert decoder.problems == {"decode_error": 299}
    with pytest.raises(CorruptMedia, match="300 packets in a row"):
        list(decoder.decode(noise, 299))


def test_good_packet_ends_a_row_of_bad_ones(tmp_path: Path) -> None:
    codec, packets = opened(made.encode(tmp_path / "a.mp4", frames=2, gop=1))
    decoder = VideoDecoder(codec)
    noise = replace(packets[0], data=b"\xff" * 40)
    for round_ in range(3):
        for number in range(200):
            list(decoder.decode(noise, 201 * round_ + number))
        list(decoder.decode(packets[0], 201 * round_ + 200))
    assert decoder.problems == {"decode_error": 600}


def test_unknown_codec_is_said() -> None:
    with pytest.raises(UnsupportedMedia, match="no decoder for nonesuch"):
        VideoDecoder(Codec(name="nonesuch", extradata=b"", time_base=Fraction(1, 25)))


def test_configuration_that_the_decoder_refuses_is_said() -> None:
    with pytest.raises(CorruptMedia, match="refuses"):
        VideoDecoder(Codec(name="rawvideo", extradata=b"", time_base=Fraction(1, 25)))
