"""Options of BcosVisionTransformer do what they say, and wrong ones are named when it is made."""

import pytest
import torch

from bcos_vit.layers import BcosLinear


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"img_size": 5}, "image of 5 x 5 px does not divide into patches of 2 px; use 4 x 4"),
        ({"img_size": (4, 7)}, "image of 4 x 7 px does not divide into patches of 2 px; use 4 x 8"),
        ({"img_size": 0}, "image of 0 x 0 px"),
        ({"pos_embed": "alibi"}, "pos_embed must be .*got 'alibi'"),
        ({"global_pool": "max"}, "global_pool must be .*got 'max'"),
        ({"global_pool": "token"}, 'global_pool="token" needs class_token=True'),
        ({"class_token": True}, "rotary code has no place for class_token"),
        ({"mlp_layer": "glu"}, "mlp_layer must be .*got 'glu'"),
        ({"conventional": True, "max_out": 2}, "max_out must be 1 where weights keep"),
        ({"global_pool": ""}, "goes with num_classes=0"),
        ({"num_heads": 3}, "num_heads must divide .*got 3"),
        ({"num_heads": 0}, "num_heads must .*got 0"),
        ({"b": 0.5}, r"b must be at least 1, got 0\.5"),
        ({"max_out": 0}, "max_out must be at least 1, got 0"),
        ({"temperature": 0.0}, r"temperature must be positive, got 0\.0"),
        ({"embed_dim": 12, "num_heads": 2}, "head size divisible by 4, got 6"),
        ({"embed_dim": 6, "pos_embed": "sincos"}, "divisible by 4, at least 8, got 6"),
        (
            {"img_size": 8, "stem_chans": (4, 6)},
            r"stem_chans \(4, 6\) make 4 px, which do not divide 2",
        ),
        ({"patch_size": 0}, "patch_size must .*got 0"),
        ({"num_classes": -1}, "num_classes must .*got -1"),
    ],
)
def test_wrong_options_are_named_when_the_model_is_made(make_vit, options, message):
    with pytest.raises(ValueError, match=message):
        make_vit(**options)


@pytest.mark.parametrize("max_out", [1, 2])
def test_exponent_and_max_out_reach_every_layer(make_vit, max_out):
    model = make_vit(b=1.25, max_out=max_out)
    layers = [module for module in model.modules() if isinstance(module, BcosLinear)]
    assert len(layers) == 1 + 2 * 3 + 1
    assert {(layer.b, layer.max_out) for layer in layers} == {(1.25, max_out)}


def test_a_new_head_keeps_exponent_max_out_temperature_and_given_bias(make_vit):
    model = make_vit(b=1.25, max_out=2, temperature=3.0, logit_bias=0.5)
    model.reset_classifier(7)
    assert (model.head.b, model.head.max_out, model.head.out_features) == (1.25, 2, 7)
    assert model.logits.temperature == 3
    assert (model.logits.bias == 0.5).all()


def test_tokens_are_left_unpooled_on_demand(make_vit, images):
    assert make_vit(num_classes=0, global_pool="")(images).shape == (4, 4, 8)


@pytest.mark.parametrize("pool", ["avg", ""])
def test_a_new_head_leaves_the_trained_norm_alone(make_vit, images, pool):
    model = make_vit()
    tokens = model.forward_features(images)
    expected = model.norm(tokens.mean(1) if pool else tokens)
    model.reset_classifier(0, pool)
    torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-12)


def test_tokens_are_averaged_before_the_norm(make_vit, images):
    model = make_vit()
    tokens = model.forward_features(images)
    evidence = model.head(model.norm(tokens.mean(1)))
    assert torch.equal(model.forward_head(tokens), model.logits(evidence))


def test_tokens_of_a_moved_image_are_the_same_without_position(make_vit, images):
    moved = images.roll((2, 2), (2, 3))
    model = make_vit(pos_embed="none")
    torch.testing.assert_close(model(moved), model(images), rtol=0, atol=1e-10)


@pytest.mark.parametrize("pos_embed", ["rope", "sincos"])
def test_place_matters_with_position(make_vit, images, pos_embed):
    flipped = images.unflatten(3, (2, 2)).flip(3).flatten(3)
    model = make_vit(pos_embed=pos_embed)
    assert (model(flipped) - model(images)).abs().max() > 1e-4


def test_stochastic_depth_grows_with_depth(make_vit):
    model = make_vit(depth=3, drop_path_rate=0.2)
    assert [block.drop_path.drop_prob for block in model.blocks] == pytest.approx([0, 0.1, 0.2])


@pytest.mark.parametrize("option", ["drop_rate", "drop_path_rate"])
def test_regularisation_is_off_in_eval_mode(make_vit, images, option):
    model = make_vit(**{option: 0.5})
    assert torch.equal(model(images), model(images))
    model.train()
    assert not torch.equal(model(images), model(images))
