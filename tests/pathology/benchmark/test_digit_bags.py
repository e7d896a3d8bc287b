"""Digit bags: labels and evidence as the paper's words say, pictures never in two splits."""

import builtins

import numpy as np
import pytest
import torch

from pathology.benchmark.digit_bags import (
    SPLITS,
    TOYS,
    digit_bags,
    draw_digits,
    picture_split,
    pictures,
)


def slow_label(toy, bag):
    """The paper's sentence for one bag."""
    bag = set(bag)
    if toy == "four_bags":
        if {8, 9} <= bag:
            return 3
        return 1 if 8 in bag else 2 if 9 in bag else 0
    if toy == "pos_neg":
        return int(len(bag & {4, 6, 8}) > len(bag & {5, 7, 9}))
    return int(any({n, n + 1} <= bag for n in range(4)))


def slow_evidence(toy, bag, digit, target):
    if toy == "four_bags":
        supports = {8: {1, 3}, 9: {2, 3}}
        if digit not in supports:
            return 0
        return 1 if target in supports[digit] else -1
    if toy == "pos_neg":
        for_one = 1 if digit in (4, 6, 8) else -1 if digit in (5, 7, 9) else 0
    else:
        inside = digit <= 4
        after = digit + 1 <= 4 and digit + 1 in bag
        before = digit - 1 >= 0 and digit - 1 in bag
        for_one = int(inside and (after or before))
    return for_one if target == 1 else -for_one


@pytest.mark.parametrize("toy", TOYS)
def test_labels_and_evidence_follow_the_rules(toy):
    bags = digit_bags(toy, "train", 200, tiles=6, seed=3)
    digits = bags.digits.tolist()
    assert bags.labels.tolist() == [slow_label(toy, bag) for bag in digits]
    expected = [
        [[slow_evidence(toy, bag, d, c) for c in range(TOYS[toy].classes)] for d in bag]
        for bag in digits
    ]
    assert bags.evidence.tolist() == expected
    assert set(bags.labels.tolist()) == set(range(TOYS[toy].classes))


def test_features_are_the_pixels_of_the_digit_and_their_negative():
    bags = digit_bags("pos_neg", "val", 20, tiles=5)
    pixels, names = pictures()
    shown = (pixels * 16).astype(int)
    for tile, digit in zip(bags.features.flatten(0, 1), bags.digits.flatten(), strict=True):
        row = ((tile[:64] + 1) * 8).int().numpy()
        assert digit in names[(shown == row).all(1)]
    assert torch.equal(bags.features[..., 64:], -bags.features[..., :64])
    assert bags.features.dtype == torch.float32


def test_no_picture_is_in_two_splits_and_digits_are_shared_out_alike():
    _, names = pictures()
    split = picture_split(names, seed=1)
    rows = np.concatenate(list(split.values()))
    assert sorted(rows) == list(range(len(names)))
    for name, share in SPLITS.items():
        counts = np.bincount(names[split[name]], minlength=10)
        assert np.abs(counts - share * np.bincount(names)).max() <= 1


def test_bags_are_of_their_own_split():
    pixels, names = pictures()
    test = digit_bags("four_bags", "test", 50, tiles=8, seed=2).features[..., :64].flatten(0, 1)
    allowed = {row.tobytes() for row in 2 * pixels[picture_split(names, 2)["test"]] - 1}
    assert all(row.tobytes() in allowed for row in test.numpy())


def test_same_arguments_same_bags_and_each_argument_counts():
    one = digit_bags("four_bags", "train", 10, seed=4)
    assert torch.equal(one.features, digit_bags("four_bags", "train", 10, seed=4).features)
    for toy, split, seed in [
        ("pos_neg", "train", 4), ("four_bags", "val", 4), ("four_bags", "train", 5),
    ]:  # fmt: skip
        assert not torch.equal(one.digits, digit_bags(toy, split, 10, seed=seed).digits)


def test_each_digit_is_in_half_of_the_pools():
    digits = draw_digits(np.random.default_rng(0), 4000, 60)
    shares = [(digits == digit).any(1).mean() for digit in range(10)]
    # 60 tiles miss a digit of their pool of at most ten with probability 0.9^60 = 0.002; the
    # standard error of a share is 0.008, and pools that are empty are drawn again.
    assert np.abs(np.array(shares) - 0.5).max() < 0.03


def test_unknown_names():
    with pytest.raises(ValueError, match="toy must be one of four_bags, pos_neg, adjacent_pairs"):
        digit_bags("five_bags", "train", 1)
    with pytest.raises(ValueError, match="split must be one of train, val, test, got 'all'"):
        digit_bags("pos_neg", "all", 1)


def test_without_scikit_learn(monkeypatch):
    found = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return found(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"pip install bcos-pathology\[benchmark\]"):
        digit_bags("pos_neg", "train", 1)
