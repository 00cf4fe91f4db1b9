"""The stages on cosmos-xenna in streaming mode, which its README recommends; runs in an environment of its own.

One worker a stage (`StageSpec.num_workers`), two slots an actor (its default), a queue of up to eight tasks before a
stage (its default), an item of one or more frames (`stage_batch_size` 1: several frames travel as one array, which is
the faster way), last outputs discarded. It counts whole CPUs and wants one for its monitor, so its Ray is told of one
logical CPU a process; that limits nothing, for Ray enforces no CPU.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import Any

import ray
from cosmos_xenna.pipelines import v1

from flow_peers.load import WORKERS, Log, make_frames, work


class _Stage(v1.Stage):  # type: ignore[misc]  # the package is not in the environment of the checker
    @property
    def stage_batch_size(self) -> int:
        return 1

    @property
    def required_resources(self) -> Any:
        return v1.Resources(cpus=1.0)

    def __init__(self, folder: str, number: int, spin_ms: float = 0.0) -> None:
        self._folder, self._number, self._spin_ms = folder, number, spin_ms

    def setup(self, worker_metadata: Any) -> None:
        self._log = Log(self._folder, self._number)


class Make(_Stage):
    def process_data(self, items: list[Any]) -> list[Any]:
        made = [make_frames(numbers) for numbers in items]
        for item in made:
            self._log.done(item)
        return made


class Work(_Stage):
    def process_data(self, items: list[Any]) -> list[Any]:
        for item in items:
            work(item, self._spin_ms)
            self._log.done(item)
        return items


class Count(Work):
    def process_data(self, items: list[Any]) -> list[Any]:
        super().process_data(items)
        return []


def main() -> int:
    frames, batch, spin_ms, folder, out = sys.argv[1:]
    os.environ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"] = "1"  # as it sets it itself
    os.environ.setdefault("RAY_MAX_LIMIT_FROM_API_SERVER", "40000")
    os.environ.setdefault("RAY_MAX_LIMIT_FROM_DATA_SOURCE", "40000")
    ray.init(
        num_cpus=WORKERS + 6,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}},
    )
    # Its monitor looks for "the" Ray of the machine, and there may be several.
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    size = int(batch)
    items = [list(range(at, min(at + size, int(frames)))) for at in range(0, int(frames), size)]
    workers = [Work(folder, n, float(spin_ms)) for n in range(1, WORKERS + 1)]
    stages = [Make(folder, 0), *workers, Count(folder, WORKERS + 1)]
    v1.run_pipeline(
        v1.PipelineSpec(
            input_data=items,
            stages=[v1.StageSpec(stage, num_workers=1) for stage in stages],
            config=v1.PipelineConfig(execution_mode=v1.ExecutionMode.STREAMING, return_last_stage_outputs=False),
        )
    )
    said = {"frames": int(frames), "ray": ray.__version__, "xenna": importlib.metadata.version("cosmos-xenna")}
    Path(out).write_text(json.dumps(said), encoding="utf-8")
    ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
