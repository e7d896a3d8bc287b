"""Reading runs back."""

import pytest
import torch

from bcos_vit.errors import WeightsError
from pathology.errors import ManifestError
from pathology.tasks.checkpoint import load_task
from pathology.tasks.tile_classification import TileClassification


@pytest.fixture
def checkpoint(tmp_path):
    task = TileClassification("bcos_resnet18", ["normal", "tumour"])
    path = tmp_path / "x.ckpt"
    torch.save({"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}, path)
    return task, path


def test_a_task_comes_back_as_it_was(checkpoint):
    task, path = checkpoint
    loaded, digest = load_task(path)
    tiles = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(loaded(tiles), task.eval()(tiles))
    assert not loaded.training
    assert len(digest) == 16


def test_no_run_is_said_so(tmp_path):
    with pytest.raises(ManifestError, match="`pathology train`"):
        load_task(tmp_path)


@pytest.mark.parametrize("damage", ["truncate", "other"])
def test_a_file_that_is_no_checkpoint_is_said_so(checkpoint, damage):
    _, path = checkpoint
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if damage == "truncate" else b"hello")
    with pytest.raises(WeightsError, match="not a usable checkpoint"):
        load_task(path)


def test_weights_of_another_class_count_are_refused(checkpoint):
    _, path = checkpoint
    content = torch.load(path)
    content["hyper_parameters"]["classes"] = ["a", "b", "c"]
    torch.save(content, path)
    with pytest.raises(WeightsError, match="not a usable checkpoint"):
        load_task(path)


def test_resuming_with_other_classes_is_refused(checkpoint):
    _, path = checkpoint
    other = TileClassification("bcos_resnet18", ["a", "b", "c"])
    with pytest.raises(WeightsError, match=r"2 classes \(normal, tumour\), this run has 3"):
        other.on_load_checkpoint(torch.load(path))
