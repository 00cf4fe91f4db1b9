"""What may be opened, and which address it may lead to."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from pipeline.errors import Unreachable, UnsupportedMedia
from pipeline.media import hostile
from pipeline.wire.frames import Size


@pytest.mark.parametrize("uri", ["a.mp4", "/x/y.ts", "./concat:a", "C", "a/b:c.mp4", "file:/x.mp4", "FILE:///x.mp4"])
def test_paths_and_file_urls_are_files(uri: str) -> None:
    assert hostile.scheme_of(uri) == "file"


@pytest.mark.parametrize(
    "uri",
    ["concat:a|b", "subfile:x", "data:video/mp4;base64,AAAA", "async:a", "cache:a", "crypto:a", "pipe:0", "fd:0",
     "ftp://h/a", "gopher://h/a", "hls+http://h/a", "md5:a", "tee:a", "unix:/s", "lavfi:testsrc", "device:/dev/video0",
     "CONCAT:a"],
)  # fmt: skip
def test_other_schemes_are_refused(uri: str) -> None:
    with pytest.raises(Unreachable, match="not allowed"):
        hostile.scheme_of(uri)


@pytest.mark.parametrize("uri", ["rtmp://h/a", "rtsp://h/a", "udp://@:1", "srt://h:1", "RTMPS://h/a"])
def test_live_schemes_say_that_they_are_not_supported(uri: str) -> None:
    with pytest.raises(Unreachable, match="live sources over"):
        hostile.scheme_of(uri)


def test_secrets_stay_out_of_messages() -> None:
    assert hostile.without_secrets("https://u:pw@h:8/a.mp4?token=x#y") == "https://h:8/a.mp4?…"
    assert hostile.without_secrets("/a?b") == "/a?b"
    with pytest.raises(Unreachable) as caught:
        hostile.scheme_of("rtmp://u:pw@h/live/key?token=x")
    assert "pw" not in str(caught.value) and "token" not in str(caught.value)


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def found(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", found)


def test_name_with_one_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, "93.184.215.14", "10.0.0.8")
    with pytest.raises(Unreachable, match="private address"):
        hostile.checked_address("h", 80, allow_private=False, where="w")
    assert hostile.checked_address("h", 80, allow_private=True, where="w") == ("93.184.215.14", 80)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",
        "169.254.1.1",
        "224.0.0.1",
        "100.64.0.1",
        "::1",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:10.0.0.1",
    ],
)
def test_every_kind_of_inner_address_counts_as_private(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, address)
    with pytest.raises(Unreachable, match="private address"):
        hostile.checked_address("h", 80, allow_private=False, where="w")


def test_public_address_is_the_one_to_connect_to(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, "93.184.215.14")
    assert hostile.checked_address("h", 81, allow_private=False, where="w") == ("93.184.215.14", 81)


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
