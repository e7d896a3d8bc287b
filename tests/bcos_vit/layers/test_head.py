"""Logits are evidence over temperature plus a bias that is stored and reported."""

import math

import pytest
import torch

from bcos_vit.layers import Logits, default_logit_bias, explanation_mode, prior_logit_bias


@pytest.mark.parametrize(
    ("classes", "bias"), [(1, -3), (2, -3), (21, -3), (22, -math.log(21)), (1000, -6.906755)]
)
def test_default_bias_is_the_logit_of_chance_but_at_most_minus_three(classes, bias):
    assert default_logit_bias(classes) == pytest.approx(bias, abs=1e-6)


@pytest.mark.parametrize("classes", [50, 700])
def test_default_bias_gives_each_of_many_classes_its_chance(classes):
    probability = torch.tensor(default_logit_bias(classes)).sigmoid()
    # float32 sigmoid.
    assert probability.item() == pytest.approx(1 / classes, abs=1e-6)


def test_prior_bias_is_the_log_odds_of_each_class_but_at_most_minus_three():
    shares = torch.tensor([0.94, 0.05, 0.009, 0.001], dtype=torch.float64)
    found = prior_logit_bias(shares)
    expected = [-3, -3, math.log(0.009 / 0.991), math.log(0.001 / 0.999)]
    torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(found[2:].sigmoid(), shares[2:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("shares", [[0.5, 0.0], [0.5, 1.5], [math.nan, 0.5]])
def test_priors_that_are_no_shares_are_refused(shares):
    with pytest.raises(ValueError, match=r"shares of classes must be in \(0, 1\]"):
        prior_logit_bias(torch.tensor(shares))


def test_temperature_divides_the_evidence_and_not_the_bias():
    layer = Logits(3, bias=-1.5, temperature=4.0).double()
    x = torch.randn(2, 3, dtype=torch.float64)
    torch.testing.assert_close(layer(x), x / 4 - 1.5, rtol=0, atol=1e-12)


def test_a_bias_of_zero_is_kept():
    x = torch.randn(2, 9)
    assert torch.equal(Logits(9, bias=0.0)(x), x)


def test_bias_and_temperature_are_stored_with_the_weights():
    old, new = Logits(3, bias=-1.5, temperature=4.0), Logits(3)
    new.load_state_dict(old.state_dict())
    x = torch.randn(2, 3)
    assert torch.equal(new(x), old(x))


def test_bias_stands_behind_its_gate_with_a_row_per_image():
    layer, gate = Logits(3, bias=-1.5), torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert layer.constant_terms == ("bias",)
    with explanation_mode({"bias": gate}):
        y = layer(torch.zeros(4, 3))
    assert torch.equal(y, -1.5 * gate[:, None].expand(4, 3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_logits_keep_the_dtype_of_the_evidence(dtype):
    assert Logits(3)(torch.zeros(2, 3, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan])
def test_temperatures_that_are_not_positive_are_refused(temperature):
    with pytest.raises(ValueError, match=f"temperature must be positive, got {temperature}"):
        Logits(3, temperature=temperature)


def test_repr_names_the_number_of_classes():
    assert repr(Logits(3)) == "Logits(3)"


def test_rescaled_logits_are_divided_and_shifted_per_class():
    layer = Logits(3, bias=-1.5, temperature=4.0).double()
    x, by = torch.randn(2, 3, dtype=torch.float64), torch.tensor([0.5, 1.0, 3.0]).double()
    before = layer(x)
    layer.rescale(by.tolist())
    torch.testing.assert_close(layer(x), before / by, rtol=0, atol=1e-12)
    layer.rescale([1.0] * 3, [1.0, 0.0, -1.0])
    shifted = before / by + torch.tensor([1.0, 0.0, -1.0])
    torch.testing.assert_close(layer(x), shifted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("turned", [False, True])
def test_temperatures_per_class_are_stored_and_read_by_any_other(turned):
    one, other = Logits(3, temperature=2.0), Logits(3)
    other.rescale([2.0, 3.0, 4.0])
    x = torch.randn(2, 3)
    old, new = (other, one) if turned else (one, other)
    new.load_state_dict(old.state_dict())
    assert torch.equal(new(x), old(x))


def test_rescaling_keeps_dtype_and_does_not_touch_the_given_tensors():
    layer = Logits(2).to(torch.bfloat16)
    bias = layer.bias
    layer.rescale([2.0, 4.0])
    assert layer.bias.dtype == layer.temperature.dtype == torch.bfloat16
    assert torch.equal(bias, torch.full((2,), -3.0, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("temperatures", "match"),
    [([1.0], "one per class"), ([1.0, 0.0], "positive"), ([1.0, math.inf], "positive")],
)
def test_rescaling_by_what_is_no_temperature_per_class_is_refused(temperatures, match):
    with pytest.raises(ValueError, match=match):
        Logits(2).rescale(temperatures)
