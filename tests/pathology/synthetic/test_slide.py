"""Rendering: the same pixels however they are asked for, and a ground truth that fits them."""

from dataclasses import replace

import numpy as np
import pytest

from pathology.synthetic import Rendering, SyntheticSlideSpec, render, slide
from pathology.synthetic.layout import plan
from pathology.synthetic.nests import nests_around
from pathology.synthetic.stamps import Window

SPEC = SyntheticSlideSpec(11, (1300, 1100), tumour_fraction=0.5)


@pytest.fixture(scope="module")
def whole() -> Rendering:
    return render(SPEC, 0, 0, *SPEC.size_px)


@pytest.fixture(scope="module")
def pure() -> dict[int, list[Rendering]]:
    """The same slides once all normal and once all tumour, from inside the tissue."""
    return {
        kind: [
            render(
                SyntheticSlideSpec(seed, (1536, 1536), tumour_fraction=kind - 1.0),
                256,
                256,
                1024,
                1024,
            )
            for seed in (3, 4, 5)
        ]
        for kind in (1, 2)
    }


def same(a: Rendering, b: Rendering) -> bool:
    return (
        np.array_equal(a.rgb, b.rgb)
        and np.array_equal(a.regions, b.regions)
        and np.array_equal(a.evidence, b.evidence)
    )


@pytest.mark.parametrize("box", [(500, 480, 130, 90), (0, 0, 1, 1), (1299, 1099, 1, 1)])
def test_a_part_equals_the_same_part_of_the_whole(
    whole: Rendering, box: tuple[int, int, int, int]
) -> None:
    slide.nest_interior.cache_clear()
    x, y, w, h = box
    cut = (slice(y, y + h), slice(x, x + w))
    expected = Rendering(whole.rgb[cut], whole.regions[cut], whole.evidence[cut])
    assert same(render(SPEC, *box), expected)


def test_blocks_meet_without_a_seam() -> None:
    # Concentrations of two windows that overlap by 300 pixels, far from the grid of blocks.
    def window(x: int) -> Window:
        return Window(x, 430, 420, 260, SPEC.mpp)

    def planes(at: Window) -> tuple[np.ndarray, ...]:
        depth = plan(SPEC).depth(at.columns(), at.rows())
        return slide._concentrations(SPEC, at, depth, slide._materials(SPEC))

    for left, right in zip(planes(window(400)), planes(window(520)), strict=True):
        a, b = left[:, 120:].astype(float), right[:, :-120].astype(float)
        # Pixels on the very edge of a nucleus may fall to either side by rounding.
        assert (np.abs(a - b) > 2e-3).mean() < 1e-4


def test_other_seeds_give_other_slides(whole: Rendering) -> None:
    other = render(replace(SPEC, seed=12), 400, 400, 200, 200)
    assert not np.array_equal(other.evidence, whole.evidence[400:600, 400:600])


def test_every_point_has_its_owner_within_reach() -> None:
    from scipy.spatial import cKDTree

    from pathology.synthetic.nests import REACH

    for seed in range(4):
        spec = SyntheticSlideSpec(seed)
        nests = nests_around(spec, 0, 0, 3000, 3000)
        grid = np.stack(np.meshgrid(np.arange(0, 3000, 6.0), np.arange(0, 3000, 6.0)), -1)
        distance, _ = cKDTree(np.stack([nests.x, nests.y], 1)).query(grid.reshape(-1, 2))
        assert distance.max() < REACH


def test_evidence_lies_within_its_region(whole: Rendering) -> None:
    for kind in (1, 2):
        found = whole.regions[whole.evidence == kind]
        assert found.size > 10_000
        assert (found == kind).all()
    assert (whole.regions[whole.evidence > 0] > 0).all()
    assert set(np.unique(whole.evidence)) == {0, 1, 2, 3, 4}
    assert set(np.unique(whole.regions)) == {0, 1, 2}


def test_evidence_lies_on_dark_pixels(whole: Rendering) -> None:
    # Red is what haematoxylin takes away and eosin leaves.
    red = whole.rgb[..., 0].astype(float)
    plain = red[(whole.regions > 0) & (whole.evidence == 0)]
    for kind in (1, 2, 3, 4):
        assert red[whole.evidence == kind].mean() < np.quantile(plain, 0.05)


def test_every_tile_inside_a_region_holds_evidence(pure: dict[int, list[Rendering]]) -> None:
    for kind, parts in pure.items():
        shares = [
            (part.evidence[y : y + 128, x : x + 128] == kind).mean()
            for part in parts
            for y in range(0, 1024, 128)
            for x in range(0, 1024, 128)
            if (part.regions[y : y + 128, x : x + 128] == kind).mean() > 0.98
        ]
        assert len(shares) > 100
        assert min(shares) > 0.01


def test_classes_share_their_marginals(pure: dict[int, list[Rendering]]) -> None:
    def nuclei(kind: int) -> float:
        return float(np.mean([(p.evidence == kind)[p.regions > 0].mean() for p in pure[kind]]))

    def colour(kind: int, q: float) -> np.ndarray:
        return np.mean([np.quantile(p.rgb[p.regions > 0], q, axis=0) for p in pure[kind]], axis=0)

    def white(kind: int) -> float:
        return float(np.mean([(p.rgb.min(-1) > 215)[p.regions > 0].mean() for p in pure[kind]]))

    # Stated tolerances: 5 % of the nuclear area, 1 % of the area for holes, 3 grey levels.
    assert nuclei(2) == pytest.approx(nuclei(1), rel=0.05)
    assert white(2) == pytest.approx(white(1), abs=0.01)
    for q in (0.05, 0.1, 0.25, 0.5, 0.75, 0.9):
        np.testing.assert_allclose(colour(2, q), colour(1, q), atol=3)
    means = {
        k: np.mean([p.rgb[p.regions > 0].mean(0) for p in parts], axis=0)
        for k, parts in pure.items()
    }
    np.testing.assert_allclose(means[2], means[1], atol=1)


def test_tumour_nuclei_are_larger(pure: dict[int, list[Rendering]]) -> None:
    from scipy import ndimage

    # Opening with a disc of 3.5 micrometres removes normal nuclei and keeps most of tumour.
    grid = np.hypot(*np.mgrid[-7:8, -7:8]) <= 7.2
    left = {
        kind: ndimage.binary_opening(parts[0].evidence == kind, grid).sum()
        / (parts[0].evidence == kind).sum()
        for kind, parts in pure.items()
    }
    assert left[1] < 0.05
    assert left[2] > 0.3


def test_the_share_of_tumour_is_as_asked() -> None:
    for fraction in (0.0, 0.3, 0.7, 1.0):
        spec = SyntheticSlideSpec(21, (512, 512), mpp=2.0, tumour_fraction=fraction)
        regions = render(spec, 0, 0, 512, 512).regions
        share = (regions == 2).sum() / (regions > 0).sum()
        assert share == pytest.approx(fraction, abs=0.12 if 0 < fraction < 1 else 0)


def test_the_same_tissue_at_another_resolution() -> None:
    fine = render(SyntheticSlideSpec(5, (600, 600), 0.5), 0, 0, 600, 600)
    coarse = render(SyntheticSlideSpec(5, (300, 300), 1.0), 0, 0, 300, 300)
    assert (fine.regions[::2, ::2] == coarse.regions).mean() > 0.97
    is_nucleus = fine.evidence.reshape(300, 2, 300, 2).max((1, 3)) > 0
    assert is_nucleus[coarse.evidence > 0].mean() > 0.97


@pytest.mark.parametrize(
    "bad",
    [
        {"seed": -1},
        {"size_px": (0, 5)},
        {"mpp": 0.01},
        {"mpp": float("nan")},
        {"tumour_fraction": 1.5},
        {"lymphocytes": float("nan")},
    ],
)
def test_a_bad_specification_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        replace(SPEC, **bad)


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (0, 0, 0, 5), (1299, 0, 2, 1)])
def test_a_rectangle_off_the_slide_is_refused(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="not on a slide"):
        render(SPEC, *box)
