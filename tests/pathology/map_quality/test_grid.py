"""Shares of cells by hand, smoothing against torch, and what has no value."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pathology.map_quality.grid import cell_shares, grid_pointing


def test_by_hand():
    maps = np.zeros((1, 4, 4))
    maps[0, 0, 0], maps[0, 1, 3], maps[0, 3, 3], maps[0, 2, 0] = 3, 1, 4, -9
    assert cell_shares(maps, 2) == pytest.approx(np.array([[[3 / 8, 1 / 8], [0, 4 / 8]]]))
    assert grid_pointing(np.repeat(maps, 4, axis=0), [0, 1, 2, 3], 2) == pytest.approx(
        [3 / 8, 1 / 8, 0, 4 / 8]
    )


def test_a_constant_is_chance_and_one_cell_is_best(rng):
    targets = rng.integers(0, 9, 6)
    assert grid_pointing(np.ones((6, 9, 12)), targets, 3) == pytest.approx(np.full(6, 1 / 9))
    maps = np.zeros((6, 3, 3, 3, 4))
    for one, target in zip(maps, targets, strict=True):
        one[target // 3, :, target % 3] = 1
    assert grid_pointing(maps.reshape(6, 9, 12), targets, 3) == pytest.approx(np.ones(6))


def test_no_positive_mass_has_no_value():
    maps = -np.ones((2, 4, 4))
    maps[1, 0, 0] = 1
    found = grid_pointing(maps, [0, 0], 2)
    assert np.isnan(found).tolist() == [True, False]
    assert np.isnan(cell_shares(maps, 2)[0]).all()
    assert np.isnan(cell_shares(np.zeros((1, 4, 4)), 2, kernel=3)).all()


def test_smoothing_is_that_of_the_reference(rng):
    """A mean over squares, zeros around, before negatives are dropped."""
    maps = rng.standard_normal((3, 12, 12))
    smooth = F.avg_pool2d(torch.from_numpy(maps)[:, None], 5, 1, 2)[:, 0].clamp(min=0).numpy()
    expected = smooth.reshape(3, 2, 6, 2, 6).sum((2, 4))
    expected /= expected.sum((1, 2), keepdims=True)
    assert cell_shares(maps, 2, kernel=5) == pytest.approx(expected)
    assert cell_shares(maps, 2, kernel=1) == pytest.approx(cell_shares(maps, 2))


def test_smoothing_hides_stripes():
    """Equal positive and negative stripes cancel; what is left is the cell that has one sign."""
    maps = np.zeros((1, 16, 16))
    maps[0, :8, 8:] = np.tile([1.0, -1.0], 4)
    maps[0, :8, :8] = 0.5
    plain, smooth = grid_pointing(maps, [0], 2), grid_pointing(maps, [0], 2, kernel=3)
    assert plain == pytest.approx([0.5])
    assert smooth[0] > 0.6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda maps: cell_shares(maps, 3), "divide maps of 4 x 4"),
        (lambda maps: cell_shares(maps, 1), "at least 2"),
        (lambda maps: cell_shares(maps, 2, kernel=4), "odd"),
        (lambda maps: grid_pointing(maps, [0], 2), "2 numbers of cells"),
        (lambda maps: grid_pointing(maps, [0.0, 1.0], 2), "2 numbers of cells"),
        (lambda maps: grid_pointing(maps, [0, 4], 2), r"in \[0, 4\)"),
    ],
)
def test_what_is_no_mosaic(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.ones((2, 4, 4)))
