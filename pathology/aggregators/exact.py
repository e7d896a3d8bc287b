"""What exact aggregators share: B-cos layers that hold no constant, and logits at the end."""

import math

from torch import nn

from bcos_vit.layers import (
    BcosLayerNorm,
    BcosLayerScale,
    BcosLinear,
    Logits,
    default_logit_bias,
)
from pathology.aggregators.aggregator import Aggregator

HIGHEST_BIAS = -1.0
"""Of one logit of several; :func:`bag_logit_bias` says why it is not lower."""


def bag_logit_bias(outputs: int) -> float:
    """``logit(1 / outputs)``, but at most -1; for a single output that of other B-cos networks.

    Those begin at -3 (:func:`bcos_vit.layers.default_logit_bias`), since they have no slope where
    evidence is zero. A bag's evidence begins larger; and where several outputs share out all bags,
    what a bias takes from each has to be found in tiles of any kind, which then outweigh key tiles.
    """
    return min(HIGHEST_BIAS, -math.log(outputs - 1)) if outputs > 1 else default_logit_bias(1)


class ExactAggregator(Aggregator):
    """Logits that are a logit bias plus a sum over tiles, ``sum_i g_i . h_i``.

    A sub-class gives :meth:`evidence` without any constant in it.

    Args:
        in_features, outputs: as in :class:`Aggregator`.
        logit_bias: the only constant; :func:`bag_logit_bias` when omitted.
        temperature: divides the evidence.
    """

    exact = True
    dynamic_linear = True
    logits: Logits

    def __init__(
        self,
        in_features: int,
        outputs: int,
        *,
        logit_bias: float | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(in_features, outputs)
        bias = bag_logit_bias(outputs) if logit_bias is None else logit_bias
        self.logits = Logits(outputs, bias, temperature)


def evidence_layers(
    in_features: int,
    outputs: int,
    *,
    hidden: int,
    layers: int,
    b: float,
    max_out: int,
    drop: float = 0.0,
    pooled: bool = False,
) -> nn.Sequential:
    """B-cos layers from vectors to evidence: ``(..., in_features)`` to ``(..., outputs)``.

    A norm before each layer brings inputs of any scale to one length, so neither the encoder nor
    the layers before matter to the size of the evidence; a learnt scale per output ends it.

    Args:
        in_features: size of the vectors.
        outputs: evidence of each vector.
        hidden: size between layers.
        layers: how many come before the one that gives evidence.
        b: exponent of every B-cos layer.
        max_out: linear units behind each B-cos output.
        drop: dropout of what each layer takes.
        pooled: whether vectors, or this evidence, are averaged over many tiles. A vector in a
            direction at random has a cosine of about 1 / sqrt(n) with any weight, n the size of
            what the last layer takes; averaged, that leaves hardly a slope to learn by, so the
            scale of each output starts at n^((b-1)/2), which makes such evidence of order one,
            instead of at 1.

    Raises:
        ValueError: fewer than 0 layers, ``hidden`` below 1.
    """
    if layers < 0 or hidden < 1:
        raise ValueError(
            f"layers must be at least 0 and hidden at least 1, got {layers} and {hidden}"
        )
    parts = bcos_layers(in_features, [hidden] * layers + [outputs], b=b, max_out=max_out, drop=drop)
    last = hidden if layers else in_features
    gain = last ** ((b - 1) / 2) if pooled else 1.0
    return nn.Sequential(*parts, BcosLayerScale(outputs, gain))


def bcos_layers(
    in_features: int, widths: list[int], *, b: float, max_out: int, drop: float
) -> list[nn.Module]:
    """B-cos layers of these widths, each behind a norm and dropout."""
    parts: list[nn.Module] = []
    size = in_features
    for width in widths:
        parts += [BcosLayerNorm(size), nn.Dropout(drop)]
        parts.append(BcosLinear(size, width, b=b, max_out=max_out))
        size = width
    return parts
