"""Deletion curves: by hand, by a slow loop, and by Quantus."""

from dataclasses import fields

import numpy as np
import pytest

from pathology.map_quality.deletion import deletion
from pathology.map_quality.question import Question
from pathology.map_quality.replacement import Colour
from tests.pathology.map_quality.planted import LIGHT, PALE, contestants, plant

BLACK = Colour((0.0, 0.0, 0.0))
FIELDS = [one.name for one in fields(Question)]


def four_pixels():
    """Four grey pixels of light 1 with contributions 3, 1, -1, 0 to the logit of class 0."""
    image = np.ones((2, 2, 3), np.float32)
    weights = np.array([[3.0, 1.0], [-1.0, 0.0]])

    def score(images):
        logit = (images.mean(-1) * weights).sum((1, 2))
        return np.stack([logit, 0 * logit], 1)

    return score, image, weights


def test_curves_by_hand(rng):
    score, image, weights = four_pixels()
    curves = deletion(Question(score, image, 0), weights, rng, fill=BLACK, steps=4)
    np.testing.assert_allclose(curves.shares, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curves.curve("morf", "logit"), [3, 0, -1, -1, 0], atol=1e-12)
    np.testing.assert_allclose(curves.curve("lerf", "logit"), [3, 4, 4, 3, 0], atol=1e-12)
    # Trapezoids of width 1/4.
    assert curves.deletion("logit") == pytest.approx((3 / 2 + 0 - 1 - 1 + 0) / 4)
    assert curves.insertion("logit") == pytest.approx((3 / 2 + 4 + 4 + 3 + 0) / 4)
    assert curves.abpc("logit") == pytest.approx((12.5 + 0.5) / 4)
    assert curves.mean_difference("logit") == pytest.approx((0 + 4 + 5 + 4 + 0) / 5)
    sigmoid = 1 / (1 + np.exp(-np.array([3, 0, -1, -1, 0])))
    np.testing.assert_allclose(curves.curve("morf"), sigmoid)
    # Of two equal logits the first is the higher one.
    np.testing.assert_array_equal(curves.accuracy("morf"), [1, 1, 0, 0, 1])


def test_insertion_inserts(rng):
    planted = plant(rng)
    curves = deletion(planted.question(), planted.map, rng, fill=PALE, steps=8)
    order = np.argsort(-planted.map.ravel())
    empty = np.full_like(planted.image, LIGHT)
    inserted = []
    for count in range(0, 257, 32):
        picture = empty.copy().reshape(-1, 3)
        picture[order[:count]] = planted.image.reshape(-1, 3)[order[:count]]
        inserted.append(planted.score(picture.reshape(1, 16, 16, 3))[0, 1])
    np.testing.assert_allclose(curves.curve("lerf", "logit")[::-1], inserted, atol=1e-9)
    assert curves.insertion("logit") == pytest.approx(np.trapezoid(inserted, dx=1 / 8))


def test_the_exact_map_beats_chance_beats_its_opposite(rng):
    planted = plant(rng)
    best, chance, worst = (
        deletion(planted.question(), one, rng).abpc("logit") for one in contestants(planted, rng)
    )
    assert best > 5 * abs(chance)
    assert worst == pytest.approx(-best)


def test_a_constant_map_is_chance(rng):
    planted = plant(rng)
    curves = deletion(planted.question(), np.ones((16, 16)), rng, fill=PALE, steps=4, orders=400)
    assert curves.morf.shape == (400, 5, 2)
    # In random order the expected logit falls along a straight line.
    line = planted.map.sum() * (1 - curves.shares)
    spread = curves.morf[..., 1].std(0) / 20
    assert (abs(curves.curve("morf", "logit") - line) <= 4 * spread + 1e-6).all()
    assert (abs(curves.curve("lerf", "logit") - line) <= 4 * spread + 1e-6).all()


def test_ties_are_broken_by_chance_not_by_place(rng):
    values = np.zeros((4, 4))
    values[2:] = 1

    def top_half(images):
        return images[:, :2].mean((1, 2, 3), dtype=np.float64)[:, None]

    image = np.ones((4, 4, 3), np.float32)
    # A quarter is removed, all of the lower half; which of it must not matter, nor always be same.
    seen = []

    def score(images):
        seen.extend(images[..., 0] == 0)
        return top_half(images)

    deletion(Question(score, image, 0), values, rng, fill=BLACK, steps=[0, 0.25], orders=20)
    # Of each order: morf at 0 and at a quarter, lerf at 0 and at a quarter.
    first, last = np.array(seen)[1::4], np.array(seen)[3::4]
    assert not first[:, :2].any()
    assert not last[:, 2:].any()
    assert (first.sum((1, 2)) == 4).all()
    assert len(np.unique(first.reshape(20, -1), axis=0)) > 5


def test_parts_go_as_a_whole_by_their_mean(rng):
    score, image, _ = four_pixels()
    parts = np.array([[7, 7], [3, 5]])
    # Means: 0.5, 2, 1; the sum of part 7 would be as high as any.
    values = np.array([[1.0, 0.0], [2.0, 1.0]])
    curves = deletion(Question(score, image, 0), values, rng, fill=BLACK, steps=3, parts=parts)
    np.testing.assert_allclose(curves.curve("morf", "logit"), [3, 4, 4, 0], atol=1e-12)
    np.testing.assert_allclose(curves.curve("lerf", "logit"), [3, -1, -1, 0], atol=1e-12)
    # More steps than parts are as many as there are parts, not steps that do nothing.
    finer = deletion(Question(score, image, 0), values, rng, fill=BLACK, steps=20, parts=parts)
    np.testing.assert_allclose(finer.shares, [0, 1 / 3, 2 / 3, 1])
    assert finer.deletion("logit") == pytest.approx(curves.deletion("logit"))


def test_batches_do_not_change_curves():
    planted = plant(np.random.default_rng(1))
    one, other = (
        deletion(planted.question(batch=b), planted.map, np.random.default_rng(2)) for b in (1, 64)
    )
    np.testing.assert_allclose(one.morf, other.morf, rtol=1e-12)


def test_quantus_has_the_same_curve(rng):
    quantus = pytest.importorskip("quantus", exc_type=ImportError)
    planted = plant(rng, side=8)
    image = planted.image.mean(-1, keepdims=True).repeat(3, -1)
    planted.image = image
    import torch

    class Network(torch.nn.Module):
        def forward(self, images):
            rgb = images.repeat(1, 3, 1, 1).permute(0, 2, 3, 1)
            return torch.from_numpy(planted.score(rgb.detach().numpy()))

    theirs = quantus.PixelFlipping(
        features_in_step=8, perturb_baseline=LIGHT, normalise=False,
        abs=False, disable_warnings=True, display_progressbar=False, return_aggregate=False,
    )(
        model=Network().eval(), x_batch=image[None, ..., 0][:, None], y_batch=np.array([1]),
        a_batch=planted.map[None, None], device="cpu", softmax=False,
    )  # fmt: skip
    ours = deletion(Question(planted.score, image, 1), planted.map, rng, fill=PALE, steps=8)
    # Theirs leaves out the whole image; its areas need a NumPy before 2.4. float32 light of 0.7.
    np.testing.assert_allclose(ours.curve("morf", "logit")[1:], np.ravel(theirs), atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"attribution": np.zeros((3, 4))}, "value per pixel"),
        ({"attribution": np.full((4, 4), np.nan)}, "map must be finite"),
        ({"image": np.full((4, 4, 3), 255.0, np.float32)}, r"RGB in \[0, 1\]"),
        ({"image": np.zeros((3, 4, 4), np.float32)}, r"must be \(h, w, 3\)"),
        ({"target": 2}, "one of 2 classes"),
        ({"steps": [0.5, 0.2]}, "rise"),
        ({"steps": 0}, "at least 1"),
        ({"steps": [0.5, 0.51]}, "all the same of 16 parts"),
        ({"orders": 0}, "orders"),
        ({"batch": 0}, "batch"),
        ({"parts": np.zeros((2, 2), int)}, "parts must have"),
        ({"score": lambda images: np.zeros(len(images))}, "score must return"),
        ({"score": lambda images: np.full((len(images), 2), np.nan)}, "0% of them finite"),
    ],
)
def test_what_does_not_fit_is_refused(changed, message, rng):
    arguments = {
        "score": lambda images: np.zeros((len(images), 2)),
        "image": np.zeros((4, 4, 3), np.float32),
        "attribution": np.zeros((4, 4)),
        "target": 0,
        "rng": rng,
        "fill": Colour(),
    } | changed
    asked = {name: arguments.pop(name) for name in FIELDS if name in arguments}
    with pytest.raises(ValueError, match=message):
        deletion(Question(**asked), **arguments)
