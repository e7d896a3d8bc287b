"""B-cos ResNet and ResNeXt.

Boehle et al., TPAMI 2024 (arXiv:2306.10898): no ReLU, no bias, average instead of max pooling,
norms that divide but do not shift, and a 1 x 1 B-cos classifier *before* global average pooling, so
that a logit is the mean of local logits. Depths and widths are those of He et al., CVPR 2016
(arXiv:1512.03385) and Xie et al., CVPR 2017 (arXiv:1611.05431); the stride of a bottleneck is on
its 3 x 3 convolution.
"""

from typing import Any, Literal, get_args

import torch
from timm.layers import DropPath
from timm.models import checkpoint_seq
from torch import Tensor, nn

from bcos_vit.layers import BCOS, BcosBatchNorm2d, LayerKit
from bcos_vit.layers.conv_norm import conv_norm
from bcos_vit.layers.fast import hooked
from bcos_vit.models.base import BcosConvNet
from bcos_vit.models.registry import Variant, register_variants

Block = Literal["basic", "bottleneck"]


class Shortcut(nn.Sequential):
    """A convolution and a norm."""

    dynamic_linear = True

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, in_chans, h, w)`` to ``(batch, out_chans, h / stride, w / stride)``."""
        conv, norm = self
        return conv_norm(x, conv, norm)


def make_shortcut(in_chans: int, out_chans: int, stride: int, kit: LayerKit) -> nn.Module:
    """The way past a block: nothing, or a 1 x 1 convolution and a norm where shapes change."""
    if stride == 1 and in_chans == out_chans:
        return nn.Identity()
    return Shortcut(kit.conv(in_chans, out_chans, 1, stride, bias=False), kit.batch_norm(out_chans))


def add_shortcut(y: Tensor, shortcut: Tensor, norm: nn.Module) -> Tensor:
    """``y + shortcut``, in the memory of what ``norm`` has made unless a hook looks at that.

    Args:
        y: ``(batch, chans, h, w)``.
        shortcut: likewise.
        norm: the last layer of the branch.
    """
    if torch.compiler.is_compiling() or hooked(norm) or not isinstance(norm, BcosBatchNorm2d):
        return y + shortcut
    # Writing into a view costs more on the way back than it saves.
    return y + shortcut if y.requires_grad and y._is_view() else y.add_(shortcut)


class BcosBasicBlock(nn.Module):
    """Two 3 x 3 B-cos convolutions with norms, and a shortcut.

    Args:
        in_chans, out_chans: channels in and out.
        stride: of the first convolution and the shortcut.
        kit: what layers are made of.
        drop_path: probability of skipping the branch for an image (training only).
    """

    dynamic_linear = True

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        stride: int = 1,
        *,
        kit: LayerKit = BCOS,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv1 = kit.conv(in_chans, out_chans, 3, stride, 1, bias=False)
        self.bn1 = kit.batch_norm(out_chans)
        self.act1 = kit.act("relu")
        self.conv2 = kit.conv(out_chans, out_chans, 3, 1, 1, bias=False)
        self.bn2 = kit.batch_norm(out_chans)
        self.act2 = kit.act("relu")
        self.downsample = make_shortcut(in_chans, out_chans, stride, kit)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, in_chans, h, w)`` to ``(batch, out_chans, h / stride, w / stride)``."""
        y = self.act1(conv_norm(x, self.conv1, self.bn1))
        y = conv_norm(y, self.conv2, self.bn2)
        z: Tensor = self.act2(add_shortcut(self.drop_path(y), self.downsample(x), self.bn2))
        return z


class BcosBottleneck(nn.Module):
    """B-cos convolutions 1 x 1, 3 x 3 in groups, 1 x 1, with norms, and a shortcut.

    Args:
        in_chans, out_chans: channels in and out.
        width: channels of the 3 x 3 convolution.
        groups: its groups, a divisor of ``width``.
        stride: of the 3 x 3 convolution and the shortcut.
        kit, drop_path: as in :class:`BcosBasicBlock`.
    """

    dynamic_linear = True

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        stride: int = 1,
        *,
        width: int,
        groups: int = 1,
        kit: LayerKit = BCOS,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv1 = kit.conv(in_chans, width, 1, bias=False)
        self.bn1 = kit.batch_norm(width)
        self.act1 = kit.act("relu")
        self.conv2 = kit.conv(width, width, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = kit.batch_norm(width)
        self.act2 = kit.act("relu")
        self.conv3 = kit.conv(width, out_chans, 1, bias=False)
        self.bn3 = kit.batch_norm(out_chans)
        self.act3 = kit.act("relu")
        self.downsample = make_shortcut(in_chans, out_chans, stride, kit)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, in_chans, h, w)`` to ``(batch, out_chans, h / stride, w / stride)``."""
        y = self.act1(conv_norm(x, self.conv1, self.bn1))
        y = self.act2(conv_norm(y, self.conv2, self.bn2))
        y = conv_norm(y, self.conv3, self.bn3)
        z: Tensor = self.act3(add_shortcut(self.drop_path(y), self.downsample(x), self.bn3))
        return z


class BcosResNet(BcosConvNet):
    """B-cos ResNet following timm's model contract.

    Args:
        layers: blocks per stage.
        in_chans: channels of the input; 6 for ``[rgb, 1 - rgb]``.
        num_classes: logits; 0 returns pooled features.
        global_pool: ``"avg"``, or ``""`` to leave the feature map (``num_classes`` 0 only).
        b: exponent of every B-cos layer, at least 1.
        max_out: linear filters behind each B-cos channel.
        conventional: plain weights, biases, ReLUs and max pooling, see :class:`LayerKit`.
        block: ``"basic"``, or ``"bottleneck"`` with four times the channels between blocks.
        groups, base_width: of the bottlenecks' 3 x 3 convolutions: groups, and channels per group
            in the first stage; each later stage doubles them.
        drop_rate, drop_path_rate: regularisation while training.
        logit_bias, temperature, encoding: see :class:`bcos_vit.models.base.BcosModel`.

    Raises:
        ValueError: an unknown option.
    """

    classifier_name = "fc"

    def __init__(
        self,
        layers: tuple[int, int, int, int] = (2, 2, 2, 2),
        in_chans: int = 6,
        num_classes: int = 1000,
        global_pool: str = "avg",
        b: float = 2.0,
        max_out: int = 1,
        conventional: bool = False,
        block: Block = "basic",
        groups: int = 1,
        base_width: int = 64,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        logit_bias: float | None = None,
        temperature: float = 1.0,
        encoding: str | None = None,
    ) -> None:
        if block not in get_args(Block):
            raise ValueError(f"block must be one of {get_args(Block)}, got {block!r}")
        if len(layers) != 4 or min(layers) < 1:
            raise ValueError(f"layers must be four numbers of blocks, got {layers}")
        if min(groups, base_width) < 1:
            raise ValueError(
                f"groups and base_width must be at least 1, got {groups} and {base_width}"
            )
        if block == "basic" and (groups, base_width) != (1, 64):
            raise ValueError(
                f'groups and base_width are for block="bottleneck", got {groups} and {base_width}'
                ' with block="basic"'
            )
        kit = LayerKit(b, max_out, conventional)
        expansion = 4 if block == "bottleneck" else 1
        super().__init__(in_chans, 512 * expansion, kit, logit_bias, temperature, encoding)
        self.conv1 = kit.conv(in_chans, 64, 7, 2, 3, bias=False)
        self.bn1 = kit.batch_norm(64)
        self.act1 = kit.act("relu")
        # Averaging is linear; the published networks count the padding too.
        self.pool = nn.MaxPool2d(3, 2, 1) if conventional else nn.AvgPool2d(3, 2, 1)
        self.feature_info = [{"num_chs": 64, "reduction": 2, "module": "act1"}]
        before, index = 64, 0
        for stage, depth in enumerate(layers):
            chans = 64 * 2**stage
            blocks: list[nn.Module] = []
            for i in range(depth):
                options: dict[str, Any] = {
                    "stride": 2 if stage and not i else 1,
                    "kit": kit,
                    "drop_path": drop_path_rate * index / max(1, sum(layers) - 1),
                }
                if block == "bottleneck":
                    width = chans * base_width // 64 * groups
                    options |= {"width": width, "groups": groups}
                kind = BcosBottleneck if block == "bottleneck" else BcosBasicBlock
                blocks.append(kind(before, chans * expansion, **options))
                before, index = chans * expansion, index + 1
            name = f"layer{stage + 1}"
            self.add_module(name, nn.Sequential(*blocks))
            self.feature_info.append({"num_chs": before, "reduction": 4 * 2**stage, "module": name})
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        blocks = r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"
        return {"stem": r"^(?:conv1|bn1)", "blocks": blocks}

    def forward_features(self, x: Tensor) -> Tensor:
        """``(batch, in_chans, height, width)`` to ``(batch, chans, height / 32, width / 32)``."""
        x = self.pool(self.act1(conv_norm(x, self.conv1, self.bn1)))
        stages = [self.get_submodule(f"layer{i}") for i in (1, 2, 3, 4)]
        if self.recomputes:
            checkpointed: Tensor = checkpoint_seq(stages, x, flatten=True)
            return checkpointed
        for stage in stages:
            x = stage(x)
        return x


# --- variants -----------------------------------------------------------------------------------


def _variant(doc: str, twin: str, *layers: int, **options: Any) -> Variant:
    return Variant(doc, {"layers": layers, **options}, twin)


register_variants(
    BcosResNet,
    {
        "bcos_resnet18": _variant("ResNet-18: basic blocks.", "resnet18", 2, 2, 2, 2),
        "bcos_resnet34": _variant("ResNet-34: basic blocks.", "resnet34", 3, 4, 6, 3),
        "bcos_resnet50": _variant(
            "ResNet-50: bottlenecks.", "resnet50", 3, 4, 6, 3, block="bottleneck"
        ),
        "bcos_resnet101": _variant(
            "ResNet-101: bottlenecks.", "resnet101", 3, 4, 23, 3, block="bottleneck"
        ),
        "bcos_resnet152": _variant(
            "ResNet-152: bottlenecks.", "resnet152", 3, 8, 36, 3, block="bottleneck"
        ),
        "bcos_resnext50_32x4d": _variant(
            "ResNeXt-50: bottlenecks of 32 groups of 4 channels.",
            "resnext50_32x4d",
            3, 4, 6, 3,
            block="bottleneck", groups=32, base_width=4,
        ),
    },
    first_conv="conv1",
    classifier="fc",
    pool_size=(7, 7),
)  # fmt: skip
