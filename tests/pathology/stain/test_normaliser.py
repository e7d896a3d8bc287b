"""Normalised tiles against the formulas in float64, and against torchstain on the same pixels."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import nnls
from skimage.color import lab2rgb, rgb2lab
from torchstain.torch.normalizers.macenko import TorchMacenkoNormalizer
from torchstain.torch.normalizers.reinhard import TorchReinhardNormalizer

from pathology.errors import StampMismatchError
from pathology.stain import StainNormaliser, StainSettings, fit_image, reference_profile
from pathology.stain.density import density, is_stained
from pathology.stain.lab import lab_to_rgb, rgb_to_lab
from pathology.stain.vectors import angle

DATA = Path(os.environ.get("BCOS_PATHOLOGY_DATA", Path(__file__).parents[4] / "shared" / "data"))
METHODS = ["macenko", "vahadane", "reinhard"]


def to_batch(*images):
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def from_batch(tiles):
    return tiles.permute(0, 2, 3, 1).numpy()


@pytest.fixture
def pair(make_tissue):
    """Two made-up stainings, as images of 40 x 50 px with glass among them."""
    source, _ = make_tissue(2000, strength=0.05, noise=2.0)
    target, _ = make_tissue(2000, stains=((0.5, 0.75, 0.43), (0.1, 0.9, 0.42)), noise=2.0)
    source[0, ::7] = (244, 240, 238)
    return source.reshape(40, 50, 3), target.reshape(40, 50, 3)


@pytest.fixture
def real_pair():
    """The two real crops, the stained pixels of each as ``(1, n, 3)``."""
    folder = DATA / "stain_norm_pair"
    if not folder.exists():
        pytest.skip("stain_norm_pair is not under BCOS_PATHOLOGY_DATA")
    stained = []
    for name in ("source", "target"):
        pixels = np.array(Image.open(folder / f"{name}.png").convert("RGB")).reshape(-1, 3)
        # Brighter than glass counts as glass here, and 0 as 1; in torchstain both do not.
        pixels = pixels.clip(1, 240)
        stained.append(pixels[is_stained(density(pixels, (240.0,) * 3))][None])
    return stained


def fitted(pair, method, **settings):
    return [fit_image(pixels, StainSettings(method, **settings)) for pixels in pair]


# --- against the formulas


def reference(pixels, source, target):
    """Normalisation of ``(h, w, 3)`` pixels in float64, pixel by pixel, before rounding."""
    flat = pixels.reshape(-1, 3)
    if source.method == "reinhard":
        lab = rgb2lab(flat / 255.0)
        lab = (lab - source.means) / source.deviations * target.deviations + target.means
        # scikit-image clips what no screen shows, as rounding to eight bits does.
        return 255 * lab2rgb(lab).reshape(pixels.shape)
    densities = density(flat, source.white)
    if source.method == "vahadane":
        held = np.array([nnls(np.array(source.stains).T, d)[0] for d in densities])
    else:
        held = densities @ np.linalg.pinv(np.array(source.stains))
    held = held * np.array(target.amounts) / np.array(source.amounts)
    return (target.white * 10 ** -(held @ np.array(target.stains))).reshape(pixels.shape)


@pytest.mark.filterwarnings("ignore:Color data out of gamut")
@pytest.mark.parametrize("method", METHODS)
def test_tiles_are_those_of_the_formulas(pair, method):
    source, target = fitted(pair, method)
    result = from_batch(StainNormaliser(target)(to_batch(pair[0]), source))[0]
    exact = reference(pair[0], source, target)
    # Rounded to whole levels, by float32.
    assert np.abs(result - exact.clip(0, 255)).max() < 0.51


def test_lab_is_that_of_scikit_image(rng):
    """In float64 up to the steps that the standard's curves make where they become straight."""
    images = torch.from_numpy(rng.random((2, 3, 9, 11)))
    images[0, :, 0] = torch.linspace(0, 0.05, 11)
    ours = rgb_to_lab(images)
    theirs = rgb2lab(from_batch(images))
    # 1e-4 of L* is a hundredth of what eight bits tell apart where they tell most.
    np.testing.assert_allclose(from_batch(ours), theirs, atol=1e-4)
    np.testing.assert_allclose(lab_to_rgb(ours).numpy(), images.numpy(), atol=1e-6)
    np.testing.assert_allclose(from_batch(lab_to_rgb(ours)), lab2rgb(theirs), atol=1e-5)


# --- against torchstain


def torch_macenko(source, target):
    """torchstain fits and normalises by ``I + 1``: given one less, it sees the same densities."""
    normaliser = TorchMacenkoNormalizer()
    arguments = {"Io": 240, "alpha": 1, "beta": -10.0}  # no pixel is left out
    normaliser.fit(to_batch(target)[0].float() - 1, **arguments)
    result, _, _ = normaliser.normalize(to_batch(source)[0].float() - 1, stains=False, **arguments)
    return normaliser, result.numpy()


def test_macenko_agrees_with_torchstain_on_real_pixels(real_pair):
    source, target = fitted(real_pair, "macenko")
    theirs, image = torch_macenko(*real_pair)
    vectors = theirs.HERef.T.numpy()
    for ours, row in zip(target.stains, vectors, strict=True):
        # Their percentile is a pixel, ours between two; float32.
        assert angle(np.stack([ours, row])) < 0.05
    largest = theirs.maxCRef.numpy() / np.log(10)
    np.testing.assert_allclose(target.amounts, largest, rtol=2e-3)
    result = from_batch(StainNormaliser(target)(to_batch(real_pair[0]), source))[0]
    # They cut off what we round.
    difference = result.astype(int) - image
    assert np.abs(difference).max() <= 2
    assert 0.3 < difference.mean() < 0.7


def test_reinhard_agrees_with_torchstain_on_real_pixels(real_pair):
    source, target = fitted(real_pair, "reinhard")
    normaliser = TorchReinhardNormalizer()
    normaliser.fit(to_batch(real_pair[1])[0])
    expected = normaliser.normalize(to_batch(real_pair[0])[0]).numpy()
    # float32 and rounded constants
    np.testing.assert_allclose(target.means, normaliser.target_means, rtol=1e-4)
    np.testing.assert_allclose(target.deviations, normaliser.target_stds, rtol=1e-4)
    result = from_batch(StainNormaliser(target)(to_batch(real_pair[0]), source))[0]
    difference = result.astype(int) - expected
    assert np.abs(difference).max() <= 2
    assert 0.2 < difference.mean() < 0.7  # they cut off what we round


# --- what it is for


@pytest.mark.parametrize("method", METHODS)
def test_a_slide_takes_the_colours_of_the_target(make_tissue, method):
    """The same tissue in two stainings becomes one, where stains are all there is."""
    rng_state = [make_tissue(40_000), make_tissue(40_000, strength=0.05)]
    (target_pixels, _), (pixels, _) = rng_state
    target, source = fitted((target_pixels, pixels), method)
    result = from_batch(StainNormaliser(target)(to_batch(pixels), source))
    again = fit_image(result[0], target.settings)
    if method == "reinhard":
        # Cut off at 0 and 255, and other pixels count as stained.
        np.testing.assert_allclose(again.means, target.means, atol=2)
        np.testing.assert_allclose(again.deviations, target.deviations, rtol=0.1)
    else:
        np.testing.assert_allclose(again.matrix, target.matrix, atol=0.02)


@pytest.mark.parametrize("method", ["macenko", "vahadane"])
@pytest.mark.parametrize("glass", [240, 245, 255])
def test_blank_tiles_become_the_targets_glass(pair, method, glass):
    source, target = fitted(pair, method)
    blank = torch.full((1, 3, 8, 8), glass, dtype=torch.uint8)
    assert (StainNormaliser(target)(blank, source) == 240).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("level", [0, 128, 255])
def test_no_tile_is_too_plain(pair, method, level):
    source, target = fitted(pair, method)
    plain = torch.full((1, 3, 8, 8), level, dtype=torch.uint8)
    result = StainNormaliser(target)(plain, source)
    assert result.dtype == torch.uint8
    assert (result == result[..., :1, :1]).all()


@pytest.mark.parametrize("method", METHODS)
def test_each_tile_goes_by_its_own_profile(pair, method):
    source, target = fitted(pair, method)
    normalise = StainNormaliser(target)
    both = normalise(to_batch(*pair), [source, target])
    torch.testing.assert_close(both[:1], normalise(to_batch(pair[0]), source), rtol=0, atol=0)
    torch.testing.assert_close(both[1:], normalise(to_batch(pair[1]), target), rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_the_target_itself_hardly_changes(pair, method):
    _, target = fitted(pair, method)
    tiles = to_batch(pair[1])
    change = StainNormaliser(target)(tiles, target).int() - tiles.int()
    # Reinhard's is the identity; the others drop what neither stain explains, here noise.
    assert change.abs().float().mean() < (0.01 if method == "reinhard" else 2.5)


def test_tiles_are_left_alone_and_an_empty_batch_is_one(pair):
    source, target = fitted(pair, "macenko")
    tiles = to_batch(pair[0])
    before = tiles.clone()
    normalise = StainNormaliser(target)
    assert not torch.equal(normalise(tiles, source), tiles)
    assert torch.equal(tiles, before)
    assert normalise(tiles[:0], []).shape == (0, 3, 40, 50)


def test_another_method_is_refused(pair):
    source, _ = fitted(pair, "vahadane")
    tiles = to_batch(pair[0])
    with pytest.raises(StampMismatchError, match=r"made by vahadane, .* by macenko"):
        StainNormaliser(reference_profile("macenko"))(tiles, source)


def test_what_are_no_tiles_is_refused(pair):
    source, target = fitted(pair, "macenko")
    normalise, tiles = StainNormaliser(target), to_batch(pair[0])
    with pytest.raises(TypeError, match="uint8"):
        normalise(tiles.float(), source)
    with pytest.raises(ValueError, match=r"\(n, 3, height, width\)"):
        normalise(tiles[0], source)
    with pytest.raises(ValueError, match="1 tiles need as many profiles, got 2"):
        normalise(tiles, [source, source])


@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS)
def test_the_same_on_a_gpu(pair, method):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    source, target = fitted(pair, method)
    normalise, tiles = StainNormaliser(target), to_batch(*pair)
    there = normalise(tiles.cuda(), [source, target])
    assert there.device.type == "cuda"
    # Logarithms differ in the last bit, and a half may be rounded either way.
    difference = there.cpu().int() - normalise(tiles, [source, target]).int()
    assert difference.abs().max() <= 1
    assert (difference != 0).float().mean() < 1e-3
