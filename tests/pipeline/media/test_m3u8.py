"""What playlists say, and what they may not."""

from __future__ import annotations

import pytest

from pipeline.errors import CorruptMedia, LimpidError, UnsupportedMedia
from pipeline.media import m3u8
from pipeline.media.m3u8 import Key, Master, Media, Part
from pipeline.wire.frames import Size

BASE = "http://h:80/live/a.m3u8"


def media(*lines: str) -> Media:
    found = m3u8.parse("\n".join(["#EXTM3U", *lines]).encode(), BASE, where="w")
    assert isinstance(found, Media)
    return found


def master(*lines: str) -> Master:
    found = m3u8.parse("\n".join(["#EXTM3U", *lines]).encode(), BASE, where="w")
    assert isinstance(found, Master)
    return found


def test_segments_are_numbered_and_absolute() -> None:
    found = media(
        "#EXT-X-TARGETDURATION:6",
        "#EXT-X-MEDIA-SEQUENCE:7",
        "#EXTINF:5.5,title, with comma",
        "s7.ts",
        "#EXTINF:6",
        "/x/s8.ts?t=1",
        "#EXTINF:1.0,",
        "https://o/s9.ts",
    )
    assert [(s.sequence, s.part.uri, s.duration_s) for s in found.segments] == [
        (7, "http://h:80/live/s7.ts", 5.5),
        (8, "http://h:80/x/s8.ts?t=1", 6.0),
        (9, "https://o/s9.ts", 1.0),
    ]
    assert (found.first, found.stop, found.target_s, found.ended) == (7, 10, 6.0, False)


def test_windows_lines_and_byte_order_mark_will_do() -> None:
    data = b"\xef\xbb\xbf#EXTM3U\r\n#EXT-X-TARGETDURATION:1\r\n#EXTINF:1,\r\na.ts\r\n#EXT-X-ENDLIST\r\n"
    found = m3u8.parse(data, BASE, where="w")
    assert isinstance(found, Media) and found.ended and len(found.segments) == 1


@pytest.mark.parametrize(("since", "held"), [(0, 300), (100, 293), (350, 64), (10_000, 64)])
def test_long_lists_are_held_from_where_they_matter(since: int, held: int) -> None:
    lines = ["#EXT-X-MEDIA-SEQUENCE:93", *(line for i in range(300) for line in ("#EXTINF:1,", f"{i}.ts"))]
    found = m3u8.parse("\n".join(["#EXTM3U", *lines]).encode(), BASE, where="w", since=since)
    assert isinstance(found, Media)
    assert (found.first, found.stop, len(found.segments)) == (93, 393, held)
    last, none = found.segment(392), found.segment(393)
    assert last is not None and last.part.uri == "http://h:80/live/299.ts" and none is None
    assert (found.segment(393 - held - 1), found.segment(393 - held)) == (None, found.segments[0])


@pytest.mark.parametrize(
    ("name", "uri"),
    [
        ("a.ts", "http://h:80/live/a.ts"),
        ("x/y.ts", "http://h:80/live/x/y.ts"),
        ("../a.ts", "http://h:80/a.ts"),
        ("./a.ts", "http://h:80/live/a.ts"),
        ("x/../a.ts", "http://h:80/live/a.ts"),
        ("//o/a.ts", "http://o/a.ts"),
        ("/a.ts", "http://h:80/a.ts"),
        ("a.ts?x=1", "http://h:80/live/a.ts?x=1"),
        ("?x", "http://h:80/live/a.m3u8?x"),
        ("file:///etc/passwd", "file:///etc/passwd"),
    ],
)
def test_names_are_joined_to_where_the_playlist_lies(name: str, uri: str) -> None:
    assert media("#EXTINF:1,", name).segments[0].part.uri == uri


def test_byte_ranges_go_on_where_the_last_one_ended() -> None:
    found = media("#EXTINF:1,", "#EXT-X-BYTERANGE:10@5", "a", "#EXTINF:1,", "#EXT-X-BYTERANGE:7", "a")
    assert [s.part for s in found.segments] == [
        Part(uri="http://h:80/live/a", start=5, stop=15),
        Part(uri="http://h:80/live/a", start=15, stop=22),
    ]


def test_map_and_key_hold_until_the_next_ones() -> None:
    found = media(
        '#EXT-X-KEY:METHOD=AES-128,URI="k",IV=0x1',
        '#EXT-X-MAP:URI="i",BYTERANGE="5"',
        "#EXTINF:1,",
        "a",
        "#EXT-X-KEY:METHOD=NONE",
        "#EXTINF:1,",
        "b",
    )
    key = Key(uri="http://h:80/live/k", iv=bytes(15) + b"\1")
    init = Part(uri="http://h:80/live/i", start=0, stop=5)
    assert [(s.key, s.init, s.init_key) for s in found.segments] == [(key, init, key), (None, init, key)]


def test_discontinuities_are_counted_on() -> None:
    found = media(
        "#EXT-X-DISCONTINUITY-SEQUENCE:4", "#EXTINF:1,", "a", "#EXT-X-DISCONTINUITY", "#EXTINF:1,", "b", "#EXTINF:1,",
        "#EXT-X-GAP", "c",
    )  # fmt: skip
    assert [(s.discontinuity, s.breaks, s.gap) for s in found.segments] == [
        (4, False, False),
        (5, True, False),
        (5, False, True),
    ]


def test_variants_are_sorted_by_pixels_then_bits() -> None:
    found = master(
        '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="apart",NAME="a",URI="a.m3u8"',
        '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="inside",NAME="a"',
        "#EXT-X-STREAM-INF:BANDWIDTH=9000000,RESOLUTION=640x360",
        "low",
        '#EXT-X-STREAM-INF:BANDWIDTH=2000000,RESOLUTION=1280x720,AUDIO="apart",CODECS="avc1.64001f,mp4a.40.2"',
        "mid",
        '#EXT-X-STREAM-INF:BANDWIDTH=3000000,RESOLUTION=1280x720,AUDIO="inside"',
        "high",
        '#EXT-X-STREAM-INF:BANDWIDTH=64000,CODECS="mp4a.40.2"',
        "sound",
        "#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=99,URI=x",
    )
    assert [(v.uri.rpartition("/")[2], v.size, v.audio_apart) for v in found.variants] == [
        ("high", Size(width_px=1280, height_px=720), False),
        ("mid", Size(width_px=1280, height_px=720), True),
        ("low", Size(width_px=640, height_px=360), False),
    ]


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        (['#EXT-X-KEY:METHOD=SAMPLE-AES,URI="k"'], UnsupportedMedia),
        (['#EXT-X-KEY:METHOD=SAMPLE-AES-CTR,URI="k",KEYFORMAT="urn:uuid:edef8ba9"'], UnsupportedMedia),
        (['#EXT-X-KEY:METHOD=AES-128,URI="skd://k",KEYFORMAT="com.apple.streamingkeydelivery"'], UnsupportedMedia),
        (["#EXT-X-I-FRAMES-ONLY"], UnsupportedMedia),
        (['#EXT-X-DEFINE:NAME="a",VALUE="b"'], UnsupportedMedia),
        (["#EXT-X-TARGETDURATION:nan"], CorruptMedia),
        (["#EXT-X-TARGETDURATION:999999999"], CorruptMedia),
        (["#EXTINF:inf,"], CorruptMedia),
        (["#EXTINF:-1,"], CorruptMedia),
        (["#EXT-X-BYTERANGE:5"], CorruptMedia),
        (["#EXT-X-BYTERANGE:0@0"], CorruptMedia),
        (["#EXT-X-BYTERANGE:99999999999999999999@0"], CorruptMedia),
        (['#EXT-X-KEY:METHOD=AES-128,URI=""'], CorruptMedia),
        (['#EXT-X-KEY:METHOD=AES-128,URI="k",IV=0xzz'], CorruptMedia),
        (["#EXT-X-MAP:BYTERANGE=1"], CorruptMedia),
        (["no duration.ts"], CorruptMedia),
        (["#EXTINF:1,", "http://[x/a.ts"], CorruptMedia),
        (["#EXTINF:1,", "a", "#EXT-X-MEDIA-SEQUENCE:9"], CorruptMedia),
        (["#" + "x" * m3u8.MAX_LINE_CHARS], CorruptMedia),
    ],
)
def test_what_makes_no_sense_or_is_protected_is_refused(lines: list[str], kind: type[LimpidError]) -> None:
    with pytest.raises(kind):
        media(*lines, "#EXTINF:1,", "a.ts")


def test_other_drm_beside_a_plain_key_does_not_matter() -> None:
    found = media(
        '#EXT-X-KEY:METHOD=AES-128,URI="k"',
        '#EXT-X-KEY:METHOD=AES-128,URI="skd://k",KEYFORMAT="com.apple.streamingkeydelivery"',
        "#EXTINF:1,",
        "a",
    )
    assert found.segments[0].key == Key(uri="http://h:80/live/k", iv=None)


@pytest.mark.parametrize("data", [b"", b"<html>", b"#RKGZ3H\n#RKGVAS:1,\nn.gf\n", b"\n#EXTM3U\n", bytes(200)])
def test_what_is_no_playlist_is_said(data: bytes) -> None:
    with pytest.raises(CorruptMedia, match="no HLS playlist"):
        m3u8.parse(data, BASE, where="w")


def test_too_many_lines_are_refused() -> None:
    with pytest.raises(CorruptMedia, match="more or longer lines"):
        m3u8.parse(b"#EXTM3U" + b"\n" * (m3u8.MAX_LINES + 1), BASE, where="w")


def test_master_without_video_is_said() -> None:
    with pytest.raises(UnsupportedMedia, match="without video"):
        master('#EXT-X-STREAM-INF:BANDWIDTH=64000,CODECS="mp4a.40.2"', "sound")
