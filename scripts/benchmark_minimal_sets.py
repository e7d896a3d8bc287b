"""Time of minimal sets of tiles by closed form, against a forward pass for each set that is tried.

A bag of 10,000 tiles with 512 features each, fresh weights, float32, one thread. To be reached is
the logit that :data:`ROUNDS` greedy rounds reach. A round of the slow search is a forward pass per
tile that is left. These are counted exactly and taken to last as long as a few of the last round
do: hours are that product, not a measurement::

    OMP_NUM_THREADS=1 python scripts/benchmark_minimal_sets.py [--tiles 10000] [--tried 5]
"""

import argparse
import time
from collections.abc import Callable

import torch

from pathology.aggregators import make_aggregator
from pathology.aggregators.removal import greedy_addition, greedy_removal
from pathology.benchmark.slides.bag_logits import BagLogits
from pathology.benchmark.slides.minimal import (
    MinimalSet,
    minimal_necessary_set,
    minimal_sufficient_set,
)

NAMES = ("bcos_attention", "bcos_gated_sum", "bcos_pooled", "abmil", "clam")
SEARCHES: dict[str, Callable[[BagLogits, int, float], MinimalSet | None]] = {
    "sufficient": minimal_sufficient_set,
    "necessary": minimal_necessary_set,
}
ROUNDS = 50


@torch.no_grad()
def measure(name: str, tiles: int, tried: int) -> None:
    """One aggregator; prints both searches, their times and how far logits differ."""
    torch.manual_seed(0)
    model = make_aggregator(name, 512, 1).eval()
    features = torch.randn(tiles, 512)
    subsets = BagLogits(model, features)
    thresholds = {
        "sufficient": float(greedy_addition(model, features, 0, ROUNDS).logits[1:].max()),
        "necessary": float(greedy_removal(model, features, 0, ROUNDS).logits[-1]),
    }
    for kind, search in SEARCHES.items():
        start = time.perf_counter()
        found = search(subsets, 0, thresholds[kind])
        closed = time.perf_counter() - start
        assert found is not None
        kept = torch.full((tiles,), kind == "necessary")
        kept[found.tiles] = kind == "sufficient"
        gap = abs(float(model(features[kept][None])) - found.logit)
        each = seconds(model, features, kept, kind == "sufficient", tried)
        slow = each * found.forward_passes
        print(
            f"{name:15} {kind:10}: {len(found.tiles):4} tiles, {found.rounds:4} rounds in"
            f" {closed:6.2f} s; {found.forward_passes:9,} forward passes of {1000 * each:6.1f} ms"
            f" = {slow / 3600:7.1f} h (from {tried}), ratio {slow / closed:8,.0f};"
            f" logit differs by {gap:.1e}"
        )


@torch.no_grad()
def seconds(
    model: torch.nn.Module, features: torch.Tensor, kept: torch.Tensor, adds: bool, tried: int
) -> float:
    """Of a forward pass of the search, mean over bags that it comes by."""
    places = (~kept if adds else kept).nonzero().flatten()[:tried].tolist()
    start = time.perf_counter()
    for tile in places:
        row = kept.clone()
        row[tile] = adds
        model(features[row][None])
    return (time.perf_counter() - start) / len(places)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=10_000)
    parser.add_argument("--tried", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in NAMES:
        measure(name, given.tiles, given.tried)


if __name__ == "__main__":
    main()
