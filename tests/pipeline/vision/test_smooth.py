"""Locally weighted regression, values derived by hand from its formula."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.vision.smooth import smoothed


def test_weights_are_epanechnikovs() -> None:
    """k = 3 at x = 3: distances 0, 1, 2, so λ = 2 and D = ¾·(1, ¾, 0): f = (1·4 + ¾·8) / 1.75 = 40/7."""
    assert smoothed([0, 1, 2, 3], [100, 50, 8, 4], 3, nearest=3) == pytest.approx(40 / 7)


def test_between_moments_the_nearest_past_ones_count() -> None:
    """k = 3 at x = 2.5: distances 0.5, 1.5, 2.5, λ = 2.5: D ∝ (0.96, 0.64, 0): f = (0.96·10 + 0.64·20) / 1.6 = 14."""
    assert smoothed([0, 1, 2, 3], [7, 20, 10, 99], 2.5, nearest=3) == pytest.approx(14)


def test_the_future_does_not_count_and_before_the_first_there_is_nothing() -> None:
    assert smoothed([1, 2], [5, 6], 0.5, nearest=4) is None
    assert smoothed([1, 2], [5, 6], 1.0, nearest=4) == 5
    assert smoothed([], [], 1.0, nearest=4) is None


def test_fewer_moments_than_k_reach_as_far_as_they_can() -> None:
    """Distances 0 and 1, λ = 1: the farther has weight 0."""
    assert smoothed([0, 1], [5, 6], 1.0, nearest=4) == 6


@given(
    values=st.lists(st.floats(-100, 100), min_size=1, max_size=20),
    nearest=st.integers(1, 6),
    later=st.floats(0, 50),
)
def test_it_lies_between_what_it_smooths(values: list[float], nearest: int, later: float) -> None:
    found = smoothed(range(len(values)), values, len(values) - 1 + later, nearest=nearest)
    assert found is not None
    assert min(values) - 1e-9 <= found <= max(values) + 1e-9
