"""A map against nulls: by scipy on whole arrays, and by what chance does."""

import numpy as np
import pytest
from scipy import stats

from pathology.explain.layers.nulls import compare_with_nulls, normal_score
from pathology.explain.stitching import combine
from pathology.explain.stitching.stitch import Stitcher
from pathology.geometry import Box, Mpp, Size


def as_map(values, folder):
    """A map of these pixels; NaN is where no tile lies."""
    height, width = values.shape
    stitcher = Stitcher(Size(width, height), Mpp(1, 1), 1.0, Size(1, 1), folder)
    for i, j in np.argwhere(np.isfinite(values)):
        stitcher.add(Box(float(j), float(i), 1, 1), values[i : i + 1, j : j + 1])
    return stitcher.finish()


@pytest.fixture
def arrays(rng):
    """A map and three nulls of other scales; pixels that some do not cover."""
    values = rng.standard_normal((4, 13, 17)) * np.array([1, 0.01, 30, 0.2])[:, None, None]
    values[0, :, :3] = np.nan
    values[1, :2] = np.nan
    values[2:, 5, 5] = np.nan
    return values.astype(np.float32).astype(np.float64)


def compare(arrays, folder):
    maps = [as_map(values, folder / f"{i}") for i, values in enumerate(arrays)]
    return compare_with_nulls(maps[0], maps[1:], folder / "layers")


@pytest.mark.parametrize("held", [1 << 21, 200])
def test_layers_are_what_scipy_says(arrays, tmp_path, monkeypatch, held):
    monkeypatch.setattr(combine, "HELD_VALUES", held)
    layers, figures = compare(arrays, tmp_path)
    mass = np.nansum(np.abs(arrays), axis=(1, 2))
    alike = np.nan_to_num(arrays) * (mass[0] / mass)[:, None, None]
    own = alike[0]
    wanted = {name: np.full(own.shape, np.nan) for name in layers}
    for i, j in np.ndindex(*own.shape):
        nulls = alike[1:, i, j][np.isfinite(arrays[1:, i, j])]
        wanted["null_mean"][i, j] = nulls.mean()
        wanted["null_p"][i, j] = (1 + (np.abs(nulls) >= np.abs(own[i, j])).sum()) / (1 + len(nulls))
        if len(nulls) > 1:
            spread = wanted["null_spread"][i, j] = nulls.std(ddof=1)
            t = (own[i, j] - nulls.mean()) / (spread * np.sqrt(1 + 1 / len(nulls)))
            score = stats.norm.isf(stats.t(len(nulls) - 1).sf(np.abs(t)))
            wanted["null_z"][i, j] = np.sign(t) * score
    assert set(wanted) == {"null_mean", "null_spread", "null_z", "null_p"}
    for name, values in wanted.items():
        values = np.where(np.isfinite(arrays[0]), values, np.nan)
        # Layers are stored in float32.
        assert np.allclose(layers[name].values, values, rtol=1e-5, atol=1e-7, equal_nan=True), name
    assert figures.mass == pytest.approx(list(mass[1:] / mass[0]), rel=1e-9)
    shares = [
        sum(
            abs(alike[k, i, j])
            for i, j in np.ndindex(*own.shape)
            if all(abs(alike[k, i, j]) > abs(alike[other, i, j]) for other in {0, 1, 2, 3} - {k})
        )
        / mass[0]
        for k in range(4)
    ]
    assert [figures.beyond, *figures.beyond_of_nulls] == pytest.approx(shares, rel=1e-9)
    assert figures.p == (1 + sum(share >= shares[0] for share in shares[1:])) / 4
    for k, found in enumerate(figures.rank_correlation, 1):
        both = np.isfinite(arrays[0]) & np.isfinite(arrays[k])
        assert found == pytest.approx(stats.spearmanr(arrays[0][both], arrays[k][both])[0])
        sizes = np.abs(arrays)
        absolute = stats.spearmanr(sizes[0][both], sizes[k][both])[0]
        assert figures.rank_correlation_absolute[k - 1] == pytest.approx(absolute)


def test_the_size_of_a_nulls_evidence_does_not_matter(arrays, tmp_path):
    layers, figures = compare(arrays, tmp_path / "a")
    arrays[1:] *= np.array([64, 1 / 1024, 8])[:, None, None]  # exact in float32
    others, same = compare(arrays, tmp_path / "b")
    for name in layers:
        assert np.allclose(layers[name].values, others[name].values, rtol=1e-6, equal_nan=True)
    assert same.beyond == pytest.approx(figures.beyond)
    assert (same.p, same.rank_correlation) == (figures.p, figures.rank_correlation)


@pytest.mark.parametrize("count", [2, 3, 5, 19])
def test_the_score_of_a_further_null_is_normal(rng, count):
    nulls = rng.standard_normal((count + 1, 40_000)) * 7 + 3
    counts = np.full(40_000, count)
    score = normal_score(nulls[0] - nulls[1:].mean(0), nulls[1:].std(0, ddof=1), counts)
    # 40,000 independent draws: the statistic has a standard deviation of 0.004.
    assert stats.kstest(score, "norm").statistic < 0.012
    assert np.mean(np.abs(score) > 1.96) == pytest.approx(0.05, abs=0.005)


def test_scores_without_spread_and_far_out():
    off = np.array([0.0, 2.0, 1e9, -1e9])
    spread = np.array([0.0, 0.0, 1.0, 1.0])
    score = normal_score(off, spread, np.full(4, 20))
    assert score[0] == 0
    assert np.isnan(score[1])
    assert np.isfinite(score[2:]).all()
    assert score[2] == -score[3] > 20


def test_p_of_a_map_that_is_one_more_null_is_as_likely_as_its_rank(rng, tmp_path):
    found = []
    for i in range(60):
        # Heavy tails and correlated pixels, as in maps.
        values = rng.standard_t(2, (5, 6, 6)).cumsum(axis=2)
        found.append(compare(values, tmp_path / f"{i}")[1].p)
    assert min(found) == pytest.approx(0.2)
    # Binomial(60, 0.2) is at most 22 in 999 of 1000 cases, at least 4.
    assert 4 <= sum(p < 0.3 for p in found) <= 22


def test_evidence_where_nulls_have_none_stands_out(rng, tmp_path):
    values = rng.standard_normal((20, 12, 12))
    values[0] *= 0.1
    values[0, 3:6, 3:6] = 30
    layers, figures = compare(values, tmp_path)
    assert layers["null_z"].values[3:6, 3:6].min() > 3
    assert np.abs(layers["null_z"].values[8:, 8:]).max() < 3
    assert figures.p == pytest.approx(1 / 20)
    assert figures.beyond > 0.9


def test_pixels_of_a_map_that_picks_tiles_by_chance_do_not_stand_out(rng, tmp_path):
    # As of a pooling of the highest tiles: each map looks at a third of its own.
    looks = rng.random((6, 40, 40)) < 1 / 3
    values = np.where(looks, rng.standard_normal((6, 40, 40)), np.nan)
    layers, _ = compare(values, tmp_path)
    asked, p = looks[1:].sum(0)[looks[0]], layers["null_p"].values[looks[0]]
    for count in (1, 2, 3):
        share = np.mean(p[asked == count] < 1.001 / (1 + count))
        # 80 to 190 pixels each: four standard deviations.
        assert share == pytest.approx(1 / (1 + count), abs=0.2)
    assert (p[asked == 0] == 1).all()
    z = layers["null_z"].values[looks[0]]
    assert (np.isfinite(z) == (asked > 1)).all()
    assert np.mean(np.abs(z[asked > 1]) > 1.96) == pytest.approx(0.05, abs=0.05)


def test_maps_of_nothing(rng, tmp_path):
    values = rng.standard_normal((3, 4, 4))
    values[1] = 0
    layers, figures = compare(values, tmp_path / "null")
    assert figures.mass[0] == 0
    assert figures.rank_correlation[0] is None
    assert np.isfinite(layers["null_z"].values).all()
    values[0] = 0
    layers, figures = compare(values, tmp_path / "map")
    assert (figures.mass, figures.beyond, figures.p) == (None, 0, 1)
    assert np.nanmax(np.abs(layers["null_z"].values)) == 0


def test_one_null_has_no_spread(rng, tmp_path):
    with pytest.raises(ValueError, match="at least 2 nulls, got 1"):
        compare(rng.standard_normal((2, 3, 3)), tmp_path)
