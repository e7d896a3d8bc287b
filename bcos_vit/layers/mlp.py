"""Feed-forward blocks."""

import torch.nn.functional as F
from torch import Tensor, nn

from bcos_vit.layers.kit import BCOS, LayerKit
from bcos_vit.layers.mode import held


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
        y: Tensor = self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))
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
