"""A tiny network of each family, B-cos and twin, behind its encoding."""

from functools import partial

import timm
import torch
from timm.models.vgg import VGG
from torch import nn

import bcos_vit.models  # noqa: F401  registers the B-cos models
from bcos_vit.attribution import Classifier
from bcos_vit.transforms import encode
from tests.conftest import settle_statistics

SIDE = 32

_VIT = {"img_size": SIDE, "embed_dim": 16, "num_heads": 2, "depth": 2}
_STEM = {"img_size": SIDE, "embed_dim": 16, "num_heads": 2, "depth": 2, "stem_chans": (4, 8, 16)}
_SWIN = {"img_size": SIDE, "embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2)}
_CONVNEXT = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}
_DENSE = {"growth_rate": 4, "block_config": (1, 1, 1, 1)}

# Name in the registry and what makes it tiny.
FAMILIES = {
    "bcos_vit": ("bcos_vit_tiny_patch8_224", _VIT),
    "vit": ("vit_tiny_patch16_224", _VIT | {"patch_size": 8}),
    "vit_avg": (
        "vit_tiny_patch16_224",
        _VIT | {"patch_size": 8, "global_pool": "avg", "class_token": False},
    ),
    "bcos_vitc": ("bcos_vitc_tiny_patch8_224", _STEM),
    "vitc": ("vitc_tiny_patch8_224", _STEM),
    "bcos_swin": ("bcos_swin_tiny_patch4_window7_224", _SWIN | {"window_size": 4}),
    "swin": ("swin_tiny_patch4_window7_224", _SWIN | {"window_size": 4}),
    "bcos_resnet": ("bcos_resnet18", {"layers": (1, 1, 1, 1)}),
    "resnet": ("resnet18", {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)}),
    "bcos_densenet": ("bcos_densenet121", _DENSE),
    "densenet": ("densenet121", _DENSE),
    "bcos_convnext": ("bcos_convnext_tiny", _CONVNEXT),
    "convnext": ("convnext_tiny", _CONVNEXT),
    "bcos_vgg": ("bcos_vgg11_bnu", {"stages": ((4,), (8,)), "head_hidden_size": 8}),
    "vgg": ("vgg", {"cfg": [4, "M", 8, "M"], "mlp_ratio": 1 / 512, "norm_layer": nn.BatchNorm2d}),
}


class Encoding(nn.Module):
    """As tiles are encoded for a network, with a normalisation of its own for RGB."""

    def __init__(self, name):
        super().__init__()
        self.name = name

    def forward(self, images):
        x = encode(images, self.name)
        return (x - 0.5) / 0.25 if self.name == "rgb" else x


def tiny(family, classes=3, **options):
    """A classifier in float64, in eval mode, with statistics as after training."""
    torch.manual_seed(0)
    name, small = FAMILIES[family]
    create = VGG if name == "vgg" else partial(timm.create_model, name)  # names fix its depth
    model = create(num_classes=classes, **(small | options))
    encoding = Encoding("complement" if family.startswith("bcos") else "rgb")
    model = settle_statistics(model, encoding(spotted(8, seed=3).float()))
    return Classifier(model.double().eval(), encoding).eval()


def spotted(n=2, side=SIDE, seed=1):
    """Images in [0, 1] with structure at several scales, ``(n, 3, side, side)`` float64."""
    generator = torch.Generator().manual_seed(seed)
    scales = [
        nn.functional.interpolate(
            torch.rand(n, 3, side // step, side // step, generator=generator), size=(side, side)
        )
        for step in (1, 4, 8)
    ]
    return torch.stack(scales).mean(0).double()
