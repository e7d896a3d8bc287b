"""Position codes, and where they may be added; tokens that come from no pixel.

A code added to the tokens is a constant that no pixel owns: in networks of that kind it carries
much of the logit. Turned into queries and keys (rotary) it only changes the attention matrix, which
is held constant while explaining, so the pixels' contributions still sum to the logit.
"""

from typing import Any

import torch
from timm.layers import (
    apply_rot_embed_cat,
    build_rotary_pos_embed,
    resample_abs_pos_embed,
    trunc_normal_,
)
from torch import Tensor, nn

from bcos_vit.kernels import passes
from bcos_vit.layers.fast import fast, needs_formula
from bcos_vit.layers.mode import constant, held


class RotaryPosition(nn.Module):
    """Two-dimensional rotary position code for queries and keys; no parameters, any grid.

    Args:
        head_dim: size of one attention head, a multiple of 4.
        temperature: ``T`` in the frequencies ``T^(-4 i / head_dim)``; about the ratio of the
            longest to the shortest wavelength.

    Source:
        Su et al., "RoFormer", 2021 (arXiv:2104.09864); per axis as in Heo et al., "Rotary Position
        Embedding for Vision Transformer", ECCV 2024 (arXiv:2403.13298), whose temperature is 100.
    """

    dynamic_linear = True

    def __init__(self, head_dim: int, temperature: float = 100.0) -> None:
        super().__init__()
        if head_dim % 4:
            raise ValueError(f"rotary position needs a head size divisible by 4, got {head_dim}")
        self.head_dim = head_dim
        self.temperature = temperature

    def forward(self, grid: tuple[int, int], device: torch.device) -> Tensor:
        """Sines and cosines of a ``(rows, columns)`` grid: ``(rows * columns, 2 head_dim)``."""
        sines, cosines = build_rotary_pos_embed(
            list(grid),
            dim=self.head_dim,
            temperature=self.temperature,
            in_pixels=False,
            device=device,
        )
        return torch.cat([sines, cosines], dim=-1)

    def extra_repr(self) -> str:
        return f"head_dim={self.head_dim}, temperature={self.temperature:g}"


def turn(x: Tensor, rope: Tensor, turned: int) -> Tensor:
    """Queries and keys, turned by their position.

    Args:
        x: ``(batch, N, C)``, rows of heads side by side; overwritten where nothing learns.
        rope: ``(N, 2 D)`` sines and cosines of angles, each twice, from :class:`RotaryPosition`.
        turned: how many numbers at the start of each row are queries and keys.
    """
    if fast(x, rope) and x.is_contiguous() and x.shape[1] == len(rope):
        sines, cosines = (each[:, ::2].contiguous() for each in rope.chunk(2, -1))
        if torch.is_grad_enabled() and x.requires_grad:
            y: Tensor = _Turn.apply(x, sines, cosines, turned)
            return y
        return passes.turn(x, sines, cosines, turned, in_place=True)
    return _turn_heads(x, rope, turned)


def _turn_heads(x: Tensor, rope: Tensor, turned: int) -> Tensor:
    """The plain formula."""
    heads = x[..., :turned].unflatten(-1, (-1, rope.shape[-1] // 2)).transpose(1, 2)
    heads = apply_rot_embed_cat(heads, rope).to(x.dtype)
    return torch.cat([heads.transpose(1, 2).flatten(2), x[..., turned:]], -1)


class _Turn(torch.autograd.Function):
    """A turn's gradient is the turn back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sines: Tensor, cosines: Tensor, turned: int) -> Tensor:
        ctx.save_for_backward(sines, cosines)
        ctx.turned = turned
        return passes.turn(x, sines, cosines, turned)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        sines, cosines = ctx.saved_tensors
        dy = grads[0].contiguous()
        if needs_formula(grads[0]):
            rope = torch.stack([-sines, -sines, cosines, cosines], -1)
            rope = torch.cat([rope[..., :2].flatten(-2), rope[..., 2:].flatten(-2)], -1)
            dx: Tensor = _turn_heads(dy, rope, ctx.turned)
        else:
            dx = passes.turn(dy, -sines, cosines, ctx.turned)
        return dx, None, None, None


class SinCosPosition(nn.Module):
    """The fixed sine-cosine code that published B-cos ViTs add to their tokens.

    It takes part of the logit away from the pixels; an explanation reports that part as the
    constant term ``"position"``.

    Args:
        dim: embedding size, a multiple of 4.
        temperature: ratio of the longest to the shortest wavelength.

    Source:
        Beyer et al., "Better plain ViT baselines for ImageNet-1k", 2022 (arXiv:2205.01580).
    """

    dynamic_linear = True
    constant_terms = ("position",)

    def __init__(self, dim: int, temperature: float = 10_000.0) -> None:
        super().__init__()
        if dim % 4 or dim < 8:
            raise ValueError(f"a sine-cosine code needs dim divisible by 4, at least 8, got {dim}")
        self.dim = dim
        self.temperature = temperature

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """``(batch, rows * columns, dim)`` tokens with the code of a ``(rows, columns)`` grid."""
        frequencies = self.dim // 4

        def count(n: int) -> Tensor:
            # A table in float32 whatever the tokens are, as in the published networks: in float64
            # their logits would differ in the eighth digit.
            return torch.arange(n, device=tokens.device, dtype=torch.float32)

        omega = 1.0 / self.temperature ** (count(frequencies) / (frequencies - 1))
        rows, columns = count(grid[0]), count(grid[1])
        y = (rows[:, None] * omega)[:, None].expand(*grid, frequencies)
        x = (columns[:, None] * omega)[None].expand(*grid, frequencies)
        code = torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=-1).flatten(0, 1)
        return tokens + constant("position", code[None].to(tokens.dtype))

    def extra_repr(self) -> str:
        return f"dim={self.dim}, temperature={self.temperature:g}"


class LearnedPosition(nn.Module):
    """A learnt code per place of a grid, added to the tokens (constant term ``"position"``).

    On another grid than its own it is resampled (bicubic, antialiased), as timm does.

    Args:
        grid: ``(rows, columns)`` it is learnt for.
        dim: embedding size.
    """

    dynamic_linear = True
    constant_terms = ("position",)

    def __init__(self, grid: tuple[int, int], dim: int) -> None:
        super().__init__()
        self.grid = grid
        self.code = nn.Parameter(torch.empty(1, grid[0] * grid[1], dim))
        trunc_normal_(self.code, std=0.02)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """``(batch, rows * columns, dim)`` tokens with the code of a ``(rows, columns)`` grid."""
        code = held(self.code)
        if grid != self.grid:
            code = resample_abs_pos_embed(code, list(grid), list(self.grid), num_prefix_tokens=0)
        return tokens + constant("position", code.to(tokens.dtype))

    def extra_repr(self) -> str:
        return f"grid={self.grid}, dim={self.code.shape[-1]}"


class ConstantTokens(nn.Module):
    """Class token and registers: learnt tokens in front of those of the image.

    What they carry of a logit is the constant term ``"tokens"``.

    Args:
        count: how many.
        dim: embedding size.
    """

    dynamic_linear = True
    constant_terms = ("tokens",)

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.code = nn.Parameter(torch.empty(1, count, dim))
        trunc_normal_(self.code, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(batch, n, dim)`` to ``(batch, count + n, dim)``."""
        code = constant("tokens", held(self.code).to(tokens.dtype))
        return torch.cat([code.expand(len(tokens), -1, -1), tokens], dim=1)

    def extra_repr(self) -> str:
        _, count, dim = self.code.shape
        return f"{count}, dim={dim}"
