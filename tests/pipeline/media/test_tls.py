"""Whose certificates are trusted, what is said of others, and that TLS's own messages hold nothing up."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from pathlib import Path

import pytest

from pipeline.errors import Unreachable
from pipeline.media import tls
from pipeline.media.address import split
from pipeline.media.fetch import Client
from pipeline.media.relay import Relay, dial
from pipeline.media.source_base import SourceOptions
from tests import media_files as made
from tests.certificates import Authority, serving
from tests.live_peers import until


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def trusting(path: Path | str) -> SourceOptions:
    return SourceOptions(open_timeout_s=5, read_timeout_s=5, ca_file=str(path))


def dialled(uri: str, options: SourceOptions) -> socket.socket:
    return dial(split(uri), options=options, stop=threading.Event(), where=uri)


def hello(sock: ssl.SSLSocket) -> None:
    sock.recv(1024)
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")


def asked(uri: str, options: SourceOptions) -> bytes:
    """What `hello` says, through the code that reads such addresses."""
    if uri.startswith("https:"):
        return Client(options).get(uri, timeout_s=5).read_all(limit=100)
    with dialled(uri, options) as sock:
        sock.sendall(b"x")
        return sock.recv(100)[-2:]


@pytest.mark.parametrize("scheme", ["https", "rtmps", "rtsps"])
def test_who_is_named_is_trusted_for_what_it_signed(authority: Authority, scheme: str) -> None:
    with serving(authority.server("127.0.0.1"), hello) as port:
        assert asked(f"{scheme}://127.0.0.1:{port}/a", trusting(authority.path)) == b"hi"


def test_certificate_that_signed_itself_is_trusted_when_named(tmp_path: Path) -> None:
    made.own_certificate(tmp_path)
    with serving(tmp_path / "server.pem", hello) as port:
        uri = f"rtsps://localhost:{port}/a"
        assert asked(uri, trusting(tmp_path / "server.pem")) == b"hi"
        with pytest.raises(Unreachable, match="no secure connection: self-signed certificate"):
            asked(uri, trusting(""))


@pytest.mark.parametrize("scheme", ["https", "rtmps"])
@pytest.mark.parametrize(
    ("named", "name", "days", "host", "says"),
    [
        (False, "127.0.0.1", 1, "127.0.0.1", "unable to get local issuer certificate.*source.ca_file"),
        (True, "camera.example", 1, "other.example", "not valid for 'other.example'.*is for"),
        (True, "camera.example", 1, "127.0.0.1", "not valid for '127.0.0.1'.*is for"),
        (True, "127.0.0.1", -1, "127.0.0.1", "certificate has expired.*renewed"),
    ],
)
def test_refusal_says_why(
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    named: bool,
    name: str,
    days: int,
    host: str,
    says: str,
) -> None:
    only = socket.getaddrinfo("127.0.0.1", 0, type=socket.SOCK_STREAM)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: only)
    with serving(authority.server(name, days=days), hello) as port:
        options = trusting(authority.path if named else "")
        with pytest.raises(Unreachable, match=f"no secure connection: .*{says}"):
            asked(f"{scheme}://{host}:{port}/a", options)


@pytest.mark.parametrize("scheme", ["https", "rtsps"])
@pytest.mark.parametrize(("content", "says"), [(None, "No such file"), (b"-----BEGIN", "holds no certificate")])
def test_file_that_cannot_be_used_is_named(tmp_path: Path, scheme: str, content: bytes | None, says: str) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(Unreachable, match=says) as caught:
        asked(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/a", trusting(path))
    assert caught.value.where == str(path)


def test_server_without_tls_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(1024)
                peer.sendall(b"RTSP/1.0 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Unreachable, match=r"no secure connection: .*speaks TLS there"):
            asked(f"rtsps://127.0.0.1:{listener.getsockname()[1]}/a", trusting(""))
        thread.join(5)


def test_relay_lets_the_client_speak_first(authority: Authority) -> None:
    """In TLS 1.3 a server's session tickets come before any of its bytes; to wait for those would be for ever."""
    much = bytes(range(256)) * 4096  # many records, and more than a socket's buffer

    def talk(sock: ssl.SSLSocket) -> None:
        sock.sendall(sock.recv(100) + much)
        sock.recv(100)

    with serving(authority.server("127.0.0.1"), talk) as port:
        server = dialled(f"rtmps://127.0.0.1:{port}/a", trusting(authority.path))
        assert isinstance(server, ssl.SSLSocket) and server.version() == "TLSv1.3"
        assert select.select([server], [], [], 5)[0]  # they are here
        relay = Relay(server, guard=None)
        with contextlib.closing(relay), socket.create_connection(("127.0.0.1", relay.port), timeout=5) as client:
            until(lambda: not select.select([server], [], [], 0)[0])  # the relay has read them
            client.sendall(b"first")
            got = b""
            while len(got) < 5 + len(much) and (data := client.recv(1 << 16)):
                got += data
            assert got == b"first" + much


def test_context_verifies_names_and_certificates() -> None:
    context = tls.context(SourceOptions())
    assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname
