"""Images become channels, and wrong ranges are refused, not scaled."""

import numpy as np
import pytest
import torch
from PIL import Image

from bcos_vit.stain_space import StainSpace
from bcos_vit.transforms import add_complement, encode, remove_complement, to_bcos, to_unit_range


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_bytes_are_divided_by_255():
    found = to_unit_range(torch.tensor([0, 51, 255], dtype=torch.uint8))
    assert found.dtype == torch.float32
    # float32 division.
    assert found.tolist() == pytest.approx([0, 0.2, 1], abs=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_floating_point_images_in_range_come_back_as_they_are(dtype):
    images = torch.rand(2, 3, 4, 4).to(dtype)
    assert to_unit_range(images) is images


@pytest.mark.parametrize("bounds", [(0.0, 1.0)])
def test_the_bounds_belong_to_the_range(bounds):
    to_unit_range(torch.tensor(bounds))


@pytest.mark.parametrize("bad", [-0.01, 1.01, 255.0, float("nan"), float("inf")])
def test_values_out_of_range_are_refused(bad):
    images = torch.full((3, 2, 2), 0.5)
    images[1, 0, 1] = bad
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got \["):
        to_unit_range(images)


@pytest.mark.parametrize("dtype", [torch.int16, torch.int64, torch.bool])
def test_other_types_are_refused(dtype):
    with pytest.raises(TypeError, match=f"got {dtype}"):
        to_unit_range(torch.zeros(3, 2, 2, dtype=dtype))


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 3, 4, 5)])
def test_the_complement_follows_the_colours(shape):
    images = torch.rand(shape)
    six = add_complement(images)
    assert six.shape[-3:] == (6, 4, 5)
    for c in range(3):
        assert torch.equal(six[..., c, :, :], images[..., c, :, :])
        assert torch.equal(six[..., 3 + c, :, :], 1 - images[..., c, :, :])


def test_removing_the_complement_undoes_adding_it():
    images = torch.rand(2, 3, 4, 5)
    assert torch.equal(remove_complement(add_complement(images)), images)


@pytest.mark.parametrize("name", ["complement", "rgb", "stain"])
def test_bytes_and_floats_a_batch_and_an_image_are_encoded_alike(name):
    pixels = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    batch = encode(pixels, name)
    assert batch.dtype == torch.float32
    assert torch.equal(encode(pixels.float() / 255, name), batch)
    assert torch.equal(encode(pixels[1], name), batch[1])


def test_each_encoding_is_what_its_name_says():
    images = torch.rand(2, 3, 4, 5)
    space = StainSpace(white=(0.9, 0.8, 0.9))
    assert torch.equal(encode(images), add_complement(images))
    assert torch.equal(encode(images, "rgb"), images)
    assert torch.equal(encode(images, "stain"), StainSpace().encode(images))
    assert torch.equal(encode(images, "stain", space), space.encode(images))


@pytest.mark.parametrize("shape", [(4, 5), (6, 4, 5), (2, 1, 4, 5)])
def test_what_is_not_rgb_is_refused(shape):
    with pytest.raises(ValueError, match=r"must be \(..., 3, height, width\), got \("):
        encode(torch.rand(shape))


def test_a_stain_space_for_another_encoding_is_refused():
    with pytest.raises(ValueError, match="goes with encoding \"stain\", got one with 'rgb'"):
        encode(torch.rand(3, 4, 5), "rgb", StainSpace())


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize("name", ["complement", "rgb", "stain"])
def test_no_encoding_takes_values_out_of_range(name, bad):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        encode(torch.full((3, 2, 2), bad), name)


def test_a_picture_in_stain_space(pixels):
    space = StainSpace(white=(1, 1, 1))
    found = to_bcos(Image.fromarray(pixels), encoding="stain", stain_space=space)
    wanted = space.encode(torch.from_numpy(pixels).permute(2, 0, 1) / 255)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("wrap", [np.asarray, Image.fromarray])
def test_a_picture_keeps_rows_columns_and_colours(pixels, wrap):
    found = to_bcos(wrap(pixels))
    assert found.shape == (6, 5, 7)
    assert found.dtype == torch.float32
    # float32 division.
    np.testing.assert_allclose(found[:3].permute(1, 2, 0), pixels / 255, rtol=0, atol=1e-7)
    np.testing.assert_allclose(found[3:].permute(1, 2, 0), 1 - pixels / 255, rtol=0, atol=1e-7)


def test_grey_pictures_get_three_equal_colours(pixels):
    found = to_bcos(Image.fromarray(pixels[..., 0]))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_a_size_makes_a_square_in_range(pixels):
    found = to_bcos(np.where(pixels > 128, 255, 0).astype(np.uint8), size=16)
    assert found.shape == (6, 16, 16)
    assert found.min() >= 0
    assert found.max() <= 1


def test_shrinking_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    # The mean of black and white: 0.5, to one step of 255.
    assert (to_bcos(stripes, size=8)[:3, 2:-2, 2:-2] - 0.5).abs().max() < 0.01


def test_the_picture_is_left_alone(pixels):
    before = pixels.copy()
    to_bcos(pixels).zero_()
    np.testing.assert_array_equal(pixels, before)
