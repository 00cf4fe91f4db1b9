"""Network addresses in URIs: read in one strict way, and checked against where they may lead.

Programs disagree on odd addresses (`0177.0.0.1`, `a@b@c`, `host.`, full-width dots), and what one of them checks the
other does not connect to. So whatever could be read in two ways is refused, names are resolved here, once, and what
is connected to is the numeric address that was checked: a name that changes its mind in between changes nothing.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import psutil

from pipeline.errors import ConfigError, Refused, Unreachable
from pipeline.media.source_base import SourceOptions

IP = ipaddress.IPv4Address | ipaddress.IPv6Address

DEFAULT_PORT = {"http": 80, "https": 443, "rtmp": 1935, "rtmps": 443, "rtsp": 554, "rtsps": 322, "rtmp+listen": 1935}
OPENS_PORT = frozenset({"udp", "rtmp+listen"})
"""Schemes that do not connect but wait on a port of this machine."""
WITH_USER = frozenset({"rtmp", "rtmps", "rtsp", "rtsps", "udp"})  # udp://@:1234 is how many write "any address"

_LOOK_S = 0.05  # how often a lookup that is waited for looks whether it is still wanted
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://([^/?#]*)([^#]*)(#.*)?", re.DOTALL)
_AUTHORITY = re.compile(r"(?:([^@\[\]]*)@)?(\[[^\[\]]*\]|[^@:\[\]]*)(?::([^@\[\]:]*))?")
_USER = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:%]*")
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_\-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_\-]{0,61}[a-z0-9_])?)*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

_V6_PUBLIC = ipaddress.ip_network("2000::/3")  # all that is given out; what lies outside is special (RFC 4291 §2.4)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # stands for the IPv4 address in its last 32 bits (RFC 6052)
_SPECIAL = tuple(
    map(
        ipaddress.ip_network,
        (
            "168.63.129.16/32",  # Azure's host services: public by its looks, reached from inside only
            "192.0.0.0/24",  # protocol assignments, among them Oracle's metadata service
            "192.88.99.0/24",  # 6to4 relays
            "2001::/32",  # Teredo: stands for an IPv4 address
            "2002::/16",  # 6to4: stands for an IPv4 address
            "3fff::/20",  # documentation
        ),
    )
)
"""Refused although Python counts them, in some of its versions, as global."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """A URI's parts. `host` is lower-case, IPv6 without brackets, "" where there is none; `rest` is path and query."""

    scheme: str
    user: str
    host: str
    port: int
    rest: str

    @property
    def ip(self) -> IP | None:
        """The host as a numeric address; None where it is a name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    def at(self, host: str) -> str:
        """Return the URI with another host, always with its port."""
        user = f"{self.user}@" if self.user else ""
        return f"{self.scheme}://{user}{_bracketed(host)}:{self.port}{self.rest}"

    @property
    def authority(self) -> str:
        """Host and port as an HTTP request names them: the port only where it is not the scheme's."""
        port = "" if self.port == DEFAULT_PORT.get(self.scheme) else f":{self.port}"
        return f"{_bracketed(self.host)}{port}"


def without_secrets(uri: str) -> str:
    """Return `uri` fit for messages and manifests: without user, password and query (which may hold a token)."""
    if "://" not in uri or uri.startswith("synthetic:"):
        return uri
    try:
        parts = urlsplit(uri)
    except ValueError:
        return f"{uri.partition(':')[0]}://…"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "…" if parts.query else "", ""))


def split(uri: str) -> Address:
    """Return the parts of `uri`, a network address.

    Raises:
        ConfigError: it is none, or holds what its scheme does not take.
        Refused: its host is written in a way that hides where it leads.
    """
    where = without_secrets(uri)
    found = _URI.fullmatch(uri)
    if found is None:
        raise ConfigError("is no address", where=where, hint="write scheme://host/path")
    scheme, rest = found[1].lower(), found[3]
    if any(ord(c) <= 32 or ord(c) > 126 for c in rest):
        raise ConfigError("holds characters that an address must not", where=where, hint="percent-encode them")
    parts = _AUTHORITY.fullmatch(found[2])
    if parts is None or not found[2].isascii():
        raise Refused("has a host that can be read in several ways", where=where, hint="write scheme://host:port/path")
    user, host = parts[1] or "", parts[2].lower()
    if parts[1] is not None and scheme not in WITH_USER:
        raise ConfigError("needs a host, and no user or password", where=where, hint="write http://host/path")
    if not _USER.fullmatch(user):
        raise Refused("has a user or password with odd characters", where=where, hint="percent-encode them")
    return Address(
        scheme=scheme, user=user, host=_host(host, scheme, where), port=_port(parts[3], scheme, where), rest=rest
    )


def _host(host: str, scheme: str, where: str) -> str:
    if not host:
        if scheme == "udp":
            return ""
        raise ConfigError("needs a host, and no user or password", where=where, hint=f"write {scheme}://host/path")
    if "%" in host and host.startswith("["):
        raise Refused(
            f"'{host}' has a zone, which is not taken", where=where, hint="use an address that is not link-local"
        )
    if host.startswith("["):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError as error:
            raise Refused(f"'{host}' is no IPv6 address", where=where, hint="write it as [2001:db8::1]") from error
    if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError as error:
            raise Refused(
                f"'{host}' is a number, but no IPv4 address as everyone reads it",
                where=where,
                hint="write four decimal numbers without leading zeros",
            ) from error
    if len(host) > 253 or not _NAME.fullmatch(host):
        raise Refused(
            "has a host that is no plain name",
            where=where,
            hint="write a name of letters, digits, hyphens and dots, other letters in their xn-- form",
        )
    return host


def _port(text: str | None, scheme: str, where: str) -> int:
    if text is None and scheme in DEFAULT_PORT:
        return DEFAULT_PORT[scheme]
    if text is None:
        raise ConfigError(f"{scheme}: needs a port", where=where, hint=f"write {scheme}://host:port")
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise ConfigError("is no address: its port is none", where=where, hint="ports are 1 to 65535")
    return int(text)


def reachable(
    address: Address, *, options: SourceOptions, timeout_s: float, where: str, stop: threading.Event | None = None
) -> str:
    """Return the numeric address to listen on for `address`: the first of `addresses`, which see."""
    return addresses(address, options=options, timeout_s=timeout_s, where=where, stop=stop)[0]


def addresses(
    address: Address, *, options: SourceOptions, timeout_s: float, where: str, stop: threading.Event | None = None
) -> tuple[str, ...]:
    """Return the numeric addresses to try for `address`, after checking that they are allowed, the preferred one first.

    A name gives up to two, one of IPv6 and one of IPv4: a host that has both may be reached by one of them alone. Every
    address that a name resolves to must pass, so a name with a public and a private one is refused.

    Args:
        timeout_s: for the lookup of a name.
        stop: set from another thread, it ends the lookup.

    Raises:
        Refused: an address is not allowed.
        Unreachable: the name does not resolve, not in time, or `stop` was set.
    """
    ip = address.ip
    if ip is not None:
        found: tuple[IP, ...] = (ip,)
    elif not address.host:
        found = (ipaddress.IPv4Address(0),)
    else:
        found = _resolved(address.host, address.port, timeout_s=timeout_s, where=where, stop=stop)
    for one in found:
        _check(one, address, options, where)
    first: dict[int, str] = {}
    for one in found:
        first.setdefault(_plain(one).version, str(_plain(one)))
    return tuple(first.values())


def _check(ip: IP, address: Address, options: SourceOptions, where: str) -> None:
    if options.allow_private or any(_plain(ip) in network for network in _networks(options.networks)):
        return
    if address.scheme in OPENS_PORT:
        raise Refused(
            f"{address.scheme}: waits on a port of this machine, which is not allowed here",
            where=where,
            hint="list the address to wait on, or the multicast group, in source.networks",
        )
    if not _public(ip):
        raise Refused(
            f"'{address.host}' is a private address, which is not allowed here",
            where=where,
            hint="list its network in source.networks if it is trusted",
        )


def _public(ip: IP) -> bool:
    plain = _plain(ip)
    if isinstance(plain, ipaddress.IPv6Address) and plain not in _V6_PUBLIC:
        return False
    special = any(plain in network for network in _SPECIAL)
    return plain.is_global and not plain.is_multicast and not special and plain not in _own()


def _plain(ip: IP) -> IP:
    """The IPv4 address that an IPv6 one stands for, else the address itself."""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return ip.ipv4_mapped
        if ip in _NAT64:
            return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip


def _own() -> frozenset[IP]:
    """This machine's addresses: what listens on all of them is reached through a public one as well."""
    found = set()
    for entries in psutil.net_if_addrs().values():
        for entry in entries:
            if entry.family in (socket.AF_INET, socket.AF_INET6):
                found.add(ipaddress.ip_address(entry.address.partition("%")[0]))
    return frozenset(found)


@functools.lru_cache(maxsize=64)
def _networks(texts: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


def _resolved(host: str, port: int, *, timeout_s: float, where: str, stop: threading.Event | None) -> tuple[IP, ...]:
    """The addresses of a name. The system's resolver knows no deadline, so it runs in a thread that may be left."""
    answers: list[list[str] | Exception] = []
    done = threading.Event()

    def look() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.append([str(entry[4][0]).partition("%")[0] for entry in found])
        except (OSError, UnicodeError) as error:
            answers.append(error)
        done.set()

    threading.Thread(target=look, name="limpid-lookup", daemon=True).start()
    deadline_s = time.monotonic() + timeout_s
    while not done.wait(min(_LOOK_S, max(0.0, deadline_s - time.monotonic()))):
        if stop is not None and stop.is_set():
            raise Unreachable("closed while it was opened", where=where)
        if time.monotonic() >= deadline_s:
            raise Unreachable(f"the host '{host}' is not found in time", where=where, hint="check the name server")
    answer = answers[0]
    if isinstance(answer, Exception) or not answer:
        error = answer if isinstance(answer, Exception) else None
        raise Unreachable(f"the host '{host}' is not known", where=where, hint="check the address") from error
    return tuple(ipaddress.ip_address(text) for text in answer)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
