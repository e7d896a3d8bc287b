"""B-cos vision transformer.

Boehle et al., TPAMI 2024 (arXiv:2306.10898) and Tran et al., "B-Cos Aligned Transformers Learn
Human-Interpretable Features", MICCAI 2023 (arXiv:2401.08868), with one change: position enters as a
rotary code on queries and keys, which are held constant while explaining. So the pixels'
contributions sum to the logit minus its bias; with ``pos_embed="sincos"`` (the published networks'
additive code) an explanation carries the code's share as a term of its own.

No class token: tokens are averaged, normed and classified by one B-cos layer.
"""

from functools import partial
from typing import Any, Literal, get_args

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import checkpoint_seq
from torch import Tensor, nn

from bcos_vit.layers import (
    BcosAttention,
    BcosBlock,
    BcosConvStem,
    BcosMlp,
    BcosPatchEmbed,
    BcosSwiGlu,
    ConstantTokens,
    LayerKit,
    LearnedPosition,
    RotaryPosition,
    SinCosPosition,
)
from bcos_vit.layers.attention import check_heads
from bcos_vit.layers.cut import Cut
from bcos_vit.layers.patch_embed import check_divisible
from bcos_vit.layers.pool import mean_of_places
from bcos_vit.models.base import BcosModel
from bcos_vit.models.registry import Variant, register_variants

PosEmbed = Literal["rope", "sincos", "learned", "none"]
MlpLayer = Literal["mlp", "swiglu"]


class BcosVisionTransformer(BcosModel):
    """B-cos ViT following timm's model contract.

    Args:
        img_size: side, or (height, width), that the model is meant for. Any size that divides into
            patches can be fed; only ``pos_embed="learned"`` has a grid of its own.
        patch_size: side of a token's square in pixels.
        in_chans: channels of the input; 6 for ``[rgb, 1 - rgb]``.
        num_classes: logits; 0 returns pooled features.
        global_pool: ``"avg"`` of the image's tokens, ``"token"`` for the class token, or ``""`` to
            leave tokens unpooled (``num_classes`` 0 only).
        embed_dim, depth, num_heads, mlp_ratio: as in timm.
        b: exponent of every B-cos layer, at least 1.
        max_out: linear units behind each B-cos output.
        conventional: plain weights, biases and activations, see :class:`LayerKit`.
        pos_embed: ``"rope"`` (exactly complete), ``"sincos"`` or ``"learned"`` (additive, reported
            as a term of its own) or ``"none"``.
        stem_chans: channels of a convolutional stem; a plain patch embedding when omitted.
        class_token, reg_tokens: learnt tokens in front, reported as a term of their own.
        mlp_layer: ``"mlp"`` or ``"swiglu"``.
        pre_norm: a norm before the first block.
        fc_norm: norm after pooling (as published) rather than of every token before it.
        qkv_bias, proj_bias: whether a conventional network's attention has these biases.
        norm_eps: added to the variance in norms.
        init_values: what the learnt scales of residual branches start as; no scales when 0 or
            omitted (timm drops arguments that are None, so names with scales need the 0).
        drop_rate, drop_path_rate: regularisation while training.
        logit_bias, temperature, encoding: see :class:`bcos_vit.models.base.BcosModel`.

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
        conventional: bool = False,
        pos_embed: PosEmbed = "rope",
        stem_chans: tuple[int, ...] | None = None,
        class_token: bool = False,
        reg_tokens: int = 0,
        mlp_layer: MlpLayer = "mlp",
        pre_norm: bool = False,
        fc_norm: bool = True,
        qkv_bias: bool = True,
        proj_bias: bool = True,
        norm_eps: float = 1e-5,
        init_values: float | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        logit_bias: float | None = None,
        temperature: float = 1.0,
        encoding: str | None = None,
    ) -> None:
        kit = LayerKit(b, max_out, conventional)
        super().__init__(in_chans, embed_dim, kit, logit_bias, temperature, encoding)
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        check_divisible(height, width, patch_size)
        check_heads(num_heads, embed_dim)
        for option, value, known in (
            ("pos_embed", pos_embed, PosEmbed),
            ("mlp_layer", mlp_layer, MlpLayer),
        ):
            if value not in get_args(known):
                raise ValueError(f"{option} must be one of {get_args(known)}, got {value!r}")
        if global_pool == "token" and not class_token:
            raise ValueError('global_pool="token" needs class_token=True')
        if pos_embed == "rope" and (class_token or reg_tokens):
            raise ValueError("a rotary code has no place for class_token or reg_tokens")
        self.embed_dim = embed_dim
        self.fc_norm = fc_norm
        self.num_prefix_tokens = int(class_token) + reg_tokens
        self.global_pools = ("avg", "token", "") if class_token else ("avg", "")

        self.patch_embed: BcosPatchEmbed | BcosConvStem
        if stem_chans is None:
            self.patch_embed = BcosPatchEmbed(
                patch_size, in_chans, embed_dim, kit=kit, bias=not pre_norm
            )
        else:
            self.patch_embed = BcosConvStem(patch_size, in_chans, stem_chans, embed_dim, kit=kit)
        self.rope = RotaryPosition(embed_dim // num_heads) if pos_embed == "rope" else None
        self.pos_embed: nn.Module | None = None
        if pos_embed == "sincos":
            self.pos_embed = SinCosPosition(embed_dim)
        elif pos_embed == "learned":
            grid = (height // patch_size, width // patch_size)
            self.pos_embed = LearnedPosition(grid, embed_dim)
        self.prefix: nn.Module = nn.Identity()
        if self.num_prefix_tokens:
            self.prefix = ConstantTokens(self.num_prefix_tokens, embed_dim)
        self.norm_pre = kit.layer_norm(embed_dim, norm_eps) if pre_norm else nn.Identity()
        make_mlp = BcosSwiGlu if mlp_layer == "swiglu" else BcosMlp
        biases = {"qkv_bias": qkv_bias, "proj_bias": proj_bias}
        self.blocks = nn.Sequential(
            *(
                BcosBlock(
                    embed_dim,
                    BcosAttention(embed_dim, num_heads, kit=kit, proj_drop=drop_rate, **biases),
                    make_mlp(embed_dim, int(embed_dim * mlp_ratio), kit=kit, drop=drop_rate),
                    kit=kit,
                    norm_eps=norm_eps,
                    init_values=init_values,
                    drop_path=drop_path_rate * i / max(1, depth - 1),
                )
                for i in range(depth)
            )
        )
        self.norm = kit.layer_norm(embed_dim, norm_eps)
        self.reset_classifier(num_classes, global_pool)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {
            "stem": r"^patch_embed|^pos_embed|^prefix|^norm_pre",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm\.", (99999,))],
        }

    @torch.jit.ignore
    def layer_cuts(self) -> list[Cut]:
        """The grid of patches, then the tokens behind each block."""
        tokens = partial(
            Cut,
            layout="tokens",
            prefix=self.num_prefix_tokens,
            patch_size=self.patch_embed.patch_size,
        )
        blocks = (f"blocks.{i}" for i in range(len(self.blocks)))
        return [Cut("patch_embed", "NHWC"), *map(tokens, blocks)]

    def forward_features(self, x: Tensor) -> Tensor:
        """``(batch, in_chans, height, width)`` to tokens ``(batch, prefix + n, embed_dim)``."""
        x = self.patch_embed(x)
        grid = (x.shape[1], x.shape[2])
        x = x.flatten(1, 2)
        if self.pos_embed is not None:
            x = self.pos_embed(x, grid)
        x = self.norm_pre(self.prefix(x))
        rope = None if self.rope is None else self.rope(grid, x.device)
        if self.recomputes:
            x = checkpoint_seq([partial(block, rope=rope) for block in self.blocks], x)
        else:
            for block in self.blocks:
                x = block(x, rope)
        return x if self.fc_norm else self.norm(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens to logits ``(batch, num_classes)``, or to pooled, normed features."""
        if self.global_pool == "token":
            x = x[:, 0]
        elif self.global_pool:
            x = mean_of_places(x[:, self.num_prefix_tokens :])
        if self.fc_norm:
            x = self.norm(x)
        if pre_logits or not self.num_classes:
            return x
        y: Tensor = self.logits(self.get_classifier()(x))
        return y


# --- variants -----------------------------------------------------------------------------------

# Width, depth, heads; channels of a stem that makes 16-px tokens. A stem stands for one block.
_SIZES: dict[str, tuple[int, int, int, tuple[int, ...]]] = {
    "tiny": (192, 12, 3, (24, 48, 96, 192)),
    "small": (384, 12, 6, (48, 96, 192, 384)),
    "base": (768, 12, 12, (64, 128, 128, 256, 256, 512)),
    "large": (1024, 24, 16, (64, 128, 128, 256, 256, 512)),
}


# What the reference calls "large" is shallower than timm's.
_PUBLISHED_LARGE_DEPTH = 14
_PATCH_SIZES = (8, 14, 16)


def _stem(chans: tuple[int, ...], patch_size: int) -> tuple[int, ...]:
    """A stem's channels for another patch: 8 px by one stride less, 14 px by 2 px and 7 x 7."""
    return {16: chans, 8: chans[1:], 14: (chans[0], chans[0])}[patch_size]


def _plain(size: str, patch_size: int, depth: int | None = None) -> dict[str, Any]:
    """Arguments of a ViT with a plain patch embedding."""
    width, usual_depth, heads, _ = _SIZES[size]
    shape = {"embed_dim": width, "depth": depth or usual_depth, "num_heads": heads}
    return {"patch_size": patch_size, **shape}


def _with_stem(size: str, patch_size: int, depth: int | None = None) -> dict[str, Any]:
    """Arguments of a ViT whose convolutional stem stands for one block."""
    plain = _plain(size, patch_size, depth)
    stem = _stem(_SIZES[size][3], patch_size)
    return plain | {"depth": plain["depth"] - 1, "stem_chans": stem}


def _size_names() -> dict[str, tuple[str, int, int | None]]:
    """Name part, to size, patch and depth."""
    names: dict[str, tuple[str, int, int | None]] = {
        f"{size}_patch{patch}_224": (size, patch, None) for size in _SIZES for patch in _PATCH_SIZES
    }
    names[f"large_depth{_PUBLISHED_LARGE_DEPTH}_patch16_224"] = (
        "large", 16, _PUBLISHED_LARGE_DEPTH,
    )  # fmt: skip
    return names


def _variants() -> tuple[dict[str, Variant], dict[str, Variant], dict[str, Variant]]:
    """B-cos ViTs, B-cos ViTs with a stem, and conventional ViTs that timm does not have."""
    plain, stemmed, conventional = {}, {}, {}
    # As the reference's own conventional ViTs: an additive code, no biases in attention.
    as_published = {
        "conventional": True, "b": 1.0, "in_chans": 3, "pos_embed": "sincos",
        "qkv_bias": False, "proj_bias": False,
    }  # fmt: skip
    for name, (size, patch, depth) in _size_names().items():
        args, stem_args = _plain(size, patch, depth), _with_stem(size, patch, depth)
        twin_args: dict[str, Any] = {"global_pool": "avg", "class_token": False}
        twin_args |= {"patch_size": patch, "depth": args["depth"]}
        what = f"ViT-{size}/{patch}, {args['depth']} blocks of width {args['embed_dim']}"
        # Branches start small: unit-length weights cannot.
        plain[f"bcos_vit_{name}"] = Variant(
            f"{what}.", args | {"init_values": 0.1}, f"vit_{size}_patch16_224", twin_args
        )
        stemmed[f"bcos_vitc_{name}"] = Variant(
            f"{what}, one of them replaced by a convolutional stem.",
            stem_args | {"init_values": 0.1},
            f"vitc_{name}",
        )
        conventional[f"vitc_{name}"] = Variant(
            f"Conventional {what}, one of them replaced by a convolutional stem.",
            stem_args | as_published,
        )
        if patch == 16:
            conventional[f"simple_vit_{name}"] = Variant(
                f"Conventional {what}, no class token.", args | as_published
            )
    return plain, stemmed, conventional


_PLAIN, _STEMMED, _CONVENTIONAL = _variants()
_FIRST_CONV = dict.fromkeys((*_PLAIN, *_CONVENTIONAL), "patch_embed.proj") | {
    name: "patch_embed.convs.0" for name in (*_STEMMED, *_CONVENTIONAL) if "vitc_" in name
}
register_variants(
    BcosVisionTransformer,
    _PLAIN | _STEMMED,
    first_conv=_FIRST_CONV,
    classifier="head",
    features_only=False,
)
register_variants(
    BcosVisionTransformer,
    _CONVENTIONAL,
    first_conv=_FIRST_CONV,
    classifier="head",
    features_only=False,
    input_size=(3, 224, 224),
    mean=IMAGENET_DEFAULT_MEAN,
    std=IMAGENET_DEFAULT_STD,
)
