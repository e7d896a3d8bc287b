"""Models that know nothing, made of one that does: the null that its explanations are held against.

Every tensor of parameters keeps its numbers, and their places in it are drawn anew. So sizes and
distributions of weights are those of training, and what they had learnt is gone; a map that looks
the same all the same is one of the network's structure, or of the slide
(Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, arXiv:1810.03292).

Batch norms divide by variances of activations that no longer come. Left as they are, signals die
out, channels that should count alike differ by orders of magnitude, and whole maps take one sign
(``docs/layers.md`` has numbers). So these variances are taken anew, from tiles of the slide.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bcos_vit.errors import NotExplainableError
from bcos_vit.explain import check_explainable
from bcos_vit.layers import BcosBatchNorm2d
from pathology.explain.scorers.scorer import Scorer

S = TypeVar("S", bound=Scorer)
Norm = BcosBatchNorm2d | _BatchNorm


def with_random_weights(
    scorer: S, seed: int, images: Callable[[], Iterable[Tensor]]
) -> tuple[S, list[str]]:
    """A scorer of the same architecture whose networks know nothing; the one given is untouched.

    Randomised is what explanations go through: a tile model; an aggregator, and its encoder if that
    is a B-cos network. Another encoder, at whose features explanations end, stays as it is.

    Args:
        scorer: a data class with networks among its fields.
        seed: decides the draw; on any device the same.
        images: gives batches of encoded tiles of the slide, which batch norms take their statistics
            from; called only where there are any.

    Returns:
        The scorer, and the names of its fields that are randomised.

    Raises:
        ValueError: there is no network to randomise.
    """
    generator = torch.Generator().manual_seed(seed)
    made: dict[str, Any] = {}
    for name, module in networks(scorer).items():
        made[name] = permuted(module, generator)
        if norms(made[name]):
            refit_norms(made[name], images())
    return replace(scorer, **made), list(made)  # type: ignore[type-var]


def networks(scorer: Scorer) -> dict[str, nn.Module]:
    """The networks of a scorer that a null randomises, by the names of its fields.

    Raises:
        ValueError: there is none.
    """
    found: dict[str, nn.Module] = {}
    names: list[str] = [each.name for each in fields(scorer)] if is_dataclass(scorer) else []
    for name in names:
        value = getattr(scorer, name)
        if not isinstance(value, nn.Module) or not list(value.parameters()):
            continue
        if name != "encoder" or _is_explainable(value):
            found[name] = value
    if not found:
        raise ValueError(f"{type(scorer).__name__} has no network whose weights could be random")
    return found


def permuted(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy with the numbers of each parameter in another order; buffers are as they were.

    Args:
        module: left as it is.
        generator: on the CPU; parameters that are shared are drawn once.
    """
    copied = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in copied.parameters():
            order = torch.randperm(parameter.numel(), generator=generator)
            flat = parameter.detach().flatten()
            parameter.copy_(flat[order.to(flat.device)].view_as(parameter))
    return copied


def norms(module: nn.Module) -> list[Norm]:
    """The batch norms of a network that keep statistics."""
    return [
        each
        for each in module.modules()
        if isinstance(each, BcosBatchNorm2d | _BatchNorm) and each.running_var is not None
    ]


def refit_norms(module: nn.Module, images: Iterable[Tensor]) -> None:
    """Take the statistics of batch norms from images: their mean over the batches, by their size.

    Args:
        module: changed in place; everything but its batch norms stays in the mode that it is in.
        images: batches of encoded tiles.
    """
    with torch.no_grad(), _learning(norms(module)) as learning:
        seen = 0
        for batch in images:
            seen += len(batch)
            for norm in learning:
                norm.momentum = len(batch) / seen
            module(batch)


@contextmanager
def _learning(norms: list[Norm]) -> Iterator[list[Norm]]:
    """Norms in training mode; as they were afterwards."""
    before = [(norm, norm.momentum, norm.training) for norm in norms]
    for norm in norms:
        norm.train()
    try:
        yield norms
    finally:
        for norm, momentum, training in before:
            norm.momentum = momentum
            norm.train(training)


def _is_explainable(module: nn.Module) -> bool:
    try:
        check_explainable(module)
    except NotExplainableError:
        return False
    return True
