"""Sharing out groups."""

import numpy as np

from pathology.benchmark.tile_sets.grouping import share_out


def test_groups_stay_whole_and_classes_are_spread() -> None:
    rng = np.random.default_rng(0)
    groups = [f"p{i}" for i in rng.integers(0, 40, 600)]
    labels = [("a", "b")[int(group[1:]) % 2] for group in groups]
    parts = np.array(share_out(groups, labels, {"train": 0.6, "val": 0.15, "test": 0.25}, 0))
    for group in set(groups):
        assert len(set(parts[np.array(groups) == group])) == 1
    for name in ("a", "b"):
        of_class = parts[np.array(labels) == name]
        for part, share in {"train": 0.6, "val": 0.15, "test": 0.25}.items():
            # A group is 5 % of its class: no part can be met more closely than that.
            assert abs((of_class == part).mean() - share) < 0.05


def test_it_is_the_same_by_seed_and_another_by_another() -> None:
    groups = [f"p{i % 30}" for i in range(300)]
    labels = ["a"] * 300
    shares = {"x": 1.0, "y": 1.0}
    assert share_out(groups, labels, shares, 3) == share_out(groups, labels, shares, 3)
    assert share_out(groups, labels, shares, 3) != share_out(groups, labels, shares, 4)
