"""Feed-forward blocks."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcos_vit.layers.conv import BcosConv2d
from bcos_vit.layers.fast import fast, unobserved
from bcos_vit.layers.fused_bcos import two_layers
from bcos_vit.layers.kit import BCOS, LayerKit
from bcos_vit.layers.linear import BcosLinear
from bcos_vit.layers.mode import held


def in_cache(
    x: Tensor,
    fc1: nn.Module,
    act: nn.Module,
    fc2: nn.Module,
    drop: nn.Dropout | None = None,
    applies: Callable[..., bool] = fast,
) -> bool:
    """Whether nobody can tell that only a few rows of what is in between exist at a time.

    Args:
        x: what ``fc2(act(fc1(x)))`` is wanted of.
        fc1: linear layer, or convolution of single places.
        act: what is in between.
        fc2: as ``fc1``.
        drop: dropout after both.
        applies: whether what would be run takes these tensors.
    """
    return (
        not torch.is_grad_enabled()
        and x.device.type == "cpu"
        and isinstance(act, nn.Identity)
        and not (drop is not None and drop.training and drop.p)
        and all(
            type(layer) in (BcosLinear, BcosConv2d)
            and layer.b == 2
            and layer.max_out == 1
            and layer.bias is None
            and (type(layer) is BcosLinear or layer.pointwise)
            and applies(x, layer.weight)
            for layer in (fc1, fc2)
        )
        and fc1.unit_norm == fc2.unit_norm
        and unobserved(fc1, act, fc2, *([] if drop is None else [drop]))
    )


class BcosMlp(nn.Module):
    """Two B-cos layers; their own non-linearity is the only one, except in a conventional network.

    Args:
        dim: size of the last dimension, in and out.
        hidden_dim: size in between.
        kit: what layers are made of.
        drop: dropout probability after each layer.
    """

    dynamic_linear = True

    def __init__(
        self, dim: int, hidden_dim: int, *, kit: LayerKit = BCOS, drop: float = 0.0
    ) -> None:
        super().__init__()
        self.fc1 = kit.linear(dim, hidden_dim)
        self.act = kit.act("gelu")
        self.fc2 = kit.linear(hidden_dim, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., dim)`` to the same."""
        y: Tensor
        if in_cache(x, self.fc1, self.act, self.fc2, self.drop):
            rows = x.reshape(-1, x.shape[-1])
            y = two_layers(rows, self.fc1.weight, self.fc2.weight, self.fc1.form)
            return y.view(*x.shape[:-1], -1)
        y = self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))
        return y


class BcosSwiGlu(nn.Module):
    """``y = fc2(silu(g) * v)`` with ``[g, v] = fc1(x)``; the gate is constant while explaining.

    Args:
        dim: size of the last dimension, in and out.
        hidden_dim: size of gate and value together.
        kit: what layers are made of.
        drop: dropout probability after each layer.

    Source:
        Shazeer, "GLU Variants Improve Transformer", 2020 (arXiv:2002.05202).
    """

    dynamic_linear = True

    def __init__(
        self, dim: int, hidden_dim: int, *, kit: LayerKit = BCOS, drop: float = 0.0
    ) -> None:
        super().__init__()
        if hidden_dim % 2:
            raise ValueError(f"hidden_dim must be even (gate and value), got {hidden_dim}")
        self.fc1 = kit.linear(dim, hidden_dim)
        self.fc2 = kit.linear(hidden_dim // 2, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., dim)`` to the same."""
        gate, value = self.fc1(x).chunk(2, -1)
        y: Tensor = self.drop(self.fc2(self.drop(held(F.silu(gate)) * value)))
        return y
