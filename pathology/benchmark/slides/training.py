"""Aggregators trained on bags of slides, in seconds.

Every aggregator gets the same features, widths, optimiser, epochs and learning rates, of which the
one with the lowest loss of validation is taken, at its best epoch. A single output says whether a
slide has a lesion, by binary cross-entropy.
"""

import copy
import inspect
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pathology.aggregators import AGGREGATORS, Aggregator, make_aggregator
from pathology.benchmark.slides.bags import SlideBag

WEIGHT_DECAY = 1e-4


def common_scale(bags: Sequence[SlideBag]) -> float:
    """What features of any encoder are divided by: the root of their mean square.

    One number for all: a logit stays a sum over features, exactly.
    """
    squares = [float(bag.features.double().square().mean()) for bag in bags]
    return max(float(np.sqrt(np.mean(squares))), 1e-12)


def build(name: str, in_features: int, hidden: int, tiles: int) -> Aggregator:
    """An aggregator of a common width with one output.

    Args:
        name: of :data:`pathology.aggregators.AGGREGATORS`.
        in_features: of a tile.
        hidden: width of its layers; attention has half.
        tiles: that bags have, about.

    Raises:
        ValueError: no such aggregator.
    """
    options = {
        "hidden": hidden, "dim": hidden, "attention_hidden": hidden // 2,
        "expected_tiles": float(tiles),
    }  # fmt: skip
    known = inspect.signature(AGGREGATORS[name]).parameters if name in AGGREGATORS else {}
    taken = {key: value for key, value in options.items() if key in known}
    return make_aggregator(name, in_features, 1, **taken)


def train_aggregator(
    name: str,
    train: Sequence[SlideBag],
    val: Sequence[SlideBag],
    *,
    scale: float,
    hidden: int,
    epochs: int,
    batch: int,
    rates: Sequence[float],
    seed: int,
    device: torch.device,
) -> Aggregator:
    """The network with the lowest loss of validation, in eval mode on the CPU.

    Args:
        name: of :data:`pathology.aggregators.AGGREGATORS`.
        train: bags to learn from, with lesions and without.
        val: bags to choose epoch and learning rate by.
        scale: that features are divided by.
        hidden: see :func:`build`.
        epochs: over the bags.
        batch: bags of a step.
        rates: highest learning rates to try.
        seed: of weights and order.
        device: to train on.

    Raises:
        ValueError: no such aggregator; bags that are all of one kind.
    """
    for part, bags in (("train", train), ("val", val)):
        if {bag.label for bag in bags} != {0, 1}:
            raise ValueError(f"{part} needs slides with a lesion and slides without")
    best: tuple[float, Aggregator] | None = None
    for rate in rates:
        found = _train_at(name, train, val, scale, hidden, epochs, batch, rate, seed, device)
        if best is None or found[0] < best[0]:
            best = found
    if best is None:
        raise ValueError("there must be learning rates to try, got none")
    return best[1].cpu().eval()


def _train_at(
    name: str,
    train: Sequence[SlideBag],
    val: Sequence[SlideBag],
    scale: float,
    hidden: int,
    epochs: int,
    batch: int,
    rate: float,
    seed: int,
    device: torch.device,
) -> tuple[float, Aggregator]:
    """At one learning rate: the lowest loss of validation and the network that had it."""
    tiles = int(np.median([len(bag.features) for bag in train]))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = build(name, train[0].features.shape[1], hidden, tiles).to(device)
        optimiser = torch.optim.AdamW(model.parameters(), rate, weight_decay=WEIGHT_DECAY)
        steps = epochs * -(-len(train) // batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, rate, total_steps=steps, pct_start=0.1
        )
        lowest, best = float("inf"), copy.deepcopy(model.state_dict())
        for _ in range(epochs):
            model.train()
            for rows in torch.randperm(len(train)).split(batch):
                features, present, labels = padded([train[i] for i in rows], scale, device)
                loss = F.binary_cross_entropy_with_logits(model(features, present), labels)
                if hasattr(model, "auxiliary_loss"):
                    loss = loss + model.auxiliary_loss(features, present, labels)  # type: ignore[operator]
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()
                schedule.step()
            loss_of_val = _loss(model, val, scale, device)
            if loss_of_val < lowest:
                lowest, best = loss_of_val, copy.deepcopy(model.state_dict())
    model.load_state_dict(best)
    return lowest, model


def padded(
    bags: Sequence[SlideBag], scale: float, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Features ``(B, N, D)``, which of them there are ``(B, N)``, and labels ``(B, 1)``."""
    counts = torch.tensor([len(bag.features) for bag in bags])
    features = torch.zeros(len(bags), int(counts.max()), bags[0].features.shape[1])
    for row, bag in zip(features, bags, strict=True):
        row[: len(bag.features)] = bag.features / scale
    present = torch.arange(features.shape[1]) < counts[:, None]
    labels = torch.tensor([[float(bag.label)] for bag in bags])
    return features.to(device), present.to(device), labels.to(device)


@torch.no_grad()
def _loss(model: Aggregator, bags: Sequence[SlideBag], scale: float, device: torch.device) -> float:
    """Of whole bags, one by one."""
    model.eval()
    losses = []
    for bag in bags:
        features, present, labels = padded([bag], scale, device)
        losses.append(F.binary_cross_entropy_with_logits(model(features, present), labels))
    return float(torch.stack(losses).mean())
