"""The pre-norm transformer block, whatever its attention."""

from timm.layers import DropPath
from torch import Tensor, nn

from bcos_vit.layers.kit import BCOS, LayerKit
from bcos_vit.layers.layer_scale import BcosLayerScale


class BcosBlock(nn.Module):
    """Attention, then a feed-forward part, both behind a norm and residual.

    Args:
        dim: embedding size.
        attn: attention, ``(batch, ..., dim)`` to the same.
        mlp: feed-forward part, likewise.
        kit: what norms are made of.
        norm_eps: added to the variance in norms.
        init_values: what the learnt scales of both branches start as; no scales when 0 or omitted.
        drop_path: probability of skipping a branch for an image (training only).
    """

    dynamic_linear = True

    def __init__(
        self,
        dim: int,
        attn: nn.Module,
        mlp: nn.Module,
        *,
        kit: LayerKit = BCOS,
        norm_eps: float = 1e-5,
        init_values: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = kit.layer_norm(dim, norm_eps)
        self.attn = attn
        self.norm2 = kit.layer_norm(dim, norm_eps)
        self.mlp = mlp
        self.drop_path = DropPath(drop_path)
        self.ls1: nn.Module = nn.Identity()
        self.ls2: nn.Module = nn.Identity()
        if init_values:
            self.ls1 = BcosLayerScale(dim, init_values)
            self.ls2 = BcosLayerScale(dim, init_values)

    def forward(self, x: Tensor, rope: Tensor | None = None) -> Tensor:
        """``(batch, ..., dim)`` to the same; ``rope`` is for attention that takes one."""
        context = () if rope is None else (rope,)
        x = self._add(x, self.attn(self.norm1(x), *context), self.ls1)
        return self._add(x, self.mlp(self.norm2(x)), self.ls2)

    def _add(self, x: Tensor, branch: Tensor, scale: nn.Module) -> Tensor:
        """``x`` and what a branch adds, scaled."""
        # Dropping a branch and scaling it may change places.
        branch = self.drop_path(branch)
        y: Tensor = x + branch if isinstance(scale, nn.Identity) else scale(branch, x)
        return y
