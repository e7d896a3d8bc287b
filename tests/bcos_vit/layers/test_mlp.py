"""The feed-forward block is two B-cos layers and nothing between them."""

import numpy as np
import pytest
import torch

from bcos_vit.layers import BcosMlp, LayerKit
from tests.reference import array, bcos_linear_matrix


@pytest.mark.parametrize("b", [1.5, 2])
def test_output_is_two_bcos_layers(b):
    layer = BcosMlp(5, 9, kit=LayerKit(b, 2)).double()
    x = torch.randn(5, dtype=torch.float64)
    hidden = bcos_linear_matrix(array(layer.fc1.weight), array(x), b, 2) @ array(x)
    expected = bcos_linear_matrix(array(layer.fc2.weight), hidden, b, 2) @ hidden
    np.testing.assert_allclose(array(layer(x)), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_applied_in_training_only(training):
    layer = BcosMlp(8, 16, drop=0.5).train(training)
    assert (layer(torch.randn(20, 8)) == 0).any() == training
