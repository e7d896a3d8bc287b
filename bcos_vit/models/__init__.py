"""B-cos backbones; importing this registers them in timm."""

from bcos_vit.models.bcos_v2 import from_bcos_v2
from bcos_vit.models.convert import Homotopy, bcosify
from bcos_vit.models.convnext import BcosConvNeXt
from bcos_vit.models.densenet import BcosDenseNet
from bcos_vit.models.inception_v3 import BcosInceptionV3
from bcos_vit.models.registry import TWINS, create_model, create_twin, list_models
from bcos_vit.models.resnet import BcosResNet
from bcos_vit.models.swin import BcosSwinTransformer
from bcos_vit.models.vgg import BcosVGG
from bcos_vit.models.vit import BcosVisionTransformer

__all__ = [
    "TWINS",
    "BcosConvNeXt",
    "BcosDenseNet",
    "BcosInceptionV3",
    "BcosResNet",
    "BcosSwinTransformer",
    "BcosVGG",
    "BcosVisionTransformer",
    "Homotopy",
    "bcosify",
    "create_model",
    "create_twin",
    "from_bcos_v2",
    "list_models",
]
