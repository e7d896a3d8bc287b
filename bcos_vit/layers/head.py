"""The end of a network: temperature and logit bias, inside the model and in its weights."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bcos_vit.layers.mode import constant

HIGHEST_BIAS = -3.0
"""Of a logit; above it a B-cos head may not begin to learn, see :func:`default_logit_bias`."""


def check_num_classes(num_classes: int) -> int:
    """``num_classes`` itself.

    Raises:
        ValueError: it is negative.
    """
    if num_classes < 0:
        raise ValueError(f"num_classes must be at least 0, got {num_classes}")
    return num_classes


def default_logit_bias(num_classes: int) -> float:
    """``logit(1 / num_classes)``, the published networks' constant, but at most -3.

    A B-cos head has no slope where its evidence is zero. With few classes the published constant
    (0 for two) makes zero evidence the best answer before anything is learnt, and training stays
    there; at -3 no evidence means no class (5 %), and evidence has to be found for each.
    """
    return min(HIGHEST_BIAS, -math.log(num_classes - 1)) if num_classes > 1 else HIGHEST_BIAS


def prior_logit_bias(shares: Tensor) -> Tensor:
    """Log-odds of how often each class is seen, but at most -3.

    Then no evidence means what is known before looking, save for frequent classes: see
    :func:`default_logit_bias` for why these need to find evidence, too.

    Args:
        shares: ``(classes,)`` of training images that show each, in (0, 1].

    Raises:
        ValueError: a class that is never seen, or no share.
    """
    if not ((shares > 0) & (shares <= 1)).all():
        raise ValueError(f"shares of classes must be in (0, 1], got {shares.tolist()}")
    return shares.double().logit().clamp_max(HIGHEST_BIAS).to(shares.dtype)


class Logits(nn.Module):
    """``y = x / temperature + bias``, the only constant of an exactly complete B-cos network.

    Both are stored with the weights, and an explanation reports the bias as its own term. The
    temperature is one number, or after :meth:`rescale` one per class.

    Args:
        num_classes: size of the last dimension.
        bias: added to every logit; :func:`default_logit_bias` when omitted. 0 is kept as 0.
        temperature: divides the evidence; contributions are divided with it.
    """

    dynamic_linear = True
    constant_terms = ("bias",)
    bias: Tensor
    temperature: Tensor

    def __init__(
        self, num_classes: int, bias: float | None = None, temperature: float = 1.0
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.given = float(default_logit_bias(num_classes) if bias is None else bias)
        self.register_buffer("bias", torch.full((num_classes,), self.given))
        self.register_buffer("temperature", torch.tensor(float(temperature)))

    @torch.no_grad()
    def rescale(self, temperatures: Sequence[float], shifts: Sequence[float] | None = None) -> None:
        """Make every logit ``logit / temperature + shift``, as calibration does.

        Evidence and bias are divided: what a pixel contributes is divided as well, and what an
        explanation reports still sums to the logit.

        Args:
            temperatures: one per class.
            shifts: added to the bias, one per class; none when omitted.

        Raises:
            ValueError: not one per class, or temperatures that are not positive and finite.
        """
        count = len(self.bias)
        given = [list(temperatures), [0.0] * count if shifts is None else list(shifts)]
        if any(len(values) != count for values in given):
            raise ValueError(
                f"temperatures and shifts must be {count}, one per class; got"
                f" {len(given[0])} and {len(given[1])}"
            )
        by, plus = torch.tensor(given, dtype=torch.float64)
        if not ((by > 0) & by.isfinite()).all() or not plus.isfinite().all():
            raise ValueError(f"temperatures must be positive and shifts finite, got {given}")
        for name, value in (
            ("temperature", self.temperature.double().cpu() * by),
            ("bias", self.bias.double().cpu() / by + plus),
        ):
            buffer: Tensor = getattr(self, name)
            setattr(self, name, value.to(buffer.device, buffer.dtype))

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Take temperatures in whether one is stored or one per class."""
        stored = state_dict.get(prefix + "temperature")
        if stored is not None and stored.shape in ((), self.bias.shape):
            self.temperature = self.temperature.new_ones(stored.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> "Logits":
        """Moving to float64 tells the bias exactly, where it still is the one given."""
        module: Logits = super()._apply(*args, **kwargs)
        if self.bias.dtype == torch.float64 and self.bias.device.type != "meta":
            rounded = torch.tensor(self.given, dtype=torch.float32).double()
            self.bias.masked_fill_(self.bias == rounded.to(self.bias.device), self.given)
        return module

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, num_classes)`` to the same."""
        return x / self.temperature.to(x.dtype) + constant("bias", self.bias[None].to(x.dtype))

    def extra_repr(self) -> str:
        return f"{len(self.bias)}"
