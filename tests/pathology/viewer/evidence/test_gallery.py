"""The strongest tiles, against sorting by hand."""

import numpy as np
import pytest
import shapely

from pathology.viewer.evidence.gallery import (
    CURVE_POINTS,
    MOST_TILES,
    gallery,
    strengths,
    tiles_inside,
)
from pathology.viewer.evidence.tiles import Tiles


def made(share, positive=None, negative=None, weight=0.5):
    """Tiles of 10 px in a row, whose parts default to those of one sign."""
    share = np.asarray(share, float)
    count = len(share)
    weight = np.broadcast_to(np.asarray(weight, float), count).copy()
    own = np.divide(share, weight, out=np.zeros(count), where=weight != 0)
    positive = np.maximum(own, 0) if positive is None else np.asarray(positive, float)
    negative = np.minimum(own, 0) if negative is None else np.asarray(negative, float)
    boxes = np.c_[10.0 * np.arange(count), np.zeros(count), np.full((count, 2), 10.0)]
    columns = {"weight": weight, "contribution": own, "positive": positive, "negative": negative}
    columns |= dict.fromkeys(("bias", "gap"), np.full(count, np.nan))
    return Tiles(boxes, share, columns, {}, np.isnan(positive))


def by_hand(strength):
    """Numbers of the tiles in order, and the share that the first 0, 1, 2, ... carry."""
    known = np.nan_to_num(strength)
    order = sorted(range(len(known)), key=lambda i: (-known[i], i))
    order = [i for i in order if known[i] > 0]
    return order, [float(sum(known[order[:k]]) / sum(known)) for k in range(len(order) + 1)]


@pytest.mark.parametrize("order", ["for", "against", "cancelling"])
@pytest.mark.parametrize("seed", range(3))
def test_order_curve_and_statement(order, seed):
    rng = np.random.default_rng(seed)
    positive, negative = rng.random(60).round(1) * 3, -rng.random(60).round(1)
    weight = rng.choice([0.0, 0.25, 1.0], 60)
    positive[:7] = negative[:7] = np.nan
    tiles = made(weight * np.nan_to_num(positive + negative, nan=2.0), positive, negative, weight)
    strength = strengths(tiles, order)
    assert np.nanmin(strength) >= 0
    indices, carried = by_hand(strength)
    found = gallery(tiles, order, 5)
    assert found.indices.tolist() == indices[:5]
    assert found.counts.tolist() == list(range(len(indices) + 1))
    np.testing.assert_allclose(found.shares, carried, atol=1e-12)
    fewest = next(k for k, share in enumerate(carried) if share >= 0.8 - 1e-12)
    assert (found.statement.tiles, found.statement.share, found.statement.of) == (fewest, 0.8, 60)
    assert found.evidence == pytest.approx(np.nansum(strength))
    assert found.unknown == (np.isnan(strength).sum() if order == "cancelling" else 0)
    everything = gallery(tiles, order, 500)
    assert everything.indices.tolist() == indices


def test_what_each_kind_is():
    # Shares of +1, -2 and nearly 0; the last hides 5 and -4.9, half of which count.
    tiles = made([1.0, -2.0, 0.05], [2.5, 1.0, 5.0], [-0.5, -5.0, -4.9], weight=0.5)
    np.testing.assert_allclose(strengths(tiles, "for"), [1, 0, 0.05])
    np.testing.assert_allclose(strengths(tiles, "against"), [0, 2, 0])
    np.testing.assert_allclose(strengths(tiles, "cancelling"), [0.25, 0.5, 2.45])
    assert gallery(tiles, "cancelling", 9).indices.tolist() == [2, 1, 0]
    assert gallery(tiles, "against", 9).indices.tolist() == [1]


def test_a_statement_as_the_page_reads_it():
    found = gallery(made([4.0, 4.0, 1.0, 1.0, -3.0]), "for", 2)
    assert (found.statement.tiles, found.statement.of) == (2, 5)  # 8 of 10, which is 80 %
    found = gallery(made([1.0]), "for", 2)
    assert (found.statement.tiles, found.shares.tolist()) == (1, [0, 1])


def test_tiles_inside_are_those_whose_centre_is():
    tiles = made([1.0, 2.0, 3.0, 4.0])
    region = shapely.box(0, 0, 25.1, 10)  # a bit more than half of the third
    assert tiles_inside(tiles, region).tolist() == [0, 1, 2]
    assert tiles_inside(tiles, shapely.box(0, 0, 24.9, 10)).tolist() == [0, 1]
    found = gallery(tiles, "for", 9, region)
    assert found.indices.tolist() == [2, 1, 0]
    assert found.statement.of == 3
    assert found.evidence == 6
    holed = region.difference(shapely.box(12, 2, 18, 8))
    assert tiles_inside(tiles, holed).tolist() == [0, 2]
    several = shapely.MultiPolygon([shapely.box(0, 0, 9, 9), shapely.box(31, 1, 39, 9)])
    assert gallery(tiles, "for", 9, several).indices.tolist() == [3, 0]


def test_no_evidence_of_a_kind():
    for tiles, inside in (
        (made([1.0, 2.0]), None),
        (made([-1.0, -2.0]), shapely.box(100, 100, 200, 200)),
        (made([]), None),
    ):
        found = gallery(tiles, "against", 5, inside)
        assert (len(found.indices), found.statement, found.evidence) == (0, None, 0.0)
        assert (found.counts.tolist(), found.shares.tolist()) == ([0], [0])


def test_what_is_known_of_no_tile_is_no_answer():
    unknown = np.full(3, np.nan)
    tiles = made([1.0, 2.0, 3.0], unknown, unknown)
    assert gallery(tiles, "for", 1).indices.tolist() == [2]
    with pytest.raises(ValueError, match="known of none of these 3"):
        gallery(tiles, "cancelling", 1)


def test_the_curve_of_many_tiles_is_short_and_holds_the_statement():
    rng = np.random.default_rng(0)
    tiles = made(rng.exponential(size=60_000) ** 3)
    found = gallery(tiles, "for", MOST_TILES)
    assert len(found.indices) == MOST_TILES
    assert len(found.counts) <= CURVE_POINTS
    assert (np.diff(found.counts) > 0).all()
    assert (np.diff(found.shares) > 0).all()
    assert (found.counts[0], found.counts[-1], found.shares[0]) == (0, 60_000, 0)
    assert found.shares[-1] == 1
    sorted_shares = np.cumsum(np.sort(tiles.share)[::-1])
    at = found.counts.tolist().index(found.statement.tiles)
    assert found.shares[at] >= 0.8 > sorted_shares[found.statement.tiles - 2] / sorted_shares[-1]
    wanted = sorted_shares[found.counts[1:] - 1] / sorted_shares[-1]
    np.testing.assert_allclose(found.shares[1:], wanted, rtol=1e-12)


@pytest.mark.parametrize(
    ("order", "count", "words"),
    [
        ("best", 3, "order must be one of for, against, cancelling, got 'best'"),
        ("for", -1, "n must be from 0 to 500"),
        ("for", MOST_TILES + 1, "n must be from 0 to 500"),
    ],
)
def test_wrong_arguments(order, count, words):
    with pytest.raises(ValueError, match=words):
        gallery(made([1.0]), order, count)
