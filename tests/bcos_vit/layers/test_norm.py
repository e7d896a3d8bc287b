"""Norms have no bias, and statistics that are constants while explaining."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bcos_vit.errors import NotExplainableError
from bcos_vit.layers import (
    BcosBatchNorm2d,
    BcosGroupNorm,
    BcosLayerNorm,
    explanation_mode,
    synchronise_batch_norm,
)
from tests.conftest import unsettle
from tests.reference import array, batch_norm_matrix, group_norm_matrix, layer_norm_matrix

NORMS = [BcosLayerNorm(4), BcosGroupNorm(4, groups=2), BcosBatchNorm2d(4)]


def kind(module):
    return type(module).__name__


def matrix_while_explaining(layer, x):
    with explanation_mode():
        jacobian = torch.autograd.functional.jacobian(lambda v: layer(v[None])[0].ravel(), x)
    return array(jacobian).reshape(x.numel(), x.numel())


@pytest.mark.parametrize("norm", NORMS, ids=kind)
def test_the_only_parameter_is_a_scale(norm):
    assert [name for name, _ in norm.named_parameters()] == ["weight"]


@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_layer_norm_equals_torch_without_bias(eps):
    layer = unsettle(BcosLayerNorm(6, eps)).double()
    x = torch.randn(2, 3, 6, dtype=torch.float64) * 2 + 1
    expected = F.layer_norm(x, (6,), layer.weight, None, eps)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_group_norm_equals_torch_without_bias(groups, eps):
    layer = unsettle(BcosGroupNorm(4, groups, eps)).double()
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64) * 2 + 1
    expected = F.group_norm(x, groups, layer.weight, None, eps)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-10)


def test_layer_norm_is_its_matrix_while_explaining():
    layer = unsettle(BcosLayerNorm(6)).double()
    x = torch.randn(6, dtype=torch.float64) + 1
    reference = layer_norm_matrix(array(x), array(layer.weight))
    found = matrix_while_explaining(layer, x)
    np.testing.assert_allclose(found, reference, rtol=0, atol=1e-10)


@pytest.mark.parametrize("groups", [1, 2])
def test_group_norm_is_its_matrix_while_explaining(groups):
    layer = unsettle(BcosGroupNorm(4, groups)).double()
    x = torch.randn(4, 2, 3, dtype=torch.float64) + 1
    reference = group_norm_matrix(array(x), array(layer.weight), groups)
    found = matrix_while_explaining(layer, x)
    np.testing.assert_allclose(found, reference, rtol=0, atol=1e-10)


def test_batch_norm_is_its_matrix_while_explaining():
    layer = unsettle(BcosBatchNorm2d(3)).double().eval()
    x = torch.randn(3, 2, 2, dtype=torch.float64) + 1
    reference = batch_norm_matrix(x.shape, array(layer.running_var), array(layer.weight))
    found = matrix_while_explaining(layer, x)
    np.testing.assert_allclose(found, reference, rtol=0, atol=1e-10)


@pytest.mark.parametrize("norm", [BcosLayerNorm(6), BcosGroupNorm(6)], ids=kind)
def test_plain_gradient_is_not_the_matrix(norm):
    x = torch.randn(6, 1, 6, dtype=torch.float64)
    norm = norm.double()
    plain = torch.autograd.functional.jacobian(lambda v: norm(v[None])[0].ravel(), x)
    explained = matrix_while_explaining(norm, x)
    assert not np.allclose(array(plain).reshape(explained.shape), explained, atol=1e-2)


def test_batch_norm_divides_by_the_deviation_about_the_mean_and_subtracts_nothing():
    layer = unsettle(BcosBatchNorm2d(3)).double().train()
    x = torch.randn(4, 3, 2, 5, dtype=torch.float64) + 7
    deviation = np.sqrt(array(x).var(axis=(0, 2, 3)) + 1e-5)
    expected = array(x) * (array(layer.weight) / deviation)[:, None, None]
    np.testing.assert_allclose(array(layer(x)), expected, rtol=0, atol=1e-10)


def test_running_variance_is_biased_and_moves_by_momentum():
    layer = BcosBatchNorm2d(2, momentum=0.25).double().train()
    x = torch.randn(1, 2, 1, 3, dtype=torch.float64) * 3
    layer(x)
    expected = 0.75 + 0.25 * array(x).var(axis=(0, 2, 3))
    np.testing.assert_allclose(array(layer.running_var), expected, rtol=0, atol=1e-10)
    assert layer.num_batches_tracked == 1


def test_evaluation_uses_and_keeps_the_running_variance():
    layer = unsettle(BcosBatchNorm2d(2)).double().eval()
    before = layer.running_var.clone()
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64)
    expected = array(x) / np.sqrt(array(before) + 1e-5)[:, None, None]
    expected *= array(layer.weight)[:, None, None]
    np.testing.assert_allclose(array(layer(x)), expected, rtol=0, atol=1e-10)
    assert torch.equal(layer.running_var, before)
    assert layer.num_batches_tracked == 0


def test_training_gradient_flows_through_the_variance():
    layer = unsettle(BcosBatchNorm2d(2)).double().train()
    x = torch.randn(2, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


def test_batch_norm_in_training_mode_refuses_to_be_explained():
    layer = BcosBatchNorm2d(2).train()
    with explanation_mode(), pytest.raises(NotExplainableError, match=r"model\.eval\(\)"):
        layer(torch.rand(2, 2, 3, 3))
    assert layer.num_batches_tracked == 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", NORMS, ids=kind)
def test_half_precision_in_gives_half_precision_out(norm, training):
    x = torch.randn(2, 4, 4, 4).bfloat16()
    assert norm.float().train(training)(x).dtype == torch.bfloat16


@pytest.mark.parametrize("norm", NORMS, ids=kind)
def test_half_precision_statistics_are_taken_in_float32(norm):
    norm = norm.float().train()
    # 300^2 does not fit float16, and bfloat16 sums of 64 entries stall at 8 bits.
    x = (torch.randn(2, 4, 4, 4) * 300).half()
    expected = norm(x.float())
    # float16 keeps 11 bits: one rounding of the scale, one of the product.
    torch.testing.assert_close(norm(x).float(), expected, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("groups", [0, 3])
def test_groups_that_do_not_divide_are_refused(groups):
    with pytest.raises(ValueError, match=f"groups must divide chans, got {groups} for 4"):
        BcosGroupNorm(4, groups)


@pytest.mark.parametrize("norm", NORMS, ids=kind)
def test_repr_names_size_and_eps(norm):
    assert repr(norm).startswith(f"{kind(norm)}(4, ")
    assert "eps=1e-05" in repr(norm)


def test_conversion_to_synchronised_norms_leaves_the_layer_as_it_is():
    layer = BcosBatchNorm2d(2)
    assert torch.nn.SyncBatchNorm.convert_sync_batchnorm(layer) is layer


def test_every_batch_norm_of_a_model_is_synchronised_in_place_and_says_so():
    model = torch.nn.Sequential(BcosBatchNorm2d(2), torch.nn.Sequential(BcosBatchNorm2d(3)))
    assert synchronise_batch_norm(model) is model
    assert repr(model).count("synchronised") == 2
    assert "synchronised" not in repr(BcosBatchNorm2d(2))
