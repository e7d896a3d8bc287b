"""B-cos linear layer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcos_vit.layers.mode import held
from bcos_vit.layers.scale import apply_scale, check_exponent, max_out_units, unit_norm

# Outside the root, as in the published networks: a zero token gives 0 / 1e-12 = 0.
_EPS = 1e-12


class BcosLinear(nn.Module):
    """``y_o = max_m |cos(x, w_om)|^(b-1) * w_om^T x`` with every ``w_om`` of unit length.

    The maximum is taken over the linear responses, before scaling. No bias: the layer is
    ``y = W(x) x`` exactly.

    Args:
        in_features: size of the last dimension of the input.
        out_features: size of the last dimension of the output.
        b: exponent, at least 1; 1 makes the layer linear.
        max_out: linear units behind each output.

    Source:
        Boehle et al., CVPR 2022 (arXiv:2205.10268); TPAMI 2024 (arXiv:2306.10898).
    """

    dynamic_linear = True

    def __init__(
        self, in_features: int, out_features: int, *, b: float = 2.0, max_out: int = 1
    ) -> None:
        super().__init__()
        if max_out < 1:
            raise ValueError(f"max_out must be at least 1, got {max_out}")
        self.in_features = in_features
        self.out_features = out_features
        self.b = check_exponent(b)
        self.max_out = max_out
        self.weight = nn.Parameter(torch.empty(out_features * max_out, in_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Isotropic directions: the length of a row does not matter, only where it points."""
        nn.init.normal_(self.weight, std=self.in_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in_features)`` to ``(..., out_features)``."""
        linear = max_out_units(F.linear(x, unit_norm(held(self.weight))), self.max_out, -1)
        # float32 at least: squares of half-precision tokens over- and underflow.
        wide = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide) + _EPS
        return apply_scale(linear, norm, self.b)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, b={self.b:g}, max_out={self.max_out}"
