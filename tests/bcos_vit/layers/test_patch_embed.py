"""Stems cut the image into whole patches, by row, column and channel."""

import numpy as np
import pytest
import torch

from bcos_vit.layers import BcosConvStem, BcosPatchEmbed, LayerKit
from tests.reference import array, bcos_linear_matrix, patch_matrix


def test_patches_are_ordered_row_column_channel():
    layer = BcosPatchEmbed(2, 3, 5, kit=LayerKit(1.5, 2)).double()
    image = torch.randn(3, 4, 6, dtype=torch.float64)
    patches = (patch_matrix(image.shape, 2) @ array(image).ravel()).reshape(2, 3, 12)
    tokens = layer(image[None])[0]
    for row, column in np.ndindex(2, 3):
        patch = patches[row, column]
        expected = bcos_linear_matrix(array(layer.proj.weight), patch, 1.5, 2) @ patch
        np.testing.assert_allclose(array(tokens[row, column]), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("stem", "shape"),
    [
        (BcosPatchEmbed(4, 6, 8), (2, 3, 8)),
        (BcosConvStem(4, 6, (3, 4), 8), (2, 3, 8)),
        (BcosConvStem(4, 6, (3, 3, 4), 8), (2, 3, 8)),
        (BcosConvStem(4, 6, (4, 3, 4), 8), (2, 3, 8)),
        (BcosConvStem(4, 6, (3, 3), 8), (2, 3, 8)),
    ],
)
def test_tokens_lie_on_the_grid(stem, shape):
    assert stem(torch.rand(2, 6, 8, 12)).shape == (2, *shape)


@pytest.mark.parametrize(
    ("chans", "size"), [((3,), 2), ((3, 4), 4), ((3, 3, 4), 4), ((24, 48, 96, 192), 16)]
)
def test_a_stem_halves_where_channels_grow(chans, size):
    stem = BcosConvStem(size, 6, chans, 8)
    assert stem.rest == 1
    assert stem(torch.rand(1, 6, 2 * size, size)).shape == (1, 2, 1, 8)


@pytest.mark.parametrize("stem", [BcosPatchEmbed(4, 3, 8), BcosConvStem(4, 3, (4, 5), 8)])
@pytest.mark.parametrize(
    ("size", "nearest"), [((9, 8), "8 x 8"), ((8, 11), "8 x 12"), ((1, 4), "4 x 4")]
)
def test_images_that_do_not_divide_are_refused_with_the_nearest_size(stem, size, nearest):
    height, width = size
    wanted = f"{height} x {width} px does not divide into patches of 4 px; use {nearest}"
    with pytest.raises(ValueError, match=wanted):
        stem(torch.rand(1, 3, height, width))


@pytest.mark.parametrize("patch_size", [0, -2])
def test_patch_sizes_below_one_are_refused(patch_size):
    with pytest.raises(ValueError, match=f"patch_size must be .*got {patch_size}"):
        BcosPatchEmbed(patch_size, 3, 8)


def test_a_stem_without_convolutions_is_refused():
    with pytest.raises(ValueError, match=r"chans must .*got \(\)"):
        BcosConvStem(4, 3, (), 8)


def test_a_stem_that_does_not_divide_the_patch_is_refused():
    with pytest.raises(ValueError, match=r"\(4, 5\) make 4 px, which do not divide 6"):
        BcosConvStem(6, 3, (4, 5), 8)
