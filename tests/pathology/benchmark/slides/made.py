"""Bags whose truth is planted: lesion tiles have a feature that others do not."""

import numpy as np
import torch

from pathology.aggregators import make_aggregator
from pathology.benchmark.slides.bags import SlideBag

SMALL = {"hidden": 8, "attention_hidden": 4, "dim": 8, "num_heads": 2, "heads": 2}
EVERY = (
    "bcos_gated_sum", "bcos_attention", "bcos_pooled", "bcos_mean", "bcos_top", "bcos_transformer",
    "abmil", "abmil_linear", "additive", "clam", "transmil", "mean", "max",
)  # fmt: skip


def aggregator(name, in_features=5, outputs=1, dtype=torch.float64):
    """In eval mode, with no bias at 0 and no attention that hardly attends."""
    import inspect

    from pathology.aggregators import AGGREGATORS

    known = inspect.signature(AGGREGATORS[name]).parameters
    options = {key: value for key, value in SMALL.items() if key in known}
    model = make_aggregator(name, in_features, outputs, **options).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def planted_bag(name, lesion, rng, side=6, tile_px=64, mpp=1.0, dims=5, strength=3.0):
    """A square slide of ``side * side`` tiles, the first rows of the raster lesion.

    Args:
        lesion: tiles of lesion, the first ones row by row.
        strength: what their first feature has more.
    """
    count = side * side
    features = rng.standard_normal((count, dims)).astype(np.float32)
    tumour = np.zeros(count)
    tumour[:lesion] = 1.0
    features[:lesion, 0] += strength
    places = np.arange(count)
    corners = np.stack([places % side, places // side], axis=1) * tile_px
    step = SlideBag.raster_um / mpp
    cells = int(side * tile_px / step)
    at = ((np.arange(cells) + 0.5) * step // tile_px).astype(int)
    raster = (tumour.reshape(side, side) > 0)[np.ix_(at, at)]
    return SlideBag(name, torch.from_numpy(features), tumour, corners, tile_px, mpp, raster, 0.5)
