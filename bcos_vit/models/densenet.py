"""B-cos DenseNet.

Boehle et al., TPAMI 2024 (arXiv:2306.10898), after Huang et al., "Densely Connected Convolutional
Networks", CVPR 2017 (arXiv:1608.06993): no ReLU, no bias, average instead of max pooling, uncentred
batch norm, and a 1 x 1 B-cos classifier *before* global average pooling, so that a logit is the
mean of local logits.
"""

from collections import OrderedDict
from typing import Any

import torch
from timm.models import checkpoint
from torch import Tensor, nn

from bcos_vit.layers import BCOS, LayerKit
from bcos_vit.layers.conv_norm import conv_norm
from bcos_vit.models.base import BcosConvNet
from bcos_vit.models.registry import Variant, register_variants


class BcosDenseLayer(nn.Module):
    """Norm, 1 x 1 B-cos convolution, norm, 3 x 3 B-cos convolution of all features so far.

    Args:
        in_chans: channels of all features so far.
        growth_rate: channels that the layer adds.
        bn_size: channels of the 1 x 1 convolution, in growth rates.
        kit: what layers are made of.
        drop: dropout probability of what it adds.
    """

    dynamic_linear = True

    def __init__(
        self,
        in_chans: int,
        growth_rate: int,
        bn_size: int = 4,
        *,
        kit: LayerKit = BCOS,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        width = bn_size * growth_rate
        self.norm1 = kit.batch_norm(in_chans)
        self.conv1 = kit.conv(in_chans, width, 1)
        self.norm2 = kit.batch_norm(width)
        self.conv2 = kit.conv(width, growth_rate, 3, 1, 1)
        self.drop = nn.Dropout(drop)

    def forward(self, *features: Tensor) -> Tensor:
        """Feature maps ``(batch, any, h, w)``, together ``in_chans``, to ``growth_rate`` more."""
        x = torch.cat(features, 1)
        y: Tensor = self.drop(self.conv2(conv_norm(x, self.conv1, self.norm2, before=self.norm1)))
        return y


class BcosDenseBlock(nn.ModuleDict):
    """Layers that each see the block's input and what all layers before have added.

    Args:
        depth: layers.
        in_chans: channels of the input.
        growth_rate, bn_size, kit, drop: as in :class:`BcosDenseLayer`.
    """

    dynamic_linear = True

    def __init__(
        self,
        depth: int,
        in_chans: int,
        growth_rate: int,
        bn_size: int = 4,
        *,
        kit: LayerKit = BCOS,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        for i in range(depth):
            layer = BcosDenseLayer(
                in_chans + i * growth_rate, growth_rate, bn_size, kit=kit, drop=drop
            )
            self[f"denselayer{i + 1}"] = layer

    def forward(self, x: Tensor, recompute: bool = False) -> Tensor:
        """``(batch, in_chans, h, w)`` to ``(batch, in_chans + depth * growth_rate, h, w)``.

        Args:
            x: feature map.
            recompute: whether layers are computed again in the backward pass; what is stored then
                grows with the depth and not with its square (Pleiss et al., arXiv:1707.06990).
        """
        features = [x]
        for layer in self.values():
            features.append(checkpoint(layer, *features) if recompute else layer(*features))
        return torch.cat(features, 1)


class BcosTransition(nn.Module):
    """Norm, 1 x 1 B-cos convolution to half the channels, average pooling to half the sides.

    Args:
        chans: channels of the input.
        kit: what layers are made of.
    """

    dynamic_linear = True

    def __init__(self, chans: int, *, kit: LayerKit = BCOS) -> None:
        super().__init__()
        self.norm = kit.batch_norm(chans)
        self.conv = kit.conv(chans, chans // 2, 1)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, chans, h, w)`` to ``(batch, chans / 2, h / 2, w / 2)``."""
        y: Tensor = self.pool(conv_norm(x, self.conv, before=self.norm))
        return y


class BcosDenseNet(BcosConvNet):
    """B-cos DenseNet following timm's model contract.

    Args:
        growth_rate: channels that each layer adds; the stem has twice as many.
        block_config: layers per dense block.
        bn_size: channels of each layer's 1 x 1 convolution, in growth rates.
        in_chans: channels of the input; 6 for ``[rgb, 1 - rgb]``.
        num_classes: logits; 0 returns pooled features.
        global_pool: ``"avg"``, or ``""`` to leave the feature map (``num_classes`` 0 only).
        b: exponent of every B-cos layer, at least 1.
        max_out: linear filters behind each B-cos channel.
        drop_rate, proj_drop_rate: dropout before the classifier, and of what each layer adds.
        logit_bias, temperature, encoding: see :class:`bcos_vit.models.base.BcosModel`.

    Raises:
        ValueError: an unknown option; from the forward pass, images that are too small.
    """

    classifier_name = "classifier"

    def __init__(
        self,
        growth_rate: int = 32,
        block_config: tuple[int, ...] = (6, 12, 24, 16),
        bn_size: int = 4,
        in_chans: int = 6,
        num_classes: int = 1000,
        global_pool: str = "avg",
        b: float = 2.0,
        max_out: int = 1,
        drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        logit_bias: float | None = None,
        temperature: float = 1.0,
        encoding: str | None = None,
    ) -> None:
        if not block_config or min(block_config) < 1:
            raise ValueError(
                f"block_config must be one or more numbers of layers, got {block_config}"
            )
        if min(growth_rate, bn_size) < 1:
            raise ValueError(
                f"growth_rate and bn_size must be at least 1, got {growth_rate} and {bn_size}"
            )
        kit = LayerKit(b, max_out)
        chans = 2 * growth_rate
        features: OrderedDict[str, nn.Module] = OrderedDict(
            conv0=kit.conv(in_chans, chans, 7, 2, 3),
            norm0=kit.batch_norm(chans),
            # Averaging is linear; the published networks count the padding too.
            pool0=nn.AvgPool2d(3, 2, 1),
        )
        feature_info = [{"num_chs": chans, "reduction": 2, "module": "features.norm0"}]
        last = len(block_config)
        for i, depth in enumerate(block_config, 1):
            features[f"denseblock{i}"] = BcosDenseBlock(
                depth, chans, growth_rate, bn_size, kit=kit, drop=proj_drop_rate
            )
            chans += depth * growth_rate
            name = f"denseblock{i}" if i < last else "norm5"
            feature_info.append(
                {"num_chs": chans, "reduction": 2 ** (i + 1), "module": f"features.{name}"}
            )
            if i < last:
                features[f"transition{i}"] = BcosTransition(chans, kit=kit)
                chans //= 2
        # The name does not follow the number of blocks: it is timm's.
        features["norm5"] = kit.batch_norm(chans)
        super().__init__(in_chans, chans, kit, logit_bias, temperature, encoding)
        self.features = nn.Sequential(features)
        self.feature_info = feature_info
        # The stem rounds halves up, each transition down.
        self.min_size_px = 4 * 2 ** (last - 1) - 3
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        fine = [
            (r"^features\.denseblock(\d+)\.denselayer(\d+)", None),
            (r"^features\.transition(\d+)", (99999,)),
        ]
        blocks = [(r"^features\.(?:denseblock|transition)(\d+)", None)] if coarse else fine
        return {
            "stem": r"^features\.(?:conv|norm)0",
            "blocks": [*blocks, (r"^features\.norm5", (99999,))],
        }

    def forward_features(self, x: Tensor) -> Tensor:
        """``(batch, in_chans, height, width)`` to ``(batch, chans, height / 32, width / 32)``."""
        self.check_size(x)
        for layer in self.features:
            x = layer(x, self.recomputes) if isinstance(layer, BcosDenseBlock) else layer(x)
        return x


# --- variants -----------------------------------------------------------------------------------

_SIZES = {
    121: (32, (6, 12, 24, 16)),
    161: (48, (6, 12, 36, 24)),
    169: (32, (6, 12, 32, 32)),
    201: (32, (6, 12, 48, 32)),
}

register_variants(
    BcosDenseNet,
    {
        f"bcos_densenet{depth}": Variant(
            f"DenseNet-{depth}: {sum(blocks)} layers, growth rate {growth_rate}.",
            {"growth_rate": growth_rate, "block_config": blocks},
            f"densenet{depth}",
        )
        for depth, (growth_rate, blocks) in _SIZES.items()
    },
    first_conv="features.conv0",
    classifier="classifier",
    feature_cfg={"flatten_sequential": True},
    pool_size=(7, 7),
)
