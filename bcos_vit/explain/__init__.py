"""Exact explanations of B-cos models."""

from bcos_vit.explain.contribution import explain, explain_classes
from bcos_vit.explain.explanation import Explanation
from bcos_vit.explain.mode import check_explainable
from bcos_vit.explain.stains import split_stains
from bcos_vit.explain.trace import check_depth
from bcos_vit.layers.mode import explanation_mode

__all__ = [
    "Explanation",
    "check_depth",
    "check_explainable",
    "explain",
    "explain_classes",
    "explanation_mode",
    "split_stains",
]
