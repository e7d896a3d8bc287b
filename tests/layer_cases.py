"""Layers that have fast paths, with inputs for them, and norms that can be folded into others."""

import contextlib
import copy
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from bcos_vit.layers import (
    BcosAttention,
    BcosBatchNorm2d,
    BcosConv2d,
    BcosGroupNorm,
    BcosLayerNorm,
    BcosLinear,
    BcosMlp,
    BcosPositionNorm2d,
    LayerKit,
    RotaryPosition,
    explanation_mode,
)
from bcos_vit.layers.conv_norm import conv_norm
from bcos_vit.layers.fast import plain_formulas
from tests.conftest import unsettle


class Turned(nn.Module):
    """Attention over a grid of tokens, with the rotary code."""

    def __init__(self):
        super().__init__()
        self.attn, self.rope = BcosAttention(16, 2), RotaryPosition(8)

    def forward(self, x):
        return self.attn(x, self.rope((3, 5), x.device).to(x.dtype))


class Folded(nn.Module):
    """A convolution and the norms around it."""

    def __init__(self, conv, norm=None, before=None):
        super().__init__()
        self.conv, self.norm, self.before = conv, norm, before

    def forward(self, x):
        return conv_norm(x, self.conv, self.norm, before=self.before)


class Unfolded(Folded):
    """The same, one after the other."""

    def forward(self, x):
        for layer in (self.before, self.conv, self.norm):
            x = x if layer is None else layer(x)
        return x


CONVENTIONAL = {"unit_norm": False, "bias": True}
LAYERS = {
    "linear": (lambda: BcosLinear(40, 24), (3, 15, 40)),
    "linear, weights of any length": (lambda: BcosLinear(40, 24, **CONVENTIONAL), (45, 40)),
    "mlp": (lambda: BcosMlp(16, 64), (3, 15, 16)),
    "mlp, conventional": (lambda: BcosMlp(16, 64, kit=LayerKit(conventional=True)), (3, 15, 16)),
    "conv 1x1": (lambda: BcosConv2d(40, 24, 1), (2, 40, 9, 7)),
    "conv 1x1, strided": (lambda: BcosConv2d(12, 24, 1, 2), (2, 12, 9, 8)),
    "conv 3x3": (lambda: BcosConv2d(12, 16, 3, padding=1), (2, 12, 9, 7)),
    "conv 3x3, strided": (lambda: BcosConv2d(12, 16, 3, 2, 1), (2, 12, 9, 8)),
    "conv 3x3, dilated": (lambda: BcosConv2d(6, 8, 3, padding=2, dilation=2), (2, 6, 9, 8)),
    "conv 3x3, reflected": (
        lambda: BcosConv2d(6, 8, 3, padding=1, padding_mode="reflect"), (2, 6, 9, 8)
    ),
    "conv 3x3, in groups": (lambda: BcosConv2d(12, 24, 3, padding=1, groups=4), (2, 12, 9, 7)),
    "conv 3x3, weights of any length": (
        lambda: BcosConv2d(12, 16, 3, padding=1, **CONVENTIONAL), (2, 12, 9, 7)
    ),
    "conv 4x4, patches": (lambda: BcosConv2d(6, 16, 4, 4), (2, 6, 12, 16)),
    "conv 7x7, stem": (lambda: BcosConv2d(6, 16, 7, 2, 3), (2, 6, 17, 16)),
    "conv 7x7, depthwise": (lambda: BcosConv2d(16, 16, 7, padding=3, groups=16), (2, 16, 9, 8)),
    "layer norm": (lambda: BcosLayerNorm(40), (3, 15, 40)),
    "position norm": (lambda: BcosPositionNorm2d(24), (2, 24, 5, 7)),
    "group norm": (lambda: BcosGroupNorm(24, 4, bias=True), (2, 24, 5, 7)),
    "batch norm": (lambda: BcosBatchNorm2d(24).eval(), (2, 24, 5, 7)),
    "batch norm, training": (lambda: BcosBatchNorm2d(24), (4, 24, 9, 7)),
    "attention": (lambda: BcosAttention(16, 2), (3, 15, 16)),
    "attention, turned": (Turned, (3, 15, 16)),
}  # fmt: skip
FOLDS = {
    "norm": lambda: (BcosConv2d(12, 16, 3, padding=1), BcosBatchNorm2d(16)),
    "norm, strided 1x1": lambda: (BcosConv2d(12, 16, 1, 2), BcosBatchNorm2d(16)),
    "norm, 1x1": lambda: (BcosConv2d(12, 16, 1), BcosBatchNorm2d(16)),
    "norm, depthwise": lambda: (BcosConv2d(12, 12, 7, padding=3, groups=12), BcosBatchNorm2d(12)),
    "norm with bias": lambda: (
        BcosConv2d(12, 16, 3, padding=1, unit_norm=False), BcosBatchNorm2d(16, bias=True)
    ),
    "norm before": lambda: (BcosConv2d(12, 16, 3, padding=1), None, BcosBatchNorm2d(12)),
    "norm before, reflected": lambda: (
        BcosConv2d(12, 16, 3, padding=1, padding_mode="reflect"), None, BcosBatchNorm2d(12)
    ),
    "norms on both sides": lambda: (
        BcosConv2d(12, 16, 3, 2, 1), BcosBatchNorm2d(16), BcosBatchNorm2d(12)
    ),
    "norms on both sides, 1x1": lambda: (
        BcosConv2d(12, 16, 1), BcosBatchNorm2d(16), BcosBatchNorm2d(12)
    ),
    "norms on both sides, weights of any length": lambda: (
        BcosConv2d(12, 16, 3, 1, 1, unit_norm=False), BcosBatchNorm2d(16), BcosBatchNorm2d(12)
    ),
    # What cannot be folded.
    "conv with bias": lambda: (
        BcosConv2d(12, 16, 3, padding=1, **CONVENTIONAL), BcosBatchNorm2d(16, bias=True)
    ),
    "norm before, with bias": lambda: (
        BcosConv2d(12, 16, 3, padding=1, unit_norm=False), None, BcosBatchNorm2d(12, bias=True)
    ),
    "norm before, groups": lambda: (
        BcosConv2d(12, 16, 3, padding=1, groups=4), None, BcosBatchNorm2d(12)
    ),
    "two units": lambda: (
        BcosConv2d(12, 16, 3, padding=1, max_out=2), BcosBatchNorm2d(16), BcosBatchNorm2d(12)
    ),
    "another norm": lambda: (BcosConv2d(12, 16, 1), BcosPositionNorm2d(16)),
}  # fmt: skip
FOLD_SHAPE = (2, 12, 9, 8)


def fold(name, kind=Folded):
    return lambda: kind(*FOLDS[name]()).eval()


GAPS = {
    "every other number": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "turned": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    "batch last": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    "in the middle": lambda x: torch.cat([x, x, x], 1)[:, x.shape[1] : 2 * x.shape[1]],
    "repeated": lambda x: x[:1].expand_as(x),
}


def layouts(names, shapes):
    """With channels last, too, where there are feature maps."""
    for name in names:
        yield pytest.param(name, False, id=name)
        if len(shapes(name)) == 4:
            yield pytest.param(name, True, id=f"{name}, channels last")


@dataclass
class Case:
    """A layer, an input and the gradient of its output, in float32."""

    layer: nn.Module
    x: torch.Tensor
    dy: torch.Tensor

    @classmethod
    def of(cls, make, shape, seed=0, last=False):
        torch.manual_seed(seed)
        layer = unsettle(make())
        layout = {"memory_format": torch.channels_last} if last else {}
        layer, x = layer.to(**layout), torch.randn(shape).contiguous(**layout)
        with torch.no_grad():
            dy = torch.randn_like(copy.deepcopy(layer)(x))
        return cls(layer, x, dy)

    def run(self, dtype=torch.float32, *, plain=False, explaining=False, weights=True):
        """Output, gradient of the input (W(x), while explaining), and of all weights."""
        layer = copy.deepcopy(self.layer).to(dtype).requires_grad_(weights)
        x, dy = self.x.to(dtype, copy=True).requires_grad_(), self.dy.to(dtype)
        with maybe(plain, plain_formulas), maybe(explaining, explanation_mode):
            y = layer(x)
            y.backward(dy)
        grads = [] if explaining else [each.grad for each in layer.parameters() if weights]
        return [y.detach(), x.grad, *grads]


def maybe(wanted, context):
    return context() if wanted else contextlib.nullcontext()
