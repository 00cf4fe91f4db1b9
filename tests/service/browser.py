"""Headless Chromium as a judge: plays what Limpid wrote through Media Source Extensions, with no player library.

Nothing but the browser is needed: a page on a loopback HTTP server is told what to append (plan.json), plays it and
posts what happened.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pipeline.media import hls, mux
from pipeline.media.boxes import boxes
from pipeline.media.entries import read_entry
from pipeline.store.objects import open_store

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = "no Chromium on this machine (Debian: apt-get install chromium)"
PAGE = Path(__file__).with_name("mse_page.html")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
)


def plan(hls_dir: Path) -> dict[str, Any]:
    """Return what the page is to append, from the playlists in a stream's hls/ folder: tracks of epochs of segments."""
    store = open_store(str(hls_dir.parent))
    tracks = []
    for folder, kind in ((hls.MAIN, "video"), (hls.AUDIO, "audio")):
        playlist = hls.read(store, folder)
        if playlist is None or not playlist.segments:
            continue
        epochs = []
        for epoch in dict.fromkeys(s.epoch for s in playlist.segments):
            names = [f"{folder}/{s.name}" for s in playlist.segments if s.epoch == epoch]
            init = store.get(hls.init_name(folder, epoch))
            entry = read_entry(boxes(init, b"moov", b"trak", b"mdia")[0])
            epochs.append(
                {
                    "epoch": epoch,
                    "type": f'{kind}/mp4; codecs="{entry.codecs}"',
                    "init": hls.init_name(folder, epoch),
                    "segments": names,
                    "start_s": float(mux.first_time_s(init, store.get(names[0]))),
                    "duration_s": float(sum(s.duration_s for s in playlist.segments if s.epoch == epoch)),
                }
            )
        tracks.append({"kind": kind, "epochs": epochs})
    return {"tracks": tracks}


def play(hls_dir: Path | str, *, rate: float = 8.0, deadline_s: float = 90.0) -> dict[str, Any]:
    """Play a stream's hls/ folder to its end in Chromium and return what the page saw.

    Epochs are put one behind the other on the player's timeline, each starting with its first picture.

    Args:
        hls_dir: the folder that holds index.m3u8.
        rate: of playback.
        deadline_s: when to give up; then "error" says so.

    Returns:
        ended, error ("" if none), duration_s, current_s, width, height, frames (decoded), dropped; buffered: by kind
        of track, the ranges [[start, end], …] in seconds; unsupported: types of tracks that the browser cannot play
        and that were left out.
    """
    assert CHROMIUM is not None, MISSING
    root = Path(hls_dir).resolve().parent
    result: dict[str, Any] = {}
    done = threading.Event()
    instructions = json.dumps(plan(Path(hls_dir).resolve()) | {"rate": rate}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            files: Mapping[str, tuple[bytes, str]] = {
                "/": (PAGE.read_bytes(), "text/html"),
                "/plan.json": (instructions, "application/json"),
            }
            path = root / self.path.lstrip("/")
            if self.path in files:
                body, kind = files[self.path]
            elif path.is_file() and path.resolve().is_relative_to(root):
                body, kind = path.read_bytes(), "application/octet-stream"
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            result.update(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            done.set()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    profile = tempfile.mkdtemp(prefix="limpid-chromium-")
    browser = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", f"http://127.0.0.1:{server.server_port}/"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # it starts processes of its own: the group is ended as one
    )
    try:
        if not done.wait(deadline_s):
            result = {"error": f"nothing was reported in {deadline_s:g} s; exit code {browser.poll()}", "ended": False}
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(browser.pid, signal.SIGKILL)
        browser.wait(10)
        server.shutdown()
        server.server_close()
        shutil.rmtree(profile, ignore_errors=True)
    return result
