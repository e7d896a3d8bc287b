"""Exact attribution of a bag's logits to its tiles, and to what a tile's pixels are to count."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bcos_vit.errors import NotExplainableError
from bcos_vit.explain import check_explainable
from bcos_vit.layers import explanation_mode
from pathology.aggregators.aggregator import Aggregator


@dataclass(frozen=True, slots=True, eq=False)
class BagExplanation:
    """Why a logit of one bag is what it is: ``logit = bias + constants + sum(contributions)``.

    Shapes: N tiles, D features, C outputs.

    Args:
        logits: ``(C,)`` the aggregator's output.
        target: output explained.
        bias: its constant logit bias.
        constants: further terms that no tile owns, by name; empty for all aggregators of ours but
            conventional ones that are linear in the features.
        contributions: ``(N,)`` g_i . h_i, in logits.
        weights: ``(N, D)`` g_i, the effective linear map of the features: pixels x_i of tile i
            contribute ``x_i * (J_i^T g_i)`` with J_i the encoder's matrix. None where an aggregator
            is additive over tiles but not linear in their features.
    """

    logits: Tensor
    target: int
    bias: float
    contributions: Tensor
    weights: Tensor | None = None
    constants: dict[str, float] = field(default_factory=dict)

    @property
    def logit(self) -> float:
        """The explained logit."""
        return float(self.logits[self.target])

    @property
    def completeness_gap(self) -> float:
        """``|bias + constants + sum of contributions - logit|``, in float64."""
        total = float(self.contributions.double().sum())
        return abs(self.bias + sum(self.constants.values()) + total - self.logit)


def explain_bag(aggregator: Aggregator, features: Tensor, target: int) -> BagExplanation:
    """Take a logit of a bag apart into contributions of its tiles.

    One forward and one backward pass over the bag, outside of autocast. The aggregator and the
    features are left as they were.

    Args:
        aggregator: an exact one, or one with an additive form of its own, in eval mode.
        features: ``(tiles, in_features)``; tiles that there are, no padding.
        target: output to explain.

    Raises:
        NotExplainableError: the aggregator is no sum over tiles, or a layer in it cannot be held
            constant, or drops at random.
        ValueError: features of the wrong shape or with NaN, ``target`` is no output.
        TypeError: features are not floating point, or wider than the aggregator's weights.
    """
    (explanation,) = explain_bag_classes(aggregator, features, [target])
    return explanation


def explain_bag_classes(
    aggregator: Aggregator, features: Tensor, targets: Sequence[int] | None = None
) -> Iterator[BagExplanation]:
    """Explain several outputs after one forward pass, which this call makes.

    Args:
        aggregator: an exact one, or one with an additive form of its own, in eval mode.
        features: ``(tiles, in_features)``; tiles that there are, no padding.
        targets: outputs; all when omitted.

    Returns:
        An explanation per output, in the order given; each is a backward pass.

    Raises:
        NotExplainableError, ValueError, TypeError: as :func:`explain_bag`, before the first step.
    """
    bag = checked_bag(aggregator, features)
    chosen = list(range(aggregator.outputs)) if targets is None else list(targets)
    for target in chosen:
        check_target(aggregator, target)
    if not aggregator.exact:
        return _additive(aggregator, bag, chosen)
    check_explainable(aggregator)
    with _undisturbed(bag.device):
        names = {
            name: None
            for module in aggregator.modules()
            for name in getattr(module, "constant_terms", ())
        }
        gates = {name: bag.new_ones(1, requires_grad=True) for name in names}
        leaf = bag.clone().requires_grad_()
        with torch.enable_grad(), explanation_mode(gates):
            logits = aggregator(leaf[None])[0]
    return _exact(leaf, gates, logits, chosen)


def _exact(
    leaf: Tensor, gates: dict[str, Tensor], logits: Tensor, targets: list[int]
) -> Iterator[BagExplanation]:
    """Explanations by a backward pass each; no context is open while the caller looks at one."""
    for i, target in enumerate(targets, 1):
        with _undisturbed(leaf.device):
            weights, *terms = torch.autograd.grad(
                logits[target],
                [leaf, *gates.values()],
                retain_graph=i < len(targets),
                allow_unused=True,
                materialize_grads=True,
            )
            found = leaf.detach()
            constants = {
                name: float(term) for name, term in zip(gates, terms, strict=True) if float(term)
            }
            explanation = BagExplanation(
                logits=logits.detach().clone(),
                target=target,
                bias=constants.pop("bias", 0.0),
                contributions=(weights * found).sum(1),
                weights=weights,
                constants=constants,
            )
        yield explanation


def _additive(aggregator: Aggregator, bag: Tensor, targets: list[int]) -> Iterator[BagExplanation]:
    """Explanations by a baseline's own additive form."""
    check_sum_over_tiles(aggregator)
    with _undisturbed(bag.device), torch.no_grad():
        form = aggregator.tile_contributions(bag[None])
        assert form is not None
        logits = aggregator(bag[None])[0]
    contributions, constants = form
    return iter(
        [
            BagExplanation(
                logits=logits.clone(),
                target=target,
                bias=float(constants[target]),
                contributions=contributions[0, :, target].clone(),
            )
            for target in targets
        ]
    )


def check_sum_over_tiles(aggregator: Aggregator) -> None:
    """Refuse an aggregator whose logits are no sum over tiles.

    Raises:
        NotExplainableError: naming it.
    """
    has_form = type(aggregator).tile_contributions is not Aggregator.tile_contributions
    if not (aggregator.exact or has_form):
        raise NotExplainableError(
            f"{type(aggregator).__name__} is no sum over tiles: its logits cannot be taken apart"
            " exactly. Use an exact aggregator (bcos_...), or removal effects"
        )


def checked_bag(aggregator: Aggregator, features: Tensor) -> Tensor:
    """A bag's features in the aggregator's precision, on its device, without a graph.

    Raises:
        ValueError, TypeError: as :func:`explain_bag`.
    """
    if features.ndim != 2 or features.shape[1] != aggregator.in_features:
        raise ValueError(
            f"features must be (tiles, {aggregator.in_features}), got {tuple(features.shape)}"
        )
    if not features.dtype.is_floating_point:
        raise TypeError(f"features must be floating point, got {features.dtype}")
    weights = next(aggregator.parameters())
    if torch.promote_types(features.dtype, weights.dtype) != weights.dtype:
        raise TypeError(
            f"features are {features.dtype}, wider than the aggregator's {weights.dtype};"
            " convert one of them"
        )
    if not bool(torch.isfinite(features).all()):
        raise ValueError("features hold NaN or infinite values; nothing can be attributed to them")
    return features.detach().to(weights)


def check_target(aggregator: Aggregator, target: int) -> None:
    """Refuse outputs that there are not.

    Raises:
        ValueError: naming those that there are.
    """
    if not 0 <= target < aggregator.outputs:
        raise ValueError(f"target must be in [0, {aggregator.outputs}), got {target}")


@contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """Outside of the caller's inference mode and autocast."""
    with torch.inference_mode(False), torch.autocast(device.type, enabled=False):
        yield
