"""What the machines have and how much of it nobody uses, as far as this process can see."""

from __future__ import annotations

from collections import deque
from typing import Any

import psutil
import ray

_WINDOW_S = 3.0
_NODES_S = 10.0  # between two looks at the cluster


class Machine:
    """The cluster's cores, and those of them that idle; `look` a few times a second.

    Attributes:
        cluster_cpus: cores of all nodes.
        idle_cpus: cores that had nothing to do over the last seconds; None: not known, for there are other nodes.
    """

    def __init__(self) -> None:
        self.cluster_cpus = float(psutil.cpu_count() or 1)
        self.idle_cpus: float | None = None
        self._idle_s: deque[tuple[float, float]] = deque()  # when, and seconds that the cores have idled since they run
        self._alone, self._nodes_s = True, 0.0

    def look(self, now_s: float) -> None:
        """Measure; `now_s`: time.monotonic()."""
        if now_s - self._nodes_s >= _NODES_S:
            self._nodes_s = now_s
            everywhere: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's
            nodes = [node for node in everywhere if node["Alive"]]
            self.cluster_cpus = sum(node["Resources"].get("CPU", 0.0) for node in nodes)
            self._alone = len(nodes) == 1
        times = psutil.cpu_times()
        self._idle_s.append((now_s, times.idle + getattr(times, "iowait", 0.0)))
        while now_s - self._idle_s[0][0] > _WINDOW_S:
            self._idle_s.popleft()
        (first_s, before), (last_s, after) = self._idle_s[0], self._idle_s[-1]
        measured = self._alone and last_s - first_s > _WINDOW_S / 2
        self.idle_cpus = (after - before) / (last_s - first_s) if measured else None
