"""B-cos linear layer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcos_vit.layers.bias import add_bias, make_bias
from bcos_vit.layers.fast import fast
from bcos_vit.layers.fused_bcos import Form, bcos
from bcos_vit.layers.mode import held
from bcos_vit.layers.scale import (
    apply_scale,
    check_exponent,
    check_units,
    max_out_units,
    unit_norm,
    weight_length,
)

# Outside the root, as in the published networks: a zero token gives 0 / 1e-12 = 0.
_EPS = 1e-12


class BcosLinear(nn.Module):
    """``y_o = max_m |cos(x, w_om)|^(b-1) * w_om^T x`` with every ``w_om`` of unit length.

    The maximum is taken over the linear responses, before scaling. Without a bias, as in B-cos
    networks, the layer is ``y = W(x) x`` exactly.

    Args:
        in_features: size of the last dimension of the input.
        out_features: size of the last dimension of the output.
        b: exponent, at least 1; 1 makes the layer linear.
        max_out: linear units behind each output.
        unit_norm: whether weights count as if of unit length; if not, they keep the length they
            have, and only the cosine is free of it (layers taken over from conventional networks).
        bias: adds a bias, reported as the constant term ``"biases"`` by an explanation.

    Source:
        Boehle et al., CVPR 2022 (arXiv:2205.10268); TPAMI 2024 (arXiv:2306.10898).
    """

    dynamic_linear = True
    bias: nn.Parameter | None
    bias_share: float

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        b: float = 2.0,
        max_out: int = 1,
        unit_norm: bool = True,
        bias: bool = False,
    ) -> None:
        super().__init__()
        check_units(max_out, unit_norm)
        self.in_features = in_features
        self.out_features = out_features
        self.b = check_exponent(b)
        self.max_out = max_out
        self.unit_norm = unit_norm
        self.weight = nn.Parameter(torch.empty(out_features * max_out, in_features))
        make_bias(self, out_features if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Isotropic directions: the length of a row does not matter, only where it points."""
        nn.init.normal_(self.weight, std=self.in_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in_features)`` to ``(..., out_features)``."""
        if self.b == 2 and self.max_out == 1 and fast(x, self.weight):
            y = bcos(x.reshape(-1, self.in_features), self.weight, self.form)
            y = y.view(*x.shape[:-1], self.out_features)
        else:
            y = self._scaled(x, self.weight)
        return add_bias(y, self.bias, self.bias_share)

    @property
    def form(self) -> Form:
        """What this layer is, for its fast form."""
        return Form(self._scaled, _EPS, eps_inside=False, unit_norm=self.unit_norm)

    def _scaled(self, x: Tensor, weight: Tensor) -> Tensor:
        """The plain formula, without bias."""
        weight = held(weight)
        weight = unit_norm(weight) if self.unit_norm else weight
        linear = max_out_units(F.linear(x, weight), self.max_out, -1)
        if self.b != 1:
            # float32 at least: squares of half-precision tokens over- and underflow.
            wide = torch.promote_types(x.dtype, torch.float32)
            norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide) + _EPS
            if not self.unit_norm:
                norm = norm * weight_length(weight)
            linear = apply_scale(linear, norm, self.b)
        return linear

    def extra_repr(self) -> str:
        text = f"{self.in_features}, {self.out_features}, b={self.b:g}, max_out={self.max_out}"
        return text if self.unit_norm else f"{text}, unit_norm=False, bias={self.bias is not None}"


class PlainLinear(nn.Module):
    """``y = W x + bias``, a linear layer in any network: queries, keys and values.

    Args:
        in_features, out_features, bias: as in :class:`BcosLinear`.
    """

    dynamic_linear = True
    bias: nn.Parameter | None
    bias_share: float

    def __init__(self, in_features: int, out_features: int, *, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        make_bias(self, out_features if bias else None)
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in_features)`` to ``(..., out_features)``."""
        return add_bias(F.linear(x, held(self.weight)), self.bias, self.bias_share)

    def extra_repr(self) -> str:
        rows, columns = self.weight.shape
        return f"{columns}, {rows}, bias={self.bias is not None}"
