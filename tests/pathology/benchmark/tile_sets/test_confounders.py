"""Planted confounders."""

from pathlib import Path

import numpy as np
import pytest

from pathology.benchmark.tile_sets import TileSet, make_tile_set
from pathology.benchmark.tile_sets.confounders import CONFOUNDERS, SHARES, Confounder, plant

SETTINGS = {
    "kind": "synthetic",
    "tiles": {"train": 40, "val": 4, "test": 16},
    "size_px": 32,
    "per_patient": 100,  # few patients, since rendering is what takes time
    "confounder": "pen",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> TileSet:
    return make_tile_set(SETTINGS, tmp_path_factory.mktemp("sets") / "pen")


@pytest.mark.parametrize("kind", CONFOUNDERS)
def test_outside_its_mask_no_pixel_is_changed(kind: Confounder) -> None:
    rng = np.random.default_rng(0)
    tile = rng.integers(60, 250, (64, 64, 3)).astype(np.uint8)
    before = tile.copy()
    masks = []
    for _ in range(20):
        painted = plant(kind, tile, rng)
        changed = (painted.rgb != tile).any(-1)
        assert not (changed & ~painted.mask).any()
        assert changed[painted.mask].mean() > 0.95  # noise may give a blurred pixel its own value
        masks.append(painted.mask)
    np.testing.assert_array_equal(tile, before)
    if kind == "tint":
        assert np.all(masks)
        return
    least, most = SHARES[kind]
    assert all(least <= mask.mean() <= most for mask in masks)


@pytest.mark.parametrize("kind", ["pen", "blur"])
def test_marks_lie_anywhere(kind: Confounder) -> None:
    rng = np.random.default_rng(1)
    tile = rng.integers(60, 250, (32, 32, 3)).astype(np.uint8)
    often = np.stack([plant(kind, tile, rng).mask for _ in range(400)]).mean(0)
    quarters = [often[y : y + 16, x : x + 16].mean() for y in (0, 16) for x in (0, 16)]
    assert max(quarters) < 1.25 * min(quarters)
    # A map of the middle, the best guess without looking, finds little more than chance.
    assert often[8:24, 8:24].mean() < 1.6 * often.mean()


@pytest.mark.parametrize("light_rows", [0, 1])
def test_ink_that_cannot_show_is_told(light_rows: int) -> None:
    tile = np.zeros((32, 32, 3), np.uint8)
    tile[:light_rows] = 220
    with pytest.raises(ValueError, match=r"pen: of 500 marks none shows on 6 to 22 % of a tile"):
        plant("pen", tile, np.random.default_rng(0))


def test_marks_go_with_the_class_in_training(made: TileSet) -> None:
    for split in ("train", "val"):
        examples = made.split(split)
        has_mark = examples.masks["confounder"].any((1, 2))
        np.testing.assert_array_equal(has_mark, examples.labels == 1)
        np.testing.assert_array_equal(has_mark, examples.columns["confounder"] == "pen")


def test_every_test_tile_is_there_with_and_without(made: TileSet) -> None:
    test = made.split("test")
    has_mark = np.asarray(test.masks["confounder"].any((1, 2)))
    aligned = (test.columns["stratum"] == "aligned").to_numpy()
    np.testing.assert_array_equal(aligned, has_mark == (test.labels == 1))
    for base in set(test.columns["base"]):
        one, other = np.flatnonzero(test.columns["base"] == base)
        assert has_mark[one] != has_mark[other]
        assert aligned[one] != aligned[other]
        mark = test.masks["confounder"][one] | test.masks["confounder"][other]
        differs = (test.images[one] != test.images[other]).any(-1)
        np.testing.assert_array_equal(differs, mark)
        for name in ("evidence", "region", "other"):
            np.testing.assert_array_equal(test.masks[name][one], test.masks[name][other])


def test_a_weaker_correlation_is_met(tmp_path: Path) -> None:
    settings = SETTINGS | {"tiles": {"train": 200, "val": 4, "test": 4}, "correlation": 0.5}
    train = make_tile_set(settings, tmp_path / "set").split("train")
    has_mark = train.masks["confounder"].any((1, 2))
    aligned = (has_mark == (train.labels == 1)).mean()
    # 0.75 of 200; four standard deviations of a coin's mean.
    assert abs(aligned - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 200)
