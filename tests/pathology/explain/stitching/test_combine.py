"""Mean and disagreement of maps, against one stitch of everything and numpy on whole arrays."""

import math
import tracemalloc

import numpy as np
import pytest

from pathology.errors import LedgerError
from pathology.explain.ledger import Ledger, Undivided
from pathology.explain.stitching import combine
from pathology.explain.stitching.combine import disagreement, mean_ledger, mean_map
from pathology.explain.stitching.stitch import Stitcher
from pathology.geometry import Box, Mpp, Size

SLIDE = Size(97.0, 83.0)
MPP = Mpp(0.5, 0.41)


def stitch(tiles, folder, size=SLIDE, out_mpp=1.7):
    stitcher = Stitcher(size, MPP, out_mpp, Size(20, 20), folder, band=8)
    for box, cells, weight in sorted(tiles, key=lambda tile: tile[0].y):
        stitcher.add(box, cells, weight)
    return stitcher.finish()


def grid_of_tiles(rng, dx, dy):
    """Tiles of 20 px over the middle of the slide, moved, some of them over its right edge."""
    return [
        (Box(x + dx, y + dy, 20, 20), rng.standard_normal((3, 4)), rng.uniform(0, 0.1))
        for y in range(10, 60, 20)
        for x in range(10, 90, 20)
    ]


@pytest.fixture(params=[1 << 21, 500], ids=["one band", "bands"])
def band(request, monkeypatch):
    """So many values at once that there is one band, or many of a few rows."""
    monkeypatch.setattr(combine, "HELD_VALUES", request.param)


@pytest.fixture
def members(rng):
    return [grid_of_tiles(rng, dx, dy) for dx, dy in [(0, 0), (5, -7), (-9.3, 11.1)]]


@pytest.fixture
def maps(members, tmp_path):
    return [stitch(tiles, tmp_path / f"m{i}") for i, tiles in enumerate(members)]


def test_the_mean_is_one_stitch_of_all_tiles(members, maps, tmp_path, band):
    mean = mean_map(maps, tmp_path / "mean")
    union = [(box, cells, weight / 3) for tiles in members for box, cells, weight in tiles]
    wanted = stitch(union, tmp_path / "union")
    ours, theirs = mean.additive.values, wanted.additive.values
    assert (np.isnan(ours) == np.isnan(theirs)).all()
    # Members are stored in float32.
    assert np.allclose(np.nan_to_num(ours), np.nan_to_num(theirs), rtol=0, atol=1e-8)
    assert np.allclose(mean.coverage.values, wanted.coverage.values, rtol=1e-6)
    assert np.allclose(
        np.nan_to_num(mean.density().values), np.nan_to_num(wanted.density().values), rtol=1e-4
    )
    assert mean.given == pytest.approx(wanted.given, abs=1e-15)
    assert mean.cut_off == pytest.approx(wanted.cut_off, abs=1e-15)
    assert mean.absolute_sum == pytest.approx(wanted.absolute_sum, rel=1e-14)
    assert mean.tiles == wanted.tiles


def test_the_means_sum_is_the_mean_of_sums(maps, tmp_path, band):
    mean = mean_map(maps, tmp_path / "mean")
    assert mean.map_sum == pytest.approx(mean.additive.sum(), abs=1e-14)
    assert mean.given == pytest.approx(mean.map_sum + mean.rounding + mean.cut_off, abs=1e-15)
    # Rounding to float32, once in the members and once in their mean.
    assert abs(mean.rounding) < 1e-7 * mean.absolute_sum
    exact = np.mean([np.nan_to_num(part.additive.values).astype(np.float64) for part in maps], 0)
    assert np.array_equal(np.nan_to_num(mean.additive.values), exact.astype(np.float32))


def test_a_mean_replaces_an_earlier_one_and_its_density(maps, tmp_path):
    before = mean_map(maps[:1], tmp_path / "mean").density().values.copy()
    after = mean_map(maps, tmp_path / "mean").density().values
    assert not np.array_equal(np.nan_to_num(before), np.nan_to_num(after))


def test_disagreement_is_asked_of_those_that_look(maps, tmp_path, band):
    layers, agreed = disagreement(maps, tmp_path / "layers")
    stack = np.stack([part.additive.values for part in maps]).astype(np.float64)
    looking = np.isfinite(stack).sum(0)
    assert set(np.unique(looking)) == {0, 1, 2, 3}
    assert np.array_equal(layers["members"].values, looking)
    spread, agreement = (np.full(looking.shape, np.nan) for _ in range(2))
    for i, j in np.argwhere(looking):
        values = stack[np.isfinite(stack[:, i, j]), i, j]
        agreement[i, j] = np.mean(np.sign(values) == np.sign(values.sum()))
        if len(values) > 1:
            spread[i, j] = np.std(values, ddof=1)
    # float32
    assert np.allclose(layers["spread"].values, spread, rtol=1e-6, atol=1e-12, equal_nan=True)
    assert np.allclose(layers["agreement"].values, agreement, rtol=1e-6, equal_nan=True)
    sizes = np.abs(np.nansum(stack, axis=0))
    assert agreed == pytest.approx(sizes[agreement == 1].sum() / sizes.sum(), rel=1e-12)
    assert layers["spread"].box == maps[0].box


def test_members_that_say_nothing_agree(tmp_path):
    zeros = [(Box(0, 0, 20, 20), np.zeros((2, 2)), 1.0)]
    maps = [stitch(zeros, tmp_path / name) for name in "ab"]
    layers, agreed = disagreement(maps, tmp_path / "layers")
    assert np.nanmin(layers["agreement"].values) == 1
    assert np.nanmax(layers["spread"].values) == 0
    assert agreed is None


def ledger(score, stitched, bias, constants, **more):
    return Ledger(score, bias, stitched.map_sum, stitched.cut_off, 1e-4, constants, **more)


def test_the_means_ledger_is_the_mean_of_ledgers_and_closes(maps, tmp_path):
    mean = mean_map(maps, tmp_path / "mean")
    constants = [{"tokens": 0.25}, {"tokens": 0.5, "biases": 1.5}, {}]
    ledgers = [
        ledger(
            part.given - i + sum(terms.values()), part, -float(i), terms,
            undivided=Undivided(2, -0.1, 0.2 * i) if i else None,
        )
        for i, (part, terms) in enumerate(zip(maps, constants, strict=True))
    ]  # fmt: skip
    found = mean_ledger(ledgers, mean)
    assert found.score == pytest.approx(np.mean([each.score for each in ledgers]), abs=1e-15)
    assert found.bias == -1
    assert found.constants == {"tokens": 0.25, "biases": 0.5}
    assert found.map_sum == mean.map_sum
    assert found.cut_off == pytest.approx(math.fsum(m.cut_off for m in maps) / 3, abs=1e-16)
    assert found.gap < 1e-7  # storage in float32
    assert found.undivided.tiles == 4
    assert found.undivided.net == pytest.approx(-0.2 / 3)
    assert found.undivided.absolute == pytest.approx(0.6 / 3)


def test_a_ledger_that_does_not_close_is_no_mean(maps, tmp_path):
    mean = mean_map(maps, tmp_path / "mean")
    ledgers = [ledger(part.given + 0.01, part, 0.0, {}) for part in maps]
    with pytest.raises(LedgerError, match="does not account"):
        mean_ledger(ledgers, mean)


def test_maps_that_do_not_lie_on_each_other_are_refused(members, maps, tmp_path):
    other = stitch(members[0], tmp_path / "other", out_mpp=1.6)
    with pytest.raises(ValueError, match="one shape"):
        mean_map([maps[0], other], tmp_path / "mean")
    with pytest.raises(ValueError, match="at least 2"):
        disagreement(maps[:1], tmp_path / "layers")


def test_memory_does_not_grow_with_the_slide(rng, tmp_path, monkeypatch):
    monkeypatch.setattr(combine, "HELD_VALUES", 1 << 14)

    def peak(height):
        size = Size(200.0, height)
        tiles = [(Box(0, y, 20, 20), rng.standard_normal((2, 2)), 1.0) for y in range(0, 90, 10)]
        maps = [stitch(tiles, tmp_path / f"{height}{name}", size, 0.5) for name in "abc"]
        tracemalloc.start()
        mean_map(maps, tmp_path / f"{height}mean")
        disagreement(maps, tmp_path / f"{height}layers")
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(8000.0) < 1.2 * peak(1000.0)
