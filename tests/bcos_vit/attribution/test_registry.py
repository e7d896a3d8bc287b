"""Methods by name, and the checks that all share."""

from dataclasses import dataclass, is_dataclass
from typing import ClassVar

import pytest
import torch
from timm.layers.activations import Swish
from torch import nn

from bcos_vit.attribution import METHODS, Classifier, Method, make_method, register, settings_of
from bcos_vit.attribution.checks import activations, attentions, check_batch, check_bcos
from bcos_vit.errors import UnsupportedMethodError
from bcos_vit.models import create_model
from tests.bcos_vit.attribution.families import FAMILIES, tiny


def test_every_method_is_a_frozen_dataclass_of_its_own_name():
    for name, method in METHODS.items():
        assert method.name == name
        assert is_dataclass(method)
        assert method.__dataclass_params__.frozen
        assert method.__doc__
        made = make_method(name)
        assert isinstance(made, Method)
        assert made.unit in ("logits", "none")


def test_settings_reach_the_method():
    method = make_method("integrated_gradients", steps=7, baseline="glass")
    assert (method.steps, method.baseline) == (7, "glass")
    assert settings_of("integrated_gradients") == ["baseline", "steps"]
    assert settings_of("bcos") == []


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("grad_cam", {}, "no attribution method is called 'grad_cam'; did you mean gradcam"),
        ("nothing like it", {}, "no attribution method is called 'nothing like it'$"),
        ("smoothgrad", {"sample": 3}, "no setting 'sample'; it has .*did you mean samples"),
        ("bcos", {"steps": 3}, "no setting 'steps'; it has none"),
        ("smoothgrad", {"name": "other"}, "no setting 'name'"),
        ("integrated_gradients", {"baseline": "grey"}, "baseline must be one of .*'grey'"),
        ("integrated_gradients", {"baseline": (0.5, 0.5)}, "three numbers"),
        ("integrated_gradients", {"baseline": (0.5, 0.5, 2)}, "three numbers"),
        ("integrated_gradients", {"steps": 0}, "steps must be at least 1"),
        ("gradient_shap", {"baselines": ()}, "one or more"),
        ("gradient_shap", {"baselines": "black"}, "one or more"),
        ("smoothgrad", {"samples": 0}, "samples must be at least 1"),
        ("smoothgrad", {"noise": -0.1}, "noise must not be negative"),
        ("scorecam", {"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_wrong_names_and_settings_are_one_clear_error(name, settings, message):
    with pytest.raises(ValueError, match=message):
        make_method(name, **settings)


def test_a_name_belongs_to_one_method():
    @dataclass(frozen=True)
    class Another:
        name: ClassVar[str] = "bcos"

    with pytest.raises(ValueError, match="two methods are called 'bcos'"):
        register(Another)
    assert METHODS["bcos"] is not Another
    register(METHODS["bcos"])  # once more is no other


@pytest.mark.parametrize(
    ("images", "target", "error", "message"),
    [
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.tensor([0]), TypeError, "uint8"),
        (torch.zeros(0, 3, 4, 4), torch.zeros(0, dtype=torch.int64), ValueError, "0, 3, 4, 4"),
        (torch.zeros(1, 6, 4, 4), torch.tensor([0]), ValueError, "1, 6, 4, 4"),
        (torch.full((1, 3, 4, 4), -0.1), torch.tensor([0]), ValueError, r"\[-0.1, -0.1\]"),
        (torch.full((1, 3, 4, 4), torch.nan), torch.tensor([0]), ValueError, "nan"),
        (torch.zeros(1, 3, 4, 4), torch.tensor([0.0]), TypeError, "float32"),
        (torch.zeros(1, 3, 4, 4), torch.tensor([True]), TypeError, "bool"),
        (torch.zeros(1, 3, 4, 4), [0], TypeError, "list"),
        (torch.zeros(2, 3, 4, 4), torch.tensor([0]), ValueError, r"\(2,\), got \(1,\)"),
        (torch.zeros(1, 3, 4, 4), torch.tensor([-1]), ValueError, "negative"),
    ],
)
def test_batches_are_checked(images, target, error, message):
    with pytest.raises(error, match=message):
        check_batch(images, target)


def test_what_networks_are_made_of():
    for family in FAMILIES:
        model = tiny(family).model
        assert bool(attentions(model)) == ("vit" in family or "swin" in family), family
        assert bool(activations(model)) != family.startswith("bcos"), family


def test_timms_own_activations_are_seen():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), Swish(), nn.ReLU())
    assert list(activations(model)) == ["1", "2"]


def test_a_half_converted_network_is_not_bcos():
    model = create_model(
        "bcos_resnet18", num_classes=2, layers=(1, 1, 1, 1), conventional=True, b=1.0
    ).eval()
    classifier = Classifier(model, nn.Identity())
    with pytest.raises(UnsupportedMethodError, match="any is for B-cos networks"):
        check_bcos("any", classifier)
    model.set_homotopy(2.0, 0.0)
    check_bcos("any", classifier)


def test_the_encoding_must_keep_places():
    class Halved(nn.Module):
        def forward(self, x):
            return x[..., ::2, ::2]

    classifier = Classifier(tiny("resnet").model, Halved())
    with pytest.raises(ValueError, match="encoding must make"):
        make_method("input_x_gradient")(
            classifier, torch.rand(1, 3, 64, 64, dtype=torch.float64), torch.tensor([0])
        )
