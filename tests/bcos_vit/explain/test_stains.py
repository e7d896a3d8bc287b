"""Contributions split into stains: exactly, on one image and many, and never of the wrong image."""

import pytest
import torch

from bcos_vit.explain import explain, split_stains
from bcos_vit.stain_space import STAINS, StainSpace
from bcos_vit.transforms import encode

SIDE_PX = {"make_vit": 4, "make_resnet": 12}


@pytest.fixture(params=SIDE_PX)
def builder(request):
    return request.param


@pytest.fixture
def model(request, builder):
    return request.getfixturevalue(builder)(encoding="stain")


@pytest.fixture
def side(builder):
    return SIDE_PX[builder]


@pytest.fixture
def encoded(side):
    """Three images in stain space, the left half glass."""
    images = 0.9 * torch.rand(3, 3, side, side, dtype=torch.float64)
    images[..., : side // 2] = 0.97
    return encode(images, "stain")


def test_stains_sum_to_the_contributions(model, encoded):
    explanation = explain(model, encoded, target=[0, 1, 2])
    split = split_stains(explanation, encoded)
    assert tuple(split) == STAINS
    total = sum(split.values())
    assert total.shape == explanation.contributions.shape
    # float64, contributions of order one.
    assert torch.allclose(total, explanation.contributions, rtol=0, atol=1e-12)
    assert all(part.abs().max() > 1e-6 for part in split.values())


def test_each_part_is_the_stain_times_all_weights_that_see_it(model, encoded):
    explanation = explain(model, encoded, target=0)
    split = split_stains(explanation, encoded)
    for place, name in enumerate(STAINS):
        # The image with this stain alone, through the weights of the whole.
        alone = torch.zeros_like(encoded[:, :3])
        alone[:, place] = encoded[:, place]
        h, e, r = alone.unbind(1)
        channels = torch.stack([h, e, r, e + r, h + r, h + e], 1)
        wanted = (explanation.weights * channels).sum(1)
        assert torch.allclose(split[name], wanted, rtol=0, atol=1e-12)


def test_glass_contributes_exactly_nothing(model, encoded):
    explanation = explain(model, encoded, target=1)
    glass = encoded.shape[-1] // 2
    maps = [explanation.contributions, *split_stains(explanation, encoded).values()]
    for each in maps:
        assert not each[..., :glass].any()
        assert each[..., glass:].all()


def test_in_the_complement_glass_contributes(make_resnet):
    images = torch.full((1, 3, 12, 12), 0.97, dtype=torch.float64)
    images[..., 6:] = 0.4
    assert explain(make_resnet(), encode(images), target=1).contributions[..., :6].all()


def test_an_image_of_glass_is_its_bias(model, side):
    blank = encode(torch.ones(3, side, side, dtype=torch.float64), "stain")
    explanation = explain(model, blank, target=1)
    assert explanation.logit == explanation.bias
    assert torch.isfinite(explanation.weights).all()


def test_training_on_glass_alone_gives_finite_gradients(model, side):
    blank = encode(torch.ones(2, 3, side, side, dtype=torch.float64), "stain")
    model.train()(blank).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_a_single_image_has_no_batch(model, encoded):
    whole = split_stains(explain(model, encoded, target=2), encoded)
    single = split_stains(explain(model, encoded[1], target=2), encoded[1])
    for name in STAINS:
        # Another order of summation in the network.
        assert torch.allclose(single[name], whole[name][1], rtol=0, atol=1e-12)


def test_float32_splits_too(make_resnet):
    model = make_resnet(encoding="stain").float()
    encoded = encode(torch.rand(2, 3, 12, 12), "stain", StainSpace(white=(1, 1, 1)))
    explanation = explain(model, encoded, target=0)
    total = sum(split_stains(explanation, encoded).values())
    # A dozen roundings of float32 in sums of order one.
    assert torch.allclose(total, explanation.contributions, rtol=0, atol=1e-6)


def test_other_images_are_refused(model, encoded):
    explanation = explain(model, encoded, target=0)
    with pytest.raises(ValueError, match="not the images explained"):
        split_stains(explanation, encoded.flip(-1))


def test_images_of_another_encoding_are_refused(make_resnet):
    images = encode(torch.rand(2, 3, 12, 12, dtype=torch.float64))
    with pytest.raises(ValueError, match="not in stain space"):
        split_stains(explain(make_resnet(), images, target=0), images)


def test_other_shapes_are_refused(model, encoded, make_resnet):
    explanation = explain(model, encoded, target=0)
    for wrong in (encoded[0], encoded[:2], encoded[:, :3], encoded[..., :-1]):
        with pytest.raises(ValueError, match="six channels in stain space; got shape"):
            split_stains(explanation, wrong)
    images = torch.rand(1, 3, 12, 12, dtype=torch.float64)
    with pytest.raises(ValueError, match="six channels"):
        split_stains(explain(make_resnet(in_chans=3), images, target=0), images)


def test_a_depth_has_no_stains(make_resnet):
    images = encode(torch.rand(2, 3, 12, 12, dtype=torch.float64), "stain")
    explanation = explain(make_resnet(encoding="stain"), images, 1, depth="layer1")
    with pytest.raises(ValueError, match="in pixels, not at depth 'layer1'"):
        split_stains(explanation, images)
