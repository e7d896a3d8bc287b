"""What makes logits of a bag: a slide's tiles, taken together.

Exact aggregators are B-cos networks over tiles: ``logits = constants + sum_i g_i . h_i``, with
``h_i`` the features of tile i. Baselines are conventional.
"""

from pathology.aggregators.aggregator import Aggregator
from pathology.aggregators.registry import AGGREGATORS, make_aggregator

__all__ = ["AGGREGATORS", "Aggregator", "make_aggregator"]
