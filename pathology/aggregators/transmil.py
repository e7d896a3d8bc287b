"""A transformer over the tiles of a bag with a class token (after TransMIL)."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pathology.aggregators.abmil import embedding
from pathology.aggregators.aggregator import Aggregator


class TransMIL(Aggregator):
    """Class token and tiles through self-attention, a pyramid of position codes, self-attention.

    Tiles are laid out in a square, row by row as they come, the first repeated to fill it; the
    position codes are convolutions of that square. So their order matters here. Written from the
    paper; unlike there, attention is computed in full, not by the Nystroem approximation with its
    convolution of values, which needs memory and time that grow with the square of the number of
    tiles: some 10,000 tiles are what a GPU takes.

    Args:
        in_features, outputs: as in :class:`Aggregator`.
        hidden: size of a token, a multiple of ``heads``.
        heads: of both self-attentions.
        drop: dropout of embedded tiles and after each self-attention, while training.

    Raises:
        ValueError: ``hidden`` is not a multiple of ``heads``.

    Source:
        Shao et al., NeurIPS 2021 (arXiv:2106.00908), algorithms 2 and 3.
    """

    def __init__(
        self,
        in_features: int,
        outputs: int,
        *,
        hidden: int = 256,
        heads: int = 8,
        drop: float = 0.0,
    ) -> None:
        super().__init__(in_features, outputs)
        self.embed = embedding(in_features, hidden, drop)
        self.token = nn.Parameter(torch.randn(hidden) * 0.02)
        self.first = SelfAttention(hidden, heads, drop)
        self.position = SquarePosition(hidden)
        self.second = SelfAttention(hidden, heads, drop)
        self.norm = nn.LayerNorm(hidden)
        self.classifier = nn.Linear(hidden, outputs)

    def evidence(self, features: Tensor, present: Tensor | None) -> Tensor:
        return of_whole_bags(self.whole_bag_evidence, features, present)

    def whole_bag_evidence(self, features: Tensor) -> Tensor:
        """Logits of bags of which every tile is present."""
        token = self.second(self.before_second(features), 1)[:, 0]
        logits: Tensor = self.classifier(self.norm(token))
        return logits

    def before_second(self, features: Tensor) -> Tensor:
        """``(bags, tiles, in_features)`` to tokens ``(bags, 1 + side * side, hidden)``."""
        tiles = self.embed(features)
        count = tiles.shape[1]
        side = math.isqrt(count - 1) + 1 if count else 0
        token = self.token.to(tiles.dtype).expand(len(tiles), 1, -1)
        tokens = torch.cat([token, tiles, tiles[:, : side * side - count]], dim=1)
        return self.position(self.first(tokens), side)

    def attention(self, features: Tensor, present: Tensor | None = None) -> Tensor:
        """``(bags, tiles)``: what the class token attends to in the second layer, mean over heads.

        A tile that is repeated in the square has its weights added up; what is missing to 1 is the
        class token's attention to itself.
        """
        features = self.checked(features, present)
        if present is None:
            return self.whole_bag_attention(features)
        weights = torch.zeros_like(features[..., 0])
        for bag, (tiles, there) in enumerate(zip(features, present, strict=True)):
            weights[bag, there] = self.whole_bag_attention(tiles[there][None])[0]
        return weights

    def whole_bag_attention(self, features: Tensor) -> Tensor:
        """:meth:`attention` of bags of which every tile is present."""
        weights = self.second.token_attention(self.before_second(features))[:, 1:]
        count = features.shape[1]
        repeated = weights[:, count:]
        return weights[:, :count] + F.pad(repeated, (0, count - repeated.shape[1]))


class SelfAttention(nn.Module):
    """``x + attention(norm(x))``, no feed-forward layer behind it.

    Args:
        hidden: size of a token.
        heads: of the attention.
        drop: dropout of what is added.

    Raises:
        ValueError: ``hidden`` is not a multiple of ``heads``.
    """

    def __init__(self, hidden: int, heads: int, drop: float) -> None:
        super().__init__()
        if heads < 1 or hidden % heads:
            raise ValueError(f"hidden must be a multiple of heads, got {hidden} and {heads}")
        self.heads = heads
        self.norm = nn.LayerNorm(hidden)
        self.queries_keys_values = nn.Linear(hidden, 3 * hidden, bias=False)
        self.out = nn.Linear(hidden, hidden)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        """``(bags, tokens, hidden)`` to the same, or to the ``first`` tokens of it."""
        queries, keys, values = self.parts(x)
        y = F.scaled_dot_product_attention(queries[:, :, :first], keys, values)
        added: Tensor = self.drop(self.out(y.transpose(1, 2).flatten(2)))
        return x[:, :first] + added

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values, ``(bags, heads, tokens, hidden / heads)`` each."""
        parts: Tensor = self.queries_keys_values(self.norm(x)).unflatten(-1, (3, self.heads, -1))
        return parts.permute(2, 0, 3, 1, 4).unbind()

    def token_attention(self, x: Tensor) -> Tensor:
        """``(bags, tokens)``: what the first token attends to, mean over heads."""
        queries, keys, _ = self.parts(x)
        scores = queries[:, :, :1] @ keys.mT / math.sqrt(queries.shape[-1])
        return scores.softmax(-1)[:, :, 0].mean(1)


class SquarePosition(nn.Module):
    """PPEG: tiles in a square plus its depth-wise convolutions by 7, 5 and 3; the token stays.

    Args:
        hidden: size of a token.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(hidden, hidden, size, padding=size // 2, groups=hidden) for size in (7, 5, 3)
        )

    def forward(self, tokens: Tensor, side: int) -> Tensor:
        """``(bags, 1 + side * side, hidden)`` to the same."""
        if side == 0:
            return tokens
        square = tokens[:, 1:].mT.unflatten(-1, (side, side))
        coded = torch.stack([square, *(layer(square) for layer in self.convolutions)]).sum(0)
        return torch.cat([tokens[:, :1], coded.flatten(2).mT], dim=1)


def of_whole_bags(
    function: Callable[[Tensor], Tensor], features: Tensor, present: Tensor | None
) -> Tensor:
    """``function`` of bags without their absent tiles, those of one size together.

    Args:
        function: ``(bags, tiles, in_features)`` to ``(bags, outputs)``.
        features: ``(bags, tiles, in_features)``.
        present: ``(bags, tiles)`` bool; all when None.

    Returns:
        ``(bags, outputs)``.
    """
    if present is None or not len(features):
        return function(features)
    counts = present.sum(1)
    parts, rows = [], []
    for count in counts.unique().tolist():
        row = (counts == count).nonzero()[:, 0]
        tiles = features[row][present[row]].view(len(row), count, features.shape[-1])
        parts.append(function(tiles))
        rows.append(row)
    return torch.cat(parts)[torch.cat(rows).argsort()]
