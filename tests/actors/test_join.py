"""A Ray of several nodes that is there already is joined by RAY_ADDRESS alone, and left as it was."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.actors.runs import made_by
from tests.media_files import encode

# Two raylets with object stores of their own on one machine: to Ray these are two nodes.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20})
cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
LIMPID = (sys.executable, "-c", "import sys; from pipeline.cli import main; sys.exit(main())")
PINNED = "enhance: {model: bicubic, threads: 1}\n"


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """The environment in which `limpid` joins it."""
    env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    assert process.stdin is not None and process.stdout is not None
    children: list[psutil.Process] = []
    try:
        address = next(line for line in process.stdout if ":" in line).strip()
        children = psutil.Process(process.pid).children(recursive=True)
        yield {**env, "RAY_ADDRESS": address}
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()
        for child in psutil.wait_procs(children, timeout=10)[1]:
            child.kill()


def limpid(*arguments: str | Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LIMPID, *map(str, arguments)], env=env, capture_output=True, text=True, timeout=150, check=False
    )


def test_a_run_on_two_nodes_gives_the_bytes_of_one_process(cluster: dict[str, str], tmp_path: Path) -> None:
    clip = encode(tmp_path / "clip.mp4", frames=120, width=128, height=64, gop=20, audio=True)
    here = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    config = tmp_path / "pinned.yaml"
    config.write_text(PINNED)
    alone = limpid("run", clip, "-o", tmp_path / "alone", "--local", "--config", config, env=here)
    assert alone.returncode == 0, alone.stderr
    joined = limpid("run", clip, "-o", tmp_path / "joined", "--config", config, env=cluster)
    assert joined.returncode == 0, joined.stderr
    assert made_by(tmp_path / "joined") == made_by(tmp_path / "alone")
    # The cluster outlives the run, and takes the next one: of it only the actors have ended.
    again = limpid("run", clip, "-o", tmp_path / "again", "--config", config, env=cluster)
    assert again.returncode == 0, again.stderr


def test_an_address_where_no_ray_answers_is_told_within_seconds(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    env = {**os.environ, "RAY_ADDRESS": f"127.0.0.1:{port}"}
    found = limpid("run", "synthetic://?seconds=1", "-o", tmp_path / "out", env=env)
    assert found.returncode != 0
    assert "no Ray answers" in found.stderr and "RAY_ADDRESS" in found.stderr
    assert "Traceback" not in found.stderr
    assert not (tmp_path / "out").exists()
