"""ROAD: deletion by noisy linear imputation."""

import numpy as np
import pytest

from pathology.map_quality.deletion import deletion
from pathology.map_quality.question import Question
from pathology.map_quality.replacement import Inpainting
from pathology.map_quality.road import LEVELS, road
from tests.pathology.map_quality.planted import contestants, plant


def test_without_noise_it_is_deletion_by_inpainting(rng):
    planted = plant(rng)
    found = road(planted.question(), planted.map, rng, noise=0)
    expected = deletion(planted.question(), planted.map, rng, fill=Inpainting(), steps=LEVELS)
    np.testing.assert_array_equal(found.morf, expected.morf)
    np.testing.assert_array_equal(found.lerf, expected.lerf)


def test_noise_is_on_what_was_removed_and_follows_the_seed():
    planted = plant(np.random.default_rng(1))
    seen = []

    def score(images):
        seen.append(images)
        return planted.score(images)

    def run(seed):
        generator = np.random.default_rng(seed)
        return road(
            Question(score, planted.image, 1), planted.map, generator, levels=[0.5, 0.9]
        ).morf

    np.testing.assert_array_equal(run(3), run(3))
    assert (run(3) != run(4)).any()
    order = np.argsort(-planted.map.ravel())
    removed = np.zeros(256, bool)
    removed[order[:128]] = True
    removed = removed.reshape(16, 16)
    noise = seen[0][0] - Inpainting()(planted.image, removed)
    np.testing.assert_array_equal(noise[~removed], 0)
    # 384 draws: their deviation is known to 3.6 %.
    assert noise[removed].std() == pytest.approx(0.01, rel=0.15)


def test_the_exact_map_beats_chance_beats_its_opposite(rng):
    planted = plant(rng)
    best, chance, worst = (
        road(planted.question(), one, rng).mean_difference("logit")
        for one in contestants(planted, rng)
    )
    assert best > 5 * abs(chance)
    assert worst < -5 * abs(chance)


def test_quantus_road_does_not_take_rgb(rng):
    """Why ours: theirs fails on any image of three channels."""
    quantus = pytest.importorskip("quantus", exc_type=ImportError)
    import torch

    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 2))
    metric = quantus.ROAD(percentages=[50], disable_warnings=True, display_progressbar=False)
    with pytest.raises(IndexError, match="out of bounds"):
        metric(
            model=network, x_batch=rng.random((2, 3, 8, 8)).astype(np.float32),
            y_batch=np.array([0, 1]), a_batch=rng.random((2, 1, 8, 8)), device="cpu",
        )  # fmt: skip
