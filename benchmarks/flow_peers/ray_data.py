"""The stages on Ray Data, set up as its performance tips and API pages recommend.

`map_batches` with callable classes in actor pools of a fixed size (stateful stages), NumPy batches without a copy (its
default), blocks as large as a batch (`override_num_blocks`), several tasks in flight an actor so that inputs are
fetched ahead (its default), order not preserved (its default, and the faster way). One actor a stage. Its reading tasks
and actors want a logical CPU each and wait for ever where there are fewer, so its Ray is told of one a process; that
limits nothing, for Ray enforces no CPU.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import ray
import ray.data

from flow_peers.load import WORKERS, Log, make_frames, work


class Make:
    def __init__(self, folder: str) -> None:
        self._log = Log(folder, 0)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        data = make_frames([int(n) for n in batch["id"]])
        self._log.done(data)
        return {"frame": data}


class Work:
    def __init__(self, spin_ms: float, folder: str, number: int) -> None:
        self._spin_ms = spin_ms
        self._log = Log(folder, number)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        work(batch["frame"], self._spin_ms)
        self._log.done(batch["frame"])
        return batch


class Count:
    def __init__(self, folder: str) -> None:
        self._log = Log(folder, WORKERS + 1)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        work(batch["frame"], 0.0)
        self._log.done(batch["frame"])
        return {"length": [len(batch["frame"])]}


def main() -> int:
    frames, batch, spin_ms, folder, out = sys.argv[1:]
    ray.init(
        num_cpus=WORKERS + 6,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}},
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    pool = {"compute": ray.data.ActorPoolStrategy(size=1), "num_cpus": 1, "batch_format": "numpy"}
    size = int(batch)
    ds = ray.data.range(int(frames), override_num_blocks=int(frames) // size)
    ds = ds.map_batches(Make, fn_constructor_args=(folder,), batch_size=size, **pool)
    for n in range(1, WORKERS + 1):
        ds = ds.map_batches(Work, fn_constructor_args=(float(spin_ms), folder, n), batch_size=size, **pool)
    ds = ds.map_batches(Count, fn_constructor_args=(folder,), batch_size=size, **pool)
    taken = sum(int(b["length"].sum()) for b in ds.iter_batches(batch_size=None, batch_format="numpy"))
    Path(out).write_text(json.dumps({"frames": taken, "ray": ray.__version__}), encoding="utf-8")
    ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
