"""Staining and colour."""

import numpy as np

from pathology.synthetic.stains import draw_stains, stain_to_rgb


def test_colour_follows_beer_and_lambert() -> None:
    stains = draw_stains(np.random.default_rng(0))
    h = np.array([[0.0, 1.0, 0.0, 1.5]], np.float32)
    e = np.array([[0.0, 0.0, 1.0, 0.5]], np.float32)
    rgb = stain_to_rgb(h, e, stains)
    np.testing.assert_allclose(rgb[0, 0], stains.white, rtol=1e-5)
    density = 1.5 * np.asarray(stains.haematoxylin) + 0.5 * np.asarray(stains.eosin)
    np.testing.assert_allclose(rgb[0, 3], stains.white * np.exp(-density), rtol=1e-4)
    # Haematoxylin leaves blue, eosin leaves red and blue: purple-blue and pink.
    assert rgb[0, 1].argmax() == 2
    assert rgb[0, 2].argmax() == 0
    assert rgb[0, 2].argmin() == 1


def test_slides_are_stained_differently_but_plausibly() -> None:
    drawn = [draw_stains(np.random.default_rng(i)) for i in range(200)]
    vectors = np.array([s.haematoxylin for s in drawn])
    assert (vectors > 0).all()
    assert (np.array([s.eosin for s in drawn]) > 0).all()
    strength = np.linalg.norm(vectors, axis=1)
    assert 0.86 <= strength.min() < 0.9
    assert 1.12 < strength.max() <= 1.16
