"""The files that start Limpid elsewhere: what can be checked without a cloud, with the readers that will read them."""

from __future__ import annotations

import ast
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private import util as ray_autoscaler

from pipeline.config import Settings, load_settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Serve's own models are behind pydantic
    from ray.serve.schema import ServeDeploySchema

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "deploy" / "kuberay-rayservice.yaml"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    """cluster.yaml as the autoscaler has it: checked by its own schema, filled with its own defaults."""
    config: dict[str, Any] = ray_autoscaler.prepare_config(read(ROOT / "cluster.yaml"))
    ray_autoscaler.validate_config(config)
    return config


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    found: dict[str, Any] = read(KUBERAY)
    return found


def test_the_cluster_has_a_head_cpu_workers_and_gpu_workers(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    assert set(types) == {"head", "cpu-worker", "gpu-worker"}
    assert cluster["head_node_type"] == "head" and types["head"]["resources"] == {"CPU": 0}
    workers = [types[name] for name in ("cpu-worker", "gpu-worker")]
    assert sum(each["max_workers"] for each in workers) == cluster["max_workers"]
    assert all(each["min_workers"] <= each["max_workers"] for each in workers)


def test_what_is_copied_to_the_nodes_is_what_is_installed_there(cluster: dict[str, Any]) -> None:
    """Everything that pyproject.toml packs, and the file that is deployed."""
    copied = set(cluster["file_mounts"].values())
    assert all((ROOT / name).exists() for name in copied)
    assert copied >= {"pipeline", "actors", "serve_app.py", "pyproject.toml", "README.md", "LICENSE", "deploy"}
    assert all(remote == f"~/limpid/{name}" for remote, name in cluster["file_mounts"].items())


def test_the_head_starts_ray_and_deploys_the_service(cluster: dict[str, Any]) -> None:
    commands = "\n".join(cluster["head_start_ray_commands"])
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in commands
    assert commands.index("ray start --head") < commands.index("serve deploy deploy/serve.yaml")


def deployed() -> list[Any]:
    text = read(KUBERAY)["spec"]["serveConfigV2"]
    return [read(ROOT / "deploy" / "serve.yaml"), yaml.safe_load(text)]


@pytest.mark.parametrize("config", deployed(), ids=["serve.yaml", "kuberay"])
def test_serve_takes_the_configuration(config: dict[str, Any]) -> None:
    (application,) = ServeDeploySchema.model_validate(config).applications
    module, _, name = application.import_path.partition(":")
    tree = ast.parse((ROOT / f"{module}.py").read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert application.route_prefix == "/"


@pytest.mark.parametrize("config", deployed(), ids=["serve.yaml", "kuberay"])
def test_the_arguments_are_settings(config: dict[str, Any]) -> None:
    """And the address that Serve listens on is the one that decides whether tokens are needed."""
    settings: Settings = load_settings(None, env={}, overrides=config["applications"][0]["args"])
    http = config["http_options"]
    assert (settings.service.host, settings.service.port) == (http["host"], http["port"])
    assert settings.service.tokens == "auto"


def test_both_ways_deploy_the_same() -> None:
    by_hand, by_kuberay = deployed()
    assert by_hand == by_kuberay


def test_the_rayservice_is_one(service: dict[str, Any]) -> None:
    assert (service["apiVersion"], service["kind"]) == ("ray.io/v1", "RayService")
    cluster = service["spec"]["rayClusterConfig"]
    assert cluster["enableInTreeAutoscaling"] is True
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        volumes = {each["name"] for each in pod.get("volumes", ())}
        for container in pod["containers"]:
            assert container["resources"]["limits"] == container["resources"]["requests"]
            assert {mount["name"] for mount in container.get("volumeMounts", ())} <= volumes


def test_probes_ask_the_service_and_the_head_can_become_ready_before_it_is_deployed(service: dict[str, Any]) -> None:
    cluster = service["spec"]["rayClusterConfig"]
    (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    assert head["livenessProbe"]["httpGet"] == {"path": "/livez", "port": 8000}
    assert "readinessProbe" not in head and "startupProbe" not in head
    for group in cluster["workerGroupSpecs"]:
        (worker,) = group["template"]["spec"]["containers"]
        assert worker["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": 8000}
        assert "livenessProbe" not in worker  # there is no proxy on a worker without a replica
        assert ("nvidia.com/gpu" in worker["resources"]["limits"]) == (group["groupName"] == "gpu")


def test_ray_is_the_version_that_is_installed_by_ci(service: dict[str, Any]) -> None:
    pinned = (ROOT / "requirements" / "ci.txt").read_text(encoding="utf-8").splitlines()
    version = service["spec"]["rayClusterConfig"]["rayVersion"]
    assert f"ray=={version}" in pinned
    assert f"rayproject/ray:{version}-py311" in KUBERAY.read_text(encoding="utf-8")
