"""Behind a lost key frame of H.264 every picture that was decoded is shown, and what is whole is not touched."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.media.decode import VideoDecoder
from pipeline.media.h264_order import H264Order
from pipeline.media.source import open_source
from pipeline.wire.ids import StreamId
from pipeline.wire.packets import Codec, Packet, Track
from tests import media_files as made

GOP = 20
TYPE_2 = {"preset": "ultrafast", "bf": "0", "sc_threshold": "0"}
# x264 counts by pic_order_cnt_lsb where fields may come; none do.
TYPE_0 = {**TYPE_2, "x264-params": "fake-interlaced=1"}
KINDS = {"order type 2": TYPE_2, "order type 0": TYPE_0}


def packets_of(path: Path) -> tuple[Codec, list[Packet]]:
    source = open_source(str(path))
    found = [p for b in source.batches(stream=StreamId("s")) for p in b.packets if p.track is Track.VIDEO]
    source.close()
    return source.info.video, found


@pytest.fixture(params=KINDS)
def stream(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Codec, list[Packet]]:
    """Five groups of 20 pictures."""
    return packets_of(made.encode(tmp_path / "a.ts", frames=5 * GOP, options=KINDS[request.param], gop=GOP))


def shown(codec: Codec, packets: list[Packet], *, mend: bool = True) -> tuple[list[int | None], int]:
    decoder = VideoDecoder(codec)
    assert decoder._order is not None
    if not mend:
        decoder._order = None
    found = [p.pts for i, packet in enumerate(packets) for p in decoder.decode(packet, i)]
    return found + [p.pts for p in decoder.flush()], decoder.problems["key_frame_lost"]


def test_all_pictures_behind_a_lost_key_frame_are_shown(stream: tuple[Codec, list[Packet]]) -> None:
    """Of 5 key frames the second and the fourth are lost: 98 packets come, and 98 pictures."""
    codec, packets = stream
    came = [p for i, p in enumerate(packets) if i not in (GOP, 3 * GOP)]
    found, lost = shown(codec, came)
    assert found == [p.pts for p in came]
    assert lost == 2
    plain, _ = shown(codec, came, mend=False)
    assert len(plain) < len(came)  # what it is for: else FFmpeg has mended it, and this module can go


def test_a_lost_key_frame_changes_nothing_behind_the_next_one(stream: tuple[Codec, list[Packet]]) -> None:
    codec, packets = stream
    came = [p for i, p in enumerate(packets) if i != GOP]
    decoder, whole = VideoDecoder(codec), VideoDecoder(codec)
    pictures = {p.pts: made.i420(p.frame) for i, each in enumerate(came) for p in decoder.decode(each, i)}
    for i, each in enumerate(packets):
        for picture in whole.decode(each, i):
            if i < GOP or i >= 2 * GOP:
                assert np.array_equal(pictures[picture.pts], made.i420(picture.frame))


@pytest.mark.parametrize("gone", [range(GOP, 2 * GOP), range(GOP - 3, GOP + 1), range(15, 2 * GOP + 5)])
def test_longer_losses_are_gone_over(stream: tuple[Codec, list[Packet]], gone: range) -> None:
    """A whole group; the end of one and the next key frame; more than a group, and the key frame behind it."""
    codec, packets = stream
    came = [p for i, p in enumerate(packets) if i not in gone]
    assert shown(codec, came)[0] == [p.pts for p in came]


def test_lost_pictures_that_are_no_key_frames_are_left_to_ffmpeg(stream: tuple[Codec, list[Packet]]) -> None:
    codec, packets = stream
    order = H264Order(codec.extradata)
    for i, packet in enumerate(packets):
        if i not in (5, 30, 31):
            assert order.mended(packet.data) is packet.data
    assert order.lost == 0


def test_numbers_that_wrap_within_a_long_group_are_no_loss(tmp_path: Path) -> None:
    """300 pictures in one group: frame_num and the order count's low bits come around several times."""
    for name, options in KINDS.items():
        codec, packets = packets_of(made.encode(tmp_path / "a.ts", frames=300, options=options, gop=1000))
        order = H264Order(codec.extradata)
        assert all(order.mended(p.data) is p.data for p in packets), name


def test_a_stream_with_reordering_is_not_touched(tmp_path: Path) -> None:
    codec, packets = packets_of(made.encode(tmp_path / "a.ts", frames=60, options=made.B_FRAMES, gop=GOP))
    assert codec.reorder_frames and VideoDecoder(codec)._order is None
    order = H264Order(codec.extradata)  # as if the source had not told
    for i, packet in enumerate(packets):
        if i != GOP:
            assert order.mended(packet.data) is packet.data


@given(data=st.data())
def test_whatever_comes_passes(data: st.DataObject) -> None:
    """Truncated, flipped and foreign bytes: nothing is raised, and what begins no slice is given back as it is."""
    order = H264Order(data.draw(st.binary(max_size=60)))
    for _ in range(4):
        unit = data.draw(st.sampled_from([b"\x67", b"\x65", b"\x41", b"\x01", b"\x09", b""]))
        sent = b"\x00\x00\x01" + unit + data.draw(st.binary(max_size=60))
        assert len(order.mended(sent)) >= len(sent) - 20


def test_damaged_packets_of_a_real_stream_pass(stream: tuple[Codec, list[Packet]]) -> None:
    codec, packets = stream
    rng = np.random.default_rng(1)
    for _ in range(30):
        order = H264Order(codec.extradata)
        for packet in packets[:: int(rng.integers(1, 4))]:
            bad = bytearray(packet.data[: int(rng.integers(1, len(packet.data)))])
            bad[int(rng.integers(len(bad)))] ^= int(rng.integers(1, 256))
            assert len(order.mended(bytes(bad))) >= len(bad) - 20


def test_without_parameters_nothing_is_done() -> None:
    order = H264Order()
    for data in (b"", b"\x00\x00\x01", b"\x00\x00\x01\x41\x9a\x02", b"no start code"):
        assert order.mended(data) is data
    assert (
        VideoDecoder(Codec(name="h264", extradata=b"\x01\x64\x00\x1f\xff\xe1\x00", time_base=Fraction(1, 25)))._order
        is None
    )
