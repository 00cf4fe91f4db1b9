"""Datagrams of multicast groups come in by the interface that was named, and by no other."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from urllib.parse import quote

import psutil
import pytest

from pipeline.errors import Unreachable
from pipeline.media.address import split
from pipeline.media.feeds import UdpFeed
from pipeline.media.source_base import SourceOptions
from tests.live_peers import free_port

QUICK = SourceOptions(open_timeout_s=5, read_timeout_s=0.2)
GROUPS = {socket.AF_INET: "239.255.18.68", socket.AF_INET6: "[ff11::1868]"}


def interfaces(family: int) -> dict[str, str]:
    """This machine's interfaces and an address of each."""
    found = {n: [e.address for e in entries if e.family == family] for n, entries in psutil.net_if_addrs().items()}
    return {name: addresses[0] for name, addresses in found.items() if addresses}


@contextlib.contextmanager
def joined(uri: str) -> Iterator[UdpFeed]:
    with contextlib.closing(UdpFeed(split(uri), options=QUICK, stop=threading.Event(), where=uri)) as feed:
        feed.opened()
        yield feed


def send(family: socket.AddressFamily, uri: str, interface: str, data: bytes) -> None:
    """Send to a group by an interface, to listeners on this machine alone."""
    address, index = split(uri), socket.if_nametoindex(interface)
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        if family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, bytes(8) + struct.pack("@i", index))
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 0)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, struct.pack("@I", index))
        sock.sendto(data, (address.host, address.port))


def sends(family: socket.AddressFamily, uri: str, interface: str) -> bool:
    """Whether the system has a route for groups by that interface."""
    try:
        send(family, uri, interface, b"")
    except OSError:
        return False
    return True


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_group_is_joined_on_the_interface_of_an_address_or_a_name(family: socket.AddressFamily) -> None:
    uri = f"udp://{GROUPS[family]}:{free_port(socket.SOCK_DGRAM)}"
    found = interfaces(family)
    by = next((name for name in found if sends(family, uri, name)), None)
    if by is None:
        pytest.skip("this machine has no interface by which groups are sent to")
    with contextlib.ExitStack() as stack:
        by_address = stack.enter_context(joined(f"{uri}?pkt_size=1316&localaddr={quote(found[by])}"))
        by_name = stack.enter_context(joined(f"{uri}?localaddr={by}"))
        elsewhere = [stack.enter_context(joined(f"{uri}?localaddr={name}")) for name in found if name != by]
        send(family, uri, by, b"abc")
        assert by_address.read(2) + by_address.read(9) == b"abc"
        assert by_name.read(9) == b"abc"
        for feed in elsewhere:
            assert feed.read(9) == b"" and feed.failure is not None and "no data" in feed.failure.what


def test_any_address_of_ipv6_is_any_of_ipv4_too() -> None:
    port = free_port(socket.SOCK_DGRAM)
    try:
        feed = UdpFeed(split(f"udp://[::]:{port}"), options=QUICK, stop=threading.Event(), where="w")
    except Unreachable:
        pytest.skip("this machine has no IPv6")
    with contextlib.closing(feed), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"abc", ("127.0.0.1", port))
        assert feed.read(9) == b"abc"


@pytest.mark.parametrize("asked", ["192.0.2.77", "nothing0", "2001:db8::77"])
def test_interface_that_is_not_there_is_named(asked: str) -> None:
    with pytest.raises(Unreachable, match=f"no interface .*'{asked}'"), joined(f"udp://239.1.1.1:5?localaddr={asked}"):
        pass
