"""What an additive position code gives to a logit is reported, and needed to close the sum."""

import torch

from bcos_vit.explain import explain


def test_the_sum_closes_with_the_position_term_and_not_without(make_vit, images):
    explanation = explain(make_vit(pos_embed="sincos"), images, 1)
    pixels = explanation.bias + explanation.contributions.sum((1, 2))
    position = explanation.constants["position"]
    torch.testing.assert_close(pixels + position, explanation.logit, rtol=0, atol=1e-10)
    assert ((pixels - explanation.logit).abs() > 1e-3).all()


def test_the_completeness_gap_counts_the_position_term(make_vit, images):
    assert explain(make_vit(pos_embed="sincos"), images, 1).completeness_gap.max() < 1e-10


def test_each_image_has_a_share_of_its_own(make_vit, images):
    assert len(explain(make_vit(pos_embed="sincos"), images, 1).constants["position"].unique()) == 4


def test_two_codes_of_one_name_are_one_term(make_vit, images):
    model = make_vit(pos_embed="sincos")
    position = model.pos_embed

    class Twice(torch.nn.Module):
        dynamic_linear = True
        constant_terms = ("position",)

        def forward(self, tokens, grid):
            return position(position(tokens, grid), grid)

    model.pos_embed = Twice()
    explanation = explain(model, images, 1)
    assert list(explanation.constants) == ["position"]
    assert explanation.completeness_gap.max() < 1e-10


def test_rotary_and_absent_codes_have_no_term(make_vit, images):
    for pos_embed in ("rope", "none"):
        assert explain(make_vit(pos_embed=pos_embed), images).constants == {}
