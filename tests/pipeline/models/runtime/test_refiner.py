"""TCSR's runtime gives what the reference in PyTorch gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.models.runtime.choose import pattern
from pipeline.models.runtime.refiner import cell_kernel, open_refiner
from pipeline.models.tcsr import Tcsr, TcsrConfig, refine_y
from pipeline.wire.frames import Size


def net(config: TcsrConfig) -> Tcsr:
    torch.manual_seed(1)
    made = Tcsr(config).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return made


@pytest.mark.parametrize(
    "config",
    [
        TcsrConfig(channels=4, features=8, unshuffle=4),
        TcsrConfig(channels=4, features=8, unshuffle=2, k=2),
        TcsrConfig(channels=4, features=8, unshuffle=3, scale=3),
        TcsrConfig(channels=4, features=8, unshuffle=1),
        TcsrConfig(channels=4, features=8, unshuffle=1, form="full"),
    ],
    ids=["4", "2 k2", "3", "1", "full"],
)
@pytest.mark.parametrize("size", [(96, 66), (102, 78)])
def test_every_form_gives_what_the_reference_gives(config: TcsrConfig, size: tuple[int, int]) -> None:
    """All but a few pixels are equal; those are off by one, where a sum lies in the middle between two code values."""
    network = net(config)
    shape = Size(width_px=size[0], height_px=size[1])
    planes = [np.roll(pattern(shape), 2 * i, axis=1) for i in range(1 + 2 * config.k)]
    refiner = open_refiner(network, shape)
    found, wanted = refiner.refine(planes[0], planes[1:]), refine_y(network, planes[0], planes[1:])
    error = np.abs(found.astype(int) - wanted)
    assert error.max() <= 1 and error.mean() < 0.01
    assert np.abs(wanted.astype(int) - planes[0]).mean() > 0.5, "it does something"
    assert np.array_equal(found, refiner.refine(planes[0], planes[1:]))


@pytest.mark.parametrize("u", [2, 3, 4])
def test_a_kernel_of_cells_equals_that_of_pixels(u: int) -> None:
    weight = torch.randn(1, 2, 5, 5)
    x = torch.randn(1, 2, 12, 24)
    wanted = torch.nn.functional.conv2d(x, weight, padding=2)
    cells = torch.nn.functional.conv2d(
        torch.nn.functional.pixel_unshuffle(x, u), torch.from_numpy(cell_kernel(weight.numpy(), u)), padding=1
    )
    assert torch.allclose(torch.nn.functional.pixel_shuffle(cells, u), wanted, atol=1e-5)
