"""Explanations of every family stop at any of its depths, and are complete there."""

import pytest
import torch

from bcos_vit.explain import explain, explain_classes
from tests.contract.families import FAMILIES, FAMILY_NAMES, pictures, settled

CONVENTIONAL = [name for name in FAMILY_NAMES if FAMILIES[name].conventional]
FORMS = [(name, {}) for name in FAMILY_NAMES] + [
    (name, {"conventional": True, "b": 1.5}) for name in CONVENTIONAL
]


@pytest.mark.parametrize(("name", "options"), FORMS)
def test_at_every_depth_the_sum_is_the_logit(name, options):
    family = FAMILIES[name]
    model, x = settled(family, **options), pictures(family)
    expected = explain(model, x, 1)
    grids = []
    for depth in model.depths():
        for k, found in enumerate(explain_classes(model, x, [0, 1], depth=depth)):
            # float64, some 20 layers.
            scale = found.contributions.abs().sum((1, 2))
            assert (scale > 0).all()
            assert (found.completeness_gap / scale).max() < 1e-9, (depth, k)
            torch.testing.assert_close(found.logits, expected.logits, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(found.bias, expected.bias, rtol=0, atol=0)
            assert set(found.constants) <= set(expected.constants)
        grids.append(found.contributions.shape[1:].numel())
    assert grids == sorted(grids, reverse=True)
    assert depth == "head"


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_nothing_gets_past_a_layer_where_networks_can_be_cut(name):
    family = FAMILIES[name]
    model, x = settled(family), pictures(family)
    *layers, _ = model.depths()[1:]
    for depth in layers:
        layer = model.get_submodule(depth)
        handle = layer.register_forward_hook(lambda _m, _i, y: torch.zeros_like(y))
        # Without biases zero in is zero out.
        assert torch.equal(model(x), model.logits.bias.expand(len(x), -1))
        handle.remove()
