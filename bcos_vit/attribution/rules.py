"""Methods that walk back through ReLU networks by rules of their own.

The rules are made for rectifiers. Where a network has none they silently become something else (on
GELU networks libraries return input times gradient and the plain gradient under these names), so
any function that is neither linear nor covered by a rule is refused, module or not, when the
network is made and again as it runs.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.overrides import TorchFunctionMode

from bcos_vit.attribution.attribution import Attribution, Unit
from bcos_vit.attribution.baselines import Baseline, check_baseline, encoded_baseline
from bcos_vit.attribution.checks import (
    activations,
    attentions,
    check_batch,
    check_eval,
    target_logit,
    undisturbed,
)
from bcos_vit.attribution.classifier import Classifier
from bcos_vit.attribution.passes import encoded
from bcos_vit.attribution.registry import register
from bcos_vit.errors import UnsupportedMethodError
from bcos_vit.explain.mode import unwrapped


@register
@dataclass(frozen=True)
class DeepLift:
    """What each pixel's difference to a baseline contributes to the difference of the logits.

    Multipliers are propagated by the rescale rule: a rectifier's is the ratio of the differences
    behind and before it. Max pooling gives the difference to the place of whichever maximum is the
    larger. Maps sum exactly to the logit minus that of the baseline.

    Args:
        baseline: what to compare with, a :data:`~bcos_vit.attribution.baselines.Baseline`.

    Raises:
        ValueError: no such baseline.

    Source:
        Shrikumar et al., "Learning Important Features Through Propagating Activation Differences",
        ICML 2017 (arXiv:1704.02685), equations 5 and 11. Captum 0.9 leaves a part of the
        difference unexplained behind several max poolings, so this is our own.
    """

    baseline: Baseline = "black"

    name: ClassVar[str] = "deeplift"
    is_signed: ClassVar[bool] = True
    unit: ClassVar[Unit] = "logits"

    def __post_init__(self) -> None:
        check_baseline(self.baseline)

    def check(self, classifier: Classifier) -> None:
        check_eval(self.name, classifier)
        _check_relu(self.name, classifier.model)

    def __call__(self, classifier: Classifier, images: Tensor, target: Tensor) -> Attribution:
        self.check(classifier)
        check_batch(images, target)
        with undisturbed(images):
            x = encoded(classifier, images)
            start = encoded_baseline(self.baseline, classifier, images)
            leaf = torch.cat([x, start]).requires_grad_()
            with _Rules(self.name, _Rescale.apply, _RescaleMax.apply):
                both: Tensor = classifier.model(leaf)
            logits, before = both.detach().chunk(2)
            total = target_logit(both[: len(x)], target).sum()
            (multipliers,) = torch.autograd.grad(total, leaf)
            maps = ((x - start) * multipliers[: len(x)]).sum(1)
        return Attribution(
            maps=maps.float(),
            target=target.clone(),
            logits=logits.clone(),
            unit=self.unit,
            reference=target_logit(before, target),
            forward_passes=2,
            backward_passes=2,
        )


@register
@dataclass(frozen=True)
class GuidedBackprop:
    """The gradient without what is negative behind any rectifier, absolute, summed over channels.

    Close to an edge detector, and hardly a matter of the class (Adebayo et al., NeurIPS 2018,
    arXiv:1810.03292); it is here because it is used.

    Source:
        Springenberg et al., "Striving for Simplicity" (arXiv:1412.6806), section 3.4.
    """

    name: ClassVar[str] = "guided_backprop"
    is_signed: ClassVar[bool] = False
    unit: ClassVar[Unit] = "none"

    def check(self, classifier: Classifier) -> None:
        check_eval(self.name, classifier)
        _check_relu(self.name, classifier.model)

    def __call__(self, classifier: Classifier, images: Tensor, target: Tensor) -> Attribution:
        self.check(classifier)
        check_batch(images, target)
        with undisturbed(images):
            leaf = encoded(classifier, images).clone().requires_grad_()
            with _Rules(self.name, _Guided.apply, None):
                logits: Tensor = classifier.model(leaf)
            (slope,) = torch.autograd.grad(target_logit(logits, target).sum(), leaf)
        return Attribution(
            maps=slope.abs().sum(1).float(),
            target=target.clone(),
            logits=logits.detach(),
            unit=self.unit,
            forward_passes=1,
            backward_passes=1,
        )


def _check_relu(name: str, model: nn.Module) -> None:
    """Refuse networks that have other than rectifiers, as far as their modules show.

    Raises:
        UnsupportedMethodError: naming the first module at fault.
    """
    found = activations(model)
    others: Iterable[tuple[str, nn.Module]] = (
        *((where, each) for where, each in found.items() if not isinstance(each, nn.ReLU)),
        *attentions(model).items(),
        *((w, each) for w, each in unwrapped(model).named_modules() if isinstance(each, _NORMS)),
    )
    for where, module in others:
        raise UnsupportedMethodError(
            f"{name} has rules for ReLU networks only; {where!r} is a {type(module).__name__}"
        )
    if not found:
        raise UnsupportedMethodError(
            f"{name} has rules for ReLU networks only; this {type(unwrapped(model)).__name__} has"
            " no ReLU"
        )


# Norms by each image's own statistics: not linear.
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.InstanceNorm1d, nn.InstanceNorm2d)

# Functions that are affine in what comes from the image, while the network is in eval mode.
_LINEAR = frozenset(
    """
    conv2d conv_transpose2d linear batch_norm avg_pool2d adaptive_avg_pool2d mean sum pad dropout
    add add_ __add__ __iadd__ __radd__ sub __sub__ cat stack chunk split __getitem__
    flatten view reshape permute transpose unsqueeze squeeze contiguous clone to
    size dim __get__ _assert
    """.split()  # noqa: SIM905
)
_RECTIFIERS = ("relu", "relu_")


class _Rules(TorchFunctionMode):
    """Runs a network with other gradients of rectifiers and maxima, and refuses what is not linear.

    Functions are met as they are called, so rectifiers that are no modules, that work in place or
    that run twice are covered like any other, and nothing is hooked to the network. Other threads
    are untouched.

    Args:
        name: of the method, for the message.
        relu: in place of a rectifier.
        max_pool: in place of max pooling, with its arguments; as it is when omitted.
    """

    def __init__(
        self, name: str, relu: Callable[[Tensor], Tensor], max_pool: Callable[..., Tensor] | None
    ) -> None:
        super().__init__()
        self._name = name
        self._relu = relu
        self._max_pool = max_pool

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        called: str = getattr(func, "__name__", str(func))
        if called in _RECTIFIERS:
            return self._rectified(args, kwargs, called == "relu_")
        if called == "max_pool2d":
            if self._max_pool is None:
                return func(*args, **kwargs)
            return self._max_pool(*_pooling(*args, **kwargs))
        if called not in _LINEAR:
            raise UnsupportedMethodError(
                f"{self._name} has rules for ReLU networks only; this network calls {called}"
            )
        return func(*args, **kwargs)

    def _rectified(self, args: tuple[Any, ...], kwargs: dict[str, Any], in_place: bool) -> Tensor:
        x: Tensor = args[0] if args else kwargs["input"]
        in_place = in_place or kwargs.get("inplace", len(args) > 1 and args[1])
        if in_place:
            return x.copy_(self._relu(x.clone()))
        return self._relu(x)


def _pooling(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Any, ...]:
    """Arguments of max pooling in their order."""
    if return_indices:
        raise UnsupportedMethodError("max pooling that returns indices has no rule")
    return input, kernel_size, stride, padding, dilation, ceil_mode


class _Guided(torch.autograd.Function):
    """A rectifier behind which nothing negative goes back."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x > 0)
        return x.relu()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (is_on,) = ctx.saved_tensors
        return slope.relu() * is_on


class _Rescale(torch.autograd.Function):
    """A rectifier of images and, behind them in the batch, their baselines, by the rescale rule."""

    @staticmethod
    def forward(ctx: FunctionCtx, both: Tensor) -> Tensor:
        ctx.save_for_backward(both)
        return both.relu()

    @staticmethod
    def backward(ctx: Any, multiplier: Tensor) -> Tensor:
        (both,) = ctx.saved_tensors
        x, start = both.chunk(2)
        before, behind = x - start, x.relu() - start.relu()
        # Without a difference before, the limit: the gradient.
        ratio = torch.where(before == 0, (x > 0).to(x.dtype), behind / before)
        return torch.cat([multiplier[: len(x)] * ratio, torch.zeros_like(start)])


class _RescaleMax(torch.autograd.Function):
    """Max pooling of images and, behind them, their baselines.

    The output's difference is split into the way down from the larger maximum and the way up to it,
    each given to the place where that maximum is. Multipliers are between 0 and 1.
    """

    @staticmethod
    def forward(ctx: Any, both: Tensor, *pooling: Any) -> Tensor:
        y, places = F.max_pool2d_with_indices(both, *pooling)
        ctx.save_for_backward(both, y, places)
        return y

    @staticmethod
    def backward(ctx: Any, multiplier: Tensor) -> tuple[Tensor | None, ...]:
        both, maxima, places = ctx.saved_tensors
        x, start = (half.flatten(2) for half in both.chunk(2))
        y, y_start = (half.flatten(2) for half in maxima.chunk(2))
        at, at_start = (half.flatten(2) for half in places.chunk(2))
        larger = torch.maximum(y, y_start)
        carried = multiplier[: len(x)].flatten(2)
        difference = x - start
        # Of several places of the baseline's maximum the image's own, if it is one of them: a
        # baseline of one colour has its maximum everywhere.
        at_start = torch.where(start.gather(2, at) == y_start, at, at_start)
        back = torch.zeros_like(x)
        for place, share, limit in (
            (at, larger - y_start, (at == at_start).to(x.dtype)),
            (at_start, y - larger, torch.zeros_like(y)),
        ):
            here = difference.gather(2, place)
            ratio = torch.where(here == 0, limit, share / here)
            back.scatter_add_(2, place, carried * ratio)
        back = back.unflatten(2, both.shape[2:])
        return torch.cat([back, torch.zeros_like(back)]), *(None,) * 5
