"""Addresses are read in one way, and lead only where they may."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from pipeline.errors import ConfigError, Refused, Unreachable
from pipeline.media.address import Address, reachable, split
from pipeline.media.source_base import SourceOptions

OUTSIDE = SourceOptions(allow_private=False)


def lead(uri: str, options: SourceOptions = OUTSIDE) -> str:
    return reachable(split(uri), options=options, timeout_s=5, where="w")


def answering(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Names resolve to `answers`, one a lookup, the last for ever; the list returned fills with the names asked for."""
    asked: list[str] = []

    def found(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        addresses = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    return asked


# ---- form ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("HTTP://Host.Example/A?b=C#d", ("http", "", "host.example", 80, "/A?b=C")),
        ("http://93.184.215.14#@127.0.0.1/", ("http", "", "93.184.215.14", 80, "")),
        ("https://h", ("https", "", "h", 443, "")),
        ("rtsp://u:p%40@h:8554/cam?x=1", ("rtsp", "u:p%40", "h", 8554, "/cam?x=1")),
        ("rtmp://[2606:2800:0220:0::1]/live/key", ("rtmp", "", "2606:2800:220::1", 1935, "/live/key")),
        ("udp://@239.1.2.3:5000", ("udp", "", "239.1.2.3", 5000, "")),
        ("udp://:5000", ("udp", "", "", 5000, "")),
        ("http://my_cam-1.lan:8080", ("http", "", "my_cam-1.lan", 8080, "")),
        ("http://xn--bcher-kva.example/", ("http", "", "xn--bcher-kva.example", 80, "/")),
    ],
)
def test_parts(uri: str, parts: tuple[str, str, str, int, str]) -> None:
    got = split(uri)
    assert (got.scheme, got.user, got.host, got.port, got.rest) == parts


def test_uri_at_another_host_keeps_all_else() -> None:
    assert split("rtsp://u:p@cam/x?y=1#z").at("2001:db8::1") == "rtsp://u:p@[2001:db8::1]:554/x?y=1"
    assert split("http://h:80/").authority == "h" and split("http://[::1]:81/").authority == "[::1]:81"


@pytest.mark.parametrize(
    "uri",
    ["http:/h/a", "http:h", "http://", "http:///a", "http://:80/", "http://h:/", "http://h:0/", "http://h:65536/",
     "http://h:99999999999999999999/", "http://h:+80/", "http://h:8 0/", "http://h:٨٠/", "tcp://h", "udp://h",
     "http://h/a b", "http://h/a\r\nHost: x", "http://h/\0", "http://h/ü", "http://u@h/", "http://@h/", "1://h/"],
)  # fmt: skip
def test_what_is_no_address_is_wrong_use(uri: str) -> None:
    with pytest.raises((ConfigError, Refused)):
        split(uri)


@pytest.mark.parametrize(
    "host",
    ["0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "2130706433", "017700000001", "127.1", "127.0.1", "127.0.0.1.",
     "127.0.0.01", "127.0.0.256", "1.2.3.4.5", "127。0。0。1", "１２７.0.0.1", "①②⑦.0.0.1", "0", "0x", "4294967295",
     "[::1%lo]", "[::1%25lo]", "[fe80::1%eth0]", "[v1.x]", "[::1", "::1", "[127.0.0.1]", "[::1]x", "[]", "[::1].h",
     "h..x", ".h", "h.", "-h", "h-", "h\\x", "h%2ex", "a@b@c", "h\tx", "ﬀ.example", "bücher.example", "localhoſt",
     "\u212a.example", "a" * 64, ".".join(["a" * 60] * 5), "h,x", "h;x", "h'x", "h\u200bx", "h\u3002x"],
)  # fmt: skip
def test_hosts_that_can_be_read_in_two_ways_are_refused(host: str) -> None:
    with pytest.raises((Refused, ConfigError)):
        split(f"rtsp://{host}/a")


# ---- where it leads -----------------------------------------------------------------------------------------------

INNER = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1",
    "169.254.169.254", "169.254.1.1", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.0.2.1",
    "192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::",
    "2002:5db8:d70e::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "ff0e::1",
]  # fmt: skip


def literal(address: str) -> str:
    return f"http://[{address}]/" if ":" in address else f"http://{address}/"


@pytest.mark.parametrize("address", INNER)
def test_inner_addresses_are_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match="private address"):
        lead(literal(address))
    answering(monkeypatch, [address])
    with pytest.raises(Refused, match="private address"):
        lead("http://name.example/")
    assert lead("http://name.example/", SourceOptions())


@pytest.mark.parametrize(
    ("address", "leads"),
    [
        ("93.184.215.14", "93.184.215.14"),
        ("2606:2800:21f::1", "2606:2800:21f::1"),
        ("::ffff:93.184.215.14", "93.184.215.14"),
        ("64:ff9b::93.184.215.14", "93.184.215.14"),
    ],
)
def test_public_addresses_are_allowed(address: str, leads: str) -> None:
    assert lead(literal(address)) == leads


def test_this_machines_own_addresses_are_refused_even_if_public(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = type("Entry", (), {"family": socket.AF_INET, "address": "93.184.215.14"})
    monkeypatch.setattr("psutil.net_if_addrs", lambda: {"eth0": [entry]})
    with pytest.raises(Refused, match="private address"):
        lead("http://93.184.215.14/")


def test_networks_are_allowed_in_every_spelling() -> None:
    options = SourceOptions(allow_private=False, networks=("192.168.7.0/24", "fd00::/8", "239.1.0.0/16", "0.0.0.0/32"))
    for uri in [
        "http://192.168.7.9/",
        "rtsp://[::ffff:192.168.7.9]/",
        "http://[fd00::1]/",
        "udp://239.1.2.3:5",
        "udp://:5",
    ]:
        assert lead(uri, options)
    assert lead("udp://:5", options) == "0.0.0.0"
    for uri in ["http://192.168.8.9/", "udp://239.2.0.1:5", "udp://93.184.215.14:5", "rtmp+listen://93.184.215.14/a/b"]:
        with pytest.raises(Refused):
            lead(uri, options)
    assert lead("rtmp+listen://192.168.7.1/a/b", options) == "192.168.7.1"


@pytest.mark.parametrize("network", ["", "x", "1.2.3.4/33", "192.168.7.1/24", "fd00::/200"])
def test_what_is_no_network_is_a_fault_of_the_settings(network: str) -> None:
    with pytest.raises(ConfigError, match="is no network"):
        SourceOptions(networks=(network,))


def test_name_with_one_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, ["93.184.215.14", "10.0.0.8"])
    with pytest.raises(Refused, match="private address"):
        lead("http://h/")


def test_numeric_hosts_are_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, ["10.0.0.1"])
    lead("http://93.184.215.14/")
    assert asked == []


def test_unknown_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with pytest.raises(Unreachable, match="'h' is not known"):
        lead("http://h/")


def test_slow_lookup_ends_at_its_deadline_or_when_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(30) and [])
    address = Address(scheme="http", user="", host="h", port=80, rest="/")
    with pytest.raises(Unreachable, match="not found in time"):
        reachable(address, options=OUTSIDE, timeout_s=0.1, where="w")
    stop = threading.Event()
    stop.set()
    with pytest.raises(Unreachable, match="closed"):
        reachable(address, options=OUTSIDE, timeout_s=60, where="w", stop=stop)
    over.set()
