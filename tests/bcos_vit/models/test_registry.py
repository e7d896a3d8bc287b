"""Models are created by name; a name that does not exist says which might be meant."""

import sys

import pytest
import timm
from torch import nn

from bcos_vit.errors import BcosError, UnknownModelError, WeightsError
from bcos_vit.models import TWINS, BcosResNet, BcosVisionTransformer, create_model, create_twin


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("bcos_resnet_18", "bcos_resnet18"),
        ("bcos_vit_tiny_patch16", "bcos_vit_tiny_patch16_224"),
        ("bcos_vit_tiny_patch16_244.in1k", "bcos_vit_tiny_patch16_224"),
    ],
)
def test_a_near_miss_is_answered_with_what_may_be_meant(name, meant):
    with pytest.raises(UnknownModelError, match=f"'{name}'; did you mean .*{meant}"):
        create_model(name)


def test_nothing_is_suggested_when_nothing_is_near():
    with pytest.raises(UnknownModelError, match=r"^no model is called 'qqqqqqqq'$"):
        create_model("qqqqqqqq")


def test_an_unknown_model_is_a_failed_look_up():
    assert issubclass(UnknownModelError, LookupError)
    assert issubclass(UnknownModelError, BcosError)


def test_weights_that_do_not_exist_are_one_of_our_errors():
    with pytest.raises(WeightsError, match="bcos_vit_tiny_patch8_224 has no published weights"):
        create_model("bcos_vit_tiny_patch8_224", pretrained=True)


def test_a_tag_that_does_not_exist_is_one_of_our_errors():
    with pytest.raises(WeightsError, match=r"'no_such_tag'; there are bcos_resnet18\.in1k"):
        create_model("bcos_resnet18.no_such_tag", layers=(1, 1, 1, 1))


def test_conventional_models_are_created_too():
    model = create_model("resnet10t", num_classes=2)
    assert type(model) is timm.models.resnet.ResNet


@pytest.mark.parametrize("create", [create_model, timm.create_model])
def test_both_registries_are_one(create):
    model = create("bcos_vit_tiny_patch16_224", depth=1, num_classes=2)
    assert type(model) is BcosVisionTransformer
    assert type(create("bcos_resnet18", layers=(1, 1, 1, 1))) is BcosResNet


def test_a_twin_takes_the_same_keywords():
    twin = create_twin("bcos_vit_tiny_patch16_224", num_classes=2, depth=1)
    assert isinstance(twin.head, nn.Linear)
    assert twin.head.out_features == 2
    assert twin.cls_token is None


def test_a_keyword_outranks_the_twins_own():
    assert create_twin("bcos_vit_tiny_patch16_224", depth=1, class_token=True).cls_token is not None


def test_a_model_without_a_twin_says_which_have_one():
    with pytest.raises(UnknownModelError, match=r"'resnet18' has no .*bcos_resnet18"):
        create_twin("resnet18")


def test_every_twin_belongs_to_a_registered_model():
    assert set(TWINS) <= set(timm.list_models("bcos_*"))


@pytest.mark.parametrize(
    ("name", "options", "encoding", "mean"),
    [
        ("bcos_resnet18", {}, "complement", (0.0,) * 6),
        ("bcos_resnet18", {"encoding": "stain"}, "stain", (0.0,) * 6),
        ("bcos_resnet18", {"in_chans": 3}, "rgb", (0.0,) * 3),
        ("bcos_resnet18", {"in_chans": 4}, None, (0.0,) * 4),
        ("vitc_tiny_patch16_224", {}, "rgb", (0.485, 0.456, 0.406)),
        ("vitc_tiny_patch16_224", {"in_chans": 6}, "complement", (0.0,) * 6),
    ],
)
def test_the_data_config_tells_the_input_that_was_asked_for(name, options, encoding, mean):
    model = create_model(name, num_classes=2, **options)
    config = timm.data.resolve_data_config(model=model)
    assert config["input_size"] == (len(mean), 224, 224)
    assert config["mean"] == mean
    assert len(config["std"]) == len(mean)
    assert model.pretrained_cfg["encoding"] == encoding


MODULE = """
from bcos_vit.models.registry import Variant, register_variants
from bcos_vit.models.resnet import BcosResNet


class OwnNet(BcosResNet):
    pass


register_variants(
    OwnNet,
    {"own_net_of_a_test": Variant("A network of the user's.", {"layers": (1, 1, 1, 1)})},
    first_conv="conv1",
    classifier="fc",
)
"""


@pytest.fixture
def own_modules(tmp_path, monkeypatch):
    """Where one stands is a module of the user's, and one that cannot be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "networks_of_a_test.py").write_text(MODULE)
    (tmp_path / "broken_networks_of_a_test.py").write_text("import no_such_package\n")


@pytest.mark.usefixtures("own_modules")
def test_a_model_of_ones_own_is_named_with_its_module():
    model = create_model("networks_of_a_test:own_net_of_a_test", num_classes=3)
    assert type(model).__name__ == "OwnNet"
    assert model.num_classes == 3
    again = create_model("networks_of_a_test:own_net_of_a_test", num_classes=2)
    assert type(again) is type(model)


@pytest.mark.usefixtures("own_modules")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_networks_of_a_test:net", "No module named 'no_networks_of_a_test'; wanted package"),
        ("broken_networks_of_a_test:net", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("networks_of_a_test:own_net_of_a_tset", "own_net_of_a_tset'; did you mean own_net_of_a_"),
        ("hf-hub:owner/net", "model hf-hub:owner/net: .*wanted package.module:name"),
        (":bcos_resnet18", "model :bcos_resnet18: ValueError: .*wanted package.module:name"),
    ],
)
def test_what_cannot_be_had_of_a_module_of_ones_own_is_said(name, message):
    with pytest.raises(UnknownModelError, match=message):
        create_model(name)
