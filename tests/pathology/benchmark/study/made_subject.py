"""Tiles with a dark square, a network that adds up darkness, and methods that see it or do not."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from bcos_vit.attribution import Attribution, Classifier
from pathology.benchmark.study.measures import GROUPS, Subject
from pathology.benchmark.tile_sets import Examples, TileSet

SIDE = 16


def examples(count=8, seed=0, confounder=False):
    """Tiles of glass-like tissue; those of class 1 have a dark square of 4 x 4 px."""
    rng = np.random.default_rng(seed)
    images = np.full((count, SIDE, SIDE, 3), 150, np.uint8)
    images += rng.integers(0, 10, images.shape, dtype=np.uint8)
    evidence = np.zeros((count, SIDE, SIDE), bool)
    labels = np.arange(count) % 2
    for i in np.flatnonzero(labels):
        y, x = rng.integers(0, SIDE - 4, 2)
        evidence[i, y : y + 4, x : x + 4] = True
    images[evidence] = 20
    masks = {"evidence": evidence, "region": evidence | np.roll(evidence, 1, 1)}
    names = tuple(f"tile{seed}_{i}" for i in range(count))
    patients = tuple(f"patient{i // 2}" for i in range(count))
    return Examples(images, labels, names, patients, masks, pd.DataFrame(index=range(count)))


@dataclass(frozen=True, eq=False)
class MadeSet(TileSet):
    """A set of which the splits are in memory."""

    parts: dict = field(default_factory=dict)

    def split(self, name):
        return self.parts[name]


def made_set(masks=("evidence", "region")):
    parts = {"train": examples(16, 1), "val": examples(8, 2), "test": examples(8, 3)}
    return MadeSet(
        Path("nowhere"), "made", ("normal", "tumour"), SIDE, "tumour", masks, "stamp",
        pd.DataFrame(columns=["split"]), parts=parts,
    )  # fmt: skip


class Darkness(nn.Module):
    """Logit of class 1: darkness above a level, summed over pixels; of class 0 its negative."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        dark = (self.weight * ((0.35 - x.mean(1)).clamp_min(0))).sum((1, 2)) - 0.5
        return torch.stack([-dark, dark], 1)


@dataclass(frozen=True)
class Seeing:
    """The network's own terms; ``sees`` False has noise instead."""

    sees: bool = True
    name: str = "seeing"
    is_signed: bool = True
    unit: str = "logits"

    def check(self, classifier):
        pass

    def __call__(self, classifier, images, target):
        logits = classifier(images).detach()
        if self.sees:
            maps = classifier.model.weight.detach() * (0.35 - images.mean(1)).clamp_min(0)
        else:
            source = torch.Generator().manual_seed(int(images.sum() * 1000))
            maps = torch.rand(images[:, 0].shape, generator=source)
        sign = (2 * target - 1).float()
        bias = -0.5 * sign
        return Attribution(
            maps * sign[:, None, None], target, logits, self.unit, {"bias": bias},
            forward_passes=1,
        )  # fmt: skip


def subject(method, **changes):
    tiles = changes.pop("tiles", None) or made_set()
    classifier = Classifier(Darkness(), nn.Identity()).eval()
    return Subject(
        classifier, method, tiles, tiles.split("test"), tiles.split("val"), torch.device("cpu"),
        batch=4, load_variant=changes.pop("load_variant", lambda name: classifier),
    )  # fmt: skip


def numbers(values, metric, stratum=""):
    return np.array([v.value for v in values if v.metric == metric and v.stratum == stratum])


def measured(group, method, **settings):
    """Values of a group of metrics with its own settings but for ``settings``."""
    made = subject(method) if not isinstance(method, Subject) else method
    return GROUPS[group].measure(made, **{**GROUPS[group].settings, **settings})
