"""Scores of tiles by every way an aggregator offers, for batches of whole bags and all outputs."""

import torch
from torch import Tensor

from bcos_vit.layers import explanation_mode
from pathology.aggregators.aggregator import Aggregator

SCORES = ("contribution", "removal", "attention", "gradient_input")
"""What a tile contributes by an exact or additive form; the logit minus the logit without it; what
is usually drawn, of no class; and gradient times features, as for any network."""


def tile_scores(aggregator: Aggregator, features: Tensor) -> dict[str, Tensor]:
    """Scores of tiles.

    Args:
        aggregator: in eval mode.
        features: ``(bags, tiles, in_features)``.

    Returns:
        By name of :data:`SCORES`, ``(bags, tiles, outputs)`` each; those the aggregator has.
    """
    found = {
        "contribution": contributions(aggregator, features),
        "removal": removals(aggregator, features),
        "attention": attention(aggregator, features),
        "gradient_input": gradient_input(aggregator, features),
    }
    return {name: scores for name, scores in found.items() if scores is not None}


def contributions(aggregator: Aggregator, features: Tensor) -> Tensor | None:
    """Those of :func:`pathology.aggregators.explain.explain_bag`."""
    if aggregator.exact:
        with explanation_mode():
            return gradient_input(aggregator, features)
    with torch.no_grad():
        form = aggregator.tile_contributions(features)
    return None if form is None else form[0]


def removals(aggregator: Aggregator, features: Tensor) -> Tensor:
    """Those of :func:`pathology.aggregators.removal.removal_effects`, by forward passes."""
    tiles = features.shape[1]
    kept = ~torch.eye(tiles, dtype=torch.bool, device=features.device)
    with torch.no_grad():
        whole = aggregator(features)
        effects = [
            logits - aggregator(bag.expand(tiles, -1, -1), kept)
            for bag, logits in zip(features, whole, strict=True)
        ]
    return torch.stack(effects)


def attention(aggregator: Aggregator, features: Tensor) -> Tensor | None:
    """The same for every output."""
    with torch.no_grad():
        weights = aggregator.attention(features)
    return None if weights is None else weights[..., None].expand(-1, -1, aggregator.outputs)


def gradient_input(aggregator: Aggregator, features: Tensor) -> Tensor:
    """``sum_d h_d dlogit/dh_d`` of each tile and output."""
    leaf = features.detach().clone().requires_grad_()
    with torch.enable_grad():
        logits = aggregator(leaf).sum(0)
    products = []
    for output in range(aggregator.outputs):
        keep = output + 1 < aggregator.outputs
        (gradient,) = torch.autograd.grad(logits[output], leaf, retain_graph=keep)
        products.append((gradient * features).sum(-1))
    return torch.stack(products, dim=-1)
