"""Changes of images: amounts of stain scale, glass stays, shifts move."""

import numpy as np
import pytest

from pathology.map_quality.changes import CHANGES, ScannerChange, Shift, StainChange
from pathology.map_quality.replacement import WHITE
from pathology.synthetic.stains import EOSIN, HAEMATOXYLIN


def test_a_stain_change_scales_amounts(rng):
    haematoxylin, eosin = rng.uniform(0, 0.6, (2, 5, 5, 1))

    def light(more_h, more_e):
        density = more_h * haematoxylin * HAEMATOXYLIN + more_e * eosin * EOSIN
        return (WHITE * 10**-density).astype(np.float32)

    changed = StainChange(haematoxylin=1.2, eosin=0.8)(light(1, 1))
    np.testing.assert_allclose(changed, light(1.2, 0.8), atol=1e-6)
    np.testing.assert_allclose(StainChange()(light(1, 1)), light(1, 1), atol=1e-7)


def test_glass_stays_under_a_stain_change_and_darkens_under_a_lamps():
    glass = np.full((3, 3, 3), 0.96, np.float32)
    np.testing.assert_array_equal(StainChange(2.0, 2.0)(glass), glass)
    np.testing.assert_allclose(ScannerChange((0.5, 1, 1))(glass)[0, 0], [0.48, 0.96, 0.96])
    np.testing.assert_allclose(ScannerChange(gamma=2)(glass), 0.96**2, rtol=1e-6)


@pytest.mark.parametrize(("down", "right"), [(1, 0), (-2, 3), (0, -1), (4, 4)])
def test_shifts_move_and_mirror(down, right, rng):
    image = rng.random((6, 7, 3)).astype(np.float32)
    moved = Shift(down, right)(image)
    was, now = Shift(down, right).windows((6, 7))
    np.testing.assert_array_equal(moved[now], image[was])
    assert moved[now].shape[:2] == (6 - abs(down), 7 - abs(right))
    rows = np.pad(np.arange(6), 6, mode="symmetric")[6 - down : 12 - down]
    columns = np.pad(np.arange(7), 7, mode="symmetric")[7 - right : 14 - right]
    np.testing.assert_array_equal(moved, image[rows][:, columns])


def test_a_shift_beyond_the_image():
    with pytest.raises(ValueError, match="leaves nothing"):
        Shift(4, 0)(np.zeros((4, 4, 3), np.float32))


def test_all_of_them_are_small_and_named(rng):
    image = rng.uniform(0.2, 0.9, (16, 16, 3)).astype(np.float32)
    assert len({change.name for change in CHANGES}) == len(CHANGES)
    for change in CHANGES:
        changed = change(image)
        assert changed.shape == image.shape
        assert changed.dtype == np.float32
        if not isinstance(change, Shift):
            assert 0 < abs(changed - image).mean() < 0.1
