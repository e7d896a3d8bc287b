"""Aggregators that tests go over: every one of the registry, and variants of ours."""

import torch

from pathology.aggregators import AGGREGATORS, Aggregator, make_aggregator

EXACT = [name for name, kind in AGGREGATORS.items() if kind.exact]
VARIANTS = [
    ("bcos_mean", {"layers": 0, "b": 1.5}),
    ("bcos_mean", {"layers": 2, "max_out": 1}),
    ("bcos_top", {"k": 1}),
    ("bcos_top", {"k": 2, "share": 0.3}),
    ("bcos_attention", {"per_class": True}),
    ("bcos_pooled", {"per_class": True}),
    ("bcos_pooled", {"tile_layers": 0, "layers": 2}),
    ("bcos_gated_sum", {"per_class": True, "expected_tiles": 10.0}),
    ("bcos_transformer", {"depth": 1, "num_heads": 2, "max_out": 2}),
]
EXACT_CASES = [(name, {}) for name in EXACT] + VARIANTS
OURS = {"logit_bias": -2.5, "temperature": 1.5}


def case_name(case: tuple[str, dict]) -> str:
    return ",".join([case[0], *(f"{key}={value}" for key, value in case[1].items())])


def make(
    name: str, in_features: int = 12, outputs: int = 3, dtype=torch.float64, **options
) -> Aggregator:
    """In eval mode, with no norm at 1, no bias at 0 and no attention that hardly attends."""
    small = {"hidden": 16} if name.startswith("bcos") else {}
    if name == "bcos_transformer":
        small = {"dim": 16, "num_heads": 4}
    ours = OURS if name.startswith("bcos") else {}
    model = make_aggregator(name, in_features, outputs, **(small | ours | options))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "gamma" in key:
                parameter.mul_(torch.rand_like(parameter) + 0.5)
            elif parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)
            elif "out_weight" in key or "qkv" in key:
                parameter.normal_(std=3 * parameter.shape[1] ** -0.5)
    return model.to(dtype).eval()


def bag(tiles: int = 20, in_features: int = 12, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(tiles, in_features, dtype=dtype) + 0.3
