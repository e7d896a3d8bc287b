"""Made-up tissue of known stains."""

import numpy as np
import pytest

HAEMATOXYLIN, EOSIN = (0.62, 0.70, 0.35), (0.16, 0.87, 0.47)


@pytest.fixture
def make_tissue(rng):
    """Maker of ``(1, n, 3)`` pixels: some of one stain, some of the other, some of both."""

    def make(n=60_000, stains=(HAEMATOXYLIN, EOSIN), noise=0.0, white=240.0, strength=0.08):
        vectors = np.array(stains) / np.linalg.norm(stains, axis=1, keepdims=True)
        amounts = rng.gamma(6, strength, (n, 2))
        kind = rng.random(n)
        amounts[kind < 0.4, 1] = 0
        amounts[kind >= 0.6, 0] = 0
        light = white * 10 ** -(amounts @ vectors) + rng.normal(0, noise, (n, 3))
        return np.clip(np.rint(light), 0, 255).astype(np.uint8)[None], vectors

    return make
