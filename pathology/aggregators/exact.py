"""What exact aggregators share: B-cos layers that hold no constant, and logits at the end."""

from torch import nn

from bcos_vit.layers import BcosLayerNorm, BcosLayerScale, BcosLinear, Logits
from pathology.aggregators.aggregator import Aggregator


class ExactAggregator(Aggregator):
    """Logits that are a logit bias plus a sum over tiles, ``sum_i g_i . h_i``.

    A sub-class gives :meth:`evidence` without any constant in it.

    Args:
        in_features, outputs: as in :class:`Aggregator`.
        logit_bias: the only constant; :func:`bcos_vit.layers.default_logit_bias` when omitted.
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
        self.logits = Logits(outputs, logit_bias, temperature)


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
        pooled: whether this evidence will be averaged over many vectors. A vector in a direction at
            random has a cosine of about 1 / sqrt(n) with any weight, n the size of what the last
            layer takes; averaged, that leaves hardly a slope to learn by, so the scale of each
            output starts at n^((b-1)/2), which makes such evidence of order one, instead of at 1.

    Raises:
        ValueError: fewer than 0 layers, ``hidden`` below 1.
    """
    if layers < 0 or hidden < 1:
        raise ValueError(
            f"layers must be at least 0 and hidden at least 1, got {layers} and {hidden}"
        )
    parts: list[nn.Module] = []
    size = in_features
    for width in [hidden] * layers + [outputs]:
        parts += [BcosLayerNorm(size), nn.Dropout(drop)]
        parts.append(BcosLinear(size, width, b=b, max_out=max_out))
        size = width
    last = hidden if layers else in_features
    gain = last ** ((b - 1) / 2) if pooled else 1.0
    return nn.Sequential(*parts, BcosLayerScale(outputs, gain))
