"""Monitor: how well the deployed model and the best one so far do on the newest pairs, and when the scene changes.

The PSNR of each is smoothed by locally weighted regression (vision/smooth.py); a scene change is a fall of the deployed
model's curve, f(t − w) − f(t) ≥ δ (spec §1).
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.vision.smooth import smoothed


@dataclass(frozen=True, kw_only=True, slots=True)
class MonitorConfig:
    """What counts as a scene change."""

    nearest: int = 4  # k: λ is the distance to the k-th nearest moment; more is smoother and later
    span_s: float = 1.0  # w
    fall_db: float = 1.0  # δ
    kept_s: float = 60.0  # of the curves, for whoever shows them

    def __post_init__(self) -> None:
        if self.nearest < 2 or not self.span_s > 0 or not self.fall_db > 0 or self.kept_s < 2 * self.span_s:
            raise ConfigError(f"{self} makes no sense", where="monitor", hint="all above 0, nearest at least 2")


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """The curves at one moment, in dB; `best` is None while there is no other model than the deployed one."""

    at_s: float
    deployed_db: float
    best_db: float | None


class Monitor:
    """Takes the scores of each pair in the order of time; gives the curves and says when the scene has changed."""

    def __init__(self, config: MonitorConfig) -> None:
        self._config = config
        self._deployed: deque[tuple[float, float]] = deque()
        self._best: deque[tuple[float, float]] = deque()
        self.curve: deque[Point] = deque()

    def score(self, at_s: float, deployed_db: float, best_db: float | None) -> bool:
        """Take the PSNR of a pair of the moment `at_s`; say whether the scene has changed by then.

        A change is told once: the curve begins anew behind it.
        """
        config = self._config
        assert not self._deployed or at_s > self._deployed[-1][0], (at_s, self._deployed[-1])
        _keep(self._deployed, at_s, deployed_db, config.kept_s)
        if best_db is None:
            self._best.clear()
        else:
            _keep(self._best, at_s, best_db, config.kept_s)
        now_db = self._at(self._deployed, at_s)
        before_db = self._at(self._deployed, at_s - config.span_s)
        assert now_db is not None
        self.curve.append(Point(at_s=at_s, deployed_db=now_db, best_db=self._at(self._best, at_s)))
        while self.curve[0].at_s < at_s - config.kept_s:
            self.curve.popleft()
        return before_db is not None and before_db - now_db >= config.fall_db

    def begin(self, at_s: float) -> None:
        """Forget what was measured before `at_s`: another scene, or another model, begins there."""
        for kept in (self._deployed, self._best):
            while kept and kept[0][0] < at_s:
                kept.popleft()

    def cut_s(self) -> float:
        """Return the moment behind the sharpest fall of the last `span_s`: where the scene that is shown begins."""
        recent = [(t, y) for t, y in self._deployed if t >= self._deployed[-1][0] - 2 * self._config.span_s]
        falls = [(before[1] - after[1], after[0]) for before, after in itertools.pairwise(recent)]
        return max(falls)[1] if falls else recent[-1][0]

    def _at(self, kept: deque[tuple[float, float]], x_s: float) -> float | None:
        if not kept:
            return None
        times, values = zip(*kept, strict=True)
        return smoothed(times, values, x_s, nearest=self._config.nearest)


def _keep(kept: deque[tuple[float, float]], at_s: float, value: float, kept_s: float) -> None:
    kept.append((at_s, value))
    while kept[0][0] < at_s - kept_s:
        kept.popleft()
