"""What stands in the place of removed pixels."""

from typing import get_args

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from bcos_vit.attribution.fillings import Filling, fill


def images(n: int = 2, height: int = 24, width: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, height, width, generator=generator, dtype=torch.float64) * 0.8


@pytest.mark.parametrize("name", get_args(Filling))
def test_every_image_alone_is_as_in_the_batch_and_in_range(name: str) -> None:
    batch = images()
    filled = fill(name, batch)
    assert filled.shape == batch.shape
    assert filled.dtype == batch.dtype
    assert filled.min() >= 0
    assert filled.max() <= 1
    torch.testing.assert_close(
        torch.cat([fill(name, one[None]) for one in batch]), filled, rtol=0, atol=1e-14
    )


def test_black_white_and_mean() -> None:
    batch = images()
    assert (fill("black", batch) == 0).all()
    assert (fill("white", batch) == 1).all()
    expected = batch.numpy().mean((2, 3), keepdims=True)
    np.testing.assert_allclose(fill("mean", batch).numpy(), expected + 0 * batch.numpy())


def test_glass_is_the_mean_of_the_light_pixels() -> None:
    batch = images()
    batch[0, :, :4] = torch.tensor([0.9, 0.95, 0.92], dtype=torch.float64)[:, None, None]
    batch[0, :, :2] += 0.04
    batch[0, 0, 4] = 1.0  # one light colour is not glass
    filled = fill("glass", batch)
    np.testing.assert_allclose(filled[0, :, 7, 7], [0.92, 0.97, 0.94])


def test_glass_of_an_image_without_any_is_the_customary_colour() -> None:
    np.testing.assert_allclose(fill("glass", images())[1], 240 / 255)


def test_blur_is_a_gaussian_of_an_eighth_of_the_shorter_side() -> None:
    batch = images(1)
    # scipy's "mirror" does not repeat the edge either
    expected = gaussian_filter(
        batch.numpy(), (0, 0, 24 / 8, 24 / 8), mode="mirror", radius=(0, 0, 9, 9)
    )
    np.testing.assert_allclose(fill("blur", batch).numpy(), expected, atol=1e-12)


def test_an_unknown_filling_is_refused() -> None:
    with pytest.raises(ValueError, match=r"filling must be one of .*'glass'.*, got 'grey'"):
        fill("grey", images())
