"""One model for each family: same kinds of layers as its relatives, few of them.

Every registered model is built once at full size (``test_models.py``); whatever needs more than one
look is shown on these, in float64.
"""

import copy
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import timm
import torch

import bcos_vit.models  # noqa: F401 -- registers the models
from bcos_vit.models import create_model
from tests.conftest import settle_statistics, unsettle

NAMES = timm.list_models("bcos_*")


@dataclass(frozen=True)
class Family:
    """Models that differ in nothing but size.

    Args:
        members: pattern that their names match.
        name: the one that stands for them.
        shallow: arguments that leave out blocks of the same kind, or channels.
        conventional: there is a form with biases and activations, to convert networks into.
        tokens: no feature maps can be asked for.
        trimmed: feature maps are smaller than their reduction says, for want of padding.
        size: side in pixels of the images it is shown here.
    """

    members: str
    name: str
    shallow: dict[str, Any]
    conventional: bool = False
    tokens: bool = False
    trimmed: bool = False
    size: int = 64


_ONE_EACH = {"layers": (1, 1, 1, 1)}
_RESNET = {"shallow": _ONE_EACH, "conventional": True}
_CONVNEXT = {"shallow": {"depths": (1, 1, 1, 1), "dims": (16, 32, 64, 128)}, "conventional": True}
_VIT = {"shallow": {"depth": 2}, "conventional": True, "tokens": True}

FAMILIES = {
    family.name: family
    for family in (
        Family(r"bcos_resnet(18|34)", "bcos_resnet18", **_RESNET),
        Family(r"bcos_resnet(50|101|152)", "bcos_resnet50", **_RESNET),
        Family(r"bcos_resnext50_32x4d", "bcos_resnext50_32x4d", **_RESNET),
        Family(r"bcos_convnext_[a-z]+", "bcos_convnext_tiny", **_CONVNEXT),
        Family(r"bcos_convnext_[a-z]+_bnu", "bcos_convnext_tiny_bnu", **_CONVNEXT),
        Family(
            r"bcos_densenet\d+", "bcos_densenet121",
            {"block_config": (2, 1, 1, 1), "growth_rate": 16},
        ),
        Family(
            r"bcos_vgg\d+_bnu", "bcos_vgg11_bnu",
            {"stages": ((16,), (32,), (32, 32), (64,), (64,)), "head_hidden_size": 96},
        ),
        Family(
            r"bcos_inception_v3", "bcos_inception_v3", {"depths": (1, 1, 1)}, trimmed=True, size=80
        ),
        Family(r"bcos_vit_\w+", "bcos_vit_tiny_patch16_224", **_VIT),
        Family(r"bcos_vitc_\w+", "bcos_vitc_tiny_patch16_224", **_VIT),
        Family(
            r"bcos_swin_\w+", "bcos_swin_tiny_patch4_window7_224",
            {"embed_dim": 32, "depths": (2, 1, 1, 1), "num_heads": (1, 2, 4, 8)}, conventional=True,
        ),
    )
}  # fmt: skip
FAMILY_NAMES = list(FAMILIES)


def members(family):
    """Registered models that belong to ``family``."""
    return [name for name in NAMES if re.fullmatch(family.members, name)]


def pictures(family, count=2, chans=6):
    """Random images that ``family`` takes, float64 in [0, 1]."""
    return torch.rand(count, chans, family.size, family.size, dtype=torch.float64)


def create(family, **options):
    """The model that stands for ``family``, float64, in eval mode, as it is made."""
    defaults = {"num_classes": 5, **family.shallow}
    return create_model(family.name, **(defaults | options)).double().eval()


@lru_cache(maxsize=2 * len(FAMILIES))
def _settled(name, **options):
    family = FAMILIES[name]
    model = unsettle(create(family, **options))
    return settle_statistics(model, pictures(family, 4, model.in_chans))


def settled(family, **options):
    """The same with no norm at 1 and statistics that fit; a copy of its own for every caller."""
    return copy.deepcopy(_settled(family.name, **options))


def gradients(model, x):
    """Gradients of all parameters, by name."""
    model.zero_grad()
    model(x).square().sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}
