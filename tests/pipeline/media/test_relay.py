"""Connections to names with addresses of both kinds, and to addresses that lead nowhere."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from pipeline.errors import Refused, Unreachable
from pipeline.media.address import split
from pipeline.media.fetch import Client
from pipeline.media.relay import dial
from pipeline.media.source_base import SourceOptions

QUICK = SourceOptions(open_timeout_s=2, read_timeout_s=2)


def connect(uri: str, options: SourceOptions = QUICK) -> None:
    """Connect through the code that reads such addresses, and leave."""
    if uri.startswith("http:"):
        Client(options).get(uri, timeout_s=options.open_timeout_s).close()
    else:
        dial(split(uri), options=options, stop=threading.Event(), where=uri).close()


def names(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Every name leads to these."""

    def found(_: str, port: int, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", found)


@contextlib.contextmanager
def silent(port: int) -> Iterator[None]:
    """A port of [::1] that takes no more connections, nor refuses them."""
    with contextlib.ExitStack() as held:
        try:
            listener = socket.create_server(("::1", port), family=socket.AF_INET6, backlog=0)
        except OSError:
            pytest.skip("this machine has no IPv6 loopback address")
        held.enter_context(listener)
        for _ in range(4):
            sock = held.enter_context(socket.socket(socket.AF_INET6))
            sock.setblocking(False)
            sock.connect_ex(("::1", port))
        yield


@pytest.mark.parametrize("scheme", ["http", "tcp"])
@pytest.mark.parametrize("first", [silent, contextlib.nullcontext], ids=["silent", "refused"])
def test_host_is_reached_by_the_address_that_answers(
    monkeypatch: pytest.MonkeyPatch, scheme: str, first: Callable[[int], AbstractContextManager[None]]
) -> None:
    names(monkeypatch, "::1", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            peer, _ = listener.accept()
            with peer, contextlib.suppress(OSError):
                peer.recv(1024)
                peer.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        port = listener.getsockname()[1]
        with first(port):
            connect(f"{scheme}://dual.example:{port}/")
        thread.join(5)
    assert not thread.is_alive()


@pytest.mark.parametrize("scheme", ["http", "tcp"])
def test_every_address_is_checked_before_one_is_tried(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    names(monkeypatch, "::1", "127.0.0.1")
    options = SourceOptions(open_timeout_s=2, allow_private=False, networks=("127.0.0.1/32",))
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(Refused):
        connect(f"{scheme}://dual.example:{listener.getsockname()[1]}/", options)


@pytest.mark.parametrize("uri", ["http://[fe80::1]:9/", "rtsp://[fe80::1]:9/a"])
def test_link_local_address_without_its_zone_leads_nowhere(uri: str) -> None:
    with pytest.raises(Unreachable, match="no connection: "):
        connect(uri)
