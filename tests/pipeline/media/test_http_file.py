"""A file behind HTTP is read like a local one, and every way in which a server fails has its own sentence."""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, LimpidError, Refused, Unreachable, UnsupportedMedia
from pipeline.media.source import SourceOptions, open_source
from pipeline.wire.ids import StreamId
from pipeline.wire.packets import Packet
from tests import media_files as made

STREAM = StreamId("s")


@dataclass
class Server:
    """How the server behaves, and what it was asked."""

    data: bytes = b""
    ranges: bool = True
    status: int = 0  # other than 0: answer this
    headers: dict[str, str] = field(default_factory=dict)
    break_after: int = 0  # bytes after which the first `breaks` answers end early
    breaks: int = 0
    hang: threading.Event | None = None  # wait for it before answering
    no_length: bool = False
    port: int = 0
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/clip.mp4"


@contextlib.contextmanager
def serving(server: Server, context: ssl.SSLContext | None = None) -> Iterator[Server]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            server.asked.append(f"{self.path} {wanted}")
            if server.hang is not None:
                server.hang.wait(20)
            if server.status:
                self.send_response(server.status)
                for name, value in server.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = int(wanted.removeprefix("bytes=").partition("-")[0] or 0) if server.ranges else 0
            body = server.data[start:]
            self.send_response(206 if server.ranges else 200)
            if server.ranges:
                self.send_header("Content-Range", f"bytes {start}-{len(server.data) - 1}/{len(server.data)}")
            if not server.no_length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if server.break_after and server.breaks:
                server.breaks -= 1
                body = body[: server.break_after]
            with contextlib.suppress(OSError):
                self.wfile.write(body)

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    if context is not None:
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    server.port = httpd.server_address[1]
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        if server.hang is not None:
            server.hang.set()
        httpd.shutdown()
        httpd.server_close()
        thread.join(5)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("http")
    return {
        "at_the_end": made.encode(folder / "a.mp4", frames=60, width=320, height=180),
        "in_front": made.encode(
            folder / "b.mp4", frames=60, width=320, height=180, container_options={"movflags": "faststart"}
        ),
        "ts": made.encode(folder / "c.ts", frames=60, width=320, height=180),
    }


def packets(uri: str, **options: float | bool) -> list[Packet]:
    source = open_source(uri, options=SourceOptions(**options))  # type: ignore[arg-type]  # by name, as declared
    try:
        return [p for b in source.batches(stream=STREAM) for p in b.packets]
    finally:
        source.close()


@pytest.mark.parametrize("name", ["at_the_end", "in_front", "ts"])
def test_packets_are_those_of_the_local_file(name: str, clips: dict[str, Path]) -> None:
    with serving(Server(data=clips[name].read_bytes())) as server:
        assert packets(server.url) == packets(str(clips[name]))


@pytest.mark.parametrize("name", ["in_front", "ts"])
def test_no_range_support_will_do_where_the_index_is_in_front(name: str, clips: dict[str, Path]) -> None:
    with serving(Server(data=clips[name].read_bytes(), ranges=False)) as server:
        assert packets(server.url) == packets(str(clips[name]))


def test_no_length_will_do_for_what_needs_no_index(clips: dict[str, Path]) -> None:
    with serving(Server(data=clips["ts"].read_bytes(), ranges=False, no_length=True)) as server:
        got = packets(server.url)
    assert len(got) == 60


def test_no_range_support_and_the_index_at_the_end_is_said(clips: dict[str, Path]) -> None:
    data = clips["at_the_end"].read_bytes()
    with serving(Server(data=data, ranges=False)) as server, pytest.raises(Unreachable) as caught:
        packets(server.url)
    assert "no Range requests" in caught.value.what and "faststart" in caught.value.hint


def test_dropped_connection_is_taken_up_where_it_broke(clips: dict[str, Path]) -> None:
    with serving(Server(data=clips["ts"].read_bytes(), break_after=10_000, breaks=2)) as server:
        assert packets(server.url) == packets(str(clips["ts"]))
        assert sum("bytes=10000-" in a or "bytes=20000-" in a for a in server.asked) >= 1


def test_server_that_always_breaks_off_is_given_up(clips: dict[str, Path]) -> None:
    server = Server(data=clips["in_front"].read_bytes(), ranges=False, break_after=8_000, breaks=99)
    with serving(server), pytest.raises(Unreachable, match="broke off"):
        packets(server.url)


@pytest.mark.parametrize("status", [404, 403, 500])
def test_refusal_is_passed_on(status: int) -> None:
    server = Server(status=status)
    with serving(server), pytest.raises(Unreachable, match=str(status)):
        open_source(server.url)
    assert len(server.asked) == 1


def test_redirect_is_followed(clips: dict[str, Path]) -> None:
    with serving(Server(data=clips["ts"].read_bytes())) as there:
        with serving(Server(status=302, headers={"Location": there.url})) as here:
            assert packets(here.url) == packets(str(clips["ts"]))
        assert there.asked


def test_redirect_to_a_refused_address_is_not_followed() -> None:
    options = SourceOptions(allow_private=False, networks=("127.0.0.1/32",))
    server = Server(status=302, headers={"Location": "http://127.0.0.9:9/secret?token=abc"})
    with serving(server), pytest.raises(Refused, match="private address") as caught:
        open_source(server.url, options=options)
    assert "abc" not in str(caught.value)


def test_web_page_is_no_video() -> None:
    server = Server(data=b"<!doctype html><title>Gone</title>")
    with serving(server), pytest.raises(UnsupportedMedia, match="web page"):
        open_source(server.url)


def test_playlist_behind_http_is_not_followed(clips: dict[str, Path]) -> None:
    data = b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nclip.ts\n#EXT-X-ENDLIST\n"
    with serving(Server(data=data)) as server:
        with pytest.raises(UnsupportedMedia, match="points elsewhere"):
            open_source(server.url)
        assert all("clip.ts" not in a for a in server.asked)


def test_empty_answer_is_said() -> None:
    with serving(Server(data=b"")) as server, pytest.raises(LimpidError, match="is empty"):
        open_source(server.url)


def test_silent_server_ends_at_the_deadline() -> None:
    with serving(Server(data=b"x", hang=threading.Event())) as server, pytest.raises(Unreachable, match="in time"):
        packets(server.url, open_timeout_s=0.3, read_timeout_s=0.3)


def test_nobody_there_is_said() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(Unreachable, match="no connection"):
        open_source(f"http://127.0.0.1:{port}/a.mp4")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "10.1.2.3", "169.254.169.254", "[::ffff:127.0.0.1]"]
)
def test_private_addresses_are_refused_where_they_are_not_allowed(host: str) -> None:
    with pytest.raises(Refused, match=r"private address"):
        open_source(f"http://{host}:9/a.mp4", options=SourceOptions(allow_private=False))


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("http:///a.mp4", "needs a host"),
        ("http://user:secret@127.0.0.1/a.mp4", "no user or password"),
        ("http://127.0.0.1:99999/a.mp4", "is no address"),
        ("http://127.0.0.1/a b.mp4", "characters"),
    ],
)
def test_what_is_no_address_is_wrong_use(uri: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_source(uri)
    assert says in caught.value.what
    assert "secret" not in str(caught.value)


def test_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    server = Server(data=b"x")
    with serving(server, context=made.own_certificate(tmp_path)), pytest.raises(Unreachable) as caught:
        open_source(server.url.replace("http:", "https:"))
    assert "no secure connection" in caught.value.what
    assert server.asked == []
