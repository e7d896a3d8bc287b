"""B-cos vision transformer.

Boehle et al., TPAMI 2024 (arXiv:2306.10898) and Tran et al., "B-Cos Aligned Transformers Learn
Human-Interpretable Features", MICCAI 2023 (arXiv:2401.08868), with one change: position enters as a
rotary code on queries and keys, which are held constant while explaining. So the pixels'
contributions sum to the logit minus its bias; with ``pos_embed="sincos"`` (the published networks'
additive code) an explanation carries the code's share as a term of its own.

No class token: tokens are averaged, normed and classified by one B-cos layer.
"""

from functools import partial
from typing import Any, Literal

import torch
from timm.layers import DropPath, trunc_normal_
from timm.models import build_model_with_cfg, checkpoint_seq, generate_default_cfgs, register_model
from torch import Tensor, nn

from bcos_vit.layers import (
    BcosAttention,
    BcosConvStem,
    BcosLayerNorm,
    BcosLayerScale,
    BcosLinear,
    BcosMlp,
    BcosPatchEmbed,
    RotaryPosition,
    SinCosPosition,
)
from bcos_vit.layers.attention import check_heads
from bcos_vit.layers.patch_embed import check_divisible
from bcos_vit.models.base import BcosModel
from bcos_vit.models.registry import default_cfg

PosEmbed = Literal["rope", "sincos", "none"]


class BcosBlock(nn.Module):
    """Pre-norm transformer block: B-cos attention, B-cos feed-forward, both residual.

    Args:
        dim: embedding size.
        num_heads: attention heads.
        mlp_ratio: hidden size of the feed-forward part over ``dim``.
        b, max_out: of every B-cos layer inside.
        init_values: what the learnt scales of both branches start as; no scales when omitted.
        drop: dropout probability of both branches.
        drop_path: probability of skipping a branch for an image (training only).
    """

    dynamic_linear = True

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        *,
        b: float = 2.0,
        max_out: int = 1,
        init_values: float | None = None,
        drop: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = BcosLayerNorm(dim)
        self.attn = BcosAttention(dim, num_heads, b=b, max_out=max_out, proj_drop=drop)
        self.norm2 = BcosLayerNorm(dim)
        self.mlp = BcosMlp(dim, int(dim * mlp_ratio), b=b, max_out=max_out, drop=drop)
        self.drop_path = DropPath(drop_path)
        self.ls1: nn.Module = nn.Identity()
        self.ls2: nn.Module = nn.Identity()
        if init_values is not None:
            self.ls1 = BcosLayerScale(dim, init_values)
            self.ls2 = BcosLayerScale(dim, init_values)

    def forward(self, x: Tensor, rope: Tensor | None = None) -> Tensor:
        """``(batch, tokens, dim)`` to the same; ``rope`` as in :class:`BcosAttention`."""
        x = x + self.drop_path(self.ls1(self.attn(self.norm1(x), rope)))
        y: Tensor = x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))
        return y


class BcosVisionTransformer(BcosModel):
    """B-cos ViT following timm's model contract.

    Args:
        img_size: side, or (height, width), that the model is meant for; only checked against the
            patch size, since no parameter depends on it: any divisible size can be fed.
        patch_size: side of a token's square in pixels.
        in_chans: channels of the input; 6 for ``[rgb, 1 - rgb]``.
        num_classes: logits; 0 returns pooled features.
        global_pool: ``"avg"``, or ``""`` to leave tokens unpooled (``num_classes`` 0 only).
        embed_dim, depth, num_heads, mlp_ratio: as in timm.
        b: exponent of every B-cos layer, at least 1.
        max_out: linear units behind each B-cos output.
        pos_embed: ``"rope"`` (exactly complete), ``"sincos"`` (additive, reported as its own
            term) or ``"none"``.
        stem_chans: channels of a convolutional stem (``patch_size`` then is what it makes); a
            plain patch embedding when omitted.
        init_values: what the learnt scales of residual branches start as; no scales when omitted.
        drop_rate, drop_path_rate: regularisation while training.
        logit_bias, temperature: see :class:`bcos_vit.layers.Logits`.

    Raises:
        ValueError: sizes that do not divide, an unknown option.
    """

    classifier_name = "head"

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_chans: int = 6,
        num_classes: int = 1000,
        global_pool: str = "avg",
        embed_dim: int = 192,
        depth: int = 12,
        num_heads: int = 3,
        mlp_ratio: float = 4.0,
        b: float = 2.0,
        max_out: int = 1,
        pos_embed: PosEmbed = "rope",
        stem_chans: tuple[int, ...] | None = None,
        init_values: float | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        logit_bias: float | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(in_chans, embed_dim, b, max_out, logit_bias, temperature)
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        check_divisible(height, width, patch_size)
        check_heads(num_heads, embed_dim)
        if pos_embed not in ("rope", "sincos", "none"):
            raise ValueError(f'pos_embed must be "rope", "sincos" or "none", got {pos_embed!r}')
        self.embed_dim = embed_dim

        self.patch_embed: BcosPatchEmbed | BcosConvStem
        if stem_chans is None:
            self.patch_embed = BcosPatchEmbed(patch_size, in_chans, embed_dim, b=b, max_out=max_out)
        else:
            self.patch_embed = BcosConvStem(in_chans, stem_chans, embed_dim, b=b, max_out=max_out)
            if self.patch_embed.patch_size != patch_size:
                raise ValueError(
                    f"stem_chans {stem_chans} make tokens of {self.patch_embed.patch_size} px,"
                    f" patch_size says {patch_size}"
                )
        self.rope = RotaryPosition(embed_dim // num_heads) if pos_embed == "rope" else None
        self.pos_embed = SinCosPosition(embed_dim) if pos_embed == "sincos" else None
        self.blocks = nn.Sequential(
            *(
                BcosBlock(
                    embed_dim,
                    num_heads,
                    mlp_ratio,
                    b=b,
                    max_out=max_out,
                    init_values=init_values,
                    drop=drop_rate,
                    drop_path=drop_path_rate * i / max(1, depth - 1),
                )
                for i in range(depth)
            )
        )
        self.norm = BcosLayerNorm(embed_dim)
        self.reset_classifier(num_classes, global_pool)
        for block in self.blocks:
            if isinstance(block, BcosBlock):
                trunc_normal_(block.attn.qkv.weight, std=0.02)

    def make_classifier(self, num_classes: int) -> nn.Module:
        return BcosLinear(self.num_features, num_classes, b=self.b, max_out=self.max_out)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {
            "stem": r"^patch_embed",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        }

    def forward_features(self, x: Tensor) -> Tensor:
        """``(batch, in_chans, height, width)`` to tokens ``(batch, rows * columns, embed_dim)``."""
        x = self.patch_embed(x)
        grid = (x.shape[1], x.shape[2])
        x = x.flatten(1, 2)
        if self.pos_embed is not None:
            x = self.pos_embed(x, grid)
        rope = None if self.rope is None else self.rope(grid, x.device)
        if self.recomputes:
            steps = [partial(block, rope=rope) for block in self.blocks]
            checkpointed: Tensor = checkpoint_seq(steps, x)
            return checkpointed
        for block in self.blocks:
            x = block(x, rope)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens to logits ``(batch, num_classes)``, or to pooled, normed features."""
        if self.global_pool:
            x = x.mean(dim=1)
        x = self.norm(x)
        if pre_logits or not self.num_classes:
            return x
        y: Tensor = self.logits(self.get_classifier()(x))
        return y


default_cfgs = generate_default_cfgs(
    {
        "bcos_vit_tiny_patch16_224": default_cfg("patch_embed.proj", "head"),
        "bcos_vitc_tiny_patch16_224": default_cfg("patch_embed.convs.0", "head"),
    }
)


def _create(variant: str, pretrained: bool, **kwargs: Any) -> BcosVisionTransformer:
    if kwargs.get("features_only"):
        raise RuntimeError(f"features_only is for networks with feature maps; {variant} has tokens")
    model: BcosVisionTransformer = build_model_with_cfg(
        BcosVisionTransformer, variant, pretrained, **kwargs
    )
    return model


@register_model
def bcos_vit_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> BcosVisionTransformer:
    """ViT-Ti/16: 12 blocks of width 192, 3 heads."""
    args: dict[str, Any] = {"patch_size": 16, "embed_dim": 192, "depth": 12, "num_heads": 3}
    args["init_values"] = 0.1
    return _create("bcos_vit_tiny_patch16_224", pretrained, **(args | kwargs))


@register_model
def bcos_vitc_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> BcosVisionTransformer:
    """ViT-Ti with a convolutional stem in the place of one block."""
    args: dict[str, Any] = {"patch_size": 16, "embed_dim": 192, "depth": 11, "num_heads": 3}
    args |= {"stem_chans": (24, 48, 96, 192), "init_values": 0.1}
    return _create("bcos_vitc_tiny_patch16_224", pretrained, **(args | kwargs))
