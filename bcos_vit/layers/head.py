"""The end of a network: temperature and logit bias, inside the model and in its weights."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from bcos_vit.layers.mode import constant


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
    return min(-3.0, -math.log(num_classes - 1)) if num_classes > 1 else -3.0


class Logits(nn.Module):
    """``y = x / temperature + bias``, the only constant of an exactly complete B-cos network.

    Both are stored with the weights, and an explanation reports the bias as its own term.

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
