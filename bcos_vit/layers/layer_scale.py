"""A learnt scale per channel for residual branches."""

import torch
from torch import Tensor, nn

from bcos_vit.layers.mode import held


class BcosLayerScale(nn.Module):
    """``y = gamma * x`` over the last dimension.

    B-cos weights have unit length, so a branch cannot start small the way a conventional one does
    with small weights; this lets it.

    Args:
        dim: size of the last dimension.
        init_value: what every ``gamma`` starts as.

    Source:
        Touvron et al., "Going deeper with Image Transformers", ICCV 2021 (arXiv:2103.17239).
    """

    dynamic_linear = True

    def __init__(self, dim: int, init_value: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(init_value)))

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """``(..., dim)`` to the same.

        Args:
            x: what a branch adds.
            shortcut: what it is added to, in the same pass.
        """
        gamma = held(self.gamma).to(x.dtype)
        return x * gamma if shortcut is None else torch.addcmul(shortcut, x, gamma)

    def extra_repr(self) -> str:
        return f"{len(self.gamma)}"
