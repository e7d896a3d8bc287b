"""Self-attention that is a constant matrix while explaining.

Boehle et al., TPAMI 2024 (arXiv:2306.10898): with queries and keys held constant, the softmax is a
matrix ``A`` of numbers and attention is the linear map ``A V x``; only the output projection is a
B-cos layer. Position may enter here, in queries and keys, without adding anything to the output.

Shapes: B batch, N tokens, H heads, D head size, C = H * D.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcos_vit.layers.bias import add_bias
from bcos_vit.layers.kit import BCOS, LayerKit
from bcos_vit.layers.linear import PlainLinear
from bcos_vit.layers.mode import held, is_explaining
from bcos_vit.layers.pos_embed import turn

# Tokens up to which their matrix may be kept: four times what a head of 64 takes for its values.
_MOST_KEPT = 256


def check_heads(num_heads: int, dim: int) -> None:
    """Refuse heads that do not share the embedding evenly.

    Raises:
        ValueError: ``num_heads`` does not divide ``dim``.
    """
    if num_heads < 1 or dim % num_heads:
        raise ValueError(f"num_heads must divide dim, got {num_heads} for {dim}")


def queries_keys_values(
    qkv: PlainLinear, x: Tensor, num_heads: int, rope: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys, held while explaining, and values, each ``(..., H, D)``.

    Args:
        qkv: one layer from C to 3 C, in that order.
        x: ``(..., C)``.
        num_heads: H.
        rope: ``(N, 2 D)`` sines and cosines that turn queries and keys of ``(B, N, C)``.
    """
    chans = x.shape[-1]
    if not is_explaining():
        bias = None if qkv.bias is None else qkv.bias * qkv.bias_share
        y = F.linear(x, qkv.weight, bias)
        y = y if rope is None else turn(y, rope, 2 * chans)
        q, k, v = y.unflatten(-1, (3, num_heads, -1)).unbind(-3)
        return q, k, v
    weight_qk, weight_v = held(qkv.weight).split([2 * chans, chans])
    # Held before the projection, so that explaining neither stores nor walks this branch.
    qk, v = F.linear(held(x), weight_qk), F.linear(x, weight_v)
    if qkv.bias is not None:
        bias_qk, bias_v = qkv.bias.split([2 * chans, chans])
        qk = qk + held(bias_qk) * qkv.bias_share
        v = add_bias(v, bias_v, qkv.bias_share)
    qk = qk if rope is None else turn(qk, rope, 2 * chans)
    q, k = qk.unflatten(-1, (2, num_heads, -1)).unbind(-3)
    return q, k, v.unflatten(-1, (num_heads, -1))


def mix(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """``softmax(q k^T / sqrt(D) + bias) v``, each ``(..., N, D)``.

    While explaining, queries and keys are constants and so is the matrix: where it is not large, it
    is made once and used again by every backward pass.
    """
    held = is_explaining() and torch.is_grad_enabled() and v.requires_grad
    if not held or k.shape[-2] > _MOST_KEPT:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return torch.softmax(logits if bias is None else logits + bias, -1) @ v


class BcosAttention(nn.Module):
    """Multi-head self-attention: plain queries, keys, values; B-cos projection.

    Args:
        dim: embedding size C.
        num_heads: divides ``dim``.
        kit: what layers are made of.
        qkv_bias, proj_bias: whether a conventional network has these biases.
        proj_drop: dropout probability of the output.
    """

    dynamic_linear = True

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        kit: LayerKit = BCOS,
        qkv_bias: bool = True,
        proj_bias: bool = True,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        check_heads(num_heads, dim)
        self.num_heads = num_heads
        self.qkv = kit.plain_linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = kit.linear(dim, dim, bias=proj_bias)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, rope: Tensor | None = None) -> Tensor:
        """``(B, N, C)`` to the same.

        Args:
            x: tokens.
            rope: ``(N, 2 D)`` sines and cosines that turn queries and keys by their position.
        """
        heads = queries_keys_values(self.qkv, x, self.num_heads, rope)
        q, k, v = (each.transpose(1, 2) for each in heads)
        mixed = mix(q, k, v)  # B H N D
        y: Tensor = self.proj_drop(self.proj(mixed.transpose(1, 2).flatten(2)))
        return y
