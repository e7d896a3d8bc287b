"""Self-attention that is a constant matrix while explaining.

Boehle et al., TPAMI 2024 (arXiv:2306.10898): with queries and keys held constant, the softmax is a
matrix ``A`` of numbers and attention is the linear map ``A V x``; only the output projection is a
B-cos layer. Position may enter here, in queries and keys, without adding anything to the output.

Shapes: B batch, N tokens, H heads, D head size, C = H * D.
"""

import torch.nn.functional as F
from timm.layers import apply_rot_embed_cat
from torch import Tensor, nn

from bcos_vit.layers.linear import BcosLinear
from bcos_vit.layers.mode import held


def check_heads(num_heads: int, dim: int) -> None:
    """Refuse heads that do not share the embedding evenly.

    Raises:
        ValueError: ``num_heads`` does not divide ``dim``.
    """
    if num_heads < 1 or dim % num_heads:
        raise ValueError(f"num_heads must divide dim, got {num_heads} for {dim}")


class BcosAttention(nn.Module):
    """Multi-head self-attention: plain bias-free queries, keys, values; B-cos projection.

    Args:
        dim: embedding size C.
        num_heads: divides ``dim``.
        b, max_out: of the projection, see :class:`BcosLinear`.
        proj_drop: dropout probability of the output.
    """

    dynamic_linear = True

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        b: float = 2.0,
        max_out: int = 1,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        check_heads(num_heads, dim)
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = BcosLinear(dim, dim, b=b, max_out=max_out)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, rope: Tensor | None = None) -> Tensor:
        """``(B, N, C)`` to the same.

        Args:
            x: tokens.
            rope: ``(N, 2 D)`` sines and cosines that turn queries and keys by their position.
        """
        weight_qk, weight_v = held(self.qkv.weight).split([2 * x.shape[-1], x.shape[-1]])
        # Held before the projection, so that explaining neither stores nor walks this branch.
        qk = F.linear(held(x), weight_qk).unflatten(-1, (2, self.num_heads, -1))
        q, k = qk.permute(2, 0, 3, 1, 4).unbind(0)  # B H N D each
        v = F.linear(x, weight_v).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # B H N D
        if rope is not None:
            q = apply_rot_embed_cat(q, rope).to(v.dtype)
            k = apply_rot_embed_cat(k, rope).to(v.dtype)
        mixed = F.scaled_dot_product_attention(q, k, v)
        y: Tensor = self.proj_drop(self.proj(mixed.transpose(1, 2).flatten(2)))
        return y
