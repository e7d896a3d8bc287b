"""B-cos Swin transformer ("Bwin").

Liu et al., "Swin Transformer", ICCV 2021 (arXiv:2103.14030), made B-cos as in Tran et al., "B-Cos
Aligned Transformers Learn Human-Interpretable Features", MICCAI 2023 (arXiv:2401.08868). Position
only enters inside the softmax of each window, which is held constant while explaining: the pixels'
contributions sum to the logit minus its bias.

All feature maps are ``(batch, rows, columns, dim)``, as in timm.
"""

from typing import Any

import torch
import torch.nn.functional as F
from timm.models import checkpoint_seq
from torch import Tensor, nn

from bcos_vit.layers import (
    BCOS,
    BcosBlock,
    BcosMlp,
    BcosPatchEmbed,
    BcosWindowAttention,
    LayerKit,
)
from bcos_vit.layers.patch_embed import check_divisible
from bcos_vit.layers.pool import mean_of_places
from bcos_vit.models.base import BcosModel
from bcos_vit.models.registry import Variant, register_variants

WindowSize = int | tuple[int, int]


class BcosSwinPatchEmbed(BcosPatchEmbed):
    """A patch embedding with a norm behind it.

    Args:
        patch_size, in_chans, embed_dim, kit: see :class:`bcos_vit.layers.BcosPatchEmbed`.
        norm_eps: added to the variance in the norm.
    """

    dynamic_linear = True

    def __init__(
        self,
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        *,
        kit: LayerKit = BCOS,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__(patch_size, in_chans, embed_dim, kit=kit)
        self.norm = kit.layer_norm(embed_dim, norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, in_chans, height, width)`` to ``(batch, rows, columns, embed_dim)``."""
        y: Tensor = self.norm(super().forward(x))
        return y


class BcosPatchMerging(nn.Module):
    """Squares of 2 x 2 places, normed together and reduced by one B-cos layer.

    Args:
        dim: embedding size; doubled.
        kit: what layers are made of.
        norm_eps: added to the variance in the norm.
    """

    dynamic_linear = True

    def __init__(self, dim: int, *, kit: LayerKit = BCOS, norm_eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = kit.layer_norm(4 * dim, norm_eps)
        self.reduction = kit.linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, rows, columns, dim)`` to half the rows and columns, rounded up, of 2 dim."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # batch rows 2 columns 2 dim
        squares = x.permute(0, 1, 3, 4, 2, 5).flatten(3)  # column by column, as published
        y: Tensor = self.reduction(self.norm(squares))
        return y


class BcosSwinStage(nn.Module):
    """Blocks at one size of the map, after a reduction from the size before.

    Args:
        downsample: what makes the map of this stage.
        blocks: what follows.
    """

    dynamic_linear = True

    def __init__(self, downsample: nn.Module, blocks: list[BcosBlock]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor, recompute: bool = False) -> Tensor:
        """``(batch, rows, columns, dim)`` to the next such map.

        Args:
            x: map of the stage before.
            recompute: whether the backward pass computes activations again rather than keep them.
        """
        x = self.downsample(x)
        y: Tensor = checkpoint_seq(self.blocks, x) if recompute else self.blocks(x)
        return y


class BcosSwinTransformer(BcosModel):
    """B-cos Swin transformer following timm's model contract.

    Any image that divides into patches can be fed; maps that do not divide into windows or squares
    are padded, see :class:`bcos_vit.layers.BcosWindowAttention`.

    Args:
        img_size: side, or (height, width), that the model is meant for.
        patch_size: side of a token's square in pixels.
        in_chans: channels of the input; 6 for ``[rgb, 1 - rgb]``.
        num_classes: logits; 0 returns pooled features.
        global_pool: ``"avg"``, or ``""`` to leave the feature map (``num_classes`` 0 only).
        embed_dim: size of a token in the first stage; doubled from stage to stage.
        depths, num_heads: blocks and attention heads of each stage.
        window_size: side of a window in places of the map; one for all stages, or a tuple with one
            side, or (rows, columns), per stage.
        mlp_ratio: as in timm.
        b: exponent of every B-cos layer, at least 1.
        max_out: linear units behind each B-cos output; 2 in Tran et al.
        conventional: plain weights, biases and activations, see :class:`LayerKit`.
        fc_norm: norm after pooling rather than of every token before it. When omitted: before in a
            conventional network, as in timm; after in a B-cos network, where the length of a token
            tells how well it aligned with the weights, which a norm of each would undo.
        qkv_bias: whether a conventional network's attention has it.
        norm_eps: added to the variance in norms.
        init_values: what the learnt scales of residual branches start as; no scales when 0 or
            omitted (timm drops arguments that are None).
        drop_rate, drop_path_rate: regularisation while training.
        logit_bias, temperature, encoding: see :class:`bcos_vit.models.base.BcosModel`.

    Raises:
        ValueError: sizes that do not divide, an unknown option, stages that do not match.
    """

    classifier_name = "head"
    output_fmt = "NHWC"
    """How timm's feature extractors read the maps."""

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 4,
        in_chans: int = 6,
        num_classes: int = 1000,
        global_pool: str = "avg",
        embed_dim: int = 96,
        depths: tuple[int, ...] = (2, 2, 6, 2),
        num_heads: tuple[int, ...] = (3, 6, 12, 24),
        window_size: int | tuple[WindowSize, ...] = 7,
        mlp_ratio: float = 4.0,
        b: float = 2.0,
        max_out: int = 1,
        conventional: bool = False,
        fc_norm: bool | None = None,
        qkv_bias: bool = True,
        norm_eps: float = 1e-5,
        init_values: float | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        logit_bias: float | None = None,
        temperature: float = 1.0,
        encoding: str | None = None,
    ) -> None:
        if not depths or min(depths) < 1:
            raise ValueError(f"depths must be one or more numbers of blocks, got {depths}")
        windows = (window_size,) * len(depths) if isinstance(window_size, int) else window_size
        for option, given in (("num_heads", num_heads), ("window_size", windows)):
            if len(given) != len(depths):
                raise ValueError(f"{option} must have {len(depths)} entries as depths, got {given}")
        kit = LayerKit(b, max_out, conventional)
        num_features = embed_dim * 2 ** (len(depths) - 1)
        super().__init__(in_chans, num_features, kit, logit_bias, temperature, encoding)
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        check_divisible(height, width, patch_size)
        self.embed_dim = embed_dim
        self.fc_norm = not conventional if fc_norm is None else fc_norm

        self.patch_embed = BcosSwinPatchEmbed(
            patch_size, in_chans, embed_dim, kit=kit, norm_eps=norm_eps
        )
        count = sum(depths)
        drop_paths = iter(drop_path_rate * i / max(1, count - 1) for i in range(count))
        self.layers = nn.Sequential()
        self.feature_info: list[dict[str, Any]] = []
        for stage, depth in enumerate(depths):
            dim = embed_dim * 2**stage
            downsample: nn.Module = nn.Identity()
            if stage:
                downsample = BcosPatchMerging(dim // 2, kit=kit, norm_eps=norm_eps)
            blocks = [
                BcosBlock(
                    dim,
                    BcosWindowAttention(
                        dim,
                        num_heads[stage],
                        windows[stage],
                        shifted=i % 2 == 1,
                        kit=kit,
                        qkv_bias=qkv_bias,
                        proj_drop=drop_rate,
                    ),
                    BcosMlp(dim, int(dim * mlp_ratio), kit=kit, drop=drop_rate),
                    kit=kit,
                    norm_eps=norm_eps,
                    init_values=init_values,
                    drop_path=next(drop_paths),
                )
                for i in range(depth)
            ]
            self.layers.append(BcosSwinStage(downsample, blocks))
            self.feature_info.append(
                {"num_chs": dim, "reduction": patch_size * 2**stage, "module": f"layers.{stage}"}
            )
        self.norm = kit.layer_norm(num_features, norm_eps)
        self.reset_classifier(num_classes, global_pool)

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Norm scales, and what position adds inside the softmax."""
        tables = {name for name, _ in self.named_parameters() if "relative_position_bias" in name}
        names: set[str] = super().no_weight_decay() | tables
        return names

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        blocks: Any = r"^layers\.(\d+)"
        if not coarse:
            blocks = [
                (r"^layers\.(\d+)\.downsample", (0,)),
                (r"^layers\.(\d+)\.blocks\.(\d+)", None),
                (r"^norm\.", (99999,)),
            ]
        return {"stem": r"^patch_embed", "blocks": blocks}

    def forward_features(self, x: Tensor) -> Tensor:
        """``(batch, in_chans, height, width)`` to ``(batch, rows, columns, num_features)``."""
        x = self.patch_embed(x)
        for stage in self.layers:
            x = stage(x, self.recomputes)
        return x if self.fc_norm else self.norm(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Feature map to logits ``(batch, num_classes)``, or to pooled, normed features."""
        if self.global_pool:
            x = mean_of_places(x)
        if self.fc_norm:
            x = self.norm(x)
        if pre_logits or not self.num_classes:
            return x
        y: Tensor = self.logits(self.get_classifier()(x))
        return y


# --- variants -----------------------------------------------------------------------------------

# Width of the first stage, blocks and heads of each.
_SIZES: dict[str, tuple[int, tuple[int, ...], tuple[int, ...]]] = {
    "tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
}

register_variants(
    BcosSwinTransformer,
    {
        f"bcos_swin_{size}_patch4_window7_224": Variant(
            f"Swin-{size}: {sum(depths)} blocks in four stages, of width {width} in the first.",
            # Branches start small: unit-length weights cannot.
            {"embed_dim": width, "depths": depths, "num_heads": heads, "init_values": 0.1},
            f"swin_{size}_patch4_window7_224",
        )
        for size, (width, depths, heads) in _SIZES.items()
    },
    first_conv="patch_embed.proj",
    classifier="head",
    feature_cfg={"out_indices": (0, 1, 2, 3), "flatten_sequential": True},
    pool_size=(7, 7),
)
