"""Locally weighted regression of values over time, looking back only (spec §1).

    f(x) = Σ K(x, xi) yi / Σ K(x, xi),   K(x, xi) = D(|x − xi| / λ),   D(t) = ¾ (1 − t²) for |t| ≤ 1, else 0

D is Epanechnikov's kernel, λ the distance from x to the k-th nearest moment. *Chosen*: locally constant, and only
moments xi ≤ x count, so that a value once given never changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def smoothed(at_s: Sequence[float], values: Sequence[float], x_s: float, *, nearest: int) -> float | None:
    """Return f(x), or None where no moment lies at or before `x_s`.

    Args:
        at_s: (N,) moments, increasing.
        values: (N,) what was measured then.
        x_s: where the curve is asked for.
        nearest: k, at least 1; where fewer moments are known, λ is the distance to the farthest.

    The k-th nearest itself gets weight 0, so k = 4 means three values; where λ is 0 (a single moment, or k = 1 at a
    moment) f is the newest value.
    """
    assert len(at_s) == len(values) and nearest >= 1, (len(at_s), len(values), nearest)
    times = np.asarray(at_s, float)
    known = times <= x_s
    if not known.any():
        return None
    distances = (x_s - times[known])[::-1][:nearest]  # nearest first
    measured = np.asarray(values, float)[known][::-1][:nearest]
    farthest = distances[-1]
    if farthest <= 0 or len(distances) == 1:
        return float(measured[0])
    weights = 0.75 * (1 - (distances / farthest) ** 2)
    return float((weights * measured).sum() / weights.sum())
