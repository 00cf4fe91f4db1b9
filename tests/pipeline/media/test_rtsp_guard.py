"""An RTSP server's words pass unchanged; redirects, and what can be read in two ways, do not."""

from __future__ import annotations

import pytest

from pipeline.errors import CorruptMedia, Refused
from pipeline.media.rtsp_guard import RtspGuard

OPTIONS = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nPublic: OPTIONS, DESCRIBE\r\n\r\n"
DESCRIBE = b"RTSP/1.0 200 OK\r\nCSeq: 2\r\nContent-Length: 20\r\n\r\nRTSP/1.0 302 x\r\n\r\n$$"
FRAME = b"$\x00\x00\x10RTSP/1.0 302 \r\n\r"
ASKS = b"OPTIONS rtsp://h/a RTSP/1.0\r\nCSeq: 9\r\n\r\n"
TALK = OPTIONS + DESCRIBE + FRAME + ASKS + FRAME * 3 + b"$\x01\x00\x00" + OPTIONS


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 10_000])
def test_talk_passes_unchanged_however_it_is_cut(step: int) -> None:
    guard = RtspGuard("w")
    assert b"".join(guard.passed(TALK[i : i + step]) for i in range(0, len(TALK), step)) == TALK


@pytest.mark.parametrize("before", [b"", OPTIONS, FRAME, DESCRIBE])
@pytest.mark.parametrize("status", [b"300", b"301 Moved", b"302", b"399 "])
def test_redirect_is_refused(before: bytes, status: bytes) -> None:
    guard = RtspGuard("w")
    with pytest.raises(Refused, match="redirects"):
        guard.passed(before + b"RTSP/1.0 " + status + b"\r\nLocation: rtsp://127.0.0.1/\r\n\r\n")


@pytest.mark.parametrize(
    "message",
    [
        b"RTSP/1.0  302 two spaces\r\n\r\n",
        b"RTSP/1.0\t302 tab\r\n\r\n",
        b"RTSP/9 302 version\r\n\r\n",
        b"RTSP/1.\r0 3\r02 returns\r\n\r\n",
        b"RTSP/1.0 +302\r\n\r\n",
        b"RTSP/1.0 0302\r\n\r\n",
        b"\r\n\r\nRTSP/1.0 302 behind empty lines\r\n\r\n",
        b"RTSP/1.0 200 OK\nCSeq: 1\n\nRTSP/1.0 302 bare newlines\r\n\r\n",
        b"RTSP/1.0 200 OK\r\n$\0\0\x05a frame in a head\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: 5\r\nContent-Length: 500\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: 0x50\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length:" + b" " * 4096 + b"500\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: 9999999\r\n\r\n",
        b"HTTP/1.1 302 Found\r\n\r\n",
        b"x" * (64 << 10),
    ],
)
def test_odd_writing_ends_the_connection(message: bytes) -> None:
    with pytest.raises(CorruptMedia):
        RtspGuard("w").passed(message)
