"""Gated attention as conventional aggregators have it, of embedded tiles."""

import torch
from torch import Tensor, nn


class GatedAttention(nn.Module):
    """Scores ``w^T (tanh(V h) * sigmoid(U h))`` of tiles, before any softmax.

    Args:
        in_features: size of ``h``.
        hidden: size of ``V h`` and ``U h``.
        branches: attentions that share ``V`` and ``U``, each with its own ``w``.

    Source:
        Ilse, Tomczak and Welling, ICML 2018 (arXiv:1802.04712), equation 9.
    """

    def __init__(self, in_features: int, hidden: int, branches: int = 1) -> None:
        super().__init__()
        self.value = nn.Linear(in_features, hidden)
        self.gate = nn.Linear(in_features, hidden)
        self.score = nn.Linear(hidden, branches)

    def forward(self, h: Tensor) -> Tensor:
        """``(bags, tiles, in_features)`` to ``(bags, tiles, branches)``, float32 or wider."""
        scores: Tensor = self.score(torch.tanh(self.value(h)) * torch.sigmoid(self.gate(h)))
        return scores.to(torch.promote_types(scores.dtype, torch.float32))
