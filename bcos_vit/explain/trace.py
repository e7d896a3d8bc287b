"""One forward pass, and the graph from its logits back to where an explanation stops.

Down to pixels that is the whole network. At a depth the network runs as usual up to a layer,
without a graph; from that layer's output on, it runs in explanation mode.
"""

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from bcos_vit.errors import NotExplainableError
from bcos_vit.explain.explanation import Explanation
from bcos_vit.explain.mode import check_explainable, unwrapped
from bcos_vit.layers.cut import Cut
from bcos_vit.layers.mode import explanation_mode, is_explaining

PIXELS = "pixels"

# The cut of this thread's forward pass that is still ahead.
_ahead: ContextVar[object] = ContextVar("bcos_vit_cut_ahead", default=None)


def find_cut(model: nn.Module, depth: str) -> Cut | None:
    """Where ``depth`` cuts the model; None for pixels.

    Raises:
        ValueError: the model has no such depth; names those it has.
    """
    if depth == PIXELS:
        return None
    network: Any = unwrapped(model)
    cuts: dict[str, Cut] = network.cuts() if hasattr(network, "cuts") else {}
    if depth not in cuts:
        known = [PIXELS, *cuts]
        near = difflib.get_close_matches(str(depth), known, n=1)
        raise ValueError(
            f"depth must be {'one of ' if cuts else ''}{', '.join(known)} for this"
            f" {type(network).__name__}, got {depth!r}"
            + (f"; did you mean {near[0]!r}?" if near else "")
        )
    return cuts[depth]


def check_depth(model: nn.Module, depth: str) -> None:
    """Refuse a depth that the model does not have.

    Raises:
        ValueError: naming those it has, and the nearest.
    """
    find_cut(model, depth)


class Trace:
    """The logits of a batch, ready to be taken apart class by class.

    Args:
        model: a B-cos model in eval mode.
        images: ``(batch, channels, height, width)``, or one image without ``batch``.
        depth: where explanations stop.

    Attributes:
        logits: ``(batch, classes)``, without a graph.

    Raises:
        NotExplainableError, ValueError, TypeError: as :func:`bcos_vit.explain.explain`.
    """

    def __init__(self, model: nn.Module, images: Tensor, depth: str = PIXELS) -> None:
        check_explainable(model)
        cut = find_cut(model, depth)
        if images.ndim not in (3, 4):
            raise ValueError(f"images must have 3 or 4 dimensions, got shape {tuple(images.shape)}")
        if not images.dtype.is_floating_point:
            raise TypeError(f"images must be floating point, got {images.dtype}")
        if not _all_finite(images):
            raise ValueError(
                "images hold NaN or infinite values; nothing can be attributed to them"
            )
        self._single = images.ndim == 3
        self._depth, self._cut = depth, cut
        self._image = (images.shape[-2], images.shape[-1])
        with _undisturbed(images.device):
            x = (images[None] if self._single else images).detach()
            self._gates = {
                name: x.new_ones(len(x), requires_grad=True) for name in _constant_terms(model)
            }
            if cut is None:
                self._leaf = x.clone().requires_grad_()
                with torch.enable_grad(), explanation_mode(self._gates):
                    self._output: Tensor = model(self._leaf)
            else:
                self._leaf, self._output = _run_cut(unwrapped(model), cut, x, self._gates)
            if self._output.ndim != 2:
                raise ValueError(
                    f"the model must return (batch, classes), got {tuple(self._output.shape)}"
                )
            self.logits = self._output.detach()

    def explain(self, target: Tensor, keep: bool = False) -> Explanation:
        """Take one logit of each image apart; may be called in any gradient mode or thread.

        Args:
            target: ``(batch,)`` class of each image.
            keep: whether there will be another call; without, the graph is freed.
        """
        with _undisturbed(self.logits.device):
            target = target.clone()  # never the caller's own tensor, nor one of inference mode
            if self._cut is not None and self._cut.layout == "local logits":
                weights, contributions, constants = self._pick(target)
            else:
                weights, contributions, constants = self._walk(target, keep)
            explanation = Explanation(
                logits=self.logits.clone(),
                target=target,
                bias=constants.pop("bias", self.logits.new_zeros(len(target))),
                weights=weights,
                contributions=contributions,
                constants=constants,
                depth=self._depth,
            )
            return explanation[0] if self._single else explanation

    def _walk(self, target: Tensor, keep: bool) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """W(x), contributions and constants of a class, by a backward pass of its own."""
        chosen = torch.zeros_like(self.logits).scatter_(1, target[:, None], 1)
        weights, *terms = torch.autograd.grad(
            self._output,
            [self._leaf, *self._gates.values()],
            chosen,
            retain_graph=keep,
            allow_unused=True,
        )
        leaf = self._leaf.detach()
        if weights is None:
            weights = torch.zeros_like(leaf)
        constants = _met(self._gates, terms)
        if self._cut is not None:
            if prefix := self._cut.prefix:
                tokens = (weights[:, :prefix] * leaf[:, :prefix]).sum((1, 2))
                constants["tokens"] = constants.get("tokens", 0) + tokens
            weights, leaf = (self._cut.places(each, self._image) for each in (weights, leaf))
        return weights, (leaf * weights).sum(1), constants

    def _pick(self, target: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The same where classes no longer mix: what belongs to a class is in its own channel."""
        weights, contributions, constants = self._all_classes
        channel = target[:, None, None, None].expand(-1, 1, *weights.shape[2:])
        return (
            weights.gather(1, channel),
            contributions.gather(1, channel)[:, 0],
            {name: term.gather(1, target[:, None])[:, 0] for name, term in constants.items()},
        )

    @cached_property
    def _all_classes(self) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """W(x), contributions ``(batch, classes, rows, columns)``, constants ``(batch, classes)``.

        A gate belongs to an image, so its gradient sums over classes. It is linear in what each
        class counts, and its gradient with respect to that is the constant of each class.
        """
        counts = torch.ones_like(self.logits, requires_grad=True)
        weights, *sums = torch.autograd.grad(
            self._output,
            [self._leaf, *self._gates.values()],
            counts,
            create_graph=True,
            allow_unused=True,
        )
        terms = [
            None if each is None else torch.autograd.grad(each.sum(), counts, retain_graph=True)[0]
            for each in sums
        ]
        weights = weights.detach()
        self._output = self.logits  # frees the graph
        return weights, self._leaf.detach() * weights, _met(self._gates, terms)


def _run_cut(
    network: nn.Module, cut: Cut, x: Tensor, gates: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """The output of the layer where the network is cut, as a leaf, and the logits over it."""
    leaf: Tensor | None = None
    # A network in training mode that recomputes, and an explanation around this one, both go by
    # the switch; otherwise the first part runs just as it does when nobody explains.
    first: AbstractContextManager[None] = nullcontext()
    if network.training or is_explaining():
        first = explanation_mode()
    with torch.no_grad(), first, ExitStack() as second:

        def begin(features: Tensor) -> Tensor:
            nonlocal leaf
            second.enter_context(explanation_mode(gates))
            second.enter_context(torch.enable_grad())
            leaf = features.detach().requires_grad_()
            return leaf

        with _first_output(network.get_submodule(cut.module), begin):
            # As it was written: compiled code would pass the cut by.
            logits: Tensor = network._call_impl(x)
    if leaf is None:
        raise NotExplainableError(
            f"layer {cut.module!r} was passed by, so the model cannot be cut there; a compiled"
            " part of it may stand in the way. Explain down to pixels instead"
        )
    return leaf, logits


@contextmanager
def _first_output(layer: nn.Module, replace: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let ``replace`` change the layer's first output in the forward pass made inside.

    Other threads, and explanations within this one, run through the same layer untouched.
    """
    mine = object()

    def hook(_layer: nn.Module, _inputs: Any, output: Tensor) -> Tensor | None:
        if _ahead.get() is not mine:
            return None
        _ahead.set(None)
        return replace(output)

    token = _ahead.set(mine)
    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
        _ahead.reset(token)


def _all_finite(images: Tensor) -> bool:
    """Whether there is neither NaN nor infinity in ``images``."""
    # Either would be in the sum as well, which takes a tenth of the time; it may also be too large.
    return bool(torch.isfinite(images.sum()) or torch.isfinite(images).all())


@contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """Outside of the caller's inference mode and autocast."""
    with torch.inference_mode(False), torch.autocast(device.type, enabled=False):
        yield


def _constant_terms(model: nn.Module) -> list[str]:
    """Names of the constants that the model's layers add, each once, in order."""
    names = (name for module in model.modules() for name in getattr(module, "constant_terms", ()))
    return list(dict.fromkeys(names))


def _met(gates: dict[str, Tensor], terms: Sequence[Tensor | None]) -> dict[str, Tensor]:
    """Constants by name, without those that do not come between logits and depth."""
    pairs = zip(gates, terms, strict=True)
    return {name: term for name, term in pairs if term is not None}
