"""Painted artefacts: where the mask says, and light as Beer and Lambert have it."""

import numpy as np
import pytest
from scipy import ndimage

from pathology.synthetic.artefacts import (
    INKS,
    Painted,
    paint_black,
    paint_blur,
    paint_edge,
    paint_fold,
    paint_pen,
    paint_tint,
)

SIDE = 400
WHERE = np.zeros((SIDE, SIDE), bool)
WHERE[50:350, 50:350] = True


def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    rgb = np.full((SIDE, SIDE, 3), 240.0)
    rgb[WHERE] = rng.uniform(100, 200, (WHERE.sum(), 3))
    return rgb.astype(np.uint8)


def paint(name: str, seed: int = 0) -> Painted:
    rng, rgb = np.random.default_rng(seed), image()
    before = rgb.copy()
    painted = {
        "pen": lambda: paint_pen(rgb, 2.0, rng, "green", width_um=80.0),
        "fold": lambda: paint_fold(rgb, 2.0, rng, WHERE, width_um=40.0),
        "blur": lambda: paint_blur(rgb, 2.0, rng),
        "edge": lambda: paint_edge(rgb, 2.0, rng),
        "bubble": lambda: paint_edge(rgb, 2.0, rng, bubble=True),
        "black": lambda: paint_black(rgb, 2.0, rng),
    }[name]()
    np.testing.assert_array_equal(rgb, before)
    return painted


every = pytest.mark.parametrize("name", ["pen", "fold", "blur", "edge", "bubble", "black"])


@every
def test_nothing_changes_away_from_the_mask(name: str) -> None:
    painted = paint(name)
    changed = (painted.rgb != image()).any(axis=2)
    assert painted.mask.any()
    assert not painted.mask.all()
    # The soft rim of what absorbs: 3 sigma of at most 2 px.
    assert not (changed & ~ndimage.binary_dilation(painted.mask, iterations=9)).any()
    core = ndimage.binary_erosion(painted.mask, iterations=2)
    assert changed[core].mean() > 0.95


@every
def test_the_seed_decides(name: str) -> None:
    np.testing.assert_array_equal(paint(name, 3).rgb, paint(name, 3).rgb)
    assert (paint(name, 3).rgb != paint(name, 4).rgb).any()


@pytest.mark.parametrize("ink", INKS)
def test_ink_absorbs_as_said(ink: str) -> None:
    glass = np.full((SIDE, SIDE, 3), 250, np.uint8)
    painted = paint_pen(glass, 2.0, np.random.default_rng(0), ink, width_um=160.0)  # type: ignore[arg-type]
    core = ndimage.binary_erosion(painted.mask, iterations=10)
    density = np.log(250 / painted.rgb[core].clip(1)).mean(axis=0)
    # Streaks of 12 % cancel to some percent, rounding of dark channels adds some.
    np.testing.assert_allclose(density, INKS[ink], rtol=0.12)


def test_a_fold_is_denser_and_lies_on_tissue_only() -> None:
    painted = paint("fold")
    assert not painted.mask[~WHERE].any()
    before, after = (
        -np.log(rgb[painted.mask] / 245).mean() for rgb in (image(), painted.rgb.clip(1))
    )
    assert 2.0 < after / before < 3.5


def test_blur_takes_detail_and_keeps_the_mean() -> None:
    painted = paint("blur")
    core = ndimage.binary_erosion(painted.mask & WHERE, iterations=8)
    assert painted.rgb[core].std() < 0.5 * image()[core].std()
    assert painted.rgb[core].mean() == pytest.approx(image()[core].mean(), abs=1.0)


def test_black_reaches_the_edge() -> None:
    painted = paint("black")
    assert painted.mask[:, -1].all()
    assert painted.mask[0, 0]
    assert len(np.unique(painted.rgb[painted.mask])) == 1
    assert painted.rgb[painted.mask].max() < 8


def test_a_tint_takes_the_whole_image_and_is_met_exactly() -> None:
    gains = (0.9, 1.0, 1.2)
    painted = paint_tint(image(), 2.0, np.random.default_rng(0), gains=gains)
    assert painted.mask.all()
    wanted = np.minimum(image() * np.array(gains), 255)
    assert np.abs(painted.rgb - wanted).max() <= 0.5  # whole numbers
    np.testing.assert_array_equal(painted.rgb[..., 1], image()[..., 1])
