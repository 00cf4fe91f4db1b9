"""What FFmpeg reads live media from, as file objects: MPEG-TS from a TCP or UDP socket, an endless HTTP answer, HLS.

FFmpeg calls `read` from inside, where an exception of ours would get lost behind its own. So what goes wrong there is
kept in `failure` and looks like the end of the file; who opened the container asks for it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import sys
import threading
from collections import deque
from typing import Protocol
from urllib.parse import parse_qs

import psutil

from pipeline.errors import SourceError, Unreachable
from pipeline.media.address import Address, reachable
from pipeline.media.http_file import HttpFile
from pipeline.media.relay import dial
from pipeline.media.source_base import SourceOptions
from pipeline.media.source_hls import HlsStream

_DATAGRAM_BYTES = 64 << 10
_BUFFER_BYTES = 4 << 20  # asked of the system: it gives what it allows
_QUEUE_BYTES = 8 << 20  # 3 s of 20 Mbit/s while FFmpeg looks at the first pictures
_IP_MULTICAST_ALL, _IPV6_MULTICAST_ALL = 49, 29  # linux/in.h, linux/in6.h: Python does not name them


class Feed(Protocol):
    """What FFmpeg reads from in our stead."""

    name: str

    @property
    def failure(self) -> SourceError | None:
        """What `read` met, None if nothing."""

    def opened(self) -> None:
        """Say that the container is open: from here on each read has the deadline of reads."""

    def read(self, size: int, /) -> bytes:
        """Return what is there, 1 to `size` bytes; b"" at the end, or with `failure` set."""

    def interrupt(self) -> None:
        """Have whoever reads get an end. From any thread."""

    def close(self) -> None:
        """Let go of everything."""


class HttpFeed:
    """An answer of an HTTP server that does not end."""

    def __init__(self, file: HttpFile) -> None:
        self.name = str(file.name)
        self._file = file

    @property
    def failure(self) -> SourceError | None:
        return self._file.failure

    def opened(self) -> None:
        self._file.opened()

    def read(self, size: int, /) -> bytes:
        return self._file.read(size)

    def interrupt(self) -> None:
        self._file.interrupt()

    def close(self) -> None:
        self._file.close()


class HlsFeed:
    """The segments of a playlist's session, one behind the other."""

    def __init__(self, stream: HlsStream, *, where: str) -> None:
        self.name = where
        self.stream = stream

    @property
    def failure(self) -> SourceError | None:
        return self.stream.failure

    def opened(self) -> None:
        """A playlist's deadlines are its own."""

    def read(self, size: int, /) -> bytes:
        try:
            return self.stream.read(size)
        except SourceError:
            return b""

    def interrupt(self) -> None:
        self.stream.close()

    def close(self) -> None:
        self.stream.close()


class TcpFeed:
    """What a server sends on one connection.

    Raises:
        Refused, Unreachable: see relay.dial.
    """

    def __init__(self, address: Address, *, options: SourceOptions, stop: threading.Event, where: str) -> None:
        self.name = where
        self._options = options
        self.failure: Unreachable | None = None
        self._socket = dial(address, options=options, stop=stop, where=where)
        self._socket.settimeout(options.open_timeout_s)

    def opened(self) -> None:
        self._socket.settimeout(self._options.read_timeout_s)

    def read(self, size: int, /) -> bytes:
        if self.failure is not None:  # FFmpeg asks again
            return b""
        try:
            return self._socket.recv(size)
        except TimeoutError:
            self.failure = _silent(self._socket.gettimeout(), self.name)
        except OSError as error:
            self.failure = Unreachable(f"the connection broke: {error.strerror}", where=self.name)
        return b""

    def interrupt(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()


class UdpFeed:
    """Datagrams that arrive at a port. A thread takes them off the system's small buffer at once.

    A multicast group is joined on the interface that `?localaddr=` names, by an address (as FFmpeg has it) or its name;
    without, where the system's routes lead.

    Raises:
        Refused: the address is not allowed.
        Unreachable: the port cannot be opened, or there is no such interface.
    """

    def __init__(self, address: Address, *, options: SourceOptions, stop: threading.Event, where: str) -> None:
        self.name = where
        self._options = options
        self._timeout_s = options.open_timeout_s
        self.failure: Unreachable | None = None
        ip = reachable(address, options=options, timeout_s=options.open_timeout_s, where=where, stop=stop)
        asked = parse_qs(address.rest.partition("?")[2]).get("localaddr", [""])[-1]
        interface = _interface(asked, where) if asked else 0
        try:
            self._socket = _bound(ip, address.port, interface)
        except OSError as error:
            raise Unreachable(
                f"port {address.port} cannot be opened: {error.strerror}",
                where=where,
                hint="use an address of this machine (0.0.0.0 for all) or a multicast group, and a free port",
            ) from error
        self._socket.settimeout(0.2)
        self._came = threading.Condition()
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._closed = False
        self._thread = threading.Thread(target=self._receive, name="limpid-udp", daemon=True)
        self._thread.start()

    def opened(self) -> None:
        self._timeout_s = self._options.read_timeout_s

    def read(self, size: int, /) -> bytes:
        with self._came:
            if self.failure is not None:  # FFmpeg asks again
                return b""
            if not self._came.wait_for(lambda: self._queue or self._closed, self._timeout_s):
                self.failure = _silent(self._timeout_s, self.name)
            if not self._queue or self._closed:
                return b""
            out = self._queue.popleft()
            if len(out) > size:
                self._queue.appendleft(out[size:])
                out = out[:size]
            self._queued_bytes -= len(out)
            return out

    def interrupt(self) -> None:
        with self._came:
            self._closed = True
            self._came.notify_all()

    def close(self) -> None:
        self.interrupt()
        self._thread.join()
        self._socket.close()

    def _receive(self) -> None:
        while not self._closed:
            try:
                datagram = self._socket.recv(_DATAGRAM_BYTES)
            except TimeoutError:
                continue
            except OSError:  # an ICMP error of an earlier datagram: the next one may be fine
                continue
            with self._came:
                if datagram and self._queued_bytes < _QUEUE_BYTES:  # else it is lost, as on the network
                    self._queue.append(datagram)
                    self._queued_bytes += len(datagram)
                    self._came.notify()


def _interface(asked: str, where: str) -> int:
    """The number of the interface that has a name or an address."""
    for name, entries in psutil.net_if_addrs().items():
        if asked in (name, *(entry.address for entry in entries)):
            return socket.if_nametoindex(name)
    raise Unreachable(
        f"no interface of this machine is called, or has the address, '{asked}'",
        where=where,
        hint="give localaddr an address or a name that `ip address` shows",
    )


def _bound(ip: str, port: int, interface: int) -> socket.socket:
    """A socket on which datagrams for `ip`, an address of this machine or a group, come in; 0: any interface."""
    parsed = ipaddress.ip_address(ip)
    sock = socket.socket(socket.AF_INET6 if parsed.version == 6 else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        if parsed.is_multicast:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # others on this machine may receive it as well
        sock.bind((ip, port, 0, interface) if parsed.version == 6 else (ip, port))
        if parsed.is_multicast:
            _join(sock, parsed, interface)
    except OSError:
        sock.close()
        raise
    return sock


def _join(sock: socket.socket, group: ipaddress.IPv4Address | ipaddress.IPv6Address, interface: int) -> None:
    if group.version == 6:
        level, every = socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL
        sock.setsockopt(level, socket.IPV6_JOIN_GROUP, group.packed + struct.pack("@I", interface))
    else:
        level, every = socket.IPPROTO_IP, _IP_MULTICAST_ALL
        anywhere = socket.inet_aton("0.0.0.0")
        sock.setsockopt(level, socket.IP_ADD_MEMBERSHIP, group.packed + anywhere + struct.pack("@i", interface))
    if interface and sys.platform == "linux":
        # Else what anybody here has joined on another network would come in as well. Kernels before 4.20 cannot.
        with contextlib.suppress(OSError):
            sock.setsockopt(level, every, 0)


def _silent(seconds: float | None, where: str) -> Unreachable:
    return Unreachable(f"no data for {seconds:g} s", where=where, hint="check that something is being sent")
