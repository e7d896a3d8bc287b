"""Normalisation whose statistics are constants while explaining, without bias unless asked.

Boehle et al., TPAMI 2024 (arXiv:2306.10898): norms need no bias in a B-cos network, and dividing by
a standard deviation that is held constant keeps the network dynamic-linear. Subtracting a mean over
the input's own entries is linear and stays. Statistics are computed in float32 or wider, the output
has the input's dtype. ``bias=True`` serves networks taken over from conventional ones; an
explanation reports what it carries as the constant term ``"biases"``.
"""

import torch
from torch import Tensor, nn

from bcos_vit.errors import NotExplainableError
from bcos_vit.layers.bias import add_bias, make_bias
from bcos_vit.layers.mode import held, is_explaining


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


class BcosLayerNorm(nn.Module):
    """``y = weight * (x - mean) / sqrt(var + eps)`` over the last dimension.

    Args:
        dim: size of the last dimension.
        eps: added to the variance.
        bias: adds a bias, 0 at first.
    """

    dynamic_linear = True
    bias: nn.Parameter | None
    bias_share: float

    def __init__(self, dim: int, eps: float = 1e-5, *, bias: bool = False) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))
        make_bias(self, dim if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., dim)`` to the same."""
        wide = _wide(x)
        centred = wide - wide.mean(-1, keepdim=True)
        scale = held((centred.square().mean(-1, keepdim=True) + self.eps).rsqrt())
        y = (centred * scale * held(self.weight)).to(x.dtype)
        return add_bias(y, self.bias, self.bias_share)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps:g}"


class BcosPositionNorm2d(BcosLayerNorm):
    """:class:`BcosLayerNorm` over the channels of every position of a feature map."""

    dynamic_linear = True

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, dim, height, width)`` to the same."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class BcosGroupNorm(nn.Module):
    """``y = weight * (x - mean) / sqrt(var + eps)`` over groups of channels and all positions.

    Args:
        chans: channels of the input.
        groups: divides ``chans``.
        eps: added to the variance.
        bias: adds a bias, 0 at first.
    """

    dynamic_linear = True
    bias: nn.Parameter | None
    bias_share: float

    def __init__(
        self, chans: int, groups: int = 1, eps: float = 1e-5, *, bias: bool = False
    ) -> None:
        super().__init__()
        if groups < 1 or chans % groups:
            raise ValueError(f"groups must divide chans, got {groups} for {chans}")
        self.groups = groups
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(chans))
        make_bias(self, chans if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, chans, height, width)`` to the same."""
        wide = _wide(x).unflatten(1, (self.groups, -1))
        centred = wide - wide.mean((2, 3, 4), keepdim=True)
        scale = held((centred.square().mean((2, 3, 4), keepdim=True) + self.eps).rsqrt())
        y = (centred * scale).flatten(1, 2) * held(self.weight)[:, None, None]
        return add_bias(y.to(x.dtype), self.bias, self.bias_share, dim=1)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, groups={self.groups}, eps={self.eps:g}"


class BcosBatchNorm2d(nn.Module):
    """``y = weight * x / sqrt(var + eps)``: batch norm that divides but neither centres nor shifts.

    ``var`` is the biased variance about the mean, over batch and positions; its running average
    uses
    the biased variance too, as in the published networks. Subtracting a learnt mean would add a
    constant that no pixel owns, so it is left out.

    Args:
        chans: channels of the input.
        eps: added to the variance.
        bias: adds a bias, 0 at first.
        momentum: share of the newest batch in the running variance.
    """

    dynamic_linear = True
    bias: nn.Parameter | None
    bias_share: float
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self, chans: int, eps: float = 1e-5, momentum: float = 0.1, *, bias: bool = False
    ) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(chans))
        make_bias(self, chans if bias else None)
        self.register_buffer("running_var", torch.ones(chans))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, chans, height, width)`` to the same.

        Raises:
            NotExplainableError: explained in training mode, where images change each other.
        """
        if not self.training:
            var = self.running_var
        elif is_explaining():
            raise NotExplainableError(
                "batch norm is in training mode, where one image's explanation depends on the"
                " others in the batch; call model.eval() first"
            )
        else:
            var = _wide(x).var((0, 2, 3), correction=0)
            with torch.no_grad():
                self.running_var.lerp_(var.to(self.running_var.dtype), self.momentum)
                self.num_batches_tracked += 1
        scale = held(self.weight) * (var + self.eps).rsqrt()
        y = x * scale[:, None, None].to(x.dtype)
        return add_bias(y, self.bias, self.bias_share, dim=1)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps:g}, momentum={self.momentum:g}"


def norm_parameters(model: nn.Module) -> set[str]:
    """Names of the scales of all norms in ``model``, which weight decay should spare."""
    kinds = (BcosLayerNorm, BcosGroupNorm, BcosBatchNorm2d)
    return {
        f"{name}.weight" if name else "weight"
        for name, module in model.named_modules()
        if isinstance(module, kinds)
    }
