"""Options of BcosResNet do what they say, and wrong ones are named when it is made."""

import pytest
import torch

from bcos_vit.layers import BcosConv2d


@pytest.fixture
def images():
    return torch.rand(2, 6, 12, 12, dtype=torch.float64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"global_pool": "max"}, "global_pool must be .*got 'max'"),
        ({"global_pool": ""}, "goes with num_classes=0"),
        ({"b": 0.5}, r"b must be at least 1, got 0\.5"),
        ({"max_out": 0}, "max_out must be at least 1, got 0"),
        ({"temperature": -1.0}, r"temperature must be positive, got -1\.0"),
        ({"num_classes": -1}, "num_classes must .*got -1"),
        ({"layers": (1, 1, 1)}, r"layers must .*got \(1, 1, 1\)"),
    ],
)
def test_wrong_options_are_named_when_the_model_is_made(make_resnet, options, message):
    with pytest.raises(ValueError, match=message):
        make_resnet(**options)


def test_exponent_and_max_out_reach_every_layer(make_resnet):
    model = make_resnet(b=1.25, max_out=2)
    layers = [module for module in model.modules() if isinstance(module, BcosConv2d)]
    assert len(layers) == 1 + 4 * 2 + 3 + 1
    assert {(layer.b, layer.max_out) for layer in layers} == {(1.25, 2)}


def test_a_new_head_keeps_exponent_max_out_temperature_and_given_bias(make_resnet):
    model = make_resnet(b=1.25, max_out=2, temperature=3.0, logit_bias=0.5)
    model.reset_classifier(7)
    assert (model.fc.b, model.fc.max_out, model.fc.out_chans) == (1.25, 2, 7)
    assert model.logits.temperature == 3
    assert (model.logits.bias == 0.5).all()


def test_the_feature_map_is_left_unpooled_on_demand(make_resnet, images):
    model = make_resnet(num_classes=0, global_pool="")
    assert model(images).shape == (2, 512, 1, 1)


def test_stochastic_depth_grows_with_depth(make_resnet):
    model = make_resnet(drop_path_rate=0.3)
    stages = [model.layer1, model.layer2, model.layer3, model.layer4]
    found = [block.drop_path.drop_prob for stage in stages for block in stage]
    assert found == pytest.approx([0, 0.1, 0.2, 0.3])


def test_the_reductions_told_are_those_made(make_resnet):
    model = make_resnet()
    x = torch.rand(1, 6, 64, 64, dtype=torch.float64)
    for info in model.feature_info:
        seen = []
        hook = model.get_submodule(info["module"]).register_forward_hook(
            lambda module, inputs, output, seen=seen: seen.append(output.shape)
        )
        model(x)
        hook.remove()
        side = 64 // info["reduction"]
        assert seen == [(1, info["num_chs"], side, side)]


def test_conversion_to_synchronised_norms_changes_nothing(make_resnet, images):
    model = make_resnet()
    expected = model(images)
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert torch.equal(converted(images), expected)
