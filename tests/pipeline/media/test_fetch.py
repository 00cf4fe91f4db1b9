"""HTTP within limits: redirects checked hop by hop, names that change their mind, servers that stall or flood."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from pipeline.errors import ConfigError, LimpidError, Refused, Unreachable, UnsupportedMedia
from pipeline.media.fetch import Client
from pipeline.media.source_base import SourceOptions
from tests import certificates
from tests import media_files as made
from tests.web_server import Page, Web, serving, trap

QUICK = SourceOptions(open_timeout_s=5, read_timeout_s=1)
ONLY_TWO = SourceOptions(open_timeout_s=5, read_timeout_s=1, allow_private=False, networks=("127.0.0.2/32",))


@pytest.fixture
def web() -> Iterator[Web]:
    with serving(Web(host="127.0.0.2")) as server:
        yield server


def get(uri: str, options: SourceOptions = QUICK, *, limit: int = 1 << 20, **part: int) -> bytes:
    return Client(options).get(uri, timeout_s=options.open_timeout_s, **part).require().read_all(limit=limit)


def test_content_and_what_is_told_of_it(web: Web) -> None:
    web.pages["/a"] = Page(b"0123456789", headers={"Content-Type": "Video/MP4; x=y"})
    answer = Client(ONLY_TWO).get(web.url("/a?b"), timeout_s=5)
    assert (answer.status, answer.size, answer.ranged, answer.media_type) == (200, 10, False, "video/mp4")
    assert answer.read(4) + answer.read(100) == b"0123456789" and answer.read(1) == b""
    assert answer.uri == web.url("/a?b")


@pytest.mark.parametrize(("part", "got"), [({"start": 3}, b"3456789"), ({"start": 3, "stop": 5}, b"34")])
def test_part_of_it(web: Web, part: dict[str, int], got: bytes) -> None:
    web.pages["/a"] = Page(b"0123456789")
    answer = Client(QUICK).get(web.url("/a"), timeout_s=5, **part)
    assert answer.ranged and answer.size == 10
    assert answer.read_all(limit=100) == got


def test_other_part_than_asked_for_is_refused(web: Web) -> None:
    web.pages["/a"] = Page(b"x", status=206, headers={"Content-Range": "bytes 0-0/10"})
    with pytest.raises(Unreachable, match="another part"):
        get(web.url("/a"), start=5)


def test_chunks_are_joined(web: Web) -> None:
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: 1\r\n\r\n"
    web.pages["/a"] = Page(raw=lambda out: out.write(raw) and None)
    assert get(web.url("/a")) == b"abcde"


# ---- redirects ----------------------------------------------------------------------------------------------------


def hops(web: Web, count: int) -> None:
    web.pages["/end"] = Page(b"end")
    for i in range(count):
        to = "/end" if i == count - 1 else f"/{i + 1}"
        web.pages[f"/{i}"] = Page(status=(301, 302, 303, 307, 308)[i % 5], headers={"Location": to})


def test_five_redirects_are_followed_and_six_are_not(web: Web) -> None:
    hops(web, 5)
    assert get(web.url("/0"), ONLY_TWO) == b"end"
    hops(web, 6)
    with pytest.raises(Unreachable, match="more than 5 times"):
        get(web.url("/0"), ONLY_TWO)


@pytest.mark.parametrize(
    ("location", "kind"),
    [("ftp://127.0.0.2/a", Refused), ("file:///etc/passwd", Refused), ("http://127.1/", Refused),
     ("http://[", Refused), ("http://h:0/", Refused), ("//u@h/", Refused), ("gopher://x", Refused), ("", Unreachable),
     ("/a b", Refused), ("data:,x", Refused), ("http://127.0.0.1/", Refused), ("http://localhost/", Refused)],
)  # fmt: skip
def test_redirect_to_what_is_not_allowed_ends_there(web: Web, location: str, kind: type[LimpidError]) -> None:
    web.pages["/a"] = Page(status=302, headers={"Location": location})
    with pytest.raises(kind):
        get(web.url("/a"), ONLY_TWO)
    assert len(web.asked) == 1


def test_each_hop_is_checked(web: Web) -> None:
    with trap("127.0.0.3") as inner:
        web.pages["/b"] = Page(status=302, headers={"Location": f"http://127.0.0.3:{inner.port}/"})
        web.pages["/a"] = Page(status=302, headers={"Location": "/b"})
        with pytest.raises(Refused, match="private address"):
            get(web.url("/a"), ONLY_TWO)
    assert inner.connections == 0


@contextlib.contextmanager
def secure(folder: Path, monkeypatch: pytest.MonkeyPatch, raw: bytes) -> Iterator[str]:
    """An https server for localhost whose certificate is trusted, answering everything with `raw`."""
    made.own_certificate(folder)
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "server.pem"))

    def answer(sock: ssl.SSLSocket) -> None:
        sock.recv(4096)
        sock.sendall(raw)

    with certificates.serving(folder / "server.pem", answer) as port:
        yield f"localhost:{port}"


def test_https_does_not_lead_down_to_http(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = f"HTTP/1.1 302 Found\r\nLocation: {web.url('/a')}\r\nContent-Length: 0\r\n\r\n".encode()
    only = socket.getaddrinfo("127.0.0.1", 0, type=socket.SOCK_STREAM)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: only)
    with secure(tmp_path, monkeypatch, raw) as host, pytest.raises(Refused, match="from https to http"):
        get(f"https://{host}/")
    assert web.asked == []


def test_certificate_must_be_for_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only = socket.getaddrinfo("127.0.0.1", 0, type=socket.SOCK_STREAM)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: only)
    with secure(tmp_path, monkeypatch, b"") as host, pytest.raises(Unreachable, match="no secure connection"):
        get(f"https://{host.replace('localhost', 'other.example')}/")


# ---- names that change their mind ---------------------------------------------------------------------------------


def test_rebound_name_is_resolved_once_a_connection_and_checked_each_time(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answer is allowed, each later one is not: the first connection goes there, no other is made."""
    asked: list[str] = []

    def alternating(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        address = "127.0.0.2" if len(asked) % 2 else "127.0.0.3"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", alternating)
    web.pages["/a"] = Page(b"good")
    with trap("127.0.0.3") as inner:
        uri = f"http://rebinding.example:{web.port}/a"
        assert get(uri, ONLY_TWO) == b"good"
        assert len(asked) == 1
        with pytest.raises(Refused):
            get(uri, ONLY_TWO)
        assert get(uri, ONLY_TWO) == b"good"
    assert inner.connections == 0 and len(asked) == 3


# ---- servers that stall or flood ----------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"


def raw(web: Web, head: bytes, block: bytes = b"", *, pause_s: float = 0.0, hang: bool = False) -> Page:
    def write(out: BinaryIO) -> None:
        out.write(head)
        while block:
            out.write(block)
            if pause_s:
                web.over.wait(pause_s)
        if hang:
            web.over.wait(20)

    return Page(raw=write)


@pytest.mark.parametrize(
    ("head", "block", "pause_s", "says"),
    [
        (b"", b"", 0, "in time"),
        (b"HTTP/1.1 2", b"", 0, "in time"),
        (OK, b"X: y\r\n", 0.1, "in time"),
        (OK + b"Content-Length: 5\r\n\r\nab", b"", 0, "in time"),
        (OK + b"\r\n", b"x", 0.1, "in time"),
        (OK, b"X: y\r\n", 0, "broke off"),
        (OK + b"X: ", b"y" * 4096, 0, "broke off"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0, "broke off"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n", 0, "broke off"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"", 0, "broke off"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x" * 4096, 0, "broke off"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", b"", 0, "broke off"),
        (b"HTTP/1.1 abc\r\n\r\n", b"", 0, "broke off"),
    ],
)
def test_stalling_and_flooding_end_with_their_reason(
    web: Web, head: bytes, block: bytes, pause_s: float, says: str
) -> None:
    web.pages["/a"] = raw(web, head, block, pause_s=pause_s, hang=says == "in time")
    with pytest.raises(Unreachable, match=says):
        Client(QUICK).get(web.url("/a"), timeout_s=1.5).require().read_all(limit=1 << 20)


def test_endless_body_stops_at_the_limit(web: Web) -> None:
    web.pages["/a"] = raw(web, OK + b"\r\n", b"x" * 4096)
    with pytest.raises(UnsupportedMedia, match="longer than 100,000 bytes"):
        get(web.url("/a"), limit=100_000)


def test_body_that_breaks_off_is_known_as_such(web: Web) -> None:
    web.pages["/a"] = raw(web, OK + b"Content-Length: 5\r\n\r\nab")
    answer = Client(QUICK).get(web.url("/a"), timeout_s=5)
    assert answer.read(5) == b"ab"
    with pytest.raises(Unreachable, match="broke off"):
        answer.read(5)
    assert answer.broken


def test_compressed_answer_is_refused(web: Web) -> None:
    web.pages["/a"] = Page(b"x", headers={"Content-Encoding": "gzip"})
    with pytest.raises(UnsupportedMedia, match="compressed"):
        get(web.url("/a"))


@pytest.mark.parametrize("uri", ["ftp://h/a", "rtsp://h/a", "file:///a"])
def test_other_schemes_are_not_for_it(uri: str) -> None:
    with pytest.raises((Refused, ConfigError)):
        get(uri)


def test_statuses_are_passed_on_without_the_servers_words(web: Web) -> None:
    web.pages["/a"] = raw(web, b"HTTP/1.1 404 \x1b[31m<script>\r\n\r\n")
    with pytest.raises(Unreachable) as caught:
        get(web.url("/a"))
    assert caught.value.what == "the server answers 404 Not Found"


# ---- close --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["connecting", "head", "body"])
def test_close_wakes_whoever_waits(web: Web, where: str) -> None:
    web.pages["/a"] = raw(web, OK + b"\r\nab" if where == "body" else b"", hang=True)
    client = Client(SourceOptions(read_timeout_s=60))
    said: list[BaseException] = []
    began = threading.Event()

    def ask(uri: str) -> None:
        try:
            began.set()
            client.get(uri, timeout_s=60).read_all(limit=100)
        except LimpidError as error:
            said.append(error)

    with full_listener() as full:
        thread = threading.Thread(target=ask, args=(full if where == "connecting" else web.url("/a"),))
        thread.start()
        began.wait(5)
        deadline_s = time.monotonic() + 5
        while where != "connecting" and not web.asked and time.monotonic() < deadline_s:
            web.over.wait(0.01)
        web.over.wait(0.1)
        client.close()
        thread.join(2)
    assert not thread.is_alive()
    assert isinstance(said[0], Unreachable) and "closed" in said[0].what
    with pytest.raises(Unreachable, match="closed"):
        client.get(web.url("/a"), timeout_s=5)
    client.close()


@contextlib.contextmanager
def full_listener() -> Iterator[str]:
    """An address that takes no more connections: its backlog is full, so that SYNs go unanswered."""
    with socket.socket() as listener, contextlib.ExitStack() as held:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            sock = held.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield "http://{}:{}/".format(*listener.getsockname())


def test_tls_layer_is_woken_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts and never shakes hands."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = Client(SourceOptions())
        said: list[Exception] = []

        def ask() -> None:
            try:
                client.get("https://127.0.0.1:{1}/".format(*listener.getsockname()), timeout_s=60)
            except Unreachable as error:
                said.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        peer, _ = listener.accept()
        assert peer.recv(1) == b"\x16"  # its hello
        client.close()
        thread.join(2)
        peer.close()
    assert not thread.is_alive() and "closed" in str(said[0])
