"""Aggregators by name."""

import difflib
from typing import Any

from pathology.aggregators.abmil import AttentionMIL, LinearAttentionMIL
from pathology.aggregators.additive import AdditiveMIL
from pathology.aggregators.aggregator import Aggregator
from pathology.aggregators.clam import ClassAttentionMIL
from pathology.aggregators.local_logits import BcosAttended, BcosGatedSum, BcosMean, BcosTop
from pathology.aggregators.pooled import BcosPooled
from pathology.aggregators.pooled_features import MaximumFeatures, MeanFeatures
from pathology.aggregators.transformer import BcosTransformer
from pathology.aggregators.transmil import TransMIL

AGGREGATORS: dict[str, type[Aggregator]] = {
    "bcos_mean": BcosMean,
    "bcos_top": BcosTop,
    "bcos_attention": BcosAttended,
    "bcos_pooled": BcosPooled,
    "bcos_gated_sum": BcosGatedSum,
    "bcos_transformer": BcosTransformer,
    "abmil": AttentionMIL,
    "abmil_linear": LinearAttentionMIL,
    "additive": AdditiveMIL,
    "clam": ClassAttentionMIL,
    "transmil": TransMIL,
    "mean": MeanFeatures,
    "max": MaximumFeatures,
}
"""Exact ones begin with ``bcos``; the others are baselines."""


def make_aggregator(name: str, in_features: int, outputs: int, **options: Any) -> Aggregator:
    """An aggregator, newly initialised.

    Args:
        name: one of :data:`AGGREGATORS`.
        in_features: size of a tile's features.
        outputs: logits of a bag.
        options: of that aggregator.

    Raises:
        ValueError: an unknown name, or a value that makes no sense.
        TypeError: an option that it does not have.
    """
    if name not in AGGREGATORS:
        near = difflib.get_close_matches(name, AGGREGATORS, n=1)
        raise ValueError(
            f"aggregator must be one of {', '.join(AGGREGATORS)}; got {name!r}"
            + (f"; did you mean {near[0]!r}?" if near else "")
        )
    return AGGREGATORS[name](in_features, outputs, **options)
