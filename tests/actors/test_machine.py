"""What the machines have and what of it is idle: on a real one-node cluster, with a clock and a load of our own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import ray

from actors.machine import Machine


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> tuple[list[dict[str, Any]], SimpleNamespace]:
    """Nodes of Ray, and the seconds that this machine's cores have idled; a test changes both."""
    nodes, times = [{"Alive": True, "Resources": {"CPU": 4.0}}], SimpleNamespace(idle=100.0, iowait=7.0)
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(psutil, "cpu_times", lambda: SimpleNamespace(**vars(times)))
    return nodes, times


def test_cores_that_idled_over_the_last_three_seconds(cores: tuple[Any, SimpleNamespace]) -> None:
    """Of 4 cores 2.5 idle for 4 s (half of one waits for a disk), then none: three seconds on that is all there is."""
    _, times = cores
    machine = Machine()
    for step in range(17):
        machine.look(50.0 + step / 4)
        assert (machine.idle_cpus is None) == (step <= 6)  # 1.5 s tell too little
        times.idle, times.iowait = times.idle + 0.5, times.iowait + 0.125
    assert machine.idle_cpus == pytest.approx(2.5)
    for step in range(17, 31):
        machine.look(50.0 + step / 4)
    assert machine.idle_cpus == pytest.approx(0.0, abs=0.1)
    assert machine.cluster_cpus == 4.0


def test_of_several_nodes_only_the_cores_are_known(cores: tuple[list[dict[str, Any]], Any]) -> None:
    nodes, _ = cores
    machine = Machine()
    for step in range(20):
        machine.look(50.0 + step / 4)
    assert machine.idle_cpus is not None
    nodes += [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}}, {"Alive": False, "Resources": {"CPU": 64.0}}]
    for step in range(20, 60):
        machine.look(50.0 + step / 4)
    assert (machine.cluster_cpus, machine.idle_cpus) == (12.0, None)
    nodes[1]["Alive"] = False
    for step in range(60, 100):
        machine.look(50.0 + step / 4)
    assert machine.cluster_cpus == 4.0 and machine.idle_cpus is not None


@pytest.mark.usefixtures("ray_session")
def test_this_machine_is_measured() -> None:
    machine = Machine()
    for step in range(20):
        machine.look(50.0 + step / 4)
    assert machine.cluster_cpus >= 1 and machine.idle_cpus is not None and machine.idle_cpus >= 0
