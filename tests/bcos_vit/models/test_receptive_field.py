"""Fields are measured: as arithmetic says for a plain chain, refused where there is no end."""

import pytest
import timm
import torch
from torch import nn

from bcos_vit.models import BcosDenseNet, BcosResNet, BcosVGG, create_model
from bcos_vit.models.receptive_field import Field, measure_field, required_halo
from tests.contract.families import FAMILIES


def _chain(*layers: tuple[int, int, int]) -> Field:
    """Kernel, stride and padding of each layer in a chain, by arithmetic."""
    jump, left, right = 1, 0, 0
    for kernel, stride, padding in layers:
        left += padding * jump
        right += (kernel - 1 - padding) * jump
        jump *= stride
    # The cell's own pixels begin where its window's centre of padding lies.
    reach = max(left, right - (jump - 1))
    return Field(jump, -(-reach // jump) * jump)


RESNET18_STAGES = [
    (7, 2, 3), (3, 2, 1),
    *[(3, 1, 1)] * 4,
    *[(3, 2, 1), (3, 1, 1), (3, 1, 1), (3, 1, 1)] * 3,
]  # fmt: skip


def test_resnet18_sees_what_arithmetic_says():
    assert _chain(*RESNET18_STAGES) == (32, 224)
    assert measure_field(create_model("bcos_resnet18", num_classes=2)) == (32, 224)


def test_a_vgg_sees_what_arithmetic_says():
    network = BcosVGG(stages=((8,), (8, 8)), head_hidden_size=8, num_classes=2)
    layers = [(3, 1, 1), (2, 2, 0), (3, 1, 1), (3, 1, 1), (2, 2, 0), (7, 1, 3)]
    assert measure_field(network) == _chain(*layers)


def test_maxima_and_dead_weights_hide_nothing():
    network = BcosResNet(layers=(1, 1, 1, 1), conventional=True, in_chans=3, num_classes=2)
    before = measure_field(network)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "layer4" in name:
                weight.zero_()
    assert measure_field(network) == before == (32, 128)


def test_a_network_is_left_as_it_was_and_random_numbers_too():
    network = BcosDenseNet(growth_rate=4, block_config=(1, 1), num_classes=2).train()
    weights = {name: each.clone() for name, each in network.state_dict().items()}
    state = torch.get_rng_state()
    required_halo(network)
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(each, weights[name]) for name, each in network.state_dict().items())


@pytest.mark.parametrize(
    "name", ["bcos_vitc_tiny_patch16_224", "bcos_swin_tiny_patch4_window7_224"]
)
def test_networks_that_see_everything_are_refused(name):
    network = create_model(name, num_classes=2, **FAMILIES[name].shallow)
    with pytest.raises(ValueError, match=r"convolutional network of ours with local logits .*got"):
        measure_field(network)


def test_networks_without_local_logits_are_refused():
    for network in (
        timm.create_model("resnet18", num_classes=2),
        BcosResNet(layers=(1, 1, 1, 1), num_classes=0),
        create_model(
            "bcos_convnext_tiny", num_classes=2, head_norm_first=False, depths=(1,), dims=(8,)
        ),
    ):
        with pytest.raises(ValueError, match="with local logits"):
            measure_field(network)


def test_a_network_that_pads_nothing_is_refused():
    family = FAMILIES["bcos_inception_v3"]
    network = create_model(family.name, num_classes=2, **family.shallow)
    with pytest.raises(ValueError, match=r"a cell for every stride .* BcosInceptionV3 makes 14"):
        measure_field(network)


def test_a_layer_that_looks_everywhere_is_refused():
    class Everywhere(nn.Module):
        def forward(self, x):
            return x * x.mean((2, 3), keepdim=True)

    network = BcosResNet(layers=(1, 1, 1, 1), num_classes=2)
    network.layer1.append(Everywhere())
    with pytest.raises(ValueError, match="see all of 8192 px"):
        measure_field(network)


@pytest.mark.parametrize("weight", [torch.nan, 0.0, 1e30])
def test_it_is_a_matter_of_layers_not_of_weights(weight):
    network = BcosResNet(layers=(1, 1, 1, 1), num_classes=2)
    for parameter in network.parameters():
        nn.init.constant_(parameter, weight)
    assert measure_field(network) == (32, 128)


def test_a_network_without_numbers_is_measured():
    with torch.device("meta"):
        network = BcosResNet(layers=(1, 1, 1, 1), num_classes=2)
        assert measure_field(network) == (32, 128)
    assert network.conv1.weight.is_meta
