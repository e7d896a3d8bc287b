"""Energy pointing and concentration, by hand and against Quantus where it is right."""

import numpy as np
import pytest

from pathology.map_quality.compared import why_undefined
from pathology.map_quality.energy import concentration, energy_pointing, positive_mass


def test_by_hand():
    maps = [[[3.0, 1.0], [-5.0, 0.0]]]
    masks = np.array([[[True, False], [True, False]]])
    assert energy_pointing(maps, masks) == pytest.approx([0.75])
    assert concentration(maps, masks) == pytest.approx([1.5])
    assert positive_mass(maps) == pytest.approx([4])


def test_a_constant_is_chance_and_a_perfect_map_is_best(rng):
    masks = rng.random((5, 8, 8)) < 0.2
    share = masks.mean((1, 2))
    flat = np.ones(masks.shape)
    assert energy_pointing(flat, masks) == pytest.approx(share)
    assert concentration(flat, masks) == pytest.approx(np.ones(5))
    assert energy_pointing(masks.astype(float), masks) == pytest.approx(np.ones(5))
    assert concentration(masks.astype(float), masks) == pytest.approx(1 / share)


def test_scale_does_not_matter_but_zero_does(rng):
    maps, masks = rng.standard_normal((4, 6, 6)), rng.random((4, 6, 6)) < 0.3
    found = energy_pointing(maps, masks)
    assert energy_pointing(maps * 7, masks) == pytest.approx(found)
    assert not np.allclose(energy_pointing(maps + 1, masks), found)


def test_undefined_values_have_reasons():
    masks = np.zeros((4, 2, 2), bool)
    masks[1:3, 0] = True
    masks[3] = True
    maps = np.ones((4, 2, 2))
    maps[1] = -1
    maps[2, 0, 0] = 2
    assert np.isnan(energy_pointing(maps, masks)).tolist() == [True, True, False, False]
    assert np.isnan(concentration(maps, masks)).tolist() == [True, True, False, False]
    assert why_undefined(maps, masks) == [
        "the mask is empty; the map is constant",
        "the map has no positive value; the map is constant",
        "",
        "the mask is the whole image; the map is constant",
    ]


def test_as_quantus_for_positive_maps(rng):
    """Its relevance mass accuracy sums signed values: it is right for positive ones only."""
    quantus = pytest.importorskip("quantus", exc_type=ImportError)
    metric = quantus.RelevanceMassAccuracy(abs=False, normalise=False, disable_warnings=True)
    maps, masks = rng.random((3, 7, 7)), rng.random((3, 7, 7)) < 0.4
    expected = metric.evaluate_batch(maps[:, None], masks[:, None])
    assert energy_pointing(maps, masks) == pytest.approx(expected)
    signed = np.array([[[3.0, -2.0], [0.0, 0.0]]])
    left = np.array([[[True, False], [True, False]]])
    assert metric.evaluate_batch(signed[:, None], left[:, None]) == pytest.approx([3])  # a share
    assert energy_pointing(signed, left) == pytest.approx([1])


@pytest.mark.parametrize(
    ("maps", "masks", "error", "message"),
    [
        (np.ones((2, 2)), np.ones((2, 2), bool), ValueError, "images, height, width"),
        (np.ones((1, 2, 2)), np.ones((1, 2, 2)), TypeError, "bool"),
        (np.ones((1, 2, 2)), np.ones((1, 2, 3), bool), ValueError, "as maps are"),
        (np.full((1, 2, 2), np.nan), np.ones((1, 2, 2), bool), ValueError, "map 0 of 1"),
    ],
)
def test_what_does_not_fit(maps, masks, error, message):
    with pytest.raises(error, match=message):
        energy_pointing(maps, masks)
