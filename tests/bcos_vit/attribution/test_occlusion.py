"""Occlusion on linear networks, where drops are known by hand."""

import numpy as np
import pytest
import torch

from bcos_vit.attribution import make_method
from bcos_vit.attribution.fillings import fill
from bcos_vit.errors import UnsupportedMethodError
from tests.bcos_vit.attribution.networks import Linear, classifier, images

TARGET = torch.tensor([1, 0])


def contributions(model, batch, filling):
    """``w (x - filling)`` of each pixel, for the class to explain."""
    apart = batch - fill(filling, batch)
    return (model.weight[TARGET] * apart).sum(1).detach().numpy()


def test_windows_of_one_pixel_on_a_linear_network_are_its_contributions():
    model, batch = Linear(), images()
    method = make_method("occlusion", window_px=1, filling="black", batch_size=7)
    got = method(classifier(model), batch, TARGET)
    expected = (model.weight[TARGET] * batch).sum(1)
    torch.testing.assert_close(got.maps, expected.float(), rtol=1e-6, atol=1e-6)
    assert got.forward_passes == 8 * 8 + 1
    np.testing.assert_allclose(got.logits, model(batch).detach())


@pytest.mark.parametrize(("window", "stride"), [(3, 1), (3, 2), (4, 3), (8, 8), (3, 3)])
@pytest.mark.parametrize("filling", ["blur", "mean"])
def test_every_pixel_is_the_mean_over_the_windows_that_cover_it(window, stride, filling):
    model, batch = Linear(), images()
    method = make_method("occlusion", window_px=window, stride_px=stride, filling=filling)
    got = method(classifier(model), batch, TARGET).maps.numpy()
    pixels = contributions(model, batch, filling)
    starts = sorted({*range(0, 8 - window + 1, stride), 8 - window})
    for row in range(8):
        for column in range(8):
            drops = [
                pixels[:, top : top + window, left : left + window].sum((1, 2))
                for top in starts
                for left in starts
                if top <= row < top + window and left <= column < left + window
            ]
            # float32 of the maps
            np.testing.assert_allclose(got[:, row, column], np.mean(drops, 0), rtol=1e-5, atol=1e-6)


def test_sides_that_are_left_out_follow_the_image():
    # A seventh of 32 is 4, half of it 2: (32 - 4) / 2 + 1 windows a side.
    got = make_method("occlusion")(classifier(Linear(32)), images(1, 32), TARGET[:1])
    assert got.forward_passes == 15**2 + 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window_px": 0}, "window_px must be at least 1, got 0"),
        ({"window_px": 4, "stride_px": 5}, "stride_px 5 leaves pixels between windows of 4 px"),
        ({"filling": "grey"}, "filling must be one of"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_method("occlusion", **settings)


def test_windows_that_do_not_fit_the_image_are_refused():
    with pytest.raises(ValueError, match="window_px 9 is larger than images of 8 x 8 px"):
        make_method("occlusion", window_px=9)(classifier(Linear()), images(), TARGET)
    with pytest.raises(ValueError, match="stride_px 3 leaves pixels between windows of 1 px"):
        make_method("occlusion", stride_px=3)(classifier(Linear()), images(), TARGET)


@pytest.mark.parametrize("name", ["occlusion", "rise", "lime", "kernel_shap"])
def test_networks_in_training_mode_and_bad_batches_are_refused(name):
    method = make_method(name)
    with pytest.raises(UnsupportedMethodError, match=f"{name}: .* is in training mode"):
        method(classifier(Linear()).train(), images(), TARGET)
    with pytest.raises(ValueError, match=r"target must be in \[0, 2\), got 2"):
        method(classifier(Linear()), images(), TARGET + 1)
    with pytest.raises(ValueError, match="without NaN"):
        method(classifier(Linear()), images() * torch.nan, TARGET)
