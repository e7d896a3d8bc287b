"""Random networks: everything learnt is gone, nothing else, and the model itself stays."""

import pytest
import timm
import torch

from bcos_vit.attribution.randomise import cascade, learnt_layers, randomise
from bcos_vit.models import create_model
from tests.conftest import unsettle

KEPT = ("num_batches_tracked", "logits.bias", "logits.temperature", "homotopy", "index")
"""No result of training."""


def make(name):
    small = {"depth": 1, "img_size": 32} if "vit" in name else {}
    if name == "vit_tiny_patch16_224":
        small["init_values"] = 0.1  # layer scales
    maker = create_model if name.startswith("bcos") else timm.create_model
    model = unsettle(maker(name, num_classes=3, **small)).eval()
    for buffer in (b for n, b in model.named_buffers() if "running" in n):
        torch.nn.init.uniform_(buffer, 0.5, 2)
    return model


@pytest.mark.parametrize("how", ["initial", "shuffled"])
@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "bcos_vit_tiny_patch16_224",
        "test_resnet",
        "bcos_resnet18",
        "convnext_atto",
    ],
)
def test_everything_learnt_is_gone_and_nothing_else(name, how):
    model = make(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    twin = randomise(model, 0, how=how)
    for key, value in twin.state_dict().items():
        assert torch.isfinite(value).all()
        assert torch.equal(value, before[key]) == key.endswith(KEPT), key
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    assert not twin.training
    if how == "shuffled":
        small = {key: value for key, value in twin.state_dict().items() if value.numel() < 10_000}
        for key, value in small.items():
            assert torch.equal(value.flatten().sort()[0], before[key].flatten().sort()[0])


def test_the_seed_decides_and_the_callers_stays():
    model = make("vit_tiny_patch16_224")
    state = torch.get_rng_state()
    one, same, other = (randomise(model, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])
    # A layer does not depend on which others are random.
    alone = randomise(model, 1, layers=["head"]).state_dict()
    assert torch.equal(alone["head.weight"], one["head.weight"])
    assert torch.equal(
        alone["patch_embed.proj.weight"], model.state_dict()["patch_embed.proj.weight"]
    )


def test_layers_start_as_their_makers_start_them():
    linear = torch.nn.Linear(400, 300)
    torch.nn.init.constant_(linear.weight, 7.0)
    drawn = randomise(linear, 0).weight
    # Uniform in plus or minus 1 / sqrt(400).
    assert drawn.abs().max() <= 1 / 20
    assert drawn.std().item() == pytest.approx(1 / 20 / 3**0.5, rel=0.02)
    norm = randomise(make("test_resnet"), 0).bn1
    assert torch.equal(norm.running_var, torch.ones(32))
    assert torch.equal(norm.weight, torch.ones(32))


def test_what_has_no_start_of_its_own_keeps_its_size():
    model = make("vit_tiny_patch16_224")
    with torch.no_grad():
        model.pos_embed.normal_(0.5, 3.0)
    code = randomise(model, 0).pos_embed
    assert code.mean().item() == pytest.approx(0.5, abs=0.5)
    assert code.std().item() == pytest.approx(3, rel=0.1)


def test_parts_of_a_module_that_starts_itself_are_left_alone():
    attention = torch.nn.MultiheadAttention(8, 2)
    with torch.no_grad():
        attention.out_proj.bias.fill_(5.0)
    twin = randomise(attention, 0, layers=[""])
    assert not torch.equal(twin.in_proj_weight, attention.in_proj_weight)
    assert torch.equal(twin.out_proj.bias, attention.out_proj.bias)
    assert torch.equal(twin.out_proj.weight, attention.out_proj.weight)


def test_the_cascade_comes_down_from_the_output():
    model = make("vit_tiny_patch16_224")
    names = learnt_layers(model)
    steps = list(cascade(model, 0, steps=4))
    assert len(steps) == 4
    whole, reached = model.state_dict(), len(names)
    for lowest, twin in steps:
        assert names.index(lowest) < reached
        reached = names.index(lowest)
        state = twin.state_dict()
        same = {key for key in whole if torch.equal(whole[key], state[key])}
        owners = {key.rpartition(".")[0] for key in same}
        assert owners == set(names[:reached])
    # Class token and position code belong to the model itself, its lowest layer.
    assert steps[-1][0] == ""
    assert (
        len(list(cascade(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)), 0)))
        == 2
    )


def test_what_does_not_exist_is_refused():
    model = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="no layer 'head'"):
        randomise(model, 0, layers=["head"])
    with pytest.raises(ValueError, match="how must be"):
        randomise(model, 0, how="zero")
    with pytest.raises(ValueError, match="steps must be"):
        list(cascade(model, 0, steps=2))
