"""Tiles that look at each other: a B-cos transformer over a bag.

Of the class of TransMIL (Shao et al., NeurIPS 2021, arXiv:2106.00908), made exact as B-cos ViTs are
(Boehle et al., TPAMI 2024, arXiv:2306.10898): queries and keys are held while explaining, so
attention is a matrix of numbers; values, projections and feed-forward parts are B-cos or linear
without bias. A class token would be a constant that no tile owns, as an additive position code
would; tokens are pooled by attention instead, whose query is as learnt as a class token's.

Shapes: B bags, N tiles, D features, C outputs, H heads, E the size of a token.
"""

import torch
from torch import Tensor, nn

from bcos_vit.layers import (
    BCOS,
    BcosBlock,
    BcosLayerNorm,
    BcosLinear,
    BcosMlp,
    LayerKit,
    PlainLinear,
    held,
)
from bcos_vit.layers.attention import check_heads, mix, queries_keys_values
from pathology.aggregators.exact import ExactAggregator, evidence_layers
from pathology.aggregators.scorer import GatedScorer, softmax_of_tiles

# What the learnt scales of branches start as: layers of unit-length weights cannot start small.
_BRANCH_SCALE = 0.1


class BcosTransformer(ExactAggregator):
    """Blocks of self-attention over tiles, then attention pooling and one B-cos layer.

    Time grows with the square of the number of tiles, memory in proportion to it where torch has a
    fused attention for the device and precision (on CPUs in any; on GPUs not in float64).

    Args:
        in_features, outputs: as in :class:`Aggregator`.
        dim: E.
        depth: blocks.
        num_heads: divides ``dim``.
        mlp_ratio: size of the feed-forward parts, relative to ``dim``.
        attention_hidden: size of the scorer that pools tokens.
        b: exponent of every B-cos layer.
        max_out: linear units behind each B-cos output.
        drop: dropout at the entry and behind each branch, while training.
        logit_bias, temperature: as in :class:`ExactAggregator`.

    Raises:
        ValueError: ``num_heads`` does not divide ``dim``, or ``depth`` is negative.
    """

    def __init__(
        self,
        in_features: int,
        outputs: int,
        *,
        dim: int = 256,
        depth: int = 2,
        num_heads: int = 8,
        mlp_ratio: float = 2.0,
        attention_hidden: int = 128,
        b: float = 2.0,
        max_out: int = 1,
        drop: float = 0.0,
        logit_bias: float | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(in_features, outputs, logit_bias=logit_bias, temperature=temperature)
        check_heads(num_heads, dim)
        if depth < 0:
            raise ValueError(f"depth must be at least 0, got {depth}")
        kit = LayerKit(b, max_out)
        self.embed = nn.Sequential(
            BcosLayerNorm(in_features),
            nn.Dropout(drop),
            BcosLinear(in_features, dim, b=b, max_out=max_out),
            BcosLayerNorm(dim),
        )
        self.blocks = nn.ModuleList(
            BcosBlock(
                dim,
                TileAttention(dim, num_heads, kit=kit, drop=drop),
                BcosMlp(dim, int(dim * mlp_ratio), kit=kit, drop=drop),
                kit=kit,
                init_values=_BRANCH_SCALE,
            )
            for _ in range(depth)
        )
        self.norm = BcosLayerNorm(dim)
        self.scorer = GatedScorer(dim, 1, attention_hidden)
        self.bag = evidence_layers(dim, outputs, hidden=dim, layers=0, b=b, max_out=max_out)

    def evidence(self, features: Tensor, present: Tensor | None) -> Tensor:
        tokens = self.tokens(features, present)
        weights = softmax_of_tiles(self.scorer(tokens), present)
        pooled = held(weights).to(tokens.dtype).transpose(1, 2) @ tokens
        evidence: Tensor = self.bag(pooled[:, 0])
        return evidence

    def tokens(self, features: Tensor, present: Tensor | None) -> Tensor:
        """``(B, N, D)`` to tokens that have seen their bag, ``(B, N, E)``."""
        mask = None
        if present is not None and not bool(present.all()):
            # Where no tile is present, tokens may look at each other: none of them will count.
            seen = present | ~present.any(1, keepdim=True)
            mask = torch.zeros_like(seen, dtype=torch.float32).masked_fill(~seen, -torch.inf)
            mask = mask[:, None, None]
        x: Tensor = self.embed(features)
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        return x

    def attention(self, features: Tensor, present: Tensor | None = None) -> Tensor:
        """How much each token counts in the end."""
        tokens = self.tokens(self.checked(features, present), present)
        return softmax_of_tiles(self.scorer(tokens), present)[..., 0]


class TileAttention(nn.Module):
    """Multi-head self-attention among the tiles of a bag that there are.

    Args:
        dim: E.
        num_heads: divides ``dim``.
        kit: what layers are made of.
        drop: dropout probability of the output.
    """

    dynamic_linear = True

    def __init__(
        self, dim: int, num_heads: int, *, kit: LayerKit = BCOS, drop: float = 0.0
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = PlainLinear(dim, 3 * dim)
        self.proj = kit.linear(dim, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(B, N, E)`` to the same.

        Args:
            x: tokens.
            mask: ``(B, 1, 1, N)``, added to the attention logits: 0, or minus infinity for tiles
                that no other may look at.
        """
        heads = queries_keys_values(self.qkv, x, self.num_heads)
        q, k, v = (each.transpose(1, 2) for each in heads)
        mixed = mix(q, k, v, None if mask is None else mask.to(q.dtype))  # B H N E/H
        y: Tensor = self.drop(self.proj(mixed.transpose(1, 2).flatten(2)))
        return y
