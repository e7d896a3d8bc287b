"""How much tiles count: gated attention, a constant while explaining.

Ilse et al., "Attention-based Deep Multiple Instance Learning", ICML 2018 (arXiv:1802.04712),
equation 9: ``s_i = w^T (tanh(V h_i) * sigmoid(U h_i))``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcos_vit.layers import held, is_explaining


class GatedScorer(nn.Module):
    """A score of each tile from its own features, which are brought to one scale first.

    Its biases and activations cost no exactness: while explaining, scores are numbers.

    Args:
        in_features: D, size of a tile's features.
        branches: scores of each tile.
        hidden: rows of V and of U.
        bias: what a learnt number that is added to every score starts as; none when omitted, since
            softmax over tiles would not see it.

    Raises:
        ValueError: ``hidden`` below 1.
    """

    dynamic_linear = True
    out_bias: nn.Parameter | None

    def __init__(
        self, in_features: int, branches: int, hidden: int = 128, *, bias: float | None = None
    ) -> None:
        super().__init__()
        if hidden < 1:
            raise ValueError(f"attention_hidden must be at least 1, got {hidden}")
        self.in_features = in_features
        self.weight = nn.Parameter(torch.empty(2 * hidden, in_features))  # V, then U
        self.bias = nn.Parameter(torch.zeros(2 * hidden))
        self.out_weight = nn.Parameter(torch.empty(branches, hidden))
        self.out_bias = None
        if bias is not None:
            self.out_bias = nn.Parameter(torch.full((branches,), float(bias)))
        nn.init.xavier_uniform_(self.weight[:hidden])
        nn.init.xavier_uniform_(self.weight[hidden:])
        nn.init.xavier_uniform_(self.out_weight)

    def forward(self, features: Tensor) -> Tensor:
        """``(..., D)`` to ``(..., branches)``, float32 or wider."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not is_explaining()):
            x = F.layer_norm(held(features), (self.in_features,))
            value, gate = F.linear(x, self.weight, self.bias).chunk(2, -1)
            scores = F.linear(value.tanh() * gate.sigmoid(), self.out_weight, self.out_bias)
            return scores.to(torch.promote_types(scores.dtype, torch.float32))

    def extra_repr(self) -> str:
        branches, hidden = self.out_weight.shape
        return f"{self.in_features}, {branches}, hidden={hidden}"


def softmax_of_tiles(scores: Tensor, present: Tensor | None) -> Tensor:
    """Softmax over tiles: ``(B, N, K)`` to the same, 0 for absent tiles, also where all are.

    Args:
        scores: of tiles.
        present: ``(B, N)`` bool; all when None.
    """
    if present is None:
        return scores.softmax(1)
    there = present[..., None]
    # The lowest number rather than minus infinity: a bag of absent tiles is 0, not NaN.
    return scores.masked_fill(~there, torch.finfo(scores.dtype).min).softmax(1) * there
