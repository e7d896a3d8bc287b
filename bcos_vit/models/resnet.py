"""B-cos ResNet.

Boehle et al., TPAMI 2024 (arXiv:2306.10898): no ReLU, no bias, average instead of max pooling,
norms
that divide but do not shift, and a 1 x 1 B-cos classifier *before* global average pooling, so that
a logit is the mean of local logits.
"""

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from timm.models import checkpoint_seq
from torch import Tensor, nn

from bcos_vit.layers import BCOS, LayerKit
from bcos_vit.models.base import BcosModel
from bcos_vit.models.registry import Variant, register_variants


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
        self.conv2 = kit.conv(out_chans, out_chans, 3, 1, 1, bias=False)
        self.bn2 = kit.batch_norm(out_chans)
        self.drop_path = DropPath(drop_path)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_chans != out_chans:
            self.downsample = nn.Sequential(
                kit.conv(in_chans, out_chans, 1, stride, bias=False),
                kit.batch_norm(out_chans),
            )

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, in_chans, h, w)`` to ``(batch, out_chans, h / stride, w / stride)``."""
        y = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        z: Tensor = self.drop_path(y) + self.downsample(x)
        return z


class BcosResNet(BcosModel):
    """B-cos ResNet of basic blocks following timm's model contract.

    Args:
        layers: blocks per stage.
        in_chans: channels of the input; 6 for ``[rgb, 1 - rgb]``.
        num_classes: logits; 0 returns pooled features.
        global_pool: ``"avg"``, or ``""`` to leave the feature map (``num_classes`` 0 only).
        b: exponent of every B-cos layer, at least 1.
        max_out: linear filters behind each B-cos channel.
        drop_path_rate: regularisation while training.
        logit_bias, temperature: see :class:`bcos_vit.layers.Logits`.

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
        drop_path_rate: float = 0.0,
        logit_bias: float | None = None,
        temperature: float = 1.0,
    ) -> None:
        kit = LayerKit(b, max_out)
        super().__init__(in_chans, 512, kit, logit_bias, temperature)
        if len(layers) != 4 or min(layers) < 1:
            raise ValueError(f"layers must be four numbers of blocks, got {layers}")
        self.conv1 = kit.conv(in_chans, 64, 7, 2, 3, bias=False)
        self.bn1 = kit.batch_norm(64)
        # Averaging is linear; the published networks count the padding too.
        self.pool = nn.AvgPool2d(3, 2, 1)
        self.feature_info = [{"num_chs": 64, "reduction": 2, "module": "bn1"}]
        chans, index = 64, 0
        for stage, depth in enumerate(layers):
            blocks: list[nn.Module] = []
            for i in range(depth):
                after = 64 * 2**stage
                blocks.append(
                    BcosBasicBlock(
                        chans,
                        after,
                        stride=2 if stage and not i else 1,
                        kit=kit,
                        drop_path=drop_path_rate * index / max(1, sum(layers) - 1),
                    )
                )
                chans, index = after, index + 1
            name = f"layer{stage + 1}"
            self.add_module(name, nn.Sequential(*blocks))
            self.feature_info.append({"num_chs": chans, "reduction": 4 * 2**stage, "module": name})
        self.reset_classifier(num_classes, global_pool)

    def make_classifier(self, num_classes: int) -> nn.Module:
        return self.kit.conv(self.num_features, num_classes, 1)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        blocks = r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"
        return {"stem": r"^(?:conv1|bn1)", "blocks": blocks}

    def forward_features(self, x: Tensor) -> Tensor:
        """``(batch, in_chans, height, width)`` to ``(batch, 512, height / 32, width / 32)``."""
        x = self.pool(self.bn1(self.conv1(x)))
        stages = [self.get_submodule(f"layer{i}") for i in (1, 2, 3, 4)]
        if self.recomputes:
            checkpointed: Tensor = checkpoint_seq(stages, x)
            return checkpointed
        for stage in stages:
            x = stage(x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Feature map to logits ``(batch, num_classes)``, or to pooled features."""
        if pre_logits or not self.num_classes:
            return F.adaptive_avg_pool2d(x, 1).flatten(1) if self.global_pool else x
        y: Tensor = self.logits(self.get_classifier()(x).mean((2, 3)))
        return y


register_variants(
    BcosResNet,
    {
        "bcos_resnet18": Variant(
            "ResNet-18: two basic blocks in each of four stages.",
            {"layers": (2, 2, 2, 2)},
            "resnet18",
        ),
    },
    first_conv="conv1",
    classifier="fc",
    pool_size=(7, 7),
)
