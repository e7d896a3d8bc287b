"""explain() returns the share of every pixel, for one image or a batch, in fresh tensors."""

import pytest
import torch

from bcos_vit.explain import explain
from bcos_vit.layers import explanation_mode

FIELDS = ["logits", "target", "bias", "weights", "contributions"]


def assert_same(one, other, atol=1e-12):
    for name in FIELDS:
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=atol)
    assert one.constants.keys() == other.constants.keys()
    for name, term in one.constants.items():
        torch.testing.assert_close(term, other.constants[name], rtol=0, atol=atol)


@pytest.mark.parametrize("options", [{}, {"b": 1.5, "max_out": 2}, {"temperature": 0.1}])
def test_bias_and_contributions_sum_to_the_logit(make_vit, images, options):
    explanation = explain(make_vit(**options), images, 1)
    total = explanation.bias + explanation.contributions.sum((1, 2))
    torch.testing.assert_close(total, explanation.logit, rtol=0, atol=1e-10)
    assert explanation.constants == {}


def test_contributions_are_weights_times_pixels(tiny_vit, images):
    explanation = explain(tiny_vit, images, 1)
    expected = (explanation.weights * images).sum(1)
    torch.testing.assert_close(explanation.contributions, expected, rtol=0, atol=1e-12)


def test_logits_are_those_of_the_model(tiny_vit, images):
    explanation = explain(tiny_vit, images, 1)
    # Queries and keys are held, so they are projected apart from values: another order of summing.
    expected = tiny_vit(images).detach()
    torch.testing.assert_close(explanation.logits, expected, rtol=0, atol=1e-12)
    assert torch.equal(explanation.logit, explanation.logits[:, 1])


def test_bias_is_the_models_own(make_vit, images):
    assert (explain(make_vit(logit_bias=-1.25), images, 0).bias == -1.25).all()


def test_bias_is_that_of_the_class_explained(tiny_vit, images):
    tiny_vit.logits.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    assert explain(tiny_vit, images, [2, 0, 1, 2]).bias.tolist() == [3, 1, 2, 3]


@pytest.mark.parametrize("options", [{}, {"pos_embed": "sincos"}])
def test_a_batch_equals_its_images_one_at_a_time(make_vit, images, options):
    model = make_vit(**options)
    together = explain(model, images, [0, 1, 2, 1])
    for i, target in enumerate([0, 1, 2, 1]):
        # A batch sums in another order: a few units of float64's last place.
        assert_same(explain(model, images[i : i + 1], target)[0], together[i])
        assert_same(explain(model, images[i], target), together[i])


def test_a_single_image_has_no_batch_dimension(make_vit, images):
    explanation = explain(make_vit(pos_embed="sincos"), images[0])
    assert explanation.logits.shape == (3,)
    assert explanation.target.shape == explanation.bias.shape == explanation.logit.shape == ()
    assert explanation.constants["position"].shape == ()
    assert explanation.weights.shape == (6, 4, 4)
    assert explanation.contributions.shape == (4, 4)
    assert explanation.completeness_gap.shape == ()


def test_an_empty_batch_gives_an_empty_explanation(tiny_vit):
    explanation = explain(tiny_vit, torch.empty(0, 6, 4, 4, dtype=torch.float64), 1)
    assert explanation.weights.shape == (0, 6, 4, 4)


def test_nothing_returned_hangs_on_a_graph(make_vit, images):
    explanation = explain(make_vit(pos_embed="sincos"), images)
    tensors = [getattr(explanation, name) for name in FIELDS]
    for tensor in [*tensors, explanation.constants["position"], explanation.logit]:
        assert not tensor.requires_grad
        assert tensor.grad_fn is None


def test_a_second_call_leaves_the_first_result_alone(tiny_vit, images):
    first = explain(tiny_vit, images, 0)
    kept = {name: getattr(first, name).clone() for name in FIELDS}
    second = explain(tiny_vit, images, 1)
    assert not torch.equal(first.weights, second.weights)
    for name in FIELDS:
        assert torch.equal(getattr(first, name), kept[name])


def test_results_share_no_memory_with_what_was_given(tiny_vit, images):
    target = torch.tensor([0, 1, 2, 0])
    explanation = explain(tiny_vit, images, target)
    given = [images, target, *tiny_vit.parameters(), *tiny_vit.buffers()]
    storages = {tensor.untyped_storage().data_ptr() for tensor in given}
    for name in FIELDS:
        assert getattr(explanation, name).untyped_storage().data_ptr() not in storages, name


def test_results_share_no_memory_with_each_other(tiny_vit, images):
    explanation = explain(tiny_vit, images)
    storages = {getattr(explanation, name).untyped_storage().data_ptr() for name in FIELDS}
    assert len(storages) == len(FIELDS)


def test_a_head_swapped_in_later_is_explained(tiny_vit, images):
    explain(tiny_vit, images)
    tiny_vit.reset_classifier(5)
    tiny_vit.double()
    explanation = explain(tiny_vit, images, 4)
    assert explanation.completeness_gap.max() < 1e-10
    weight = tiny_vit.head.weight
    with explanation_mode():
        x = images.clone().requires_grad_()
        features = tiny_vit.forward_head(tiny_vit.forward_features(x), pre_logits=True)
        row = weight[4] / weight[4].norm()
        cosine = (features @ row / (features.norm(dim=1) + 1e-12)).abs().detach()
        expected = torch.autograd.grad((cosine * (features @ row)).sum(), x)[0]
    torch.testing.assert_close(explanation.weights, expected.detach(), rtol=0, atol=1e-10)


def test_white_noise_on_a_pixel_of_no_weight_is_worth_nothing(tiny_vit, images):
    images[:, :, 0, 0] = 0
    assert (explain(tiny_vit, images, 1).contributions[:, 0, 0] == 0).all()


@pytest.mark.parametrize("size", [(8, 8), (4, 12)])
def test_any_divisible_size_is_explained(tiny_vit, size):
    x = torch.rand(1, 6, *size, dtype=torch.float64)
    explanation = explain(tiny_vit, x)
    assert explanation.contributions.shape == (1, *size)
    assert explanation.completeness_gap.max() < 1e-10


@pytest.mark.parametrize("shape", [(4, 4), (1, 1, 6, 4, 4)])
def test_other_ranks_are_refused(tiny_vit, shape):
    with pytest.raises(ValueError, match=r"images must have 3 or 4 dimensions, got shape"):
        explain(tiny_vit, torch.rand(shape, dtype=torch.float64))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_images_that_are_not_finite_are_refused(tiny_vit, images, bad):
    images[2, 3, 1, 0] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        explain(tiny_vit, images)


def test_integer_images_are_refused(tiny_vit):
    with pytest.raises(TypeError, match=r"images must be floating point, got torch\.uint8"):
        explain(tiny_vit, torch.zeros(1, 6, 4, 4, dtype=torch.uint8))


def test_models_without_one_row_of_logits_per_image_are_refused(make_vit, images):
    model = make_vit(num_classes=0, global_pool="")
    with pytest.raises(ValueError, match=r"\(batch, classes\), got \(4, 4, 8\)"):
        explain(model, images)
