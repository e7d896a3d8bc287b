"""Controls: what each map is, by hand."""

import numpy as np
import pytest
import torch
from scipy.ndimage import sobel

from bcos_vit.attribution import make_method
from bcos_vit.errors import UnsupportedMethodError
from bcos_vit.stain_space import StainSpace
from tests.bcos_vit.attribution.networks import Linear, classifier, images

TARGET = torch.tensor([1, 0])


def run(name, batch, **settings):
    return make_method(name, **settings)(classifier(Linear()), batch, TARGET[: len(batch)])


@pytest.mark.parametrize("name", ["random", "constant", "edge", "centre", "stain"])
def test_maps_are_of_images_alone_never_negative_and_say_so(name):
    batch = images()
    method, got = make_method(name), run(name, batch)
    assert not method.is_signed
    assert (got.maps >= 0).all()
    assert (got.unit, got.forward_passes, got.backward_passes) == ("none", 1, 0)
    torch.testing.assert_close(got.logits, Linear()(batch).detach())
    other = method(classifier(Linear(seed=5)), batch, 1 - TARGET)
    assert torch.equal(got.maps, other.maps)
    for i in range(2):
        assert torch.equal(run(name, batch[i : i + 1]).maps, got.maps[i : i + 1])


def test_random_is_uniform_differs_between_images_and_seeds_and_leaves_chance_alone():
    torch.manual_seed(0)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    batch = images(2, 32)
    got, other = (
        make_method("random", seed=seed)(classifier(Linear(32)), batch, TARGET).maps.numpy()
        for seed in (0, 1)
    )
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    flat = np.stack([*got, *other]).reshape(4, -1)
    # 1024 numbers: correlations have a standard error of 0.03, means of 0.009
    assert np.abs(np.corrcoef(flat) - np.eye(4)).max() < 0.13
    np.testing.assert_allclose(flat.mean(1), 0.5, atol=0.04)
    np.testing.assert_allclose(flat.var(1), 1 / 12, rtol=0.15)


def test_edge_is_the_sobel_gradient_of_luminance():
    batch = images()
    grey = np.tensordot([0.299, 0.587, 0.114], batch.numpy(), (0, 1))
    expected = [
        np.hypot(sobel(g, 0, mode="nearest"), sobel(g, 1, mode="nearest")) / 8 for g in grey
    ]
    np.testing.assert_allclose(run("edge", batch).maps, expected, rtol=1e-5, atol=1e-7)
    # A ramp of 0.1 per pixel is that steep.
    ramp = (torch.arange(8, dtype=torch.float64) / 10).expand(1, 3, 8, 8)
    np.testing.assert_allclose(run("edge", ramp).maps[0, :, 1:-1], 0.1, rtol=1e-5)


def test_centre_is_a_gaussian_around_the_middle():
    got = run("centre", images(), width=0.5).maps
    # Rows 3 and 4 are half a pixel from the middle of 8.
    expected = np.exp(-0.5 * ((7 - 3.5) ** 2 + (2 - 3.5) ** 2) / 4**2)
    np.testing.assert_allclose(got[0, 7, 2], expected, rtol=1e-6)
    assert torch.equal(got, got.flip(1).transpose(1, 2))


def test_stain_is_the_density_of_haematoxylin():
    space = StainSpace()
    image = torch.tensor(space.white, dtype=torch.float64)[None, :, None, None].repeat(1, 1, 8, 8)
    direction = torch.tensor([space.haematoxylin, space.eosin], dtype=torch.float64)
    image[0, :, 0, 0] *= 10 ** -(0.6 * direction[0])
    image[0, :, 0, 1] *= 10 ** -(0.3 * direction[0] + 0.5 * direction[1])
    image[0, :, 0, 2] *= 10 ** -(0.5 * direction[1])
    got = run("stain", image).maps[0]
    np.testing.assert_allclose(got[0, :3], [0.6, 0.3, 0], atol=1e-6)
    assert (got[1:] == 0).all()  # glass


def test_the_oracle_is_its_masks_and_wants_one_per_image():
    batch = images()
    masks = images(2, seed=9)[:, 0] > 0.7
    assert torch.equal(run("oracle", batch, masks=masks).maps, masks.float())
    with pytest.raises(ValueError, match=r"oracle has no masks; make one per batch"):
        run("oracle", batch)
    with pytest.raises(ValueError, match=r"must be \(2, 8, 8\), one per image, got \(1, 8, 8\)"):
        run("oracle", batch, masks=masks[:1])


def test_bad_settings_batches_and_networks_are_refused():
    with pytest.raises(ValueError, match="width must be positive"):
        make_method("centre", width=0)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        run("edge", images() + 1)
    with pytest.raises(UnsupportedMethodError, match=r"random: .* training mode"):
        make_method("random")(classifier(Linear()).train(), images(), TARGET)
