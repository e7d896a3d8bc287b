"""B-cos feed-forward block."""

from torch import Tensor, nn

from bcos_vit.layers.linear import BcosLinear


class BcosMlp(nn.Module):
    """Two B-cos layers; their own non-linearity is the only one.

    Args:
        dim: size of the last dimension, in and out.
        hidden_dim: size in between.
        b, max_out: see :class:`BcosLinear`.
        drop: dropout probability after each layer.
    """

    dynamic_linear = True

    def __init__(
        self, dim: int, hidden_dim: int, *, b: float = 2.0, max_out: int = 1, drop: float = 0.0
    ) -> None:
        super().__init__()
        self.fc1 = BcosLinear(dim, hidden_dim, b=b, max_out=max_out)
        self.fc2 = BcosLinear(hidden_dim, dim, b=b, max_out=max_out)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., dim)`` to the same."""
        y: Tensor = self.drop(self.fc2(self.drop(self.fc1(x))))
        return y
