"""The real service for tests: `limpid serve` in a process of its own, asked over HTTP."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import psutil
import pyarrow.parquet as pq

LIMPID = (sys.executable, "-c", "import sys; from pipeline.cli import main; sys.exit(main())")
LOOPBACK = {"LIMPID_SOURCE__NETWORKS": '["127.0.0.0/8"]', "LIMPID_SOURCE__RECONNECT_INITIAL_S": "0.2"}
_START_S, _STOP_S = 90.0, 60.0


class Served:
    """A running service.

    Attributes:
        url: of the API.
        process: of the command.
    """

    def __init__(self, url: str, process: psutil.Process) -> None:
        self.url, self.process = url, process

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Return status and JSON body (text, if it is none); bytes are sent as they are, all else as JSON."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        kind = "application/octet-stream" if data is body else "application/json"
        request = urllib.request.Request(f"{self.url}{path}", data=data, method=method, headers={"Content-Type": kind})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                status, text = answer.status, answer.read()
        except HTTPError as error:
            with error:
                status, text = error.code, error.read()
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text

    def stream(self, name: str) -> dict[str, Any]:
        """Return a stream's status."""
        status, found = self.ask("GET", f"/v1/streams/{name}")
        assert status == 200, found
        assert isinstance(found, dict)
        return found

    def wait(self, name: str, until: Callable[[dict[str, Any]], bool], within_s: float = 40.0) -> dict[str, Any]:
        """Return a stream's status as soon as `until` says yes."""
        deadline = time.monotonic() + within_s
        found: dict[str, Any] = {}
        while time.monotonic() < deadline:
            status, found = self.ask("GET", f"/v1/streams/{name}")
            if status == 200 and until(found):
                return found
            threading.Event().wait(0.1)
        raise AssertionError(f"it did not happen within {within_s:g} s: {found}")

    def kill(self, role: str) -> None:
        """Kill the processes whose title begins with `role` ("ray::Supervisor")."""
        found = [p for p in self.process.children(recursive=True) if _title(p).startswith(role)]
        assert found, f"there is no {role}"
        for process in found:
            process.kill()


@contextmanager
def serving(store: Path, *, env: Mapping[str, str] = {}, arguments: tuple[str, ...] = ()) -> Iterator[Served]:
    """Run `limpid serve` on a free port with a store; at the end it is asked to stop, and must leave no process."""
    command = [*LIMPID, "serve", "--port", "0", "--store", str(store), *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | LOOPBACK | dict(env)
    log = (store.parent / f"{store.name}.{time.monotonic_ns()}.log").open("w+")
    with subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True) as started:
        process = psutil.Process(started.pid)
        try:
            url = _listening(started, Path(log.name))
            served = Served(url, process)
            deadline = time.monotonic() + _START_S
            while served.ask("GET", "/readyz")[0] != 200:
                assert time.monotonic() < deadline, "the service does not get ready"
                threading.Event().wait(0.2)
            yield served
            children = process.children(recursive=True)
            started.send_signal(signal.SIGTERM)
            assert started.wait(_STOP_S) == 128 + signal.SIGTERM
            assert not psutil.wait_procs(children, timeout=10)[1]
        finally:
            for child in [*process.children(recursive=True), process] if process.is_running() else []:
                child.kill()
            log.close()


def _listening(started: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and started.poll() is None:
        for line in log.read_text().splitlines()[::-1]:
            if line.startswith("Limpid listens on "):
                return line.split()[3]
        threading.Event().wait(0.2)
    raise AssertionError(f"the service does not start:\n{log.read_text()}")


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def frames_of(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a stream's table of frames, in order."""
    rows = [row for part in (folder / "tables" / "frames").glob("*.parquet") for row in pq.read_table(part).to_pylist()]
    return sorted(rows, key=lambda row: (row["epoch"], row["seq"]))


def check_whole(folder: Path, *, ticks_a_frame: int) -> int:
    """Check that within each epoch no frame is lost or doubled; return how many epochs there are."""
    rows = frames_of(folder)
    epochs = sorted({row["epoch"] for row in rows})
    assert epochs == list(range(len(epochs)))
    for epoch in epochs:
        mine = [row for row in rows if row["epoch"] == epoch]
        assert [row["seq"] for row in mine] == list(range(len(mine)))
        steps = {b["pts"] - a["pts"] for a, b in itertools.pairwise(mine)}
        assert all(0 < step < 2 * ticks_a_frame for step in steps), f"epoch {epoch}: {steps}"
        segments = sorted(
            tuple(int(part) for part in path.stem.split("-")) for path in (folder / "hls" / "main").glob("*-*-*.m4s")
        )
        spans = [(first, stop) for e, first, stop in segments if e == epoch]
        assert all(a[1] == b[0] for a, b in itertools.pairwise(spans)), spans
    return len(epochs)
