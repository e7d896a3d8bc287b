"""Minimal sets against a search by forward passes, all subsets, and their own promise."""

from itertools import combinations

import pytest
import torch

from pathology.benchmark.slides.bag_logits import BagLogits
from pathology.benchmark.slides.minimal import minimal_necessary_set, minimal_sufficient_set
from tests.pathology.benchmark.slides.made import aggregator

POOLING = ("abmil", "clam", "bcos_attention", "bcos_pooled", "abmil_linear")


@torch.no_grad()
def run(model, features, tiles):
    return float(model(features[sorted(tiles)][None])[0, 0])


def naive(model, features, sign, threshold):
    """By forward passes alone: grow (+1) or shrink (-1), then give back; and how many passes."""
    every, passes = set(range(len(features))), 0
    taken = []

    def logit(tiles):
        inside = set(tiles) if sign > 0 else every - set(tiles)
        return run(model, features, inside)

    def tried(sets):
        nonlocal passes
        passes += len(sets)
        return [sign * logit(tiles) for tiles in sets]

    while sign * logit(taken) < sign * threshold or (sign > 0 and not taken):
        left = sorted(every - set(taken))
        if not left:
            return None
        values = tried([[*taken, tile] for tile in left])
        taken.append(left[max(range(len(left)), key=values.__getitem__)])
    while len(taken) > (sign > 0):
        values = tried([[t for t in taken if t != tile] for tile in taken])
        best = max(range(len(taken)), key=values.__getitem__)
        if values[best] < sign * threshold:
            break
        taken.pop(best)
    return taken, logit(taken), passes


def between(model, features):
    """A threshold between the empty bag and the whole one, nearer to the whole."""
    empty, whole = run(model, features, []), run(model, features, range(len(features)))
    return 0.3 * empty + 0.7 * whole, whole > empty


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", [*POOLING, "bcos_gated_sum", "transmil"])
def test_as_by_forward_passes(name, seed):
    torch.manual_seed(seed)
    model, features = aggregator(name), torch.randn(9, 5, dtype=torch.float64)
    logits = BagLogits(model, features)
    threshold, _ = between(model, features)
    for sign, search in ((1, minimal_sufficient_set), (-1, minimal_necessary_set)):
        found, expected = search(logits, 0, threshold), naive(model, features, sign, threshold)
        if expected is None:
            assert found is None
            continue
        tiles, logit, passes = expected
        assert found.tiles.tolist() == tiles
        assert found.logit == pytest.approx(logit, abs=1e-10)
        assert found.forward_passes == passes
        assert found.closed_form == logits.closed_form


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", POOLING)
def test_no_tile_can_be_left_out(name, sign):
    search = minimal_sufficient_set if sign > 0 else minimal_necessary_set
    sizes = []
    for seed in range(5):
        torch.manual_seed(seed)
        model, features = aggregator(name), torch.randn(12, 5, dtype=torch.float64)
        every = set(range(12))
        threshold, _ = between(model, features)
        found = search(BagLogits(model, features), 0, threshold)
        if found is None:
            continue
        tiles = set(found.tiles.tolist())
        sizes.append(len(tiles))
        inside = tiles if sign > 0 else every - tiles
        assert run(model, features, inside) == pytest.approx(found.logit, abs=1e-10)
        assert sign * found.logit >= sign * threshold
        for tile in tiles if len(tiles) > 1 else ():
            inside = tiles - {tile} if sign > 0 else every - tiles | {tile}
            assert sign * run(model, features, inside) < sign * threshold
    assert max(sizes) > 0


def test_of_a_gated_sum_it_is_the_smallest_there_is():
    """Contributions add up, so that the largest ones are the fewest."""
    torch.manual_seed(1)
    model, features = aggregator("bcos_gated_sum"), torch.randn(8, 5, dtype=torch.float64)
    logits = BagLogits(model, features)
    empty = run(model, features, [])
    best = max(run(model, features, s) for k in range(9) for s in combinations(range(8), k))
    threshold = (empty + best) / 2
    found = minimal_sufficient_set(logits, 0, threshold)
    sizes = [
        k
        for k in range(9)
        if any(run(model, features, s) >= threshold for s in combinations(range(8), k))
    ]
    assert len(found.tiles) == sizes[0]


def test_a_slide_has_at_least_one_tile():
    """Also where the empty bag would do: then it is the best one."""
    model, features = aggregator("bcos_attention"), torch.randn(5, 5, dtype=torch.float64)
    logits = BagLogits(model, features)
    singles = [run(model, features, [i]) for i in range(5)]
    found = minimal_sufficient_set(logits, 0, min([*singles, run(model, features, [])]) - 1)
    assert found.tiles.tolist() == [max(range(5), key=singles.__getitem__)]
    assert found.forward_passes == 5
    assert minimal_sufficient_set(logits, 0, 1e6) is None
    assert minimal_necessary_set(logits, 0, -1e6) is None
    assert minimal_sufficient_set(BagLogits(model, features[:0]), 0, -1e6) is None


@pytest.mark.parametrize(("seed", "tiles"), [(44, [8, 4]), (51, [8, 0]), (34, None)])
def test_the_empty_bag_would_do_but_no_single_tile(seed, tiles):
    torch.manual_seed(seed)
    model, features = aggregator("abmil"), torch.randn(9, 5, dtype=torch.float64)
    single = max(run(model, features, [i]) for i in range(9))
    double = max(run(model, features, pair) for pair in combinations(range(9), 2))
    threshold = (single + max(single, double)) / 2 + 1e-6
    assert run(model, features, []) > threshold
    found = minimal_sufficient_set(BagLogits(model, features), 0, threshold)
    assert (None if found is None else found.tiles.tolist()) == tiles
    assert (naive(model, features, 1, threshold) or [None])[0] == tiles
