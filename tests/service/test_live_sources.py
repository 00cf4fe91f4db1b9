"""Live sources against the programs that people use: ffmpeg through nginx-rtmp, an RTSP server, TS over UDP.

Each comes back by itself when its server is killed, its publisher is started anew, or it falls silent; one gap is told
for each interruption, and between gaps every frame that came in is decoded.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.media.source import SourceOptions, open_source
from tests.live_peers import Process, Reader, decoded, free_port, listens, program, reading, until

OPTIONS = SourceOptions(open_timeout_s=10, read_timeout_s=3, reconnect_initial_s=0.2, reconnect_max_s=0.5)
MODULES = (Path("/usr/lib/nginx/modules"), Path("/usr/lib64/nginx/modules"))


@pytest.fixture(scope="module")
def ffmpeg() -> str:
    return program("ffmpeg", "ffmpeg")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, ffmpeg: str) -> dict[str, Path]:
    """8 s each of 320×180 and 480×270 at 30 Hz, a key frame a second, with sound."""
    folder = tmp_path_factory.mktemp("clips")
    found = {}
    for name, size in (("small", "320x180"), ("large", "480x270")):
        found[name] = folder / f"{name}.ts"
        tone = ["-f", "lavfi", "-i", "sine=r=48000", "-t", "8", "-c:a", "aac"]
        coded = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "30", "-pix_fmt", "yuv420p"]
        subprocess.run(
            [ffmpeg, "-v", "error", "-f", "lavfi", "-i", f"testsrc2=s={size}:r=30", *tone, *coded, str(found[name])],
            check=True,
            timeout=60,
        )
    return found


class Nginx:
    """nginx with its RTMP module on a port that stays the same."""

    def __init__(self, folder: Path) -> None:
        self._program = program("nginx", "nginx")
        module = next((m / "ngx_rtmp_module.so" for m in MODULES if (m / "ngx_rtmp_module.so").exists()), None)
        if module is None:
            pytest.skip("nginx's RTMP module is not installed (Debian: libnginx-mod-rtmp)")
        self.port = free_port()
        self._folder = folder
        (folder / "nginx.conf").write_text(
            f"load_module {module};\ndaemon off;\nmaster_process off;\n"
            f"pid {folder}/pid;\nerror_log {folder}/error.log;\n"
            "events { worker_connections 64; }\n"
            f"rtmp {{ server {{ listen 127.0.0.1:{self.port}; application live {{ live on; }} }} }}\n"
        )

    @contextlib.contextmanager
    def running(self) -> Iterator[Process]:
        command = (self._program, "-p", str(self._folder), "-c", str(self._folder / "nginx.conf"))
        with Process(*command, "-e", str(self._folder / "error.log"), log=self._folder / "out.log") as process:
            until(lambda: listens(self.port))
            yield process

    @property
    def uri(self) -> str:
        return f"rtmp://127.0.0.1:{self.port}/live/a"


def pushing(ffmpeg: str, clip: Path, *target: str, log: Path) -> Process:
    command = [ffmpeg, "-v", "error", "-re", "-stream_loop", "-1", "-i", str(clip), "-c", "copy", *target]
    return Process(*command, log=log)


def check(reader: Reader, *, epochs: list[int], gaps: int) -> None:
    """All frames of each finished epoch are decoded, and so many of the epochs have a gap with a reason."""
    assert reader.epochs == epochs
    for epoch in epochs:
        assert decoded(reader, epoch) == len(reader.video(epoch)), epoch
    told = [gap for epoch in epochs if (gap := reader.source.gap_before(epoch)) is not None]
    assert len(told) == gaps and all(gap.reason for gap in told), told


def test_rtmp_server_killed_and_back(tmp_path: Path, ffmpeg: str, clips: dict[str, Path]) -> None:
    nginx, log = Nginx(tmp_path), tmp_path / "ffmpeg.log"
    with reading(open_source(nginx.uri, options=OPTIONS)) as reader:
        until(lambda: reader.source.state.attempts > 1)
        with nginx.running() as server, pushing(ffmpeg, clips["small"], "-f", "flv", nginx.uri, log=log):
            reader.wait_video(0, 60)
            assert reader.source.info.live and str(reader.source.info.size) == "320×180"
            server.end()
            until(lambda: not reader.source.state.connected)
        with nginx.running(), pushing(ffmpeg, clips["small"], "-f", "flv", nginx.uri, log=log):
            reader.wait_video(1, 60)
            gap = reader.source.gap_before(1)
            assert gap is not None and gap.reason.startswith("the source was away") and gap.seconds > 0
    check(reader, epochs=[0, 1], gaps=1)


def test_rtmp_publisher_restarted_with_another_size(tmp_path: Path, ffmpeg: str, clips: dict[str, Path]) -> None:
    nginx, log = Nginx(tmp_path), tmp_path / "ffmpeg.log"
    with nginx.running(), reading(open_source(nginx.uri, options=OPTIONS)) as reader:
        with pushing(ffmpeg, clips["small"], "-f", "flv", nginx.uri, log=log):
            reader.wait_video(0, 60)
        with pushing(ffmpeg, clips["large"], "-f", "flv", nginx.uri, log=log):
            reader.wait_video(1, 60)
    check(reader, epochs=[0, 1], gaps=1)
    assert {b.span.epoch: str(b.video.size) for b in reader.batches} == {0: "320×180", 1: "480×270"}


def test_rtmp_publisher_restarted_at_once(tmp_path: Path, ffmpeg: str, clips: dict[str, Path]) -> None:
    nginx, log = Nginx(tmp_path), tmp_path / "ffmpeg.log"
    with nginx.running(), reading(open_source(nginx.uri, options=OPTIONS)) as reader:
        for epoch in range(2):
            with pushing(ffmpeg, clips["small"], "-f", "flv", nginx.uri, log=log):
                reader.wait_video(epoch, 90)
    check(reader, epochs=[0, 1], gaps=1)


def test_rtmp_publisher_silent_longer_than_the_deadline(tmp_path: Path, ffmpeg: str, clips: dict[str, Path]) -> None:
    nginx, log = Nginx(tmp_path), tmp_path / "ffmpeg.log"
    with contextlib.ExitStack() as stack:
        stack.enter_context(nginx.running())
        publisher = stack.enter_context(pushing(ffmpeg, clips["small"], "-f", "flv", nginx.uri, log=log))
        reader = stack.enter_context(reading(open_source(nginx.uri, options=OPTIONS)))
        reader.wait_video(0, 60)
        publisher.process.send_signal(signal.SIGSTOP)
        until(lambda: "no data" in reader.source.state.reason)
        publisher.process.send_signal(signal.SIGCONT)
        reader.wait_video(1, 30)
    check(reader, epochs=[0, 1], gaps=1)


def test_probe_of_rtmp(tmp_path: Path, ffmpeg: str, clips: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline.commands.probe import main

    nginx, log = Nginx(tmp_path), tmp_path / "ffmpeg.log"
    with nginx.running(), pushing(ffmpeg, clips["small"], "-f", "flv", nginx.uri, log=log):
        assert main([nginx.uri, "--json", "--timeout", "10"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["live"] and report["verdict"] == "usable" and report["video"]["width"] == 320
        assert report["looked_at"]["seconds"] >= 4.9 and report["audio"]["codec"] == "aac"
    assert main([nginx.uri, "--json", "--timeout", "2"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "Unreachable"


@pytest.fixture
def rtsp(tmp_path: Path) -> Path:
    python = Path("/usr/bin/python3")
    bindings = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    if not python.exists() or subprocess.run([python, "-c", bindings], capture_output=True, check=False).returncode:
        pytest.skip("no RTSP server (Debian: gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-ugly …)")
    return python


def test_rtsp_server_killed_and_back_with_another_size(rtsp: Path, tmp_path: Path) -> None:
    port = free_port()

    def launch(size: str) -> tuple[str, ...]:
        width, height = size.split("x")
        line = (
            f"( videotestsrc is-live=true ! video/x-raw,width={width},height={height},framerate=30/1 "
            "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=30 ! rtph264pay name=pay0 pt=96 )"
        )
        return str(rtsp), str(Path(__file__).with_name("rtsp_server.py")), str(port), line

    with reading(open_source(f"rtsp://127.0.0.1:{port}/a", options=OPTIONS)) as reader:
        with Process(*launch("320x180"), log=tmp_path / "rtsp.log") as server:
            reader.wait_video(0, 60, within_s=15)
            server.process.send_signal(signal.SIGSTOP)
            until(lambda: not reader.source.state.connected)
        with Process(*launch("480x272"), log=tmp_path / "rtsp.log"):
            reader.wait_video(1, 60, within_s=15)
    check(reader, epochs=[0, 1], gaps=1)
    assert {b.span.epoch: str(b.video.size) for b in reader.batches} == {0: "320×180", 1: "480×272"}


def test_ts_over_udp_silent_and_restarted(tmp_path: Path, ffmpeg: str, clips: dict[str, Path]) -> None:
    port, log = free_port(socket.SOCK_DGRAM), tmp_path / "ffmpeg.log"
    uri = f"udp://127.0.0.1:{port}"
    with reading(open_source(uri, options=OPTIONS)) as reader:
        with pushing(ffmpeg, clips["small"], "-f", "mpegts", f"{uri}?pkt_size=1316", log=log):
            reader.wait_video(0, 60)
        until(lambda: not reader.source.state.connected)
        with pushing(ffmpeg, clips["large"], "-f", "mpegts", f"{uri}?pkt_size=1316", log=log):
            reader.wait_video(1, 60)
    assert reader.epochs == [0, 1]
    assert all(decoded(reader, e) >= len(reader.video(e)) - 1 for e in (0, 1))
    assert reader.source.gap_before(1) is not None


def test_ts_over_tcp(tmp_path: Path, ffmpeg: str, clips: dict[str, Path]) -> None:
    port, log = free_port(), tmp_path / "ffmpeg.log"
    with reading(open_source(f"tcp://127.0.0.1:{port}", options=OPTIONS)) as reader:
        for epoch in range(2):
            with pushing(ffmpeg, clips["small"], "-f", "mpegts", f"tcp://127.0.0.1:{port}?listen=1", log=log):
                reader.wait_video(epoch, 60)
    check(reader, epochs=[0, 1], gaps=1)


def test_ffmpeg_pushes_to_the_bare_listener(tmp_path: Path, ffmpeg: str, clips: dict[str, Path]) -> None:
    port, log = free_port(), tmp_path / "ffmpeg.log"
    with reading(open_source(f"rtmp+listen://127.0.0.1:{port}/live/a", options=OPTIONS)) as reader:
        until(lambda: f":{port:04X} " in Path("/proc/net/tcp").read_text())
        for epoch in range(2):
            with pushing(ffmpeg, clips["small"], "-f", "flv", f"rtmp://127.0.0.1:{port}/live/a", log=log):
                reader.wait_video(epoch, 60)
            until(lambda: not reader.source.state.connected)
            until(lambda: f":{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text())
    check(reader, epochs=[0, 1], gaps=1)
