"""The ways to start the service with Ray's own commands: on a cluster, and on a Ray that `serve run` starts itself."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from actors.cluster import SHM
from actors.slab import PREFIX, files_of
from tests.service.live_peer import LiveServer, transport_stream
from tests.service.serving import Served, check_whole
from tests.service.test_serve import TICKS, body

pytestmark = pytest.mark.timeout(240)
ROOT = Path(__file__).parents[2]
RAY, SERVE = (sys.executable, "-m", "ray.scripts.scripts"), (sys.executable, "-m", "ray.serve.scripts")
SECONDS = 120.0  # longer than any test looks
DIRECTORIES = (SHM, Path(tempfile.gettempdir()))
OURS = ("ray::StageHost", "ray::Supervisor", "ray::RegistryActor", "ray::ServeReplica", "ray::ServeController")
SERVE_PORT = 8000  # `serve run` listens there and nowhere else
STORE_BYTES = 100_000_000


class Head:
    """A head node of Ray: `ray start --head --block`, which ends it when it is ended.

    Args:
        folder: where its log goes.
        node_types: of a cluster whose autoscaler starts worker nodes on this machine; none: the head does the work.

    Attributes:
        process: of the command.
        env: with which `serve deploy` and the like find it.
    """

    def __init__(self, folder: Path, node_types: Mapping[str, Any] | None = None) -> None:
        port, dashboard, *others = free_ports(7)
        names = ("agent-listen", "agent-grpc")
        ports = [f"--dashboard-{name}-port={n}" for name, n in zip(names, others, strict=False)]
        names = ("metrics-export", "runtime-env-agent", "ray-client-server")
        ports += [f"--{name}-port={n}" for name, n in zip(names, others[2:], strict=True)]
        self._temp = Path(tempfile.mkdtemp(prefix="ray-"))  # a short path: there are sockets in it
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        env = environment() | token
        self._log = (folder / "ray.log").open("w")
        command = [*RAY, "start", "--head", "--block", f"--object-store-memory={STORE_BYTES}"]
        if node_types is None:
            command += ["--num-cpus=2"]
        else:
            growing = folder / "cluster.yaml"
            growing.write_text(yaml.safe_dump(on_this_machine(node_types, f"127.0.0.1:{port}")), encoding="utf-8")
            command += ["--num-cpus=0", f"--autoscaling-config={growing}"]
            env |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
        command += ["--node-ip-address=127.0.0.1", f"--port={port}", f"--temp-dir={self._temp}", *ports]
        command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", "--disable-usage-stats"]
        self.process = psutil.Popen(command, env=env, stdout=self._log, stderr=self._log, start_new_session=True)
        self.env = env | {"RAY_DASHBOARD_ADDRESS": f"http://127.0.0.1:{dashboard}"}

    def close(self) -> None:
        """Kill it. Only Ray's own is left by then; asked to end, its dashboard may spin for a minute behind a GCS that
        has gone, with so many threads that nothing else gets to run."""
        everything = [*self.process.children(recursive=True), self.process]
        for each in everything:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        assert not psutil.wait_procs(everything, timeout=10)[1]
        self._log.close()
        shutil.rmtree(self._temp, ignore_errors=True)


@contextmanager
def started(head: Head) -> Iterator[Head]:
    try:
        wait(lambda: command(SERVE, "status", env=head.env).returncode == 0, "Ray's dashboard answers")
        yield head
    finally:
        head.close()


@pytest.fixture
def head(tmp_path: Path) -> Iterator[Head]:
    with started(Head(tmp_path)) as found:
        yield found


def on_this_machine(node_types: Mapping[str, Any], address: str) -> dict[str, Any]:
    """Return cluster.yaml with Ray's provider that starts each node as processes beside the head's.

    Types of nodes and their least and greatest numbers stay; a node has the two cores that a cloud would tell of.
    """
    config: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    config["provider"] = {"type": "fake_multinode", "gcs_address": address, "use_node_id_as_ip": True}
    config["provider"] |= {"disable_node_updaters": True, "disable_launch_config_check": True}
    types = config["available_node_types"]
    for name, each in types.items():
        each |= {"resources": each["resources"] | node_types.get(name, {}), "node_config": {}}
    types["ray.head.default"] = types.pop(config["head_node_type"])  # as this provider calls it
    commands = ("setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray", "initialization")
    config |= {f"{name}_commands": [] for name in commands} | {"file_mounts": {}, "cluster_synced_files": []}
    return config | {"auth": {}, "head_node_type": "ray.head.default", "head_node": {}, "worker_nodes": {}}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return transport_stream(tmp_path_factory.mktemp("clip") / "clip.ts", seconds=SECONDS)


@pytest.fixture
def camera(clip: Path) -> Iterator[LiveServer]:
    server = LiveServer(clip, SECONDS)
    yield server
    server.close()


def environment() -> dict[str, str]:
    """Return this process's, with serve_app in it and no Ray that is there already."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return env | {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}


def free_ports(count: int) -> list[int]:
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


def command(program: tuple[str, ...], *arguments: str | Path, env: Mapping[str, str]) -> Any:
    return subprocess.run(
        [*program, *map(str, arguments)], env=env, capture_output=True, text=True, timeout=60, check=False
    )


def wait(until: Callable[[], bool], what: str, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not until():
        assert time.monotonic() < deadline, f"it did not happen within {within_s:g} s: {what}"
        threading.Event().wait(0.2)


def answers(served: Served) -> bool:
    with contextlib.suppress(OSError):
        return served.ask("GET", "/readyz")[0] == 200
    return False


def begun(status: dict[str, Any]) -> bool:
    """Whether the first pictures have come out."""
    return bool(status["fps_out"] > 0)


def ours(process: psutil.Process) -> list[str]:
    """Return the titles of the service's processes below one."""
    titles = []
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            titles.append(" ".join(child.cmdline()))
    return [title for title in titles if title.startswith(OURS)]


def nodes_at_work(process: psutil.Process) -> set[int]:
    """Return which of Ray's nodes below a process (their raylets' pids) have processes that work on streams."""
    found = set()
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if " ".join(child.cmdline()).startswith("ray::StageHost"):
                found.add(child.ppid())
    return found


def claimed(process: psutil.Process) -> str:
    """Return how the files of the service below a process are named: its registry holds a lock of that name."""
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            for file in child.open_files():
                if Path(file.path).name.startswith(PREFIX) and file.path.endswith(".lock"):
                    return Path(file.path).stem
    raise AssertionError("no process holds a claim")


def configuration(folder: Path, store: Path, port: int, **settings: Any) -> Path:
    """Write deploy/serve.yaml with its fields filled in; return the path."""
    config = yaml.safe_load((ROOT / "deploy" / "serve.yaml").read_text(encoding="utf-8"))
    config["http_options"] |= {"host": "127.0.0.1", "port": port}
    (application,) = config["applications"]
    application["args"] |= {"service.store": str(store), "service.host": "127.0.0.1", "service.port": port}
    application["args"] |= {"source.networks": ["127.0.0.0/8"]} | settings
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


@contextmanager
def serve_run(*arguments: str, log: Path) -> Iterator[psutil.Popen]:
    """Run `serve run` until Ctrl-C; every process that it has made must go."""
    with log.open("w") as out:
        process = psutil.Popen(
            [*SERVE, "run", *arguments], env=environment(), cwd=ROOT, stdout=out, stderr=out, start_new_session=True
        )
        try:
            yield process
            children = process.children(recursive=True)
            process.send_signal(signal.SIGINT)
            assert not psutil.wait_procs([process, *children], timeout=60)[1]
        finally:
            for each in [*process.children(recursive=True), process] if process.is_running() else []:
                each.kill()


def test_serve_deploy_and_again_with_other_settings(head: Head, camera: LiveServer, tmp_path: Path) -> None:
    """The stream does not notice the second one; `serve shutdown` ends it all."""
    (port,) = free_ports(1)
    store, served = tmp_path / "data", Served(f"http://127.0.0.1:{port}", head.process)
    deployed = command(SERVE, "deploy", configuration(tmp_path, store, port), env=head.env)
    assert deployed.returncode == 0, deployed.stderr
    wait(lambda: answers(served), "the service is ready")
    assert served.ask("POST", "/v1/streams", body("one", camera))[0] == 201
    served.wait("one", begun)
    asked = {"source": "tcp://127.0.0.1:9"}
    assert served.ask("POST", "/v1/streams?dry_run=true", asked)[0] == 200

    again = configuration(tmp_path, store, port, **{"service.max_streams": 1})
    assert command(SERVE, "deploy", again, env=head.env).returncode == 0
    refused = "1 streams run, and 1 may"
    wait(lambda: refused in str(served.ask("POST", "/v1/streams?dry_run=true", asked)[1]), "the new setting holds")
    before = served.stream("one")["frames"]
    found = served.wait("one", lambda s: s["frames"] > before + 75)
    assert (found["epoch"], found["gaps"]) == (0, [])
    claim = claimed(head.process)
    assert len(files_of(claim, DIRECTORIES)) > 1  # the lock, and frames

    assert command(SERVE, "shutdown", "-y", env=head.env).returncode == 0
    wait(lambda: not ours(head.process), "every process of the service has gone")
    assert files_of(claim, DIRECTORIES) == []
    assert check_whole(store / "streams" / "one", ticks_a_frame=TICKS) == 1


def test_a_cluster_grows_for_what_it_refuses(camera: LiveServer, tmp_path: Path) -> None:
    """cluster.yaml with two cores a node: a head that does no work, a worker, and one more when a stream is refused."""
    (port,) = free_ports(1)
    store, worker = tmp_path / "data", {"CPU": 2, "object_store_memory": STORE_BYTES}
    types = {"cpu-worker": worker, "gpu-worker": {**worker, "GPU": 1}}
    with started(Head(tmp_path, types)) as head:
        served = Served(f"http://127.0.0.1:{port}", head.process)
        deployed = command(SERVE, "deploy", configuration(tmp_path, store, port), env=head.env)
        assert deployed.returncode == 0, deployed.stderr
        wait(lambda: answers(served), "the service is ready", within_s=90)
        assert served.ask("POST", "/v1/streams", body("one", camera))[0] == 201
        served.wait("one", begun)
        assert served.ask("GET", "/v1/capacity")[1]["cpus"] == 2

        def next_camera(number: int) -> int:
            """Ask for a stream whose camera does not answer; it counts as one of 640×360."""
            asked = {"id": f"away-{number}", "source": {"uri": "tcp://127.0.0.1:9", "mode": "live"}}
            return int(served.ask("POST", "/v1/streams", asked)[0])

        taken = next(number for number in range(9) if next_camera(number) == 503)
        assert taken > 1
        wait(lambda: next_camera(taken) == 201, "a node more is there", within_s=90)
        assert served.ask("GET", "/v1/capacity")[1]["cpus"] == 4
        assert served.ask("DELETE", f"/v1/streams/away-{taken}")[0] == 204
        assert served.ask("POST", "/v1/streams", body("two", camera))[0] == 201
        served.wait("two", begun)
        assert len(nodes_at_work(head.process)) == 2
        before = served.stream("one")["frames"]
        found = served.wait("one", lambda s: s["frames"] > before + 75)
        assert (found["epoch"], found["gaps"]) == (0, [])
        assert command(SERVE, "shutdown", "-y", env=head.env).returncode == 0
        wait(lambda: not ours(head.process), "every process of the service has gone")
    assert check_whole(store / "streams" / "one", ticks_a_frame=TICKS) == 1


def test_serve_run_with_a_ray_of_its_own(camera: LiveServer, tmp_path: Path) -> None:
    """A page is open when Ctrl-C comes: what it follows would not end by itself."""
    with contextlib.closing(socket.socket()) as probe:
        if probe.connect_ex(("127.0.0.1", SERVE_PORT)) == 0:
            pytest.skip(f"something listens on port {SERVE_PORT}, where `serve run` would")
    arguments = ("serve_app:build", f"service.store={tmp_path / 'data'}", 'source.networks=["127.0.0.0/8"]')
    with contextlib.ExitStack() as page, serve_run(*arguments, log=tmp_path / "run.log") as process:
        served = Served(f"http://127.0.0.1:{SERVE_PORT}", process)
        wait(lambda: answers(served), "the service is ready")
        assert served.ask("POST", "/v1/streams", body("one", camera))[0] == 201
        served.wait("one", begun)
        page.enter_context(urllib.request.urlopen(f"{served.url}/v1/events", timeout=60))
        claim = claimed(process)
        assert len(files_of(claim, DIRECTORIES)) > 1  # the lock, and frames
    assert files_of(claim, DIRECTORIES) == []
