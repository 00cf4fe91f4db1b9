"""What a pixel weighs in the loss."""

from __future__ import annotations

import pytest
import torch

from pipeline.train.losses import BORDER_PX, BORDER_WEIGHT, border_weight, inner


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_border_is_as_wide_in_low_resolution_at_every_scale(scale: int) -> None:
    """Patches of 40: 6 low-resolution pixels on each side weigh 0.3, the inner 28 × 28 weigh 1, squared."""
    weight = border_weight(40 * scale, scale).square()
    assert weight.shape == (1, 1, 40 * scale, 40 * scale)
    assert inner(weight, scale).shape[2:] == (28 * scale, 28 * scale)
    assert float(inner(weight, scale).min()) == 1.0
    count = (40**2 - 28**2) * scale**2
    assert float(weight.sum()) == pytest.approx((28 * scale) ** 2 + BORDER_WEIGHT * count, rel=1e-5)
    assert BORDER_PX == 6
    assert int((weight < 1).sum()) == count
    assert torch.equal(weight, weight.transpose(2, 3))
