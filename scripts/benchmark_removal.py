"""Time of removal effects by closed form, against running the aggregator without each tile.

A bag of 10,000 tiles with 512 features each, fresh weights, float32, one thread. The slow way is
timed on a few tiles, which are compared with the closed form, and extrapolated to all::

    OMP_NUM_THREADS=1 python scripts/benchmark_removal.py [--tiles 10000] [--tried 5]
"""

import argparse
import time

import torch

from pathology.aggregators import make_aggregator
from pathology.aggregators.removal import greedy_removal, removal_effects

NAMES = (
    "bcos_mean", "bcos_top", "bcos_attention", "bcos_gated_sum", "bcos_pooled", "abmil", "clam",
)  # fmt: skip


@torch.no_grad()
def measure(name: str, tiles: int, tried: int, rounds: int) -> None:
    """One aggregator; prints seconds, their ratio, the largest difference, and a greedy search."""
    torch.manual_seed(0)
    model = make_aggregator(name, 512, 2).eval()
    features = torch.randn(tiles, 512)
    start = time.perf_counter()
    found = removal_effects(model, features, 0)
    closed = time.perf_counter() - start
    logit = float(model(features[None])[0, 0])
    worst = 0.0
    start = time.perf_counter()
    for i in range(tried):
        left = torch.cat([features[:i], features[i + 1 :]])
        effect = logit - float(model(left[None])[0, 0])
        worst = max(worst, abs(effect - float(found.effects[i])))
    slow = (time.perf_counter() - start) / tried * tiles
    start = time.perf_counter()
    greedy_removal(model, features, 0, rounds)
    greedy = time.perf_counter() - start
    print(
        f"{name:15} closed form {closed:7.2f} s, each forward {slow:8.0f} s (from {tried}),"
        f" ratio {slow / closed:8.0f}, largest difference {worst:.1e};"
        f" {rounds} greedy rounds {greedy:6.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=10_000)
    parser.add_argument("--tried", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in NAMES:
        measure(name, given.tiles, given.tried, given.rounds)


if __name__ == "__main__":
    main()
