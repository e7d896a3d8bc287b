"""Infidelity: 0 for a linear network whatever the scale, 1 for a map of nothing, and Captum's."""

import numpy as np
import pytest

from pathology.map_quality.infidelity import Infidelity, draw_squares, infidelity
from pathology.map_quality.question import Question
from tests.pathology.map_quality.planted import PALE, contestants, plant


def test_by_hand():
    found = Infidelity(np.array([1.0, 2.0]), np.array([2.0, 1.0]), np.array([1.0, 1.0]))
    # beta = (2 + 2) / (1 + 4); rests 0.8 - 2 and 1.6 - 1; falls squared 5.
    assert found.beta == pytest.approx(0.8)
    assert found.normalised == pytest.approx((1.2**2 + 0.6**2) / 5)
    assert found.raw == pytest.approx(1)
    assert found.uniform == pytest.approx((0.5**2 + 0.5**2) / 5)


def test_zero_for_a_linear_network_at_any_scale(rng):
    planted = plant(rng)
    for scale in (1, 1000, 1e-4):
        found = infidelity(planted.question(), scale * planted.map, rng, fill=PALE)
        assert found.normalised < 1e-12  # float32 light, squared
        assert found.beta == pytest.approx(1 / scale)
        assert found.uniform > 0.1
    bright = infidelity(
        Question(lambda x: 7 * planted.score(x), planted.image, 1), planted.map, rng
    )
    dim = infidelity(planted.question(), planted.map, np.random.default_rng(0))
    assert bright.raw > dim.raw


def test_the_exact_map_beats_chance_beats_its_opposite(rng):
    planted = plant(rng)
    best, chance, worst = (
        infidelity(planted.question(), one, rng, fill=PALE, samples=200).normalised
        for one in contestants(planted, rng)
    )
    assert best < 1e-12
    assert 0.1 < chance < 1
    # No negative factor saves it: but for its few signs it is a map of zeros.
    assert chance < worst <= 1


def test_undefined_says_why(rng):
    planted = plant(rng)
    constant = infidelity(planted.question(), np.ones((16, 16)), rng)
    assert np.isnan(constant.normalised)
    assert constant.note == "the map is constant"
    assert constant.uniform < 1
    nothing = infidelity(planted.question(0), planted.map, rng)
    assert np.isnan(nothing.normalised)
    assert np.isnan(nothing.uniform)
    assert nothing.note == "removing squares does nothing"


def test_captum_has_the_same_error(rng):
    metrics = pytest.importorskip("captum.metrics", exc_type=ImportError)
    import torch

    planted = plant(rng)
    values = planted.map + 0.05 * rng.normal(size=(16, 16))
    question = Question(lambda x: planted.score(x) ** 3, planted.image, 1)
    found = infidelity(question, values, np.random.default_rng(4), fill=PALE, samples=50)
    masks = draw_squares(np.random.default_rng(4), (16, 16), 50, (0.125, 0.5))
    image = torch.from_numpy(planted.image)

    def perturb(inputs):
        # Masks are all that is multiplied by the map, spread evenly over three colours.
        removed = torch.from_numpy(np.stack(masks))[..., None].expand(-1, -1, -1, 3)
        changed = torch.stack([torch.from_numpy(PALE(planted.image, mask)) for mask in masks])
        return removed.double(), changed

    def forward(images):
        return torch.from_numpy(planted.score(images.numpy()) ** 3)

    # Captum asks with all samples of an image at once.
    theirs = metrics.infidelity(
        forward,
        perturb,
        image[None],
        torch.from_numpy(values)[None, ..., None].expand(1, 16, 16, 3) / 3,
        target=1,
        n_perturb_samples=50,
        normalize=True,
    )
    ours = found.normalised * np.square(found.falls).mean()
    assert float(theirs[0]) == pytest.approx(ours, rel=1e-5)


def test_squares_lie_inside_and_have_all_sides(rng):
    masks = draw_squares(rng, (9, 12), 300, (0.2, 1.0))
    sides = {int(np.sqrt(mask.sum())) for mask in masks}
    assert all(int(np.sqrt(mask.sum())) ** 2 == mask.sum() for mask in masks)
    assert sides == set(range(2, 10))
    with pytest.raises(ValueError, match="samples must be"):
        draw_squares(rng, (9, 9), 0, (0.1, 0.5))
