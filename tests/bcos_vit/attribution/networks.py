"""Small networks whose explanations are known by hand."""

import torch
from torch import nn

from bcos_vit.attribution import Classifier


class Linear(nn.Module):
    """Logits ``w x + bias`` of RGB images, two classes."""

    def __init__(self, side=8, classes=2, seed=0, bias=0.0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(classes, 3, side, side, generator=generator, dtype=torch.float64)
        self.weight = nn.Parameter(weight)
        self.bias = bias

    def forward(self, x):
        return x.flatten(1) @ self.weight.flatten(1).T + self.bias


class Game(nn.Module):
    """A logit of which parts of a 8 x 8 image are seen: its quarters, by how white they are."""

    def forward(self, x):
        a, b, c, d = (
            x[:, :, rows, columns].mean((1, 2, 3))
            for rows in (slice(0, 4), slice(4, 8))
            for columns in (slice(0, 4), slice(4, 8))
        )
        value = 2 * a - b + 3 * a * b - 4 * b * c * d + torch.maximum(c, d) + 0.5
        return torch.stack([value, -value], dim=1)


def classifier(model, encode=None):
    return Classifier(model, encode or nn.Identity()).eval()


def images(n=2, side=8, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, side, side, generator=generator, dtype=torch.float64)


def textured(n=1, side=32, seed=1):
    """Images of a few soft spots, which superpixels can follow."""
    coarse = images(n, side // 8, seed)
    return nn.functional.interpolate(coarse, scale_factor=8, mode="bilinear")
