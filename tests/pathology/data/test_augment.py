"""Augmentation of batches: what each step does, by itself, and that seeds decide."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torchvision import transforms

from bcos_vit.stain_space import StainSpace
from pathology.data import augment_steps as steps
from pathology.data.augment import AUGMENTATIONS, Augmentation, batch_augmentation

NAMES = list(AUGMENTATIONS)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def tiles():
    """Smooth ones, as tissue is; noise would not survive a blur."""
    noise = torch.rand(16, 3, 32, 32)
    smooth = torch.nn.functional.avg_pool2d(noise, 5, 1, 2)
    return (smooth * 255).to(torch.uint8)


@pytest.fixture
def images():
    return torch.rand(4, 3, 20, 24, dtype=torch.float64)


# --- the module


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_decides_and_tiles_are_left_alone(tiles, name):
    augment, before = batch_augmentation(name), tiles.clone()
    one, again, other = (augment(tiles, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert torch.equal(one, other) == (name == "none")
    assert torch.equal(tiles, before)
    assert one.dtype == torch.uint8
    assert one.shape == tiles.shape


def test_without_a_generator_the_global_seed_decides(tiles):
    augment = batch_augmentation("full")
    results = []
    for _ in range(2):
        torch.manual_seed(5)
        results.append(augment(tiles))
    assert torch.equal(*results)
    assert not torch.equal(results[0], augment(tiles))


@pytest.mark.parametrize("name", NAMES[1:])
def test_tiles_of_a_batch_differ(tiles, name):
    same = tiles[:1].expand(16, -1, -1, -1)
    result = batch_augmentation(name)(same, seeded())
    assert len({tile.numpy().tobytes() for tile in result}) > 5


def test_turns_are_the_eight_and_only_move_pixels():
    tile = torch.arange(3 * 5 * 5, dtype=torch.uint8).reshape(1, 3, 5, 5)
    quarter_turns = [torch.rot90(tile[0], k, (1, 2)) for k in range(4)]
    eight = [t for turn in quarter_turns for t in (turn, turn.flip(-1))]
    result = batch_augmentation("turns")(tile.expand(400, -1, -1, -1), seeded())
    which = torch.stack([(result == t).flatten(1).all(1) for t in eight])
    assert (which.sum(0) == 1).all()
    # Each an eighth: 50 of 400, four deviations of a binomial.
    assert (which.sum(1) - 50).abs().max() < 27


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["turns", "full"])
def test_floating_point_tiles_keep_their_type(tiles, dtype, name):
    images = (tiles / 255).to(dtype)
    result = batch_augmentation(name)(images, seeded())
    assert result.dtype == dtype
    assert 0 <= result.min() <= result.max() <= 1
    expected = batch_augmentation(name)(tiles, seeded()) / 255
    # uint8 is rounded by half a level, float16 by as much; JPEG may round a coefficient elsewhere.
    assert (result.float() - expected).abs().mean() < 0.5 / 255


def test_strengths_of_nothing_change_nothing(tiles):
    augment = batch_augmentation(Augmentation(stain=1e-9, brightness=1e-9))
    assert torch.equal(augment(tiles, seeded()), tiles)


def test_one_strength_leaves_the_draws_of_the_others_alone(tiles):
    alone = batch_augmentation(Augmentation(turns=True, hue=0.1))
    more = batch_augmentation(Augmentation(turns=True, hue=0.1, blur=1e-12))
    assert torch.equal(alone(tiles, seeded()), more(tiles, seeded()))


def test_it_needs_no_gradient_and_survives_autocast(tiles):
    augment = batch_augmentation("full")
    with torch.autocast("cpu", torch.bfloat16):
        under = augment(tiles, seeded())
    assert torch.equal(under, augment(tiles, seeded()))
    images = (tiles / 255).requires_grad_()
    assert not augment(images, seeded()).requires_grad


def test_an_empty_batch_is_one(tiles):
    assert batch_augmentation("full")(tiles[:0]).shape == (0, 3, 32, 32)


def test_what_are_no_tiles_is_refused(tiles):
    augment = batch_augmentation("turns")
    with pytest.raises(TypeError, match=r"uint8 or floating point, got torch\.int32"):
        augment(tiles.int())
    with pytest.raises(ValueError, match=r"RGB \(n, 3, height, width\)"):
        augment(torch.cat([tiles, tiles], 1))
    with pytest.raises(ValueError, match="must be square"):
        augment(tiles[..., :20])
    # Colours do not mind.
    assert batch_augmentation(Augmentation(hue=0.1))(tiles[..., :20]).shape == (16, 3, 32, 20)


@pytest.mark.parametrize(
    "wrong",
    [
        {"hue": 0.6}, {"stain": -0.1}, {"brightness": 1.0}, {"blur": 2}, {"blur_px": 0},
        {"jpeg_quality": 0}, {"rotation": 200}, {"jpeg": float("nan")},
    ],
)  # fmt: skip
def test_strengths_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=rf"{next(iter(wrong))} must be in \["):
        Augmentation(**wrong)


def test_another_word_is_refused():
    with pytest.raises(ValueError, match=r'"turns\+colour", .* got .flips'):
        batch_augmentation("flips")


def test_strengths_may_be_a_mapping():
    strengths = {"turns": True, "stain": 0.3}
    assert batch_augmentation(strengths).strengths == Augmentation(turns=True, stain=0.3)
    with pytest.raises(ValueError, match="no strength 'sharpness'"):
        batch_augmentation({"sharpness": 1})


# --- the steps


def test_stains_are_scaled_and_shifted(images):
    images = images * 0.8 + 0.1
    scale = torch.tensor([[1.2, 0.8, 1.1]] * 4, dtype=torch.float64)
    shift = torch.tensor([[0.02, -0.01, 0.005]] * 4, dtype=torch.float64)
    space = StainSpace(white=(1.0, 1.0, 1.0))
    expected = space.amounts(images) * scale[..., None, None] + shift[..., None, None]
    # Amounts of what came out, of light that may be above 1: by hand, not cut off.
    density = -torch.log10(steps.restained(images, scale, shift))
    unmixing = torch.from_numpy(np.linalg.inv(space.matrix))
    found = torch.einsum("nchw,cs->nshw", density, unmixing)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_colours_are_those_of_the_steps_one_by_one(images):
    brightness, contrast, saturation, hue = torch.rand(4, 4, dtype=torch.float64) + 0.5
    grey_of = torch.tensor(steps.LUMA, dtype=torch.float64)

    def of_each(values):
        return values[:, None, None, None]

    def luma(pictures):
        return torch.einsum("nchw,c->nhw", pictures, grey_of)[:, None]

    expected = torch.empty_like(images)
    angle = 2 * torch.pi * hue
    third = torch.full((3, 3), 1 / 3, dtype=torch.float64)
    eye = torch.eye(3, dtype=torch.float64)
    around = torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]).double() / 3**0.5
    for i, a in enumerate(angle):
        turn = third + torch.cos(a) * (eye - third) + torch.sin(a) * around
        expected[i] = torch.einsum("dc,chw->dhw", turn, images[i])
    grey = luma(expected)
    expected = grey + of_each(saturation) * (expected - grey)
    expected = of_each(brightness) * expected
    mean = luma(expected).mean((2, 3), keepdim=True)
    expected = mean + of_each(contrast) * (expected - mean)
    result = steps.recoloured(images, brightness, contrast, saturation, hue)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)


def test_greys_keep_their_colour_under_saturation_and_hue():
    grey = torch.rand(4, 1, 8, 8, dtype=torch.float64).expand(4, 3, 8, 8)
    one = torch.ones(4, dtype=torch.float64)
    result = steps.recoloured(grey, one, one, one * 0.3, one * 0.2)
    torch.testing.assert_close(result, grey, rtol=0, atol=1e-12)


def test_blur_is_gaussian_of_each_tiles_width(images):
    sigma = torch.tensor([0.5, 1.0, 1.5, 2.0], dtype=torch.float64)
    result = steps.blurred(images, sigma)
    for image, wide, soft in zip(images, sigma, result, strict=True):
        expected = ndimage.gaussian_filter(
            image.numpy(), (0, float(wide), float(wide)), mode="mirror", radius=(0, 6, 6)
        )
        np.testing.assert_allclose(soft, expected, atol=1e-6)


def test_rotation_by_quarter_turns_is_exact_and_of_none_is_none(images):
    square = images[..., :20]
    degrees = torch.tensor([0.0, 90.0, 180.0, -90.0], dtype=torch.float64)
    result = steps.rotated(square, degrees)
    for i, turns in enumerate((0, 1, 2, 3)):
        expected = torch.rot90(square[i], turns, (1, 2))
        torch.testing.assert_close(result[i], expected, rtol=0, atol=1e-6)


def test_corners_of_a_rotated_tile_are_filled():
    white = torch.ones(1, 3, 32, 32)
    result = steps.rotated(white, torch.tensor([37.0]))
    torch.testing.assert_close(result, white, rtol=0, atol=1e-5)


def test_compression_is_about_that_of_jpeg(rng):
    """kornia's rounding is soft: near to what a codec gives, and worse for lower quality."""
    smooth = ndimage.gaussian_filter(rng.random((64, 64, 3)), (2, 2, 0)) - 0.5
    pixels = np.clip(128 + 600 * smooth, 0, 255).astype(np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    losses = []
    for quality in (90, 50, 20):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
        coded = np.asarray(Image.open(buffer)).astype(float)
        result = steps.compressed(image, torch.tensor([float(quality)]))
        result = 255 * result[0].permute(1, 2, 0).numpy()
        loss = np.abs(coded - pixels).mean()
        assert np.abs(result - coded).mean() < 0.6 * loss
        losses.append(np.abs(result - pixels).mean())
    assert losses == sorted(losses)


def test_a_step_for_some_leaves_the_others_alone(images):
    which = torch.tensor([True, False, False, True])
    numbers = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    result = steps.for_some(images, which, numbers, lambda x, n: x + n[:, None, None, None])
    assert torch.equal(result[1:3], images[1:3])
    torch.testing.assert_close(result[0], images[0] + 1)
    torch.testing.assert_close(result[3], images[3] + 4)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_the_same_on_a_gpu(tiles, name):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    there = batch_augmentation(name)(tiles.cuda(), seeded())
    assert there.device.type == "cuda"
    difference = there.cpu().int() - batch_augmentation(name)(tiles, seeded()).int()
    # Interpolation and rounding of coefficients may fall to either side.
    assert difference.abs().float().mean() < 0.1
    if name in ("none", "turns"):
        assert not difference.any()


@pytest.mark.parametrize("policy", ["trivialaugment", "randaugment"])
def test_policies_are_those_of_torchvision_each_tile_by_its_own_draw(tiles, policy):
    draws = torch.rand(16, dtype=torch.float64, generator=seeded())
    before = torch.get_rng_state()
    found = steps.by_policy(tiles / 255, draws, policy)
    assert torch.equal(torch.get_rng_state(), before)
    smooth = transforms.InterpolationMode.BILINEAR
    kinds = {
        "trivialaugment": transforms.TrivialAugmentWide(interpolation=smooth),
        "randaugment": transforms.RandAugment(2, 10, interpolation=smooth),
    }
    for i in (0, 7, 15):
        torch.manual_seed(int(draws[i].item() * 2**53))
        assert torch.equal(found[i], kinds[policy](tiles[i]) / 255)
    assert sum(not torch.equal(a, b) for a, b in zip(found, tiles / 255, strict=True)) > 8


def test_what_is_erased_is_one_black_rectangle_of_a_third_at_most():
    white = torch.ones(32, 3, 24, 24)
    dark = steps.erased(white, torch.rand(32, dtype=torch.float64, generator=seeded())) == 0
    assert (dark == dark[:, :1]).all()
    for tile in dark[:, 0]:
        rows, columns = tile.any(1), tile.any(0)
        assert torch.equal(tile, rows[:, None] & columns)
        # Sides are rounded to pixels.
        assert 0.01 < tile.float().mean() < 0.36


def test_a_tenth_of_tiles_is_erased():
    white = torch.full((400, 3, 16, 16), 255, dtype=torch.uint8)
    dark = (batch_augmentation(Augmentation(erase=0.1))(white, seeded()) == 0).flatten(1).any(1)
    # Four deviations of a binomial about 40.
    assert 16 < dark.sum() < 64


def test_a_policy_that_is_none_is_refused():
    with pytest.raises(ValueError, match="policy must be one of none, trivialaugment, randaugment"):
        Augmentation(policy="autoaugment")
