"""Activations read as gates: ``y = gate(x) * x``, the gate a constant while explaining.

B-cos networks need none. Conventional networks turned B-cos keep theirs (Arya et al.,
"B-cosification", NeurIPS 2024, arXiv:2411.00715). A ReLU is such a gate already: its gradient is.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcos_vit.layers.mode import held, is_explaining


class GatedGelu(nn.Module):
    """``y = Phi(x) * x`` with the standard normal's distribution function ``Phi``."""

    dynamic_linear = True

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        if not is_explaining():
            return F.gelu(x)
        return x * held(torch.special.ndtr(x))
