"""nginx as the front for publishers: its own check of the file, and publishers with right and wrong keys."""

from __future__ import annotations

import http.server
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import av
import pytest

CONF = Path(__file__).parents[2] / "deploy" / "nginx-rtmp.conf"
MODULE = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")

pytestmark = pytest.mark.skipif(
    shutil.which("nginx") is None or not MODULE.exists(),
    reason="no nginx with its RTMP module: apt-get install nginx libnginx-mod-rtmp",
)
ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg to publish with: apt-get install ffmpeg")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def nginx(folder: Path, conf: Path, *words: str) -> list[str]:
    globals_ = f"pid {folder}/nginx.pid; daemon off;" + ("" if "-t" in words else " master_process off;")
    return ["nginx", "-p", str(folder), "-c", str(conf), "-e", "stderr", "-g", globals_, *words]


def test_nginx_takes_the_file(tmp_path: Path) -> None:
    done = subprocess.run(nginx(tmp_path, CONF, "-t"), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


class Callback(http.server.BaseHTTPRequestHandler):
    """The API's side: stream gate-3 is opened by the key "right"."""

    forms: list[dict[str, list[str]]]

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.forms.append({"path": [self.path], **form})
        good = form.get("name") == ["gate-3"] and form.get("key") == ["right"]
        self.send_response(204 if good else 403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


class Front:
    def __init__(self, port: int, forms: list[dict[str, list[str]]], log: Path) -> None:
        self.port, self.forms, self.log = port, forms, log

    def publish(self, stream: str, key: str, *, seconds: float) -> subprocess.Popen[bytes]:
        source = f"testsrc2=size=160x90:rate=25:duration={seconds}"
        words = ["-re", "-f", "lavfi", "-i", source, "-c:v", "libx264", "-preset", "ultrafast", "-g", "12", "-f", "flv"]
        url = f"rtmp://127.0.0.1:{self.port}/live/{stream}?key={key}"
        return subprocess.Popen(
            ["ffmpeg", "-hide_banner", "-loglevel", "error", "-nostdin", *words, url], stderr=subprocess.DEVNULL
        )


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    """nginx with the shipped file, on free ports, in front of a callback of the test's own."""
    forms: list[dict[str, list[str]]] = []
    handler = type("Handler", (Callback,), {"forms": forms})
    api = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=api.serve_forever, daemon=True).start()
    port = _free_port()
    text = CONF.read_text(encoding="utf-8")
    for old, new in (("listen 1935", f"listen 127.0.0.1:{port}"), (":8000/", f":{api.server_address[1]}/")):
        assert text.count(old) == 1
        text = text.replace(old, new)
    conf, log = tmp_path / "nginx.conf", tmp_path / "stderr"
    conf.write_text(text, encoding="utf-8")
    with log.open("wb") as stderr:
        process = subprocess.Popen(nginx(tmp_path, conf), stderr=stderr)
    try:
        until = time.monotonic() + 20
        while True:
            assert process.poll() is None, log.read_text()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < until
                threading.Event().wait(0.05)
        yield Front(port, forms, log)
    finally:
        process.terminate()
        process.wait(20)
        api.shutdown()
        api.server_close()


@ffmpeg
def test_the_right_key_opens_its_stream_and_it_can_be_played(front: Front, tmp_path: Path) -> None:
    publisher = front.publish("gate-3", "right", seconds=20)
    try:
        url = f"rtmp://127.0.0.1:{front.port}/live/gate-3"
        options = {"rtmp_live": "live", "analyzeduration": "200000", "probesize": "65536", "rw_timeout": "15000000"}
        with av.open(url, options=options, timeout=(20, 20)) as container:
            frames = [frame for frame, _ in zip(container.decode(video=0), range(10), strict=False)]
        assert [(frame.width, frame.height) for frame in frames] == [(160, 90)] * 10
        assert publisher.poll() is None
    finally:
        publisher.kill()
        publisher.wait(20)
    form = next(each for each in front.forms if each["name"] == ["gate-3"])
    assert (form["path"], form["call"], form["app"], form["key"]) == (
        ["/ingest/on-publish"],
        ["publish"],
        ["live"],
        ["right"],
    )
    assert list(tmp_path.rglob("*.flv")) == []


@ffmpeg
@pytest.mark.parametrize(("stream", "key"), [("gate-3", "wrong"), ("gate-4", "right"), ("gate-3", "")])
def test_any_other_key_is_turned_away(front: Front, stream: str, key: str) -> None:
    publisher = front.publish(stream, key, seconds=20)
    try:
        assert publisher.wait(15) != 0
    finally:
        publisher.kill()
        publisher.wait(20)
    assert len(front.forms) == 1
    assert not key or key not in front.log.read_text()


@ffmpeg
def test_a_second_publisher_of_a_stream_does_not_take_its_place(front: Front) -> None:
    first = front.publish("gate-3", "right", seconds=20)
    try:
        until = time.monotonic() + 15
        while not front.forms and time.monotonic() < until:
            threading.Event().wait(0.05)
        second = front.publish("gate-3", "right", seconds=20)
        try:
            assert second.wait(15) != 0
        finally:
            second.kill()
            second.wait(20)
        assert first.poll() is None
    finally:
        first.kill()
        first.wait(20)
