"""Live sources through TLS, at IPv6 addresses and in multicast groups, against the programs that people use."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from pipeline.commands import probe
from pipeline.config import SourceSettings
from pipeline.errors import Unreachable
from pipeline.flow.sources import options_of
from pipeline.media.source import SourceOptions, open_source
from tests.certificates import Authority
from tests.live_peers import STREAM, Process, decoded, free_port, reading, until
from tests.service import test_live_sources as sources
from tests.service.test_live_sources import OPTIONS, Nginx, check, pushing

ffmpeg, clips, rtsp = sources.ffmpeg, sources.clips, sources.rtsp
TEST_PICTURE = (
    "( videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=30/1 "
    "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=30 ! rtph264pay name=pay0 pt=96 )"
)


def extended(folder: Path, *, first: str = "", last: str = "") -> Nginx:
    """nginx with its RTMP module, and more in its configuration."""
    nginx, path = Nginx(folder), folder / "nginx.conf"
    path.write_text(f"{first}{path.read_text()}{last}")
    return nginx


def rtsp_server(python: Path, port: int, log: Path, *more: str) -> Process:
    script = Path(__file__).with_name("rtsp_server.py")
    return Process(str(python), str(script), str(port), TEST_PICTURE, *more, log=log)


def http_block(folder: Path, server: str) -> str:
    """nginx serving the files of a folder, with all that it writes in there as well."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind}; " for kind in kinds)
    return f"http {{ access_log off; {temporary} server {{ {server} root {folder}; }} }}\n"


def playlist(ffmpeg: str, clip: Path, folder: Path) -> None:
    """A clip as index.m3u8 and its segments."""
    hls = ["-c", "copy", "-f", "hls", "-hls_time", "1", "-hls_playlist_type", "vod", str(folder / "index.m3u8")]
    subprocess.run([ffmpeg, "-v", "error", "-i", str(clip), *hls], check=True, timeout=60)


# ---- TLS ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def trusting(authority: Authority) -> SourceOptions:
    return replace(OPTIONS, ca_file=str(authority.path))


@pytest.fixture(scope="module")
def pem(authority: Authority) -> Path:
    """A server's key and certificate: for 127.0.0.1, not for "localhost"."""
    return authority.server("127.0.0.1", "camera.example")


@pytest.fixture(scope="module")
def rtmps(tmp_path_factory: pytest.TempPathFactory, ffmpeg: str, clips: dict[str, Path], pem: Path) -> Iterator[int]:
    """The port at which nginx puts TLS in front of its RTMP server; a publisher pushes to that one behind."""
    folder, port = tmp_path_factory.mktemp("rtmps"), free_port()
    module = next((m / "ngx_stream_module.so" for m in sources.MODULES if (m / "ngx_stream_module.so").exists()), None)
    if module is None:
        pytest.skip("nginx's stream module is not installed (Debian: libnginx-mod-stream)")
    nginx = extended(folder, first=f"load_module {module};\n")
    secured = f"listen 127.0.0.1:{port} ssl; ssl_certificate {pem}; ssl_certificate_key {pem};"
    with (folder / "nginx.conf").open("a") as file:
        file.write(f"stream {{ server {{ {secured} proxy_pass 127.0.0.1:{nginx.port}; }} }}\n")
    with nginx.running(), pushing(ffmpeg, clips["small"], "-f", "flv", nginx.uri, log=folder / "ffmpeg.log"):
        yield port


def test_rtmps_of_a_private_authority(rtmps: int, trusting: SourceOptions) -> None:
    with reading(open_source(f"rtmps://127.0.0.1:{rtmps}/live/a", options=trusting)) as reader:
        reader.wait_video(0, 30)
    check(reader, epochs=[0], gaps=0)


def test_rtmps_is_refused_with_the_reason(rtmps: int, trusting: SourceOptions) -> None:
    refuses(f"rtmps://127.0.0.1:{rtmps}/live/a")
    refuses(f"rtmps://localhost:{rtmps}/live/a", trusting, says="certificate is not valid for 'localhost'")


def test_rtsps_with_a_user_killed_and_back(rtsp: Path, tmp_path: Path, pem: Path, trusting: SourceOptions) -> None:
    port, log = free_port(), tmp_path / "rtsp.log"
    uri, more = f"rtsps://viewer:se%25cret@127.0.0.1:{port}/a", ("--pem", str(pem), "--user", "viewer:se%cret")
    with reading(open_source(uri, options=trusting)) as reader:
        with rtsp_server(rtsp, port, log, *more):
            reader.wait_video(0, 30, within_s=15)
            refuses(uri)
        with rtsp_server(rtsp, port, log, *more):
            reader.wait_video(1, 30, within_s=15)
    check(reader, epochs=[0, 1], gaps=1)


def test_playlist_over_https(
    tmp_path: Path, ffmpeg: str, clips: dict[str, Path], pem: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trusting = options_of(SourceSettings(ca_file=str(pem.with_name("authority.pem"))))
    port = free_port()
    secured = f"listen 127.0.0.1:{port} ssl; ssl_certificate {pem}; ssl_certificate_key {pem};"
    playlist(ffmpeg, clips["small"], tmp_path)
    with extended(tmp_path, last=http_block(tmp_path, secured)).running():
        uri = f"https://127.0.0.1:{port}/index.m3u8"
        with reading(open_source(uri, options=trusting)) as reader:
            reader.wait_video(0, 240)
        check(reader, epochs=[0], gaps=0)
        refuses(uri)
        assert probe.main([uri, "--json", "--ca-file", trusting.ca_file]) == 0
        assert json.loads(capsys.readouterr().out)["verdict"] == "usable"
        assert probe.main([uri, "--json"]) == 1
        assert "no secure connection" in json.loads(capsys.readouterr().out)["error"]["what"]


def refuses(uri: str, options: SourceOptions = OPTIONS, says: str = "unable to get local issuer certificate") -> None:
    """An address is not read, and the reason is given."""
    source = open_source(uri, options=replace(options, reconnect_attempts=1))
    with contextlib.closing(source), pytest.raises(Unreachable, match=f"no secure connection: .*{says}"):
        list(source.batches(stream=STREAM))


# ---- IPv6 ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def port6() -> int:
    """A free port of [::1]."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
            port: int = listener.getsockname()[1]
            return port
    except OSError:
        pytest.skip("this machine has no IPv6 loopback address")


def test_rtmp_at_an_ipv6_address(tmp_path: Path, ffmpeg: str, clips: dict[str, Path], port6: int) -> None:
    nginx, path = Nginx(tmp_path), tmp_path / "nginx.conf"
    path.write_text(path.read_text().replace("rtmp { server {", f"rtmp {{ server {{ listen [::1]:{port6};"))
    uri = f"rtmp://[::1]:{port6}/live/a"
    with (
        nginx.running(),
        pushing(ffmpeg, clips["small"], "-f", "flv", uri, log=tmp_path / "ffmpeg.log"),
        reading(open_source(uri, options=OPTIONS)) as reader,
    ):
        reader.wait_video(0, 30)
    check(reader, epochs=[0], gaps=0)


def test_rtsp_at_an_ipv6_address(rtsp: Path, tmp_path: Path, port6: int) -> None:
    with (
        rtsp_server(rtsp, port6, tmp_path / "rtsp.log", "--address", "::1"),
        reading(open_source(f"rtsp://[::1]:{port6}/a", options=OPTIONS)) as reader,
    ):
        reader.wait_video(0, 30, within_s=15)
    check(reader, epochs=[0], gaps=0)


@pytest.mark.parametrize(
    ("kind", "uri", "target"),
    [
        ("mpegts", "tcp://[::1]:{p}", "tcp://[::1]:{p}?listen=1"),
        ("mpegts", "udp://[::1]:{p}", "udp://[::1]:{p}?pkt_size=1316"),
        ("flv", "rtmp+listen://[::1]:{p}/live/a", "rtmp://[::1]:{p}/live/a"),
    ],
)
def test_pushed_to_or_from_an_ipv6_address(
    tmp_path: Path, ffmpeg: str, clips: dict[str, Path], port6: int, kind: str, uri: str, target: str
) -> None:
    with reading(open_source(uri.format(p=port6), options=OPTIONS)) as reader:
        if "listen:" in uri:
            until(lambda: f":{port6:04X} " in Path("/proc/net/tcp6").read_text())
        with pushing(ffmpeg, clips["small"], "-f", kind, target.format(p=port6), log=tmp_path / "ffmpeg.log"):
            reader.wait_video(0, 30)
    assert reader.epochs == [0] and decoded(reader, 0) >= len(reader.video(0)) - 1


@pytest.mark.parametrize("name", ["index.m3u8", "small.ts"])
def test_http_at_an_ipv6_address(tmp_path: Path, ffmpeg: str, clips: dict[str, Path], port6: int, name: str) -> None:
    playlist(ffmpeg, clips["small"], tmp_path)
    (tmp_path / "small.ts").write_bytes(clips["small"].read_bytes())
    with (
        extended(tmp_path, last=http_block(tmp_path, f"listen [::1]:{port6};")).running(),
        reading(open_source(f"http://[::1]:{port6}/{name}", options=OPTIONS)) as reader,
    ):
        reader.wait_video(0, 240)
    check(reader, epochs=[0], gaps=0)


# ---- multicast ----------------------------------------------------------------------------------------------------


def test_multicast_group_is_joined_on_the_interface_that_is_named(
    tmp_path: Path, ffmpeg: str, clips: dict[str, Path]
) -> None:
    """ffmpeg sends on loopback; who has joined on other interfaces gets nothing of it."""
    group = f"udp://239.255.18.67:{free_port(socket.SOCK_DGRAM)}"
    named = {
        entry.address: f"{group}?localaddr={entry.address}"
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == socket.AF_INET
    }
    with contextlib.ExitStack() as stack:
        readers = {ip: stack.enter_context(reading(open_source(uri, options=OPTIONS))) for ip, uri in named.items()}
        sent = f"{named['127.0.0.1']}&pkt_size=1316&ttl=0"
        stack.enter_context(pushing(ffmpeg, clips["small"], "-f", "mpegts", sent, log=tmp_path / "ffmpeg.log"))
        reader = readers.pop("127.0.0.1")
        reader.wait_video(0, 30)
    assert reader.epochs == [0] and decoded(reader, 0) >= len(reader.video(0)) - 1
    assert all(not other.batches for other in readers.values())
