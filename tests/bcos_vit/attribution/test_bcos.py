"""Exact maps behind the common interface, and their differences between classes."""

import pytest
import torch

from bcos_vit.attribution import Classifier, make_method
from bcos_vit.errors import UnsupportedMethodError
from bcos_vit.explain import explain
from bcos_vit.models import create_model
from tests.bcos_vit.attribution.families import Encoding, spotted, tiny

TARGET = torch.tensor([2, 0])


def test_it_is_the_explanation():
    classifier = tiny("bcos_vit", pos_embed="learned", class_token=True)
    images = spotted()
    attribution = make_method("bcos")(classifier, images, TARGET)
    explanation = explain(classifier.model, classifier.encode(images), TARGET)
    assert torch.equal(attribution.maps, explanation.contributions.float())
    assert attribution.constants.keys() == {"bias", "position", "tokens"}
    assert torch.equal(attribution.constants["position"], explanation.constants["position"])
    assert (attribution.constants["tokens"] != 0).all()
    assert attribution.reference is None
    # float32 maps of about a thousand pixels that each are less than the logit
    assert (attribution.completeness_gap < 1e-6 * attribution.logit.abs()).all()


@pytest.mark.parametrize("family", ["bcos_vit", "bcos_swin", "bcos_densenet"])
def test_contrast_is_the_map_minus_the_mean_of_the_others(family):
    classifier, images = tiny(family, classes=4), spotted()
    contrast = make_method("bcos_contrastive")(classifier, images, TARGET)
    each = [
        make_method("bcos")(classifier, images, torch.full((2,), c, dtype=torch.int64))
        for c in range(4)
    ]
    for i, label in enumerate(TARGET.tolist()):
        others = [c for c in range(4) if c != label]
        expected = each[label].maps[i] - sum(each[c].maps[i] for c in others) / 3
        torch.testing.assert_close(contrast.maps[i], expected, atol=1e-6, rtol=1e-4)
        reference = contrast.logits[i, others].mean()
        torch.testing.assert_close(contrast.reference[i], reference)
    # Constants of all classes are the same here, and nothing is left of them.
    assert contrast.constants["bias"].abs().max() < 1e-12
    assert (contrast.completeness_gap < 1e-6).all()


def test_of_two_classes_the_contrasts_are_opposite():
    classifier, images = tiny("bcos_convnext", classes=2), spotted()
    method = make_method("bcos_contrastive")
    one = method(classifier, images, torch.tensor([0, 0]))
    other = method(classifier, images, torch.tensor([1, 1]))
    assert torch.equal(one.maps, -other.maps)
    assert one.maps.abs().max() > 0


def test_conventional_networks_are_refused_with_the_layer():
    for name in ("bcos", "bcos_contrastive"):
        with pytest.raises(UnsupportedMethodError, match=f"{name} is for B-cos networks.*ResNet"):
            make_method(name).check(tiny("resnet"))
        with pytest.raises(UnsupportedMethodError, match=r"'patch_embed.*adds a bias"):
            make_method(name).check(tiny("vitc"))


def test_with_one_class_there_is_nothing_to_contrast_with():
    classifier = tiny("bcos_vit", classes=1)
    with pytest.raises(UnsupportedMethodError, match="no other class"):
        make_method("bcos_contrastive").check(classifier)
    target = torch.zeros(2, dtype=torch.int64)
    assert make_method("bcos")(classifier, spotted(), target).completeness_gap.max() < 1e-6


def test_stain_space_has_a_value_per_pixel_as_well():
    model = create_model("bcos_resnet18", num_classes=2, layers=(1, 1, 1, 1), encoding="stain")
    classifier = Classifier(model.eval(), Encoding("stain"))
    images = spotted(1).float()
    attribution = make_method("bcos")(classifier, images, torch.tensor([1]))
    assert attribution.maps.shape == (1, 32, 32)
    assert attribution.completeness_gap.max() < 1e-5
