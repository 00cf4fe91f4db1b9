"""What may be opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ConfigError, Refused, UnsupportedMedia
from pipeline.media import hostile
from pipeline.media.source_base import SourceOptions
from pipeline.wire.frames import Size


@pytest.mark.parametrize("uri", ["a.mp4", "/x/y.ts", "./concat:a", "C", "a/b:c.mp4", "file:/x.mp4", "FILE:///x.mp4"])
def test_paths_and_file_urls_are_files(uri: str) -> None:
    assert hostile.scheme_of(uri) == "file"


@pytest.mark.parametrize("uri", ["a.mp4", "file:/x.mp4", "//h/a", "concat", " http://h/a", "C", ""])
def test_files_are_refused_where_they_are_not_allowed(uri: str) -> None:
    with pytest.raises(Refused, match="file of this machine"):
        hostile.scheme_of(uri, local=False)


def test_path_with_a_colon_is_a_file_if_it_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "take:1.mp4").touch()
    (tmp_path / "http:").mkdir()
    assert hostile.scheme_of("take:1.mp4") == "file"
    assert hostile.scheme_of("http:") == "http"  # but never one that would be an address
    with pytest.raises(Refused, match="not allowed"):
        hostile.scheme_of("take:1.mp4", local=False)


@pytest.mark.parametrize(
    "uri",
    ["concat:a|b", "subfile:x", "data:video/mp4;base64,AAAA", "async:a", "cache:a", "crypto:a", "pipe:0", "fd:0",
     "ftp://h/a", "gopher://h/a", "hls+http://h/a", "md5:a", "tee:a", "unix:/s", "lavfi:testsrc", "device:/dev/video0",
     "CONCAT:a", "kept:/x", "s3://b/x", "x" * 5000 + ":"],
)  # fmt: skip
@pytest.mark.parametrize("local", [True, False])
def test_other_schemes_are_refused(uri: str, local: bool) -> None:
    with pytest.raises(Refused, match="not allowed"):
        hostile.scheme_of(uri, local=local)


@pytest.mark.parametrize(
    "uri", ["rtmp://h/a", "rtsp://h/a", "udp://@:1", "tcp://h:1", "RTMPS://h/a", "rtmp+listen://h"]
)
def test_live_schemes_are_told(uri: str) -> None:
    assert hostile.scheme_of(uri) in hostile.LIVE


@pytest.mark.parametrize("uri", ["srt://h:1", "whep://h/a", "webrtc://h/a", "rist://h:1", "MMSH://h/a", "rtp://h:1"])
def test_protocols_that_need_a_server_in_front_say_which(uri: str) -> None:
    with pytest.raises(UnsupportedMedia, match="not supported directly") as caught:
        hostile.scheme_of(uri)
    assert caught.value.hint


def test_secrets_stay_out_of_messages() -> None:
    assert hostile.without_secrets("https://u:pw@h:8/a.mp4?token=x#y") == "https://h:8/a.mp4?…"
    assert hostile.without_secrets("/a?b") == "/a?b"
    assert hostile.without_secrets("http://u:pw@[/a") == "http://…"
    with pytest.raises(UnsupportedMedia) as caught:
        hostile.scheme_of("srt://u:pw@h/live/key?token=x")
    assert "pw" not in str(caught.value) and "token" not in str(caught.value)


def test_check_looks_at_scheme_form_and_address() -> None:
    outside = SourceOptions(allow_private=False, local=False)
    hostile.check_uri("synthetic://street", outside)
    hostile.check_uri("http://93.184.215.14/a", outside)
    hostile.check_uri("a.mp4", SourceOptions())
    hostile.check_uri("rtsp://127.0.0.1/a", SourceOptions())
    for uri in ["a.mp4", "http://127.0.0.1/a", "ftp://h/a"]:
        with pytest.raises(Refused):
            hostile.check_uri(uri, outside)
    with pytest.raises(ConfigError):
        hostile.check_uri("http://h:0/a", outside)


@pytest.mark.parametrize(("width", "height"), [(8192, 4320), (4320, 8192), (1, 1)])
def test_size_at_the_limit_passes(width: int, height: int) -> None:
    hostile.check_size(Size(width_px=width, height_px=height), where="w")


@pytest.mark.parametrize(("width", "height"), [(8193, 16), (16, 8193), (4321, 4321), (8192, 4321)])
def test_size_beyond_the_limit_is_refused_with_it(width: int, height: int) -> None:
    with pytest.raises(UnsupportedMedia, match="8192×4320"):
        hostile.check_size(Size(width_px=width, height_px=height), where="w")


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf\n <HTML>", "web page"),
        (b"#EXTM3U\n", "points elsewhere"),
        (b"\x00\x00\x00\x18ftypmp42", "index (moov)"),
        (b"\xff\xd8\xff\xe0", "still picture"),
        (b"\x1a\x45\xdf\xa3" + bytes(90), "damaged"),
        (b"G" + bytes(187), "damaged"),
        (bytes(100), "no video"),
    ],
)
def test_bytes_that_are_no_video_are_told_apart(head: bytes, says: str) -> None:
    assert says in hostile.why_not_media(head, where="w").what
