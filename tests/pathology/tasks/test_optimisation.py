"""Optimisers, schedules, layers that learn slower, and layers that do not learn."""

import io
import math

import pytest
import timm
import torch
from torch import nn

from bcos_vit.models import create_model
from pathology.tasks.optimisation import (
    Course,
    check_optimizer,
    freeze_layers,
    make_optimizer,
    rest_frozen,
)

# From the input to the head, a parameter in each group of layers and its group, counted from 0.
LAYERS = {
    "bcos_vitc_tiny_patch16_224": (
        {"depth": 2, "img_size": 32},
        ["patch_embed.", "blocks.0.", "blocks.1.|norm.", "head."],
    ),
    "bcos_vit_tiny_patch16_224": (
        {"depth": 2, "img_size": 32},
        ["patch_embed.", "blocks.0.", "blocks.1.|norm.", "head."],
    ),
    "bcos_swin_tiny_patch4_window7_224": (
        {"img_size": 32, "window_size": 4},
        ["patch_embed.", "layers.0.blocks.0.", "layers.1.downsample", "layers.3.blocks.1.|norm.",
         "head."],
    ),
    "bcos_resnet18": (
        {}, ["conv1.|bn1.", "layer1.0.", "layer1.1.", "layer2.0.", "layer4.1.", "fc."]
    ),
    "bcos_densenet121": (
        {},
        ["features.conv0|features.norm0", "features.denseblock1.denselayer1.",
         "features.denseblock4.denselayer16.", "classifier."],
    ),
    "bcos_convnext_tiny": (
        {}, ["stem", "stages.0.blocks.0.", "stages.1.downsample", "stages.3.blocks.2.", "head."]
    ),
}  # fmt: skip


def small_vit(**options):
    return create_model(
        "bcos_vitc_tiny_patch16_224", num_classes=2, depth=2, img_size=32, **options
    )


@pytest.mark.parametrize("name", list(LAYERS))
def test_layer_decay_slows_each_group_by_its_distance_from_the_head(name):
    options, layers = LAYERS[name]
    model = create_model(name, num_classes=2, **options)
    optimizer = make_optimizer(model, "sgd", 1.0, layer_decay=0.5)
    Course("constant", 10, 0, 0.01, 0, 1, 1).of(optimizer)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    rates = {name: rate[id(p)] for name, p in model.named_parameters()}
    assert len(rate) == len(rates)
    found = []
    for layer in layers:
        inside = {
            rate
            for name, rate in rates.items()
            if any(name.startswith(part) for part in layer.split("|"))
        }
        assert len(inside) == 1, layer
        found.append(inside.pop())
    assert found == sorted(found)
    assert len(set(found)) == len(found)
    assert found[-1] == 1.0
    # Every group is half as fast as the next.
    levels = sorted(set(rates.values()), reverse=True)
    assert levels == [0.5**i for i in range(len(levels))]
    assert rates[next(iter(rates))] == levels[-1]


def test_weight_decay_spares_norms_biases_and_position_codes():
    model = create_model("bcos_vit_tiny_patch16_224", num_classes=2, depth=1, img_size=32)
    for layer_decay in (None, 0.5):
        optimizer = make_optimizer(model, "adamw", 1e-3, 0.1, layer_decay)
        decay = {
            id(p): group["weight_decay"]
            for group in optimizer.param_groups
            for p in group["params"]
        }
        for name, parameter in model.named_parameters():
            wanted = 0.0 if parameter.ndim < 2 or name in model.no_weight_decay() else 0.1
            assert decay[id(parameter)] == wanted, name


def test_optimisers_are_timms_by_name_with_their_own_arguments():
    model = nn.Linear(2, 2)
    assert isinstance(make_optimizer(model, "AdamW", 1e-3), torch.optim.AdamW)
    optimizer = make_optimizer(model, "sgd", 1e-3, options={"momentum": 0.5, "nesterov": False})
    assert optimizer.param_groups[0]["momentum"] == 0.5
    assert type(make_optimizer(model, "lamb", 1e-3)).__name__ == "Lamb"
    with pytest.raises(ValueError, match="optimizer 'adamv' is none of timm's; did you mean 'adam"):
        check_optimizer("adamv")
    with pytest.raises(ValueError, match="optimizer 'adahessian' needs second derivatives"):
        check_optimizer("adahessian")
    with pytest.raises(ValueError, match=r"optimizer_args .*beta.* do not suit adamw"):
        make_optimizer(model, "adamw", 1e-3, options={"beta": 1})
    with pytest.raises(ValueError, match=r"tells its layers apart \(group_matcher\); Linear"):
        make_optimizer(model, "adamw", 1e-3, layer_decay=0.5)


def rates(course, lr=0.5):
    """Learning rate of every step."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = course.of(optimizer)
    found = []
    for step in range(course.total):
        found.append(optimizer.param_groups[0]["lr"])
        scheduler.step_update(step + 1)
    buffer = io.BytesIO()
    torch.save(scheduler.state_dict(), buffer)  # as in a checkpoint
    buffer.seek(0)
    torch.load(buffer, weights_only=True)
    return found


def warm(step, warmup, lr=0.5, start=0.01):
    return lr * (start + (1 - start) * step / warmup)


def test_cosine_rises_from_a_share_and_falls_over_what_is_left():
    found = rates(Course("cosine", 40, 10, 0.01, 0.1, 1, 1))
    expected = [warm(step, 10) for step in range(10)]
    expected += [0.1 + 0.2 * (1 + math.cos(math.pi * step / 30)) for step in range(30)]
    assert found == pytest.approx(expected, abs=1e-12)


def test_steps_are_counted_from_the_end_of_warm_up():
    found = rates(Course("step", 25, 5, 0.01, 0.0, 8, 0.1))
    expected = [warm(step, 5) for step in range(5)] + [0.5 * 0.1 ** (s // 8) for s in range(20)]
    assert found == pytest.approx(expected, abs=1e-12)


def test_wsd_stays_and_falls_at_the_end():
    found = rates(Course("wsd", 40, 10, 0.01, 0.0, 10, 1))
    expected = [warm(step, 10) for step in range(10)] + [0.5] * 20
    expected += [0.5 * (1 - math.sqrt(step / 10)) for step in range(10)]
    assert found == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match="falls over 31 steps"):
        rates(Course("wsd", 40, 10, 0.01, 0.0, 31, 1))


def test_a_constant_rate_is_warmed_up_too():
    found = rates(Course("constant", 8, 4, 0.5, 0.0, 1, 1))
    assert found == pytest.approx([warm(step, 4, start=0.5) for step in range(4)] + [0.5] * 4)
    assert rates(Course("constant", 3, 0, 0.5, 0.0, 1, 1)) == [0.5] * 3


# --- freezing -------------------------------------------------------------------------------------


def trained(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("make", [small_vit, lambda: timm.create_model("resnet18", num_classes=2)])
def test_a_frozen_backbone_leaves_the_head(make):
    model = make()
    freeze_layers(model, "backbone")
    assert {name.split(".")[0] for name in trained(model)} <= {"head", "fc"}
    assert trained(model)


def test_layers_are_frozen_up_to_one_by_name_or_by_number():
    by_name, by_number = small_vit(), small_vit()
    freeze_layers(by_name, "blocks.0")
    freeze_layers(by_number, 2)
    assert trained(by_name) == trained(by_number)
    assert {name.split(".")[0] for name in trained(by_name)} == {"blocks", "norm", "head"}
    assert not any(name.startswith("blocks.0") for name in trained(by_name))
    assert any(name.startswith("blocks.1") for name in trained(by_name))
    resnet = create_model("bcos_resnet18", num_classes=2)
    freeze_layers(resnet, "layer2")
    assert {name.split(".")[0] for name in trained(resnet)} == {"layer3", "layer4", "fc"}


def test_frozen_norms_keep_their_statistics_and_others_do_not():
    model = create_model("bcos_resnet18", num_classes=2).train()
    freeze_layers(model, "layer1")
    rest_frozen(model)
    norms = {name: m for name, m in model.named_modules() if hasattr(m, "running_var")}
    before = {name: norm.running_var.clone() for name, norm in norms.items()}
    model(torch.rand(4, 6, 32, 32)).sum().backward()
    changed = {name for name, norm in norms.items() if not norm.running_var.equal(before[name])}
    assert {name.split(".")[0] for name in changed} == {"layer2", "layer3", "layer4"}
    assert model.conv1.weight.grad is None


def test_what_is_frozen_takes_no_part_in_optimisation():
    model = small_vit()
    freeze_layers(model, "blocks.0")
    for layer_decay in (None, 0.5):
        optimizer = make_optimizer(model, "adamw", 1e-3, 0.1, layer_decay)
        parts = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert parts == {id(p) for p in model.parameters() if p.requires_grad}
    for parameter in model.parameters():
        parameter.requires_grad = False
    with pytest.raises(ValueError, match="nothing to train"):
        make_optimizer(model, "adamw", 1e-3)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("blocks.7", "freeze names no layer of the model: 'blocks.7'; did you mean 'blocks."),
        ("blocks.1.mlp.fc3", "names no layer"),
        (0, "freeze must be 1 to 3 groups of layers, got 0"),
        (4, "freeze must be 1 to 3 groups of layers, got 4"),
        ("head", "freeze must be 1 to 3 groups of layers, got 'head'"),
    ],
)
def test_what_cannot_be_frozen_is_said(what, said):
    with pytest.raises(ValueError, match=said):
        freeze_layers(small_vit(), what)
