"""The layers of B-cos networks: each computes ``W(x) x``, and marks what ``W`` owes to ``x``."""

from bcos_vit.layers.activation import GatedGelu
from bcos_vit.layers.attention import BcosAttention
from bcos_vit.layers.block import BcosBlock
from bcos_vit.layers.conv import BcosConv2d
from bcos_vit.layers.head import Logits, default_logit_bias, prior_logit_bias
from bcos_vit.layers.kit import BCOS, LayerKit
from bcos_vit.layers.layer_scale import BcosLayerScale
from bcos_vit.layers.linear import BcosLinear, PlainLinear
from bcos_vit.layers.mlp import BcosMlp, BcosSwiGlu
from bcos_vit.layers.mode import constant, explanation_mode, held, is_explaining
from bcos_vit.layers.norm import (
    BcosBatchNorm2d,
    BcosGroupNorm,
    BcosLayerNorm,
    BcosPositionNorm2d,
    synchronise_batch_norm,
)
from bcos_vit.layers.patch_embed import BcosConvStem, BcosPatchEmbed
from bcos_vit.layers.pos_embed import (
    ConstantTokens,
    LearnedPosition,
    RotaryPosition,
    SinCosPosition,
)
from bcos_vit.layers.window_attention import BcosWindowAttention

__all__ = [
    "BCOS",
    "BcosAttention",
    "BcosBatchNorm2d",
    "BcosBlock",
    "BcosConv2d",
    "BcosConvStem",
    "BcosGroupNorm",
    "BcosLayerNorm",
    "BcosLayerScale",
    "BcosLinear",
    "BcosMlp",
    "BcosPatchEmbed",
    "BcosPositionNorm2d",
    "BcosSwiGlu",
    "BcosWindowAttention",
    "ConstantTokens",
    "GatedGelu",
    "LayerKit",
    "LearnedPosition",
    "Logits",
    "PlainLinear",
    "RotaryPosition",
    "SinCosPosition",
    "constant",
    "default_logit_bias",
    "explanation_mode",
    "held",
    "is_explaining",
    "prior_logit_bias",
    "synchronise_batch_norm",
]
