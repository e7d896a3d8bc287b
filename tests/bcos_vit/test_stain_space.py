"""Stain space: nothing is lost, glass is nothing, and what cannot be told apart is refused."""

import copy
from dataclasses import asdict

import numpy as np
import pytest
import torch
from skimage.color import separate_stains

from bcos_vit.stain_space import StainSpace, others
from bcos_vit.transforms import encode

SPACE = StainSpace()
# Another lab: its own dyes, a third direction at no right angle, tinted glass.
OTHER = StainSpace((0.5, 0.75, 0.4), (0.1, 0.9, 0.3), (0.3, 0.3, 0.9), (0.95, 0.9, 0.93))


def density(pixels, white):
    """Optical densities of ``(n, 3)`` pixels, one at a time."""
    rows = []
    for pixel in pixels:
        row = [-np.log10(min(max(v, 1 / 255), w) / w) for v, w in zip(pixel, white, strict=True)]
        rows.append(row)
    return np.array(rows)


def pixels_of(images):
    return images.movedim(-3, -1).reshape(-1, images.shape[-3]).numpy()


@pytest.mark.parametrize("space", [SPACE, OTHER], ids=["default", "other"])
def test_amounts_times_stains_are_the_density(space):
    images = torch.rand(2, 3, 6, 7, dtype=torch.float64)
    images[0, :, 0] = 0
    amounts = pixels_of(space.amounts(images))
    # float64, amounts up to 10 after the inverse of a 3 x 3 matrix.
    np.testing.assert_allclose(
        amounts @ space.matrix, density(pixels_of(images), space.white), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("space", [SPACE, OTHER], ids=["default", "other"])
def test_amounts_are_those_of_a_linear_solver(space):
    images = torch.rand(3, 5, 4, dtype=torch.float64)
    found = pixels_of(space.amounts(images))
    for pixel, amounts in zip(density(pixels_of(images), space.white), found, strict=True):
        np.testing.assert_allclose(
            np.linalg.solve(space.matrix.T, pixel), amounts, rtol=0, atol=1e-12
        )


def test_positive_amounts_are_those_of_scikit_image():
    space = StainSpace(white=(1, 1, 1))
    images = torch.rand(3, 8, 9, dtype=torch.float64).clamp_min(0.01)
    found = space.amounts(images).movedim(0, -1).numpy()
    # It takes logarithms to the base 1e-6 and cuts what is negative.
    wanted = 6 * separate_stains(images.movedim(0, -1).numpy(), np.linalg.inv(space.matrix))
    np.testing.assert_allclose(found.clip(min=0), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("space", [SPACE, OTHER], ids=["default", "other"])
def test_images_come_back(space):
    images = torch.rand(2, 3, 4, 5, dtype=torch.float64).clamp_min(1 / 255)
    white = torch.tensor(space.white, dtype=torch.float64)[:, None, None]
    wanted = images.minimum(white)
    assert torch.allclose(space.decode(space.encode(images)), wanted, rtol=0, atol=1e-12)


def test_pure_stains_are_told_apart():
    for place, vector in enumerate(SPACE.matrix[:2]):
        light = np.array(SPACE.white) * 10 ** (-0.7 * vector)
        amounts = SPACE.amounts(torch.from_numpy(light)[:, None, None]).flatten()
        wanted = np.zeros(3)
        wanted[place] = 0.7
        np.testing.assert_allclose(amounts, wanted, rtol=0, atol=1e-12)


def test_a_complement_is_what_else_there_is():
    six = SPACE.encode(torch.rand(2, 3, 4, 4, dtype=torch.float64))
    h, e, r = six[:, :3].unbind(1)
    for channel, wanted in zip(six[:, 3:].unbind(1), (e + r, h + r, h + e), strict=True):
        assert torch.equal(channel, wanted)
    assert torch.allclose(six[:, :3] + six[:, 3:], (h + e + r)[:, None], rtol=0, atol=1e-14)


def test_the_sum_of_others_is_its_own_transpose():
    x, w = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    x, w = x[:, :1], w[:, :1]
    assert torch.allclose((others(x) * w).sum(), (x * others(w)).sum(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("space", [SPACE, OTHER], ids=["default", "other"])
def test_glass_is_exactly_zero(space, dtype):
    white = torch.tensor(space.white, dtype=torch.float64)
    for glass in (white, white + 0.01, torch.ones(3)):
        images = glass.clamp_max(1).to(dtype)[:, None, None].expand(3, 2, 2)
        encoded = space.encode(images)
        assert encoded.dtype == dtype
        assert not encoded.any()


@pytest.mark.parametrize("level", range(1, 256))
def test_glass_in_bytes_is_exactly_zero(level):
    # Whichever way somebody divides by 255.
    space = StainSpace(white=(max(level, 2) / 255,) * 3)
    byte = torch.full((3, 1, 1), max(level, 2), dtype=torch.uint8)
    for images in (byte, byte.float() / 255, byte.double() / 255):
        assert not encode(images, "stain", space).any()
    if level > 2:
        assert encode(byte - 1, "stain", space).any()


def test_black_has_a_density_and_gradients_are_finite_everywhere():
    images = torch.zeros(3, 4, 4, dtype=torch.float64)
    images[:, 1], images[:, 2], images[:, 3] = 1, torch.tensor(SPACE.white)[:, None], 0.5
    images.requires_grad_()
    encoded = SPACE.encode(images)
    assert torch.isfinite(encoded).all()
    # log10(240) for every colour.
    np.testing.assert_allclose(
        encoded[:3, 0, 0].detach().numpy() @ SPACE.matrix, np.log10(240), atol=1e-12
    )
    (gradient,) = torch.autograd.grad(encoded.square().sum(), images)
    assert torch.isfinite(gradient).all()
    assert not gradient[:, 0].any()
    assert gradient[:, 3].all()


def test_autocast_does_not_round_it():
    images = torch.rand(3, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        found = SPACE.encode(images)
    assert torch.equal(found, SPACE.encode(images))


def test_vectors_get_length_one_and_residual_a_right_angle():
    space = StainSpace(haematoxylin=[65, 70, 29])
    np.testing.assert_allclose(np.linalg.norm(space.matrix, axis=1), 1, atol=1e-15)
    np.testing.assert_allclose(space.matrix[:2] @ space.matrix[2], 0, atol=1e-15)
    assert space.haematoxylin == pytest.approx(SPACE.haematoxylin)


@pytest.mark.parametrize("space", [SPACE, OTHER], ids=["default", "other"])
def test_a_space_made_of_its_own_numbers_is_the_same_to_the_bit(space):
    again = StainSpace(**asdict(space))
    assert again == space == copy.deepcopy(space)
    images = torch.rand(3, 4, 4)
    assert torch.equal(again.encode(images), space.encode(images))
    assert StainSpace(white=[1, 1, 1]) == StainSpace(white=(1.0, 1.0, 1.0))


def test_it_says_what_it_is():
    assert str(SPACE).startswith("haematoxylin 0.6511 0.7012 0.2905, eosin 0.0701 0.9914 0.1102")
    assert str(SPACE).endswith("white 0.9412 0.9412 0.9412")


@pytest.mark.parametrize(
    "arguments",
    [
        {"eosin": (0.65, 0.70, 0.29)},
        {"eosin": (0.65, 0.70, 0.2901)},
        {"residual": (0.72, 1.69, 0.40)},
        {"haematoxylin": (0, 0, 0)},
        {"residual": (0, 0, 0)},
    ],
)
def test_stains_in_one_plane_are_refused(arguments):
    with pytest.raises(ValueError, match="three directions"):
        StainSpace(**arguments)


@pytest.mark.parametrize("white", [(240, 240, 240), (0.9, 0.9, 0), (1, 1, 1 / 255), (1, 1, -0.5)])
def test_a_white_out_of_range_is_refused(white):
    with pytest.raises(ValueError, match=r"white must lie in \(1/255, 1\], got .*divide 8-bit"):
        StainSpace(white=white)


@pytest.mark.parametrize("bad", [(1, 2), 0.9, (1, 1, float("nan")), ("a", "b", "c"), None, [[1]]])
@pytest.mark.parametrize("name", ["haematoxylin", "eosin", "white"])
def test_anything_but_three_numbers_is_refused(name, bad):
    with pytest.raises(ValueError, match=f"{name} must be three finite numbers"):
        StainSpace(**{name: bad})
