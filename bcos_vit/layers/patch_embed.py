"""From image to tokens: one B-cos layer per patch, or a small stack of B-cos convolutions.

Boehle et al., TPAMI 2024 (arXiv:2306.10898); the convolutional stem follows Xiao et al., "Early
Convolutions Help Transformers See Better", NeurIPS 2021 (arXiv:2106.14881). Both return tokens on a
grid, ``(batch, rows, columns, embed_dim)``.
"""

from itertools import pairwise

from torch import Tensor, nn

from bcos_vit.layers.kit import BCOS, LayerKit


def check_divisible(height: int, width: int, patch_size: int) -> None:
    """Refuse images that do not divide into whole patches.

    Raises:
        ValueError: naming the nearest size that would do.
    """
    if patch_size < 1:
        raise ValueError(f"patch_size must be at least 1, got {patch_size}")
    if height % patch_size or width % patch_size or not (height and width):
        nearest = tuple(max(1, round(side / patch_size)) * patch_size for side in (height, width))
        raise ValueError(
            f"image of {height} x {width} px does not divide into patches of {patch_size} px;"
            f" use {nearest[0]} x {nearest[1]}"
        )


def flat_patches(x: Tensor, patch_size: int) -> Tensor:
    """``(B, C, H, W)`` to ``(B, rows, columns, P * P * C)``: row, column, channel of each patch."""
    p = patch_size
    patches = x.unflatten(3, (-1, p)).unflatten(2, (-1, p))  # B C rows p columns p
    return patches.permute(0, 2, 4, 3, 5, 1).flatten(3)


class BcosPatchEmbed(nn.Module):
    """One B-cos linear layer over the pixels of each square patch, ordered row, column, channel.

    Args:
        patch_size: side of a patch in pixels.
        in_chans: channels of the image.
        embed_dim: size of a token.
        kit: what layers are made of.
        bias: whether a conventional network has a bias here.
    """

    dynamic_linear = True

    def __init__(
        self,
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        *,
        kit: LayerKit = BCOS,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if patch_size < 1:
            raise ValueError(f"patch_size must be at least 1, got {patch_size}")
        self.patch_size = patch_size
        self.proj = kit.linear(patch_size**2 * in_chans, embed_dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, in_chans, height, width)`` to ``(batch, rows, columns, embed_dim)``."""
        check_divisible(x.shape[2], x.shape[3], self.patch_size)
        tokens: Tensor = self.proj(flat_patches(x, self.patch_size))
        return tokens


class BcosConvStem(nn.Module):
    """3 x 3 B-cos convolutions, each with a norm, then one layer over what is left of a patch.

    Args:
        patch_size: pixels per token; the convolutions make a divisor of it.
        in_chans: channels of the image.
        chans: output channels of each convolution; it has stride 2 where channels grow.
        embed_dim: size of a token.
        kit: what layers are made of.

    Raises:
        ValueError: no channels, or convolutions that do not divide the patch.
    """

    dynamic_linear = True

    def __init__(
        self,
        patch_size: int,
        in_chans: int,
        chans: tuple[int, ...],
        embed_dim: int,
        *,
        kit: LayerKit = BCOS,
    ) -> None:
        super().__init__()
        if not chans or min(chans) < 1:
            raise ValueError(f"chans must be one or more numbers of channels, got {chans}")
        layers: list[nn.Module] = []
        made = 1
        for before, after in pairwise((0, *chans)):
            stride = 2 if after > before else 1
            made *= stride
            layers += [
                kit.conv(before or in_chans, after, 3, stride, 1),
                kit.group_norm(after),
                kit.act("gelu"),
            ]
        if patch_size % made:
            raise ValueError(f"stem_chans {chans} make {made} px, which do not divide {patch_size}")
        self.patch_size = patch_size
        self.rest = patch_size // made
        self.convs = nn.Sequential(*layers)
        self.proj = kit.linear(chans[-1] * self.rest**2, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, in_chans, height, width)`` to ``(batch, rows, columns, embed_dim)``."""
        check_divisible(x.shape[2], x.shape[3], self.patch_size)
        tokens: Tensor = self.proj(flat_patches(self.convs(x), self.rest))
        return tokens
