"""Max-sensitivity: by hand, by Captum, and why it is no headline."""

import numpy as np
import pytest

from pathology.map_quality.sensitivity import sensitivity
from tests.pathology.map_quality.planted import plant


def test_by_hand(rng):
    image = np.full((2, 2, 3), 0.5, np.float32)
    seen = []

    def explain(images):
        seen.extend(images)
        return images.sum(-1)

    found = sensitivity(explain, image, rng, samples=7, batch=3)
    first = image.sum(-1)
    moved = [np.linalg.norm(one.sum(-1) - first) / np.linalg.norm(first) for one in seen[1:]]
    assert len(moved) == 7
    assert found.most == pytest.approx(max(moved), rel=1e-6)
    assert found.mean == pytest.approx(np.mean(moved), rel=1e-6)
    assert abs(np.array(seen) - 0.5).max() <= 0.02 + 1e-7


def test_images_stay_images(rng):
    def explain(images):
        assert images.min() >= 0
        assert images.max() <= 1
        return images.sum(-1)

    sensitivity(explain, np.ones((4, 4, 3), np.float32), rng, radius=0.5)


def test_captum_has_the_same_most(rng):
    metrics = pytest.importorskip("captum.metrics", exc_type=ImportError)
    import torch

    planted = plant(rng)
    seen = []

    def explain(images):
        seen.append(images)
        return planted.explain(images) ** 3

    ours = sensitivity(explain, planted.image, rng, samples=6)
    noisy = torch.from_numpy(seen[1])
    theirs = metrics.sensitivity_max(
        lambda x: (torch.from_numpy(planted.explain(x[0].numpy()) ** 3),),
        torch.from_numpy(planted.image)[None],
        perturb_func=lambda x: (noisy,),
        n_perturb_samples=6,
    )
    assert float(theirs[0]) == pytest.approx(ours.most, rel=1e-6)


def test_a_constant_map_wins_and_a_map_of_zeros_has_no_value(rng):
    image = np.full((4, 4, 3), 0.5, np.float32)
    assert sensitivity(lambda x: np.ones(x.shape[:3]), image, rng).most == 0
    nothing = sensitivity(lambda x: np.zeros(x.shape[:3]), image, rng)
    assert np.isnan(nothing.most)
    assert nothing.note == "the map is zero"
    with pytest.raises(ValueError, match="explain must return"):
        sensitivity(lambda x: x, image, rng)
