"""Normalisation whose statistics are constants while explaining, without bias unless asked.

Boehle et al., TPAMI 2024 (arXiv:2306.10898): norms need no bias in a B-cos network, and dividing by
a standard deviation that is held constant keeps the network dynamic-linear. Subtracting a mean over
the input's own entries is linear and stays. Statistics are computed in float32 or wider, the output
has the input's dtype. ``bias=True`` serves networks taken over from conventional ones; an
explanation reports what it carries as the constant term ``"biases"``.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from bcos_vit.errors import NotExplainableError
from bcos_vit.layers.bias import add_bias, make_bias
from bcos_vit.layers.fast import fast
from bcos_vit.layers.fused_norm import batch_norm, group_norm, layer_norm
from bcos_vit.layers.mode import held, is_explaining
from bcos_vit.layers.operators import traceable


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
        if fast(x, self.weight):
            y = layer_norm(x, self.weight, self.eps, self._normed)
        elif traceable(x, self.weight):
            y = F.layer_norm(x, (x.shape[-1],), self.weight, None, self.eps)
        else:
            y = self._normed(x, self.weight)
        return add_bias(y, self.bias, self.bias_share)

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        """The plain formula, without bias."""
        wide = _wide(x)
        centred = wide - wide.mean(-1, keepdim=True)
        scale = held((centred.square().mean(-1, keepdim=True) + self.eps).rsqrt())
        return (centred * scale * held(weight)).to(x.dtype)

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
        if fast(x, self.weight):
            y = group_norm(x, self.weight, self.groups, self.eps, self._normed)
        else:
            y = self._normed(x, self.weight)
        return add_bias(y, self.bias, self.bias_share, dim=1)

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        """The plain formula, without bias."""
        wide = _wide(x).unflatten(1, (self.groups, -1))
        centred = wide - wide.mean((2, 3, 4), keepdim=True)
        scale = held((centred.square().mean((2, 3, 4), keepdim=True) + self.eps).rsqrt())
        y = (centred * scale).flatten(1, 2) * held(weight)[:, None, None]
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, groups={self.groups}, eps={self.eps:g}"


class BcosBatchNorm2d(nn.Module):
    """``y = weight * x / sqrt(var + eps)``: batch norm that divides but neither centres nor shifts.

    ``var`` is the biased variance about the mean, over batch and positions; its running average
    uses the biased variance too, as in the published networks. Subtracting a learnt mean would add
    a constant that no pixel owns, so it is left out.

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
        self.synchronised = False
        self.register_buffer("running_var", torch.ones(chans))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, chans, height, width)`` to the same.

        Raises:
            NotExplainableError: explained in training mode, where images change each other.
        """
        if not self.training:
            y = self._divided(x, self.weight, _wide(self.running_var))
        elif is_explaining():
            raise NotExplainableError(
                "batch norm is in training mode, where one image's explanation depends on the"
                " others in the batch; call model.eval() first"
            )
        else:
            if fast(x, self.weight) and not self._shared:
                y, var = batch_norm(x, self.weight, self.eps, self._divided)
            else:
                var = self._batch_variance(_wide(x))
                y = self._divided(x, self.weight, var)
            with torch.no_grad():
                self.running_var.lerp_(var.to(self.running_var.dtype), self.momentum)
                self.num_batches_tracked += 1
        return add_bias(y, self.bias, self.bias_share, dim=1)

    @property
    def _shared(self) -> bool:
        """Whether statistics are those of several processes."""
        return self.synchronised and dist.is_available() and dist.is_initialized()

    def _divided(self, x: Tensor, weight: Tensor, var: Tensor | None = None) -> Tensor:
        """The plain formula, without bias; by the batch's own variance where none is given."""
        if var is None:
            var = self._batch_variance(_wide(x))
        return x * self._scale(weight, var)[:, None, None].to(x.dtype)

    def _scale(self, weight: Tensor, var: Tensor) -> Tensor:
        return held(weight) * (var + self.eps).rsqrt()

    def running_scale(self) -> Tensor:
        """What each channel is multiplied by in evaluation, ``(chans,)``, without gradient."""
        with torch.no_grad():
            return self._scale(self.weight, _wide(self.running_var))

    def _batch_variance(self, x: Tensor) -> Tensor:
        """Biased variance of each channel in this batch, of all processes where synchronised."""
        if not self._shared:
            return x.var((0, 2, 3), correction=0)
        count = x.new_tensor([x[:, 0].numel()])
        sums = torch.cat([x.detach().sum((0, 2, 3)), count])
        dist.all_reduce(sums)
        # No gradient through the mean: about their own mean, squares do not change with it.
        mean = sums[:-1] / sums[-1]
        squares = (x - mean[:, None, None]).square().sum((0, 2, 3))
        total: Tensor = _SumOfProcesses.apply(squares)
        return total / sums[-1]

    def extra_repr(self) -> str:
        text = f"{len(self.weight)}, eps={self.eps:g}, momentum={self.momentum:g}"
        return f"{text}, synchronised" if self.synchronised else text


class _SumOfProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; every process's loss has a share in its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def synchronise_batch_norm(model: nn.Module) -> nn.Module:
    """Let every B-cos batch norm in ``model`` take its training variance over all processes.

    For ``DistributedDataParallel``: torch's and timm's ``convert_sync_batchnorm`` would centre, and
    leave these norms as they are. Parameters, buffers and evaluation are untouched; without
    initialised processes nothing changes.

    Args:
        model: changed in place.

    Returns:
        ``model`` itself.
    """
    for module in model.modules():
        if isinstance(module, BcosBatchNorm2d):
            module.synchronised = True
    return model


def norm_parameters(model: nn.Module) -> set[str]:
    """Names of the scales of all norms in ``model``, which weight decay should spare."""
    kinds = (BcosLayerNorm, BcosGroupNorm, BcosBatchNorm2d)
    return {
        f"{name}.weight" if name else "weight"
        for name, module in model.named_modules()
        if isinstance(module, kinds)
    }
