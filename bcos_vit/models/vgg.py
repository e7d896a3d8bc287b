"""B-cos VGG with batch norm.

Boehle et al., TPAMI 2024 (arXiv:2306.10898), after Simonyan and Zisserman, "Very Deep Convolutional
Networks for Large-Scale Image Recognition", ICLR 2015 (arXiv:1409.1556): no ReLU, no bias, average
instead of max pooling, uncentred batch norm ("bnu"), and fully connected layers that are
convolutions *before* global average pooling, so that a logit is the mean of local logits. Between
those convolutions there is no norm.
"""

from collections import OrderedDict
from itertools import pairwise
from typing import Any

import torch
from timm.models import checkpoint
from torch import Tensor, nn

from bcos_vit.layers import BcosConv2d, LayerKit
from bcos_vit.models.base import BcosConvNet
from bcos_vit.models.registry import Variant, register_variants


class BcosVGG(BcosConvNet):
    """B-cos VGG following timm's model contract.

    ``num_features`` is what ``forward_features`` returns; the classifier sees ``head_hidden_size``.

    Args:
        stages: channels of the 3 x 3 convolutions of each stage, which ends in 2 x 2 pooling.
        head_hidden_size: channels of the two convolutions before the classifier.
        in_chans: channels of the input; 6 for ``[rgb, 1 - rgb]``.
        num_classes: logits; 0 returns pooled features.
        global_pool: ``"avg"``, or ``""`` to leave the feature map (``num_classes`` 0 only).
        b: exponent of every B-cos layer, at least 1.
        max_out: linear filters behind each B-cos channel.
        drop_rate: dropout after both convolutions before the classifier.
        logit_bias, temperature, encoding: see :class:`bcos_vit.models.base.BcosModel`.

    Raises:
        ValueError: an unknown option; from the forward pass, images that are too small.
    """

    classifier_name = "head"

    def __init__(
        self,
        stages: tuple[tuple[int, ...], ...] = ((64,), (128,), (256,) * 2, (512,) * 2, (512,) * 2),
        head_hidden_size: int = 4096,
        in_chans: int = 6,
        num_classes: int = 1000,
        global_pool: str = "avg",
        b: float = 2.0,
        max_out: int = 1,
        drop_rate: float = 0.0,
        logit_bias: float | None = None,
        temperature: float = 1.0,
        encoding: str | None = None,
    ) -> None:
        if not stages or not all(stages) or min(map(min, stages)) < 1:
            raise ValueError(
                f"stages must be one or more tuples of numbers of channels, got {stages}"
            )
        if head_hidden_size < 1:
            raise ValueError(f"head_hidden_size must be at least 1, got {head_hidden_size}")
        kit = LayerKit(b, max_out)
        layers: list[nn.Module] = []
        taps, chans = [], in_chans
        for i, widths in enumerate(stages):
            for width in widths:
                layers += [kit.conv(chans, width, 3, 1, 1), kit.batch_norm(width)]
                chans = width
            taps.append((chans, 2**i, len(layers) - 1))
            layers.append(nn.AvgPool2d(2))
        taps.append((chans, 2 ** len(stages), len(layers) - 1))
        super().__init__(in_chans, chans, kit, logit_bias, temperature, encoding)
        self.head_hidden_size = head_hidden_size
        self.features = nn.Sequential(*layers)
        self.feature_info = [
            {"num_chs": width, "reduction": reduction, "module": f"features.{index}"}
            for width, reduction, index in taps
        ]
        self.min_size_px = 2 ** len(stages)
        self.pre_logits = nn.Sequential(
            OrderedDict(
                fc1=kit.conv(chans, head_hidden_size, 7, 1, 3),
                drop=nn.Dropout(drop_rate),
                fc2=kit.conv(head_hidden_size, head_hidden_size, 1),
            )
        )
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        blocks, stage, depth = [], 0, 0
        for i, layer in enumerate(self.features):
            stage += isinstance(layer, nn.AvgPool2d)
            depth += isinstance(layer, BcosConv2d)
            # A norm belongs to the convolution before it.
            blocks.append((rf"^features\.{i}\.", (stage if coarse else depth,)))
        return {
            "stem": r"^features\.[01]\.",
            "blocks": blocks,
            "neck": r"^pre_logits" if coarse else r"^pre_logits\.fc(\d)",
        }

    def forward_features(self, x: Tensor) -> Tensor:
        """``(batch, in_chans, height, width)`` to ``(batch, chans, height / 32, width / 32)``."""
        self.check_size(x)
        if not self.recomputes:
            y: Tensor = self.features(x)
            return y
        ends = [i for i, layer in enumerate(self.features, 1) if isinstance(layer, nn.AvgPool2d)]
        for start, end in pairwise([0, *ends]):
            x = checkpoint(self.features[start:end], x)
        return x

    def neck(self, x: Tensor) -> Tensor:
        """The two convolutions before the classifier: ``head_hidden_size`` channels."""
        y: Tensor = self.pre_logits(x)
        return y


# --- variants -----------------------------------------------------------------------------------

# Convolutions per stage.
_DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_WIDTHS = (64, 128, 256, 512, 512)

register_variants(
    BcosVGG,
    {
        f"bcos_vgg{depth}_bnu": Variant(
            f"VGG-{depth}: {sum(convs)} convolutions with uncentred batch norm, and three without.",
            {"stages": tuple((w,) * n for w, n in zip(_WIDTHS, convs, strict=True))},
            f"vgg{depth}_bn",
        )
        for depth, convs in _DEPTHS.items()
    },
    first_conv="features.0",
    classifier="head",
    # As in timm, there is a feature map before every halving and one after the last.
    feature_cfg={"flatten_sequential": True, "out_indices": (0, 1, 2, 3, 4, 5)},
    pool_size=(7, 7),
)
