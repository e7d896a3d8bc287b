"""The model of a trained task as an encoder of tiles."""

import pytest
import torch
from torch import nn

from pathology.errors import ManifestError
from pathology.tasks.encoder import task_encoder
from pathology.tasks.tile_classification import TileClassification


def make_tiles(side):
    return torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("model", "arguments", "side", "words"),
    [
        ("bcos_vit_tiny_patch16_224", {"img_size": 32, "depth": 1}, 32, "complement"),
        ("bcos_vit_tiny_patch16_224", {"img_size": 32, "depth": 1, "encoding": "stain"}, 32,
         "stain space: haematoxylin"),
        ("vit_tiny_patch16_224", {"img_size": 32, "depth": 1}, 32, "rgb, mean 0.5 0.5 0.5, std 0"),
        ("test_resnet", {}, 64, "rgb, mean 0.5 0.5 0.5, std 0"),
    ],
)  # fmt: skip
def test_its_features_are_what_the_classifier_takes(model, arguments, side, words):
    task = TileClassification(model, ["a", "b"], arguments).eval()
    encoder = task_encoder(task, "hash")
    tiles = make_tiles(side)
    with torch.no_grad():
        wanted = task.model(task.encoding(tiles))
        got = task.model.get_classifier()(encoder(tiles))
        got = getattr(task.model, "logits", nn.Identity())(got)
    torch.testing.assert_close(got, wanted)
    assert (encoder.dims, encoder.weights) == (task.model.num_features, "hash")
    assert encoder.name == f"{model} of a run"
    assert encoder.encoding.startswith(words)


def test_of_a_cnn_of_ours_they_are_means_over_places():
    task = TileClassification("bcos_resnet18", ["a", "b"]).eval()
    tiles = make_tiles(64)
    with torch.no_grad():
        places = task.model.forward_features(task.encoding(tiles))
    torch.testing.assert_close(task_encoder(task, "hash")(tiles), places.mean((2, 3)))


def test_a_task_without_a_model_of_tiles_is_refused():
    with pytest.raises(ManifestError, match="a run of Linear has no model of tiles"):
        task_encoder(nn.Linear(2, 3), "hash")
