"""Single deletion: by hand, exact for a linear network, and without a value where there is none."""

import numpy as np
import pytest

from pathology.map_quality.question import Question
from pathology.map_quality.replacement import Colour
from pathology.map_quality.single_deletion import (
    cells_of,
    delete_cells,
    draw_cells,
    single_deletion,
)
from tests.pathology.map_quality.planted import PALE, contestants, plant


def test_by_hand():
    image = np.full((4, 4, 3), 0.5, np.float32)
    # Drops of the four cells as they go black: 4 pixels of light 0.5 times the weight.
    weights = np.repeat(np.repeat([[1.0, 2.0], [3.0, -1.0]], 2, 0), 2, 1)

    def score(images):
        return (images.mean(-1, dtype=np.float64) * weights).sum((1, 2))[:, None]

    # Ranks of drops 2 3 4 1; of the map's sums 1 3.5 3.5 2.
    values = np.repeat(np.repeat([[0.0, 2.0], [2.0, 1.0]], 2, 0), 2, 1)
    found = single_deletion(Question(score, image, 0), values, cells=2, fill=Colour((0, 0, 0)))
    np.testing.assert_allclose(found.drops, [[2, 4], [6, -2]])
    np.testing.assert_allclose(found.sums, [[0, 8], [8, 4]])
    first, second = np.array([2, 3, 4, 1]) - 2.5, np.array([1, 3.5, 3.5, 2]) - 2.5
    expected = first @ second / np.sqrt((first @ first) * (second @ second))
    assert found.correlation == pytest.approx(expected)


def test_exact_for_a_linear_network(rng):
    planted = plant(rng)
    best, chance, worst = (
        single_deletion(planted.question(), one, fill=PALE) for one in contestants(planted, rng)
    )
    # float32 light of 0.7, times weights of 0.2, over 16 pixels.
    np.testing.assert_allclose(best.sums, best.drops, atol=1e-6)
    assert best.correlation == pytest.approx(1)
    assert worst.correlation == pytest.approx(-1)
    assert abs(chance.correlation) < 0.6  # deviation 0.26


def test_chance_is_around_zero(rng):
    planted = plant(rng)
    found = [
        single_deletion(planted.question(), rng.normal(size=(16, 16)), fill=PALE)
        for _ in range(200)
    ]
    values = np.array([one.correlation for one in found])
    assert abs(values.mean()) < 4 * 0.26 / np.sqrt(200)
    assert values.std() == pytest.approx(1 / np.sqrt(15), rel=0.25)


def test_glass_does_not_count(rng):
    planted = plant(rng)
    planted.image[12:] = 0.95
    planted.weights[12:] = 0
    found = single_deletion(planted.question(), planted.map, fill=PALE)
    np.testing.assert_array_equal(found.counted, np.arange(4)[:, None] < np.full((4, 4), 3))
    all_cells = single_deletion(planted.question(), planted.map, fill=PALE, least_tissue=0)
    assert all_cells.counted.all()


@pytest.mark.parametrize(
    ("values", "light", "weight", "note"),
    [
        (np.ones((6, 6)), 0.5, 1.0, "the map is the same"),
        (np.arange(36.0).reshape(6, 6), 0.95, 1.0, "0 cells with tissue"),
        (np.arange(36.0).reshape(6, 6), 0.5, 0.0, "removing any cell does the same"),
    ],
)
def test_undefined_says_why(values, light, weight, note):
    def score(images):
        return weight * images.sum((1, 2, 3), dtype=np.float64)[:, None]

    # Cells of unequal size: sums of a constant map differ, and are still no information.
    found = single_deletion(Question(score, np.full((6, 6, 3), light, np.float32), 0), values)
    assert np.isnan(found.correlation)
    assert found.note.startswith(note)


def test_cells_cover_every_size():
    member = cells_of((7, 10), 4)
    counts = np.bincount(member.ravel(), minlength=16).reshape(4, 4)
    assert counts.sum() == 70
    assert set(np.unique(counts)) <= {2, 3, 4, 6}
    with pytest.raises(ValueError, match="cells must be from 1 to 7"):
        cells_of((7, 10), 8)


def test_deleted_cells_are_those_that_are_measured(rng):
    image = rng.uniform(0, 1, (8, 8, 3)).astype(np.float32)
    deleted = np.zeros((4, 4), bool)
    deleted[1, 2] = True
    found = delete_cells(image, deleted, PALE)
    np.testing.assert_array_equal(found, PALE(image, cells_of((8, 8), 4) == 6))
    eight = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    found = delete_cells(eight, deleted)
    assert found.dtype == np.uint8
    assert (found[2:4, 4:6] == 240).all()
    found[2:4, 4:6] = eight[2:4, 4:6]
    np.testing.assert_array_equal(found, eight)
    with pytest.raises(ValueError, match="deleted must be"):
        delete_cells(image, np.zeros((2, 3), bool))


def test_drawn_cells_are_none_to_half(rng):
    counts = np.array([draw_cells(rng).sum() for _ in range(900)])
    # Nine numbers, each about a hundred times.
    assert set(counts) == set(range(9))
    assert abs(np.bincount(counts) - 100).max() < 50
