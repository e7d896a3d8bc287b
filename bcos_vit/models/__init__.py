"""B-cos backbones; importing this registers them in timm."""

from bcos_vit.models.convnext import BcosConvNeXt
from bcos_vit.models.registry import TWINS, create_model, create_twin, list_models
from bcos_vit.models.resnet import BcosResNet
from bcos_vit.models.swin import BcosSwinTransformer
from bcos_vit.models.vit import BcosVisionTransformer

__all__ = [
    "TWINS",
    "BcosConvNeXt",
    "BcosResNet",
    "BcosSwinTransformer",
    "BcosVisionTransformer",
    "create_model",
    "create_twin",
    "list_models",
]
