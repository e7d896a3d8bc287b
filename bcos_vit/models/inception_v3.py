"""B-cos Inception-v3.

After Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016
(arXiv:1512.00567), made B-cos as Boehle et al. (CVPR 2022, arXiv:2205.10268; TPAMI 2024,
arXiv:2306.10898) made theirs: no ReLU, no bias, uncentred batch norm, and a 1 x 1 B-cos classifier
*before* global average pooling, so that a logit is the mean of local logits. Max pools, in the stem
and where the grid shrinks, are average pools of the same window, stride and padding. There is no
auxiliary classifier.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from timm.models import checkpoint
from torch import Tensor, nn

from bcos_vit.layers import BCOS, LayerKit
from bcos_vit.models.base import BcosConvNet
from bcos_vit.models.registry import Variant, register_variants

_NORM_EPS = 1e-3


class Conv(NamedTuple):
    """One convolution; unless ``padding`` is given, "same", or none where it strides."""

    chans: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: tuple[int, int] | None = None


def conv_norm(in_chans: int, conv: Conv, kit: LayerKit) -> nn.Sequential:
    """A B-cos convolution ``conv`` and its norm ``bn``."""
    chans, kernel, stride, padding = conv
    if padding is None:
        padding = (kernel[0] // 2, kernel[1] // 2) if stride == 1 else (0, 0)
    return nn.Sequential(
        OrderedDict(
            conv=kit.conv(in_chans, chans, kernel, stride, padding),
            bn=kit.batch_norm(chans, _NORM_EPS),
        )
    )


def source(name: str) -> str | None:
    """The convolution that the one called ``name`` reads: ``x_1`` for ``x_2``, ``x_2a``, ``x_2b``.

    None stands for the block's input.
    """
    match = re.fullmatch(r"(.+_)([2-9])[ab]?", name)
    return f"{match[1]}{int(match[2]) - 1}" if match else None


class BcosInceptionBlock(nn.Module):
    """Branches of convolutions, and one of average pooling, side by side.

    Args:
        in_chans: channels of the input.
        convs: by name, which tells what each reads, see :func:`source`; those that none reads make
            the output.
        pool_chans: channels of a 1 x 1 convolution after 3 x 3 pooling; where omitted, pooling
            alone, by half.
        kit: what layers are made of.

    Attributes:
        out_chans: channels of the output.
    """

    dynamic_linear = True

    def __init__(
        self,
        in_chans: int,
        convs: Mapping[str, Conv],
        pool_chans: int | None = None,
        *,
        kit: LayerKit = BCOS,
    ) -> None:
        super().__init__()
        self.sources = {name: source(name) for name in convs}
        for name, read in self.sources.items():
            chans = in_chans if read is None else convs[read].chans
            self.add_module(name, conv_norm(chans, convs[name], kit))
        self.ends = [name for name in convs if name not in self.sources.values()]
        self.out_chans = sum(convs[name].chans for name in self.ends)
        self.pool = nn.AvgPool2d(3, 2) if pool_chans is None else nn.AvgPool2d(3, 1, 1)
        self.branch_pool: nn.Module = nn.Identity()
        if pool_chans is not None:
            self.branch_pool = conv_norm(in_chans, Conv(pool_chans), kit)
        self.out_chans += in_chans if pool_chans is None else pool_chans

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, in_chans, h, w)`` to ``(batch, out_chans, h, w)``, or to half the sides."""
        maps: dict[str | None, Tensor] = {None: x}
        for name, read in self.sources.items():
            maps[name] = self.get_submodule(name)(maps[read])
        return torch.cat([*(maps[end] for end in self.ends), self.branch_pool(self.pool(x))], 1)


# --- the network as data ------------------------------------------------------------------------

Block = tuple[dict[str, Conv], int | None]
"""Convolutions of a block, and channels after its pooling."""


def _grid35(pool_chans: int) -> Block:
    """5 x 5 and twice 3 x 3, on a grid of 35 px (for images of 299 px)."""
    convs = {
        "branch1x1": Conv(64),
        "branch5x5_1": Conv(48),
        "branch5x5_2": Conv(64, (5, 5)),
        "branch3x3dbl_1": Conv(64),
        "branch3x3dbl_2": Conv(96, (3, 3)),
        "branch3x3dbl_3": Conv(96, (3, 3)),
    }
    return convs, pool_chans


def _grid17(chans: int) -> Block:
    """7 x 7 once and twice, taken apart into rows and columns, on a grid of 17 px."""
    convs = {
        "branch1x1": Conv(192),
        "branch7x7_1": Conv(chans),
        "branch7x7_2": Conv(chans, (1, 7)),
        "branch7x7_3": Conv(192, (7, 1)),
        "branch7x7dbl_1": Conv(chans),
        "branch7x7dbl_2": Conv(chans, (7, 1)),
        "branch7x7dbl_3": Conv(chans, (1, 7)),
        "branch7x7dbl_4": Conv(chans, (7, 1)),
        "branch7x7dbl_5": Conv(192, (1, 7)),
    }
    return convs, 192


_TO_17: Block = (
    {
        "branch3x3": Conv(384, (3, 3), 2),
        "branch3x3dbl_1": Conv(64),
        "branch3x3dbl_2": Conv(96, (3, 3)),
        "branch3x3dbl_3": Conv(96, (3, 3), 2),
    },
    None,
)
_TO_8: Block = (
    {
        "branch3x3_1": Conv(192),
        "branch3x3_2": Conv(320, (3, 3), 2),
        "branch7x7x3_1": Conv(192),
        "branch7x7x3_2": Conv(192, (1, 7)),
        "branch7x7x3_3": Conv(192, (7, 1)),
        "branch7x7x3_4": Conv(192, (3, 3), 2),
    },
    None,
)
_GRID8: Block = (
    {
        "branch1x1": Conv(320),
        "branch3x3_1": Conv(384),
        "branch3x3_2a": Conv(384, (1, 3)),
        "branch3x3_2b": Conv(384, (3, 1)),
        "branch3x3dbl_1": Conv(448),
        "branch3x3dbl_2": Conv(384, (3, 3)),
        "branch3x3dbl_3a": Conv(384, (1, 3)),
        "branch3x3dbl_3b": Conv(384, (3, 1)),
    },
    192,
)

# None is 3 x 3 pooling by half.
_STEM = {
    "Conv2d_1a_3x3": Conv(32, (3, 3), 2),
    "Conv2d_2a_3x3": Conv(32, (3, 3), padding=(0, 0)),
    "Conv2d_2b_3x3": Conv(64, (3, 3)),
    "Pool1": None,
    "Conv2d_3b_1x1": Conv(80),
    "Conv2d_4a_3x3": Conv(192, (3, 3), padding=(0, 0)),
    "Pool2": None,
}
_STAGES: dict[int, dict[str, Block]] = {
    5: {"b": _grid35(32), "c": _grid35(64), "d": _grid35(64)},
    6: {"a": _TO_17, "b": _grid17(128), "c": _grid17(160), "d": _grid17(160), "e": _grid17(192)},
    7: {"a": _TO_8, "b": _GRID8, "c": _GRID8},
}
_DEPTHS = (3, 5, 3)


class BcosInceptionV3(BcosConvNet):
    """B-cos Inception-v3 following timm's model contract.

    Convolutions of the stem and pools have no padding, so a feature map is a little smaller than
    its reduction says, and images need 75 px.

    Args:
        depths: blocks of each of the three grids, the first ones of (3, 5, 3).
        in_chans: channels of the input; 6 for ``[rgb, 1 - rgb]``.
        num_classes: logits; 0 returns pooled features.
        global_pool: ``"avg"``, or ``""`` to leave the feature map (``num_classes`` 0 only).
        b: exponent of every B-cos layer, at least 1.
        max_out: linear filters behind each B-cos channel.
        drop_rate: dropout before the classifier.
        logit_bias, temperature, encoding: see :class:`bcos_vit.models.base.BcosModel`.

    Raises:
        ValueError: an unknown option; from the forward pass, images that are too small.
    """

    classifier_name = "fc"
    min_size_px = 75

    def __init__(
        self,
        depths: tuple[int, int, int] = _DEPTHS,
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
        if len(depths) != 3 or not all(
            1 <= depth <= most for depth, most in zip(depths, _DEPTHS, strict=True)
        ):
            raise ValueError(f"depths must be from (1, 1, 1) to {_DEPTHS}, got {depths}")
        kit = LayerKit(b, max_out)
        layers: dict[str, nn.Module] = {}
        chans = in_chans
        for name, conv in _STEM.items():
            layers[name] = nn.AvgPool2d(3, 2) if conv is None else conv_norm(chans, conv, kit)
            chans = chans if conv is None else conv.chans
        taps = [(64, "Conv2d_2b_3x3"), (192, "Conv2d_4a_3x3")]
        for (stage, blocks), depth in zip(_STAGES.items(), depths, strict=True):
            for letter, (convs, pool_chans) in list(blocks.items())[:depth]:
                name = f"Mixed_{stage}{letter}"
                layers[name] = block = BcosInceptionBlock(chans, convs, pool_chans, kit=kit)
                chans = block.out_chans
            taps.append((chans, name))
        super().__init__(in_chans, chans, kit, logit_bias, temperature, encoding)
        self.layer_names = list(layers)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.feature_info = [
            {"num_chs": width, "reduction": 2**i, "module": name}
            for i, (width, name) in enumerate(taps, 1)
        ]
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        fine = [(rf"^{name}\.", (i,)) for i, name in enumerate(self.layer_names)]
        return {"stem": r"^Conv2d", "blocks": r"^Mixed_(\d)" if coarse else fine}

    def forward_features(self, x: Tensor) -> Tensor:
        """``(batch, in_chans, height, width)`` to ``(batch, chans, height / 32, width / 32)``."""
        self.check_size(x)
        for name in self.layer_names:
            layer = self.get_submodule(name)
            x = checkpoint(layer, x) if self.recomputes else layer(x)
        return x


register_variants(
    BcosInceptionV3,
    {"bcos_inception_v3": Variant("Inception-v3, no auxiliary classifier.", {}, "inception_v3")},
    first_conv="Conv2d_1a_3x3.conv",
    classifier="fc",
    input_size=(6, 299, 299),
    pool_size=(8, 8),
)
