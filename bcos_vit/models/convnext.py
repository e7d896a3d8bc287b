"""B-cos ConvNeXt.

Boehle et al., TPAMI 2024 (arXiv:2306.10898), after Liu et al., "A ConvNet for the 2020s", CVPR 2022
(arXiv:2201.03545): no GELU, no bias, norms that do not shift (over the channels of each position,
or uncentred batch norm), and norm and 1 x 1 B-cos classifier *before* global average pooling, so
that a logit is the mean of local logits.
"""

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from timm.models import checkpoint_seq
from torch import Tensor, nn

from bcos_vit.layers import BCOS, LayerKit, held
from bcos_vit.layers.conv_norm import conv_norm
from bcos_vit.layers.fast import fast
from bcos_vit.layers.fused_bcos import two_layers
from bcos_vit.layers.mlp import in_cache
from bcos_vit.layers.operators import traceable, two_layers_operator
from bcos_vit.models.base import BcosConvNet
from bcos_vit.models.registry import Variant, register_variants

NormLayer = Literal["position", "batch"]


def make_norm(kit: LayerKit, norm_layer: NormLayer, chans: int) -> nn.Module:
    """A norm of a feature map, with the constant that the published networks have."""
    return kit.position_norm(chans, 1e-6) if norm_layer == "position" else kit.batch_norm(chans)


class BcosConvMlp(nn.Module):
    """Two 1 x 1 B-cos convolutions; a conventional network has a GELU in between.

    Args:
        dim: channels in and out.
        hidden_dim: channels in between.
        kit: what layers are made of.
    """

    dynamic_linear = True

    def __init__(self, dim: int, hidden_dim: int, *, kit: LayerKit = BCOS) -> None:
        super().__init__()
        self.fc1 = kit.conv(dim, hidden_dim, 1)
        self.act = kit.act("gelu")
        self.fc2 = kit.conv(hidden_dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, dim, height, width)`` to the same."""
        y: Tensor
        compiling = torch.compiler.is_compiling()
        applies, run = (traceable, two_layers_operator) if compiling else (fast, two_layers)
        if in_cache(x, self.fc1, self.act, self.fc2, applies=applies):
            places = x.permute(0, 2, 3, 1)
            weights = (self.fc1.weight.flatten(1), self.fc2.weight.flatten(1))
            y = run(places.flatten(0, 2), *weights, self.fc1.row_form)
            return y.view(places.shape).permute(0, 3, 1, 2)
        y = self.fc2(self.act(self.fc1(x)))
        return y


class BcosConvNeXtBlock(nn.Module):
    """7 x 7 B-cos convolution of each channel by itself, norm, 1 x 1 convolutions, and a shortcut.

    Args:
        dim: channels in and out.
        kit: what layers are made of.
        norm_layer: ``"position"`` or ``"batch"``.
        ls_init_value: what the branch's learnt scales start as; no scales when 0 or None.
        drop_path: probability of skipping the branch for an image (training only).
    """

    dynamic_linear = True

    def __init__(
        self,
        dim: int,
        *,
        kit: LayerKit = BCOS,
        norm_layer: NormLayer = "position",
        ls_init_value: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv_dw = kit.conv(dim, dim, 7, 1, 3, groups=dim)
        self.norm = make_norm(kit, norm_layer, dim)
        self.mlp = BcosConvMlp(dim, 4 * dim, kit=kit)
        self.gamma: nn.Parameter | None = None
        if ls_init_value:
            self.gamma = nn.Parameter(torch.full((dim,), float(ls_init_value)))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, dim, height, width)`` to the same."""
        y = self.mlp(conv_norm(x, self.conv_dw, self.norm))
        y = self.drop_path(y)
        if self.gamma is None:
            return x + y
        return torch.addcmul(x, y, held(self.gamma)[:, None, None].to(y.dtype))


class BcosConvNeXtStage(nn.Module):
    """Blocks of one width, after halving the feature map's sides where ``in_chans`` are given.

    Args:
        in_chans: channels of the stage before; None for the first.
        dim: channels of the blocks.
        drop_paths: of each block, as many as there are blocks.
        kit, norm_layer, ls_init_value: as in :class:`BcosConvNeXtBlock`.
    """

    dynamic_linear = True

    def __init__(
        self,
        in_chans: int | None,
        dim: int,
        drop_paths: list[float],
        *,
        kit: LayerKit,
        norm_layer: NormLayer,
        ls_init_value: float | None,
    ) -> None:
        super().__init__()
        self.downsample: nn.Module = nn.Identity()
        if in_chans is not None:
            self.downsample = nn.Sequential(
                make_norm(kit, norm_layer, in_chans), kit.conv(in_chans, dim, 2, 2)
            )
        self.blocks = nn.Sequential(
            *(
                BcosConvNeXtBlock(
                    dim,
                    kit=kit,
                    norm_layer=norm_layer,
                    ls_init_value=ls_init_value,
                    drop_path=drop_path,
                )
                for drop_path in drop_paths
            )
        )

    def forward(self, x: Tensor, recompute: bool = False) -> Tensor:
        """``(batch, in_chans, h, w)`` to ``(batch, dim, h / 2, w / 2)``; the first keeps sides.

        Args:
            x: feature map.
            recompute: whether blocks are computed again in the backward pass rather than stored.
        """
        x = self.downsample(x)
        y: Tensor = checkpoint_seq(self.blocks, x) if recompute else self.blocks(x)
        return y


class BcosConvNeXt(BcosConvNet):
    """B-cos ConvNeXt following timm's model contract.

    Args:
        depths: blocks per stage.
        dims: channels of each stage.
        in_chans: channels of the input; 6 for ``[rgb, 1 - rgb]``.
        num_classes: logits; 0 returns pooled features.
        global_pool: ``"avg"``, or ``""`` to leave the feature map (``num_classes`` 0 only).
        b: exponent of every B-cos layer, at least 1.
        max_out: linear filters behind each B-cos channel.
        conventional: plain weights, biases and activations, see :class:`LayerKit`.
        norm_layer: ``"position"``, over the channels of each position (epsilon 1e-6), or
            ``"batch"``, uncentred batch norm (1e-5).
        ls_init_value: what the learnt scales of branches start as; no scales when 0 or None.
        head_norm_first: norm and classifier before pooling, so that a logit is the mean of local
            logits; if not, both come after it, as in conventional ConvNeXts.
        drop_rate, drop_path_rate: regularisation while training.
        logit_bias, temperature, encoding: see :class:`bcos_vit.models.base.BcosModel`.

    Raises:
        ValueError: an unknown option.
    """

    classifier_name = "head"

    def __init__(
        self,
        depths: tuple[int, ...] = (3, 3, 9, 3),
        dims: tuple[int, ...] = (96, 192, 384, 768),
        in_chans: int = 6,
        num_classes: int = 1000,
        global_pool: str = "avg",
        b: float = 2.0,
        max_out: int = 1,
        conventional: bool = False,
        norm_layer: NormLayer = "position",
        ls_init_value: float | None = 1e-6,
        head_norm_first: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        logit_bias: float | None = None,
        temperature: float = 1.0,
        encoding: str | None = None,
    ) -> None:
        if not depths or min(depths) < 1:
            raise ValueError(f"depths must be one or more numbers of blocks, got {depths}")
        if len(dims) != len(depths) or min(dims) < 1:
            raise ValueError(f"dims must be a width for each of {len(depths)} depths, got {dims}")
        if norm_layer not in get_args(NormLayer):
            raise ValueError(f"norm_layer must be one of {get_args(NormLayer)}, got {norm_layer!r}")
        kit = LayerKit(b, max_out, conventional)
        super().__init__(in_chans, dims[-1], kit, logit_bias, temperature, encoding)
        self.head_norm_first = self.local_logits = head_norm_first
        self.stem = nn.Sequential(
            kit.conv(in_chans, dims[0], 4, 4), make_norm(kit, norm_layer, dims[0])
        )
        self.stages = nn.Sequential()
        self.feature_info = []
        index = 0
        for i, (dim, depth) in enumerate(zip(dims, depths, strict=True)):
            blocks = range(index, index + depth)
            stage = BcosConvNeXtStage(
                dims[i - 1] if i else None,
                dim,
                [drop_path_rate * block / max(1, sum(depths) - 1) for block in blocks],
                kit=kit,
                norm_layer=norm_layer,
                ls_init_value=ls_init_value,
            )
            self.stages.append(stage)
            self.feature_info.append(
                {"num_chs": dim, "reduction": 4 * 2**i, "module": f"stages.{i}"}
            )
            index += depth
        self.norm = make_norm(kit, norm_layer, dims[-1])
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        blocks = [
            (r"^stages\.(\d+)\.downsample", (0,)),
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^norm\.", (99999,)),
        ]
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else blocks}

    def forward_features(self, x: Tensor) -> Tensor:
        """``(batch, in_chans, height, width)`` to ``(batch, dims[-1], height', width')``."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x, self.recomputes)
        return self.norm(x) if self.head_norm_first else x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Feature map to logits ``(batch, num_classes)``, or to pooled, normed features."""
        if not self.head_norm_first:
            x = self.norm(F.adaptive_avg_pool2d(x, 1) if self.global_pool else x)
        return super().forward_head(x, pre_logits)


# --- variants -----------------------------------------------------------------------------------

_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"depths": (3, 3, 9, 3), "dims": (96, 192, 384, 768)},
    "small": {"depths": (3, 3, 27, 3), "dims": (96, 192, 384, 768)},
    "base": {"depths": (3, 3, 27, 3), "dims": (128, 256, 512, 1024)},
}


def _variants() -> dict[str, Variant]:
    """Every size with position norm, and with uncentred batch norm (``_bnu``)."""
    variants = {}
    for size, shape in _SIZES.items():
        what, twin = f"ConvNeXt-{size}, {sum(shape['depths'])} blocks", f"convnext_{size}"
        variants[f"bcos_{twin}"] = Variant(f"{what}, position norm.", shape, twin)
        variants[f"bcos_{twin}_bnu"] = Variant(
            f"{what}, uncentred batch norm.", shape | {"norm_layer": "batch"}, twin
        )
    return variants


register_variants(
    BcosConvNeXt,
    _variants(),
    first_conv="stem.0",
    classifier="head",
    feature_cfg={"out_indices": (0, 1, 2, 3), "flatten_sequential": True},
    pool_size=(7, 7),
)
