"""Sums of cells are folded before products: the same outputs for fewer of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from private_networks import Square
from torch import nn

from fewbits.hardware.packing import Layout, folded_cells, grids, summed_cells
from fewbits.private import compile_network
from fewbits.private.counts import total
from fewbits.private.steps import Affine


@pytest.mark.parametrize("cells", [1, 2])
def test_two_folds_add_up_each_cell_wherever_a_grid_puts_it(cells: int) -> None:
    shape = (3, 4, 6)
    values = np.random.default_rng(0).normal(size=shape)
    wanted = values.reshape(3, 2, 2, 3, 2).sum((2, 4)).ravel()
    for grid in grids(shape, 1024, 64, 8, 1, cells):
        slots = np.append(values.ravel(), 0.0)[grid.layout().numbers]
        found = folded_cells(grid.layout(), shape)
        if found is None:
            assert cells == 2
            assert not grid.repeated  # the fourth region is followed by nothing, so sums are in the first alone
            continue
        layout, folds = found
        for fold in folds:
            slots = slots + np.roll(slots, -fold)
        held = layout.numbers >= 0
        np.testing.assert_allclose(slots[held], wanted[layout.numbers[held]])
        assert set(layout.numbers[held]) == set(range(18))


def test_a_cell_that_no_two_folds_add_up_is_told() -> None:
    numbers = np.full(64, -1)
    numbers[[0, 1, 10, 12]] = range(4)  # the last pixel is one further than the others say
    assert folded_cells(Layout(numbers, 4), (1, 2, 2)) is None


def test_only_pixels_that_are_weighed_alike_are_summed() -> None:
    matrix = torch.randn(2, 1, 2, 1, 3, 1).expand(2, 1, 2, 2, 3, 2).reshape(2, 24).numpy().copy()
    small = summed_cells(matrix, (1, 4, 6))
    assert small is not None
    assert small.shape == (2, 6)
    pixels = np.random.default_rng(1).normal(size=(4, 6))
    np.testing.assert_allclose(
        matrix @ pixels.ravel(), small @ pixels.reshape(2, 2, 3, 2).sum((1, 3)).ravel(), rtol=1e-5
    )
    assert summed_cells(matrix, (1, 6, 4)) is None
    assert summed_cells(matrix[:, :18], (1, 3, 6)) is None


def test_pooling_before_a_convolution_costs_two_rotations_and_no_products_of_its_own() -> None:
    torch.manual_seed(0)
    front = [nn.Conv2d(1, 4, 3, padding=1), Square(), nn.AvgPool2d(2), nn.Conv2d(4, 8, 3), Square(), nn.Flatten()]
    model = nn.Sequential(*front, nn.Linear(8 * 6 * 6, 3))
    samples = torch.rand(4, 1, 16, 16)
    program = compile_network(model, samples, profile="fast", degree=8192, error=1e3)
    with torch.no_grad():
        wanted = model.double()(samples.double()).numpy()
    np.testing.assert_allclose(program.plain(samples), wanted, rtol=1e-9, atol=1e-9)
    folds = [part.folds for step in program.steps if isinstance(step, Affine) for part in step.parts]
    assert [len(each) for each in folds] == [0, 2, 0]
    assert set(folds[1]) <= set(program.profile.rotations)  # they need keys
    merged = 36 * 4  # of a kernel of 6 by 6 with stride 2 for each distance of two blocks, at the very least
    assert total(program.counts, "multiply") < merged
