"""Models that are not one matrix per input are refused by the name of the layer at fault."""

import pytest
import timm
import torch
from timm.layers import DropPath
from torch import nn

from bcos_vit.errors import BcosError, NotExplainableError
from bcos_vit.explain import check_explainable, explain
from bcos_vit.layers import BcosBatchNorm2d, BcosConv2d, BcosLinear


class Squared(nn.Module):
    """Not linear, and says nothing about itself."""

    def forward(self, x):
        return x**2


class SquaredSequence(nn.Sequential):
    """A container by its class, not by what it does."""

    def forward(self, x):
        return super().forward(x) ** 2


class SquaredLinear(nn.Linear):
    """Linear by its class, not by what it does."""

    def forward(self, x):
        return super().forward(x) ** 2


def network(layer):
    return nn.Sequential(nn.Flatten(), BcosLinear(96, 8), nn.Sequential(nn.Identity(), layer))


@pytest.mark.parametrize(
    "layer",
    [
        nn.LayerNorm(8), nn.LayerNorm(8, bias=False), nn.GELU(), nn.Sigmoid(), nn.Softmax(-1),
        nn.BatchNorm1d(8), nn.BatchNorm1d(8, affine=False), nn.Linear(8, 8), Squared(), nn.SiLU(),
        nn.Hardtanh(), nn.ReLU6(), nn.Bilinear(8, 8, 8),
    ],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_layers_that_are_not_dynamic_linear_are_named(layer):
    with pytest.raises(NotExplainableError, match=rf"'2\.1' \({type(layer).__name__}\)"):
        explain(network(layer).eval(), torch.rand(1, 6, 4, 4))


@pytest.mark.parametrize(
    "layer",
    [SquaredSequence(nn.Identity()), SquaredLinear(8, 8, bias=False)],
    ids=lambda x: type(x).__name__,
)
def test_classes_that_change_what_a_known_layer_does_are_refused(layer):
    with pytest.raises(NotExplainableError, match=rf"'2\.1' \({type(layer).__name__}\)"):
        explain(network(layer).eval(), torch.rand(1, 6, 4, 4))


@pytest.mark.parametrize("conv", [nn.Conv2d(6, 2, 1), nn.ConvTranspose2d(6, 2, 1)])
def test_a_biased_convolution_is_refused_with_the_way_out(conv):
    with pytest.raises(NotExplainableError, match="bias=False"):
        check_explainable(nn.Sequential(conv))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18"])
def test_conventional_networks_are_refused(name):
    model = timm.create_model(name, num_classes=2).eval()
    with pytest.raises(NotExplainableError, match=r"the model itself|layer '"):
        explain(model, torch.rand(1, 3, 224, 224))


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.Dropout2d(0.5), DropPath(0.5)])
def test_randomness_is_refused_in_training_mode_only(layer):
    model = network(layer)
    with pytest.raises(NotExplainableError, match=r"'2\.1'.*model\.eval\(\)"):
        check_explainable(model.train())
    check_explainable(model.eval())


def test_randomness_of_chance_nought_is_none():
    check_explainable(network(nn.Dropout(0.0)).train())


def test_a_vit_with_dropout_in_training_mode_is_refused(make_vit):
    model = make_vit(drop_rate=0.1).train()
    with pytest.raises(NotExplainableError, match=r"layer 'blocks\.0\.attn\.proj_drop'"):
        explain(model, torch.rand(1, 6, 4, 4, dtype=torch.float64))


def test_batch_norm_in_training_mode_is_named(make_resnet):
    model = make_resnet()
    model.layer2[0].bn2.train()
    with pytest.raises(NotExplainableError, match=r"layer2\.0\.bn2.*model\.eval\(\)"):
        explain(model, torch.rand(2, 6, 8, 8, dtype=torch.float64))


class Wrapper(nn.Module):
    """Vouches for itself, which says nothing of what is in it."""

    dynamic_linear = True

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return self.norm(x)


class UncentredBatchNorm(nn.BatchNorm2d):
    """Vouches for a batch norm of its own."""

    dynamic_linear = True

    def forward(self, x):
        return x / (self.running_var + self.eps).sqrt()[:, None, None]


@pytest.mark.parametrize("training", [True, False])
def test_a_centred_batch_norm_in_a_wrapper_is_named(training):
    model = nn.Sequential(Wrapper(nn.BatchNorm2d(6)), nn.Flatten()).train(training)
    with pytest.raises(NotExplainableError, match=r"layer '0\.norm' \(BatchNorm2d\) is "):
        explain(model, torch.rand(2, 6, 4, 4))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(6), UncentredBatchNorm(6), BcosBatchNorm2d(6)])
def test_any_batch_norm_in_training_mode_is_told_to_leave_it(norm):
    model = nn.Sequential(Wrapper(norm), nn.Flatten()).train()
    with pytest.raises(NotExplainableError, match=r"layer '0\.norm'.*call model\.eval\(\) first"):
        explain(model, torch.rand(2, 6, 4, 4))


def test_a_batch_norm_that_vouches_for_itself_is_explained_in_evaluation():
    model = nn.Sequential(Wrapper(UncentredBatchNorm(6)), nn.Flatten()).eval()
    assert explain(model, torch.rand(2, 6, 4, 4)).completeness_gap.max() < 1e-6


def test_parallel_shells_say_what_to_explain(tiny_vit, images):
    with pytest.raises(NotExplainableError, match=r"DataParallel.*its attribute 'module'"):
        explain(nn.DataParallel(tiny_vit), images)


def test_batch_norm_in_training_mode_leaves_no_statistics_behind(make_resnet):
    model = make_resnet().train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with pytest.raises(NotExplainableError):
        explain(model, torch.rand(2, 6, 8, 8, dtype=torch.float64))
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_a_layer_swapped_in_later_is_seen(tiny_vit, images):
    explain(tiny_vit, images)
    tiny_vit.head = nn.Linear(8, 3).double()
    with pytest.raises(NotExplainableError, match=r"layer 'head' \(Linear\) adds a bias"):
        explain(tiny_vit, images)


def test_a_stack_of_known_layers_is_explained():
    model = nn.Sequential(
        nn.ZeroPad2d(1), BcosConv2d(6, 4, 3), BcosBatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 4, bias=False), nn.Identity(), BcosLinear(4, 2),
    ).double().eval()  # fmt: skip
    explanation = explain(model, torch.rand(3, 6, 4, 4, dtype=torch.float64), 1)
    assert explanation.completeness_gap.max() < 1e-10
    assert (explanation.bias == 0).all()


def test_it_is_one_of_ours():
    assert issubclass(NotExplainableError, BcosError)
