"""Hashed numbers and smooth noise."""

import numpy as np

from pathology.synthetic.lattice import SmoothNoise, uniforms


def test_uniforms_depend_on_the_cell_only() -> None:
    x, y = (a.ravel() for a in np.meshgrid(np.arange(-40, 40), np.arange(-40, 40)))
    every = uniforms(3, 1, x, y, 4)
    order = np.random.default_rng(0).permutation(len(x))
    assert np.array_equal(uniforms(3, 1, x[order], y[order], 4), every[order])
    assert np.array_equal(uniforms(3, 1, x, y, 2), every[:, :2])
    assert every.min() >= 0
    assert every.max() < 1
    assert len(np.unique(every)) == every.size
    # 25 600 draws: the mean of uniforms is known to within 0.0018, five deviations are 0.009.
    assert abs(every.mean() - 0.5) < 0.009
    assert abs(np.corrcoef(every[:, 0], every[:, 1])[0, 1]) < 0.07


def test_uniforms_of_other_seeds_and_kinds_differ() -> None:
    cells = np.arange(50), np.arange(50)
    first = uniforms(3, 1, *cells, 1)
    assert not np.intersect1d(first, uniforms(4, 1, *cells, 1)).size
    assert not np.intersect1d(first, uniforms(3, 2, *cells, 1)).size


def test_noise_on_a_grid_equals_noise_at_points() -> None:
    noise = SmoothNoise(5, 9, 7.0)
    x, y = np.linspace(-30, 50, 33), np.linspace(2, 90, 21)
    grid = noise.grid(x, y)
    across, down = np.meshgrid(x, y)
    points = noise.at(across.ravel(), down.ravel()).reshape(grid.shape)
    np.testing.assert_allclose(grid, points, atol=1e-5)


def test_noise_has_mean_zero_and_unit_deviation() -> None:
    axis = np.arange(0.0, 1500.0, 3.0)
    grid = SmoothNoise(1, 1, 6.0).grid(axis, axis)
    assert abs(grid.mean()) < 0.03
    assert abs(grid.std() - 1) < 0.03
