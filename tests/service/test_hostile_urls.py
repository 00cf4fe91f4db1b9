"""URLs that try to lead the service inside: none reaches a listener there, and each is refused with a reason.

The service's own options hold: no files, no private addresses, but for one network that a user has allowed
(127.0.0.2/32). The listeners wait on all other addresses of this machine.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.errors import ConfigError, LimpidError, Refused, SourceError, UnsupportedMedia
from pipeline.media import hostile
from pipeline.media.source import SourceOptions, open_source
from pipeline.media.source_hls import open_hls
from pipeline.wire.ids import StreamId
from tests.pipeline.media import hls_clips as clips
from tests.web_server import Page, Trap, Web, serving, trap

ALLOWED = "127.0.0.2"
SERVICE = SourceOptions(
    open_timeout_s=3,
    read_timeout_s=3,
    allow_private=False,
    networks=(f"{ALLOWED}/32",),
    local=False,
    reconnect_attempts=1,
    reconnect_initial_s=0.05,
)
PUBLIC = "93.184.215.14"

NAMES: dict[str, list[str]] = {
    "loopback.example": ["127.0.0.1"],
    "loopback6.example": ["::1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "nat64.example": ["64:ff9b::7f00:1"],
    "sixtofour.example": ["2002:7f00:1::"],
    "private.example": ["10.0.0.1"],
    "metadata.example": ["169.254.169.254"],
    "mixed.example": [PUBLIC, "127.0.0.1"],
    "mixed6.example": [PUBLIC, "::1"],
    "unspecified.example": ["0.0.0.0"],
    "zone.example": ["fe80::1%eth0"],
}

# Of each trick: its name, the URL ({p} is the port of the listener), and HTTP's status for the refusal.
HOSTS = {
    # every way to write 127.0.0.1 that some resolver understands
    "dotted": "127.0.0.1",
    "another of 127/8": "127.0.0.3",
    "end of 127/8": "127.255.255.254",
    "two parts": "127.1",
    "three parts": "127.0.1",
    "integer": "2130706433",
    "octal integer": "017700000001",
    "hex integer": "0x7f000001",
    "octal parts": "0177.0.0.1",
    "octal parts with more zeros": "00000177.0.0.01",
    "hex parts": "0x7f.0x0.0x0.0x1",
    "mixed bases": "0x7f.0.0.01",
    "integer beyond 32 bits": "6425673729",
    "part beyond 8 bits": "127.0.0.257",
    "leading zeros": "127.000.000.001",
    "dot at the end": "127.0.0.1.",
    "two dots at the end": "127.0.0.1..",
    "ideographic dots": "127。0。0。1",
    "halfwidth dots": "127｡0｡0｡1",
    "full-width dots": "127．0．0．1",
    "full-width digits": "１２７.0.0.1",
    "circled digits": "①②⑦.⓪.⓪.①",
    "soft hyphen": "127.0.0\u00ad.1",
    "zero-width space": "127.0.\u200b0.1",
    "percent-encoded": "%31%32%37.0.0.1",
    "zero": "0",
    "unspecified": "0.0.0.0",
    "this network": "0.1.2.3",
    # IPv6
    "IPv6 loopback": "[::1]",
    "IPv6 loopback in full": "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "IPv6 unspecified": "[::]",
    "mapped": "[::ffff:127.0.0.1]",
    "mapped in hex": "[::ffff:7f00:1]",
    "mapped in full": "[0:0:0:0:0:ffff:127.0.0.1]",
    "compatible": "[::127.0.0.1]",
    "translated": "[::ffff:0:127.0.0.1]",
    "NAT64": "[64:ff9b::127.0.0.1]",
    "local NAT64": "[64:ff9b:1::127.0.0.1]",
    "6to4": "[2002:7f00:1::1]",
    "Teredo": "[2001:0:7f00:1::]",
    "zone": "[fe80::1%eth0]",
    "zone, percent-encoded": "[fe80::1%25lo]",
    "loopback with a zone": "[::1%25lo]",
    "site-local": "[fec0::1]",
    "unique local": "[fd00::1]",
    "link-local": "[fe80::1]",
    "multicast IPv6": "[ff02::1]",
    "IPv4 in brackets": "[127.0.0.1]",
    "future address": "[v1.127001]",
    "IPv6 without brackets": "::1",
    # inner networks and services
    "10/8": "10.0.0.1",
    "172.16/12": "172.31.255.254",
    "192.168/16": "192.168.0.1",
    "link-local IPv4": "169.254.1.1",
    "metadata": "169.254.169.254",
    "metadata as an integer": "2852039166",
    "metadata, mapped": "[::ffff:169.254.169.254]",
    "metadata, IPv6": "[fd00:ec2::254]",
    "metadata of another cloud": "100.100.100.200",
    "host services of a cloud": "168.63.129.16",
    "carrier-grade NAT": "100.64.0.1",
    "benchmarking": "198.18.0.1",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "multicast": "239.255.255.250",
    # names
    "localhost": "localhost",
    "LOCALHOST": "LOCALHOST",
    "localhost with a dot": "localhost.",
    "name of loopback": "loopback.example",
    "name of IPv6 loopback": "loopback6.example",
    "name of a mapped address": "mapped.example",
    "name of a NAT64 address": "nat64.example",
    "name of a 6to4 address": "sixtofour.example",
    "name of a private address": "private.example",
    "name of metadata": "metadata.example",
    "name of a public and an inner address": "mixed.example",
    "name of a public and an inner IPv6 address": "mixed6.example",
    "name of the unspecified address": "unspecified.example",
    "name of a zoned address": "zone.example",
    "letters that fold to localhost": "localhoſt",
    "Kelvin sign": "loopbac\u212a.example",
    # parsers that disagree
    "user before": f"{PUBLIC}@127.0.0.1",
    "user with a port": f"{PUBLIC}:80@127.0.0.1",
    "allowed address as user": f"{ALLOWED}@127.0.0.1",
    "two users": f"{PUBLIC}@127.0.0.1@{PUBLIC}",
    "backslash before user": f"{PUBLIC}\\@127.0.0.1",
    "backslash as slash": f"127.0.0.1\\.{PUBLIC}",
    "space before a host": f"{PUBLIC} 127.0.0.1",
    "tab in the host": "127.0.\t0.1",
    "line feed in the host": "127.0.\n0.1",
    "header after the host": f"{PUBLIC}\r\nHost: 127.0.0.1",
    "NUL in the host": f"127.0.0.1\0.{PUBLIC}",
    "comma": f"127.0.0.1,{PUBLIC}",
    "semicolon": f"127.0.0.1;{PUBLIC}",
    "percent-encoded slash": f"127.0.0.1%2f.{PUBLIC}",
    "percent-encoded at": f"{PUBLIC}%40127.0.0.1",
    "percent-encoded NUL": f"127.0.0.1%00.{PUBLIC}",
    "ligature slash": f"127.0.0.1\u2215.{PUBLIC}",
    "account sign": f"127.0.0.1\u2100.{PUBLIC}",
}
BY_HOST = {
    f"{name} ({scheme})": f"{scheme}://{host}:{{p}}/a" for name, host in HOSTS.items() for scheme in ("http", "rtsp")
}
OTHERS = {
    # the same hosts through other protocols
    **{f"loopback over {s}": f"{s}://127.0.0.1:{{p}}/a" for s in ("https", "rtmp", "rtmps", "rtsps", "tcp")},
    **{f"rebound name over {s}": f"{s}://mixed.example:{{p}}/a" for s in ("https", "rtmp", "rtmps", "rtsps", "tcp")},
    "playlist": "http://127.0.0.1:{p}/a.m3u8",
    "scheme in capitals": "HTTP://127.0.0.1:{p}/a",
    "question mark before the host": f"http://127.0.0.1:{{p}}?@{PUBLIC}/",
    "no slashes": "http:127.0.0.1:{p}/a",
    "one slash": "http:/127.0.0.1:{p}/a",
    "three slashes": "http:///127.0.0.1:{p}/a",
    "four slashes": "http:////127.0.0.1:{p}/a",
    "backslashes": "http:\\\\127.0.0.1:{p}\\a",
    "no scheme": "//127.0.0.1:{p}/a",
    "space first": " http://127.0.0.1:{p}/a",
    "line feed first": "\nhttp://127.0.0.1:{p}/a",
    "line feed in the scheme": "ht\ntp://127.0.0.1:{p}/a",
    "URL in a URL": "http://http://127.0.0.1:{p}/a",
    "view-source": "view-source:http://127.0.0.1:{p}/a",
    "no host": "http://:{p}/a",
    "port 0": f"http://{PUBLIC}:0/a",
    "port beyond 65535": f"http://{PUBLIC}:65617/a",
    "port of many digits": f"http://{PUBLIC}:{'0' * 40}80/a",
    "negative port": f"http://{PUBLIC}:-1/a",
    "port in other digits": f"http://{PUBLIC}:٨٠/a",
    "port with a space": f"http://{PUBLIC}: 80/a",
    "empty port": f"http://{PUBLIC}:/a",
    "request smuggled in the path": f"http://{PUBLIC}/a HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "NUL in the path": f"http://{PUBLIC}/a\0",
    "very long host": "http://" + "a." * 200 + "example/a",
    # files, and what FFmpeg would make of them
    "path": "/etc/passwd",
    "relative path": "../../etc/passwd",
    "file": "file:///etc/passwd",
    "FILE": "FILE:/etc/passwd",
    "file with a host": "file://127.0.0.1:{p}/etc/passwd",
    "concat": "concat:/etc/passwd|http://127.0.0.1:{p}/a",
    "concatf": "concatf:/etc/passwd",
    "subfile": "subfile,,start,0,end,9,,:/etc/passwd",
    "subfile scheme": "subfile:http://127.0.0.1:{p}/a",
    "data": "data:application/x-mpegurl;base64,I0VYVE0zVQo=",
    "pipe": "pipe:0",
    "fd": "fd:0",
    "crypto": "crypto:http://127.0.0.1:{p}/a",
    "crypto+": "crypto+http://127.0.0.1:{p}/a",
    "cache": "cache:http://127.0.0.1:{p}/a",
    "async": "async:http://127.0.0.1:{p}/a",
    "hls+": "hls+http://127.0.0.1:{p}/a.m3u8",
    "tee": "tee:http://127.0.0.1:{p}/a",
    "httpproxy": "httpproxy://127.0.0.1:{p}/a",
    "unix": "unix:/var/run/docker.sock",
    "gopher": "gopher://127.0.0.1:{p}/_GET",
    "ftp": "ftp://127.0.0.1:{p}/a",
    "sftp": "sftp://127.0.0.1:{p}/a",
    "smb": "smb://127.0.0.1:{p}/a",
    "ldap": "ldap://127.0.0.1:{p}/a",
    "dict": "dict://127.0.0.1:{p}/a",
    "jar": "jar:http://127.0.0.1:{p}/a!/b",
    "netdoc": "netdoc:///etc/passwd",
    "ipfs": "ipfs://127.0.0.1:{p}/a",
    "lavfi": "lavfi:movie=/etc/passwd",
    "device": "device:/dev/video0",
    "kept packets": "kept:/etc",
    "object store": "s3://bucket/a.mp4",
    "sdp": "sdp:http://127.0.0.1:{p}/a",
    # protocols that are not spoken here
    **{f"unsupported {s}": f"{s}://127.0.0.1:{{p}}/a" for s in ("srt", "rist", "rtp", "whep", "webrtc", "mmsh")},
    # ports of this machine
    "port on all addresses": "udp://@:5004",
    "port on 0.0.0.0": "udp://0.0.0.0:5004",
    "port on loopback": "udp://127.0.0.1:5004",
    "port on a public address": f"udp://{PUBLIC}:5004",
    "multicast group": "udp://@239.1.1.1:5004",
    "listener": "rtmp+listen://0.0.0.0:{p}/live/key",
    "listener on loopback": "rtmp+listen://127.0.0.1:{p}/live/key",
}  # fmt: skip
URLS = BY_HOST | OTHERS


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def found(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host in NAMES:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in NAMES[host]]
        return real(host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", found)


@pytest.fixture(scope="module")
def inside() -> Iterator[Trap]:
    """A listener on every IPv4 and IPv6 address of this machine."""
    with trap("") as found:
        yield found
    assert found.connections == 0


def opened(uri: str) -> LimpidError:
    """The error with which opening and reading `uri` ends, as a stream would be."""
    try:
        source = open_source(uri, options=SERVICE)
    except LimpidError as error:
        return error
    with contextlib.closing(source), contextlib.closing(source.batches(stream=StreamId("s"))) as batches:
        with pytest.raises(LimpidError) as caught:
            next(batch for batch in batches if batch is not None)
        return caught.value


def test_there_are_more_than_a_hundred_tricks() -> None:
    assert len(URLS) > 200


@pytest.mark.parametrize("name", URLS)
def test_refused_when_asked_and_when_opened(name: str, inside: Trap) -> None:
    uri = URLS[name].format(p=inside.port)
    with pytest.raises(LimpidError) as caught:
        hostile.check_uri(uri, SERVICE)
    for error in (caught.value, opened(uri)):
        assert isinstance(error, Refused | ConfigError | UnsupportedMedia), error
        assert error.what and error.hint
    assert inside.connections == 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("dotted (http)", Refused),
        ("octal parts (rtsp)", Refused),
        ("name of a public and an inner address (http)", Refused),
        ("file", Refused),
        ("concat", Refused),
        ("multicast group", Refused),
        ("no slashes", ConfigError),
        ("unsupported srt", UnsupportedMedia),
    ],
)
def test_what_is_not_allowed_is_told_from_what_is_wrong(name: str, kind: type[LimpidError]) -> None:
    with pytest.raises(kind):
        hostile.check_uri(URLS[name].format(p=1), SERVICE)


# ---- through a server that is allowed -----------------------------------------------------------------------------


@pytest.fixture
def web() -> Iterator[Web]:
    with serving(Web(host=ALLOWED)) as server:
        server.pages |= {f"/{i}.ts": Page(data) for i, data in enumerate(clips.ts(3))}
        yield server


REDIRECTS = {
    "to loopback": "http://127.0.0.1:{p}/a.ts",
    "to another name of it": "http://127.1:{p}/a.ts",
    "to IPv6": "http://[::1]:{p}/a.ts",
    "to a name": "http://loopback.example:{p}/a.ts",
    "to a mixed name": "http://mixed.example:{p}/a.ts",
    "without scheme": "//127.0.0.1:{p}/a.ts",
    "with a user": "http://a@127.0.0.1:{p}/a.ts",
    "to metadata": "http://169.254.169.254/latest",
    "to a file": "file:///etc/passwd",
    "to another protocol": "rtsp://127.0.0.1:{p}/a",
    "to gopher": "gopher://127.0.0.1:{p}/_x",
}


@pytest.mark.parametrize("name", REDIRECTS)
@pytest.mark.parametrize("path", ["/a.mp4", "/a.m3u8"])
def test_redirects_are_checked(name: str, path: str, web: Web, inside: Trap) -> None:
    to = REDIRECTS[name].format(p=inside.port)
    web.pages |= {path: Page(status=302, headers={"Location": "/b"}), "/b": Page(status=307, headers={"Location": to})}
    assert isinstance(opened(web.url(path)), Refused)
    assert web.paths()[:2] == [path, "/b"]
    assert inside.connections == 0


INNER = {
    "segment": ["{u}"],
    "second segment": ["0.ts", "{u}"],
    "map": ['#EXT-X-MAP:URI="{u}"\n0.ts'],
    "key": ['#EXT-X-KEY:METHOD=AES-128,URI="{u}"\n0.ts'],
    "range": ["#EXT-X-BYTERANGE:10@0\n{u}"],
}


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("what", INNER)
@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{p}/x", "http://loopback.example:{p}/x", "file:///etc/passwd", "rtsp://127.0.0.1:{p}/x"]
)
def test_addresses_in_playlists_are_checked(what: str, url: str, live: bool, web: Web, inside: Trap) -> None:
    names = [line.replace("{u}", url.format(p=inside.port)) for line in INNER[what]]
    web.pages["/a.m3u8"] = Page(clips.playlist(names, ended=not live))
    error = refusal_of_playlist(web.url("/a.m3u8"))
    assert isinstance(error, Refused), error
    assert inside.connections == 0


def refusal_of_playlist(uri: str) -> SourceError:
    try:
        stream = open_hls(uri, SERVICE)
    except SourceError as error:
        return error
    with contextlib.closing(stream), pytest.raises(SourceError) as caught:
        b"".join(iter(lambda: stream.read(1 << 20), b""))
    return caught.value


def test_variants_are_checked(web: Web, inside: Trap) -> None:
    variant = f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhttp://127.0.0.1:{inside.port}/b.m3u8\n"
    web.pages["/a.m3u8"] = Page(variant.encode())
    assert isinstance(refusal_of_playlist(web.url("/a.m3u8")), Refused)


def test_redirected_segment_is_checked(web: Web, inside: Trap) -> None:
    web.pages["/0.ts"] = Page(status=302, headers={"Location": f"http://127.0.0.1:{inside.port}/x"})
    web.pages["/a.m3u8"] = Page(clips.playlist(["0.ts"]))
    assert isinstance(refusal_of_playlist(web.url("/a.m3u8")), Refused)


def test_playlist_under_another_name_is_not_followed(web: Web, inside: Trap) -> None:
    web.pages["/a.mp4"] = Page(clips.playlist([f"http://127.0.0.1:{inside.port}/x"]))
    assert isinstance(opened(web.url("/a.mp4")), LimpidError)
    assert inside.connections == 0


@pytest.mark.parametrize("path", ["/a.ts", "/a.m3u8"])
def test_name_that_changes_its_mind_is_refused_at_its_next_connection(
    path: str, web: Web, inside: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks first (the check when a stream is submitted) is told what is allowed, whoever connects is not."""
    turns = itertools.cycle([ALLOWED, "127.0.0.1"])

    def alternating(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(turns), port))]

    monkeypatch.setattr(socket, "getaddrinfo", alternating)
    uri = f"http://rebinding.example:{inside.port}{path}"
    hostile.check_uri(uri, SERVICE)
    assert isinstance(opened(uri), Refused)
    assert inside.connections == 0


@pytest.mark.parametrize("scheme", ["rtmp", "rtsp", "tcp"])
def test_live_protocols_connect_to_the_address_that_was_checked(
    scheme: str, inside: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second lookup, by FFmpeg or the system, would lead to the listener."""
    asked = itertools.count()

    def alternating(host: str, port: int, **_: Any) -> list[Any]:
        address = ALLOWED if next(asked) == 0 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", alternating)
    assert isinstance(opened(f"{scheme}://rebinding.example:1/a"), SourceError)
    assert inside.connections == 0


def test_rtsp_redirect_is_not_followed(inside: Trap) -> None:
    """FFmpeg would: it takes a Location from any answer."""
    with socket.create_server((ALLOWED, 0)) as server:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = server.accept()
                    with peer:
                        peer.recv(4096)
                        to = f"rtsp://127.0.0.1:{inside.port}/x"
                        peer.sendall(f"RTSP/1.0 302 Moved\r\nCSeq: 1\r\nLocation: {to}\r\n\r\n".encode())
                        peer.recv(1)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        assert isinstance(opened(f"rtsp://{ALLOWED}:{server.getsockname()[1]}/a"), SourceError)
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    assert inside.connections == 0
