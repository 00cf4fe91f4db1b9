"""An HTTP server whose every answer a test decides, and a trap: a listener that counts who connects."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO


@dataclass
class Page:
    """An answer. `raw` writes all of it by itself, status line included."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    raw: Callable[[BinaryIO], None] | None = None


@dataclass
class Web:
    """Pages by path (without query); `asked` holds path, query and range of every request, `over` ends slow ones."""

    pages: dict[str, Page | Callable[[], Page]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    host: str = "127.0.0.1"
    port: int = 0

    def url(self, path: str) -> str:
        return f"http://{self.host}:{self.port}{path}"

    def paths(self) -> list[str]:
        """The paths asked for, in order, without queries and ranges."""
        return [a.split(" ")[0].partition("?")[0] for a in self.asked]


@contextlib.contextmanager
def serving(web: Web, *, port: int = 0) -> Iterator[Web]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            with contextlib.suppress(OSError):
                self.answer()

        def answer(self) -> None:
            wanted = self.headers.get("Range", "")
            web.asked.append(f"{self.path} {wanted}".strip())
            page = web.pages.get(self.path.partition("?")[0], Page(status=404))
            page = page if isinstance(page, Page) else page()
            if page.raw is not None:
                page.raw(self.wfile)
                return
            body, status = page.body, page.status
            if wanted and page.ranges and status == 200:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                stop = min(int(last) + 1 if last else len(body), len(body))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{stop - 1}/{len(body)}")
                body = body[int(first) : stop]
            else:
                self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **page.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None: ...

    httpd = Server((web.host, port), Handler)
    web.port = httpd.server_address[1]
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.over.set()
        httpd.shutdown()
        httpd.server_close()
        thread.join(5)


@dataclass
class Trap:
    """Nobody may connect here (host "": none of this machine's addresses)."""

    host: str
    port: int = 0
    connections: int = 0


@contextlib.contextmanager
def trap(host: str = "127.0.0.1") -> Iterator[Trap]:
    every = host == ""
    listener = socket.create_server(
        (host, 0), backlog=64, family=socket.AF_INET6 if every else socket.AF_INET, dualstack_ipv6=every
    )
    found = Trap("127.0.0.1" if every else host, listener.getsockname()[1])

    def count() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listener.accept()
                found.connections += 1
                peer.close()

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    try:
        yield found
        # Connections are made before they are accepted, so one of our own, behind all others, ends the count.
        before = found.connections
        with socket.socket() as own:  # not create_connection: tests replace getaddrinfo
            own.settimeout(5)
            own.connect((found.host, found.port))
            own.recv(1)
        found.connections -= 1
        assert before <= found.connections
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
