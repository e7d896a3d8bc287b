"""What a trained backbone is worth: a run of the verb, in this process to save its start."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from bcos_vit.transforms import encode
from pathology.benchmark.backbones import Backbone, backbone_values, command, load_classifier
from pathology.benchmark.backbones.values import predict
from pathology.benchmark.tile_sets import TileSet
from pathology.cli import main
from pathology.errors import ManifestError


@pytest.fixture(scope="module")
def run(spots: TileSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    backbone = Backbone(
        "tiny", "bcos_vit_tiny_patch16_224", {"img_size": 32, "depth": 1},
        training={"epochs": 1, "batch": 8, "trainer.accelerator": "cpu"},
    )  # fmt: skip
    assert main(command(backbone, spots, 0, folder)) == 0
    return folder


def test_the_classifier_is_the_trained_network_with_its_encoding(run: Path, spots: TileSet) -> None:
    classifier = load_classifier(run)
    assert not classifier.training
    images = torch.from_numpy(spots.split("test").images).permute(0, 3, 1, 2)
    with torch.inference_mode():
        by_hand = classifier.model(encode(images, "complement"))
    # Batches of other sizes round otherwise.
    np.testing.assert_allclose(
        predict(classifier, spots.split("test").images, batch=5), by_hand, atol=1e-4
    )


def test_values_are_those_of_scikit_learn(run: Path, spots: TileSet) -> None:
    values = backbone_values(run, spots, seconds=0.01, repeats=20, batch=4)
    found = {(v.metric, v.stratum): v for v in values}
    test = spots.split("test")
    logits = predict(load_classifier(run), test.images)
    strata = test.columns["stratum"].to_numpy()
    for stratum in ("", "aligned", "swapped"):
        rows = (strata == stratum) | (stratum == "")
        truth, chosen = test.labels[rows], logits[rows].argmax(1)
        assert found["accuracy", stratum].value == pytest.approx((truth == chosen).mean())
        assert found["balanced_accuracy", stratum].value == pytest.approx(
            balanced_accuracy_score(truth, chosen)
        )
    # Each class against the rest by its own logit, and their mean.
    aurocs = [roc_auc_score(test.labels == c, logits[:, c]) for c in (0, 1)]
    assert found["auroc", ""].value == pytest.approx(np.mean(aurocs))
    probability = 1 / (1 + np.exp(-logits.max(1)))
    assert 0 <= found["ece", ""].value <= 1
    # As each logit was trained by itself: the mean confidence is off by at most the whole error.
    gap = abs(probability.mean() - (logits.argmax(1) == test.labels).mean())
    assert found["ece", ""].value >= gap - 1e-9
    assert found["balanced_accuracy", ""].low <= found["balanced_accuracy", ""].value
    assert {v.metric for v in values if v.headline} == {"balanced_accuracy", "auroc", "ece"}


def test_cost_is_counted_and_what_nobody_measured_is_said(run: Path, spots: TileSet) -> None:
    values = backbone_values(run, spots, seconds=0.01, repeats=0, batch=4, twin=run)
    found = {v.metric: v for v in values if not v.stratum}
    classifier = load_classifier(run)
    assert found["parameters"].value == sum(p.numel() for p in classifier.parameters())
    assert found["tiles_per_second"].low <= found["tiles_per_second"].value
    assert f"threads: {torch.get_num_threads()}" in found["tiles_per_second"].note
    # At least its input: four tiles of six channels in float32.
    assert found["inference_peak"].value > 4 * 6 * 32 * 32 * 4 / 2**20
    assert math.isnan(found["training_seconds"].value)
    assert found["training_seconds"].note == "nobody measured it"


def test_runs_of_other_classes_are_refused(run: Path, spots: TileSet, tmp_path: Path) -> None:
    other = replace(spots, classes=("plain", "stain"))
    with pytest.raises(ManifestError, match="trained on the classes plain, spot"):
        backbone_values(run, other)
    with pytest.raises(ManifestError, match="no checkpoint"):
        load_classifier(tmp_path)
