"""Tiles become what each kind of model takes."""

import pytest
import torch
from torch import nn

from bcos_vit.models import create_model, create_twin
from pathology.tasks.encoding import TileEncoding

TILES = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)


def test_bcos_models_get_the_complement():
    encoded = TileEncoding(create_model("bcos_resnet18", num_classes=2))(TILES)
    assert torch.equal(encoded[:, :3], TILES / 255)
    assert torch.equal(encoded[:, 3:], 1 - TILES / 255)


def test_bcos_models_of_three_channels_get_plain_values():
    encoded = TileEncoding(create_model("bcos_resnet18", num_classes=2, in_chans=3))(TILES)
    assert torch.equal(encoded, TILES / 255)


def test_conventional_models_get_their_own_normalisation():
    twin = create_twin("bcos_resnet18", num_classes=2)
    mean = torch.tensor(twin.pretrained_cfg["mean"])[:, None, None]
    std = torch.tensor(twin.pretrained_cfg["std"])[:, None, None]
    assert torch.allclose(TileEncoding(twin)(TILES), (TILES / 255 - mean) / std)


def test_other_channel_counts_are_refused():
    model = nn.Conv2d(5, 2, 1)
    model.in_chans = 5
    with pytest.raises(ValueError, match="got 5"):
        TileEncoding(model)
