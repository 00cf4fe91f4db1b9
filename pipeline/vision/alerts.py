"""When a picture counts as degraded: conditions that last, with hysteresis; a pure function of the rows before.

Theory of operation: each cause has two states. It becomes *active* at the frame at which its condition has held without
a break for its `hold` (from the first bad frame to this one), and *inactive* again at the frame at which the opposite
condition has held as long. Between the two levels of a score neither holds, and a run in progress ends. While the
picture is black nothing else is judged: a black picture is frozen, dark and blurred by itself. Frames without scores
(a batch that was set aside) are passed over as if they were not there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CAUSES = ("black", "frozen", "exposure", "sharpness")


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Ticks that a condition must hold, and the levels of the scores."""

    picture_hold: int
    score_hold: int
    exposure: tuple[float, float]
    sharpness: tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What is known of one frame; scores are NaN where nothing is."""

    seq: int
    pts: int
    black: bool
    frozen: bool
    exposure: float
    sharpness: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """Causes that became active or inactive at a frame.

    Attributes:
        degraded: True: `causes` became active.
        causes: name → first frame of the run that decided it, (seq, pts).
        active: all active causes after it, sorted.
    """

    degraded: bool
    seq: int
    causes: Mapping[str, tuple[int, int]]
    active: tuple[str, ...]


@dataclass(slots=True)
class _Cause:
    active: bool = False
    since: tuple[int, int] | None = None  # (seq, pts) of the first frame of the run towards the other state


@dataclass(slots=True)
class Alerts:
    """The states of all causes; `state` and `restore` carry them over a restart."""

    limits: Limits
    _causes: dict[str, _Cause] = field(default_factory=lambda: {name: _Cause() for name in CAUSES})

    def on(self, row: Row) -> list[Change]:
        """Take the next frame; return what changed: recoveries first."""
        if math.isnan(row.exposure) or math.isnan(row.sharpness):
            return []
        holds = self.limits.picture_hold, self.limits.score_hold
        verdicts: dict[str, tuple[bool | None, int]] = {
            "black": (row.black, holds[0]),
            "frozen": (None if row.black else row.frozen, holds[0]),
            "exposure": (None if row.black else _below(row.exposure, self.limits.exposure), holds[1]),
            "sharpness": (None if row.black else _below(row.sharpness, self.limits.sharpness), holds[1]),
        }
        began: dict[str, tuple[int, int]] = {}
        ended: dict[str, tuple[int, int]] = {}
        for name, (bad, hold) in verdicts.items():
            cause = self._causes[name]
            if bad is None or bad == cause.active:
                cause.since = None
                continue
            if cause.since is None:
                cause.since = (row.seq, row.pts)
            if row.pts - cause.since[1] >= hold:
                (began if bad else ended)[name] = cause.since
                cause.active, cause.since = bad, None
        active = tuple(sorted(name for name, cause in self._causes.items() if cause.active))
        changes = []
        if ended:
            changes.append(Change(degraded=False, seq=row.seq, causes=ended, active=active))
        if began:
            changes.append(Change(degraded=True, seq=row.seq, causes=began, active=active))
        return changes

    def state(self) -> dict[str, Any]:
        """Return the states as a JSON object."""
        return {name: [cause.active, cause.since] for name, cause in self._causes.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned."""
        for name in CAUSES:
            active, since = state[name]
            self._causes[name] = _Cause(active=active, since=None if since is None else (since[0], since[1]))


def _below(score: float, levels: tuple[float, float]) -> bool | None:
    if score < levels[0]:
        return True
    return False if score >= levels[1] else None
