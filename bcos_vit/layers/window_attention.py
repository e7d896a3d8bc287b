"""Self-attention within windows of a feature map: a constant matrix while explaining.

Liu et al., "Swin Transformer", ICCV 2021 (arXiv:2103.14030): a place attends to the places of its
window; in every other layer the windows are moved by half their size. Position enters as a learnt
number per offset between two places, inside the softmax. It only changes the attention matrix, so
unlike a code added to the tokens it takes nothing of the logit away from the pixels.

Shapes: B batch, R rows, L columns, H heads, D head size, C = H * D; W windows of h x w = N places.
"""

import torch
import torch.nn.functional as F
from timm.layers import trunc_normal_
from torch import Tensor, nn

from bcos_vit.layers.attention import check_heads, mix, queries_keys_values
from bcos_vit.layers.conv import two_numbers
from bcos_vit.layers.kit import BCOS, LayerKit
from bcos_vit.layers.mode import held

Pair = tuple[int, int]


def cut_windows(x: Tensor, window: Pair) -> Tensor:
    """``(B, R, L, ...)`` to ``(B, R / h, L / w, N, ...)``; R and L divide by ``window``."""
    rows, columns = window
    return x.unflatten(2, (-1, columns)).unflatten(1, (-1, rows)).transpose(2, 3).flatten(3, 4)


def join_windows(x: Tensor, window: Pair) -> Tensor:
    """The inverse of :func:`cut_windows`."""
    return x.unflatten(3, window).transpose(2, 3).flatten(3, 4).flatten(1, 2)


class BcosWindowAttention(nn.Module):
    """Multi-head self-attention in windows: plain queries, keys, values; B-cos projection.

    No parameter depends on the size of the map. Along an axis where the map is no larger than the
    window, there is one window of the map's size and no shift. Where windows do not divide the
    map, zeros are added below and to the right, as in timm: after the shift, so that the last
    shifted windows mix some places of opposite edges, and attended to like any place.

    Args:
        dim: embedding size C.
        num_heads: divides ``dim``.
        window_size: side, or (rows, columns), of a window in places of the map.
        shifted: whether windows start at half their size.
        kit: what layers are made of.
        qkv_bias, proj_bias: whether a conventional network has these biases.
        proj_drop: dropout probability of the output.

    Raises:
        ValueError: heads that do not divide, a window without places.
    """

    dynamic_linear = True

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int | Pair = 7,
        *,
        shifted: bool = False,
        kit: LayerKit = BCOS,
        qkv_bias: bool = True,
        proj_bias: bool = True,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        check_heads(num_heads, dim)
        self.num_heads = num_heads
        self.window_size = two_numbers("window_size", window_size, least=1)
        self.shifted = shifted
        rows, columns = self.window_size
        self.relative_position_bias_table = nn.Parameter(
            torch.empty((2 * rows - 1) * (2 * columns - 1), num_heads)
        )
        trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv = kit.plain_linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = kit.linear(dim, dim, bias=proj_bias)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, R, L, C)`` to the same."""
        rows, columns = x.shape[1:3]
        window, shift = self._fit(rows, columns)
        y = x.roll((-shift[0], -shift[1]), (1, 2)) if any(shift) else x
        y = F.pad(y, (0, 0, 0, -columns % window[1], 0, -rows % window[0]))
        grid = (y.shape[1] // window[0], y.shape[2] // window[1])
        # Projected before it is cut, while the batch is still dimension 0; then each head of each
        # window is a head of its own.
        q, k, v = (
            cut_windows(each, window).transpose(3, 4).flatten(1, 3)  # B W*H N D
            for each in queries_keys_values(self.qkv, y, self.num_heads)
        )
        bias = self._position_bias(window, grid, shift).to(q.dtype)
        mixed = mix(q, k, v, bias[None])
        # A copy: whether a view would do depends on how attention's result lies in memory, which
        # exporters do not keep.
        y = torch.cat(mixed.unflatten(1, (*grid, self.num_heads)).unbind(3), -1)
        y = join_windows(y, window)[:, :rows, :columns]
        y = y.roll(shift, (1, 2)) if any(shift) else y
        z: Tensor = self.proj_drop(self.proj(y))
        return z

    def _fit(self, rows: int, columns: int) -> tuple[Pair, Pair]:
        """Window and shift on a map of this size."""
        most_rows, most_columns = self.window_size
        window = (min(rows, most_rows), min(columns, most_columns))
        shift = (
            most_rows // 2 if self.shifted and rows > most_rows else 0,
            most_columns // 2 if self.shifted and columns > most_columns else 0,
        )
        return window, shift

    def _position_bias(self, window: Pair, grid: Pair, shift: Pair) -> Tensor:
        """What is added to ``q k / sqrt(D)``, ``(W * H, N, N)``: -inf between what may not mix."""
        table = held(self.relative_position_bias_table)
        table = table.unflatten(0, [2 * most - 1 for most in self.window_size])
        places = [torch.arange(side, device=table.device) for side in window]
        rows, columns = (
            each[:, None] - each + most - 1
            for each, most in zip(places, self.window_size, strict=True)
        )
        offsets = table[rows[:, None, :, None], columns[None, :, None, :]]  # h w h w H
        bias = offsets.flatten(2, 3).flatten(0, 1).permute(2, 0, 1)  # H N N
        # A shift brings places from the far edges into the last windows; they stay apart there.
        sizes = [count * side for count, side in zip(grid, window, strict=True)]
        wrapped = [
            torch.arange(size, device=table.device) >= size - moved
            for size, moved in zip(sizes, shift, strict=True)
        ]
        origin = cut_windows((2 * wrapped[0][:, None] + wrapped[1])[None], window).flatten(0, 2)
        apart = origin[:, :, None] != origin[:, None, :]  # W N N
        return bias.masked_fill(apart[:, None], -torch.inf).flatten(0, 1)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, window_size={self.window_size}, shifted={self.shifted}"
