"""Reading runs back."""

import pytest
import torch
from safetensors.torch import save_file

from bcos_vit.errors import WeightsError
from pathology.errors import ManifestError
from pathology.tasks.checkpoint import load_task
from pathology.tasks.tile_classification import TileClassification
from pathology.tasks.weight_file import write_weight_file


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


def test_a_task_can_start_from_another_ones_weights(checkpoint):
    task, path = checkpoint
    other = TileClassification("bcos_resnet18", ["a", "b", "c"], init_from=str(path))
    for name, value in other.model.state_dict().items():
        if not name.startswith(("fc", "logits")):
            assert torch.equal(value, task.model.state_dict()[name]), name
    assert other.model.fc.weight.shape[0] == 3


@pytest.mark.parametrize("name", ["own.safetensors", "own.pth", "best.safetensors"])
def test_a_task_can_start_from_a_file_of_weights(checkpoint, tmp_path, name):
    task, path = checkpoint
    weights = task.model.state_dict()
    if name == "best.safetensors":
        write_weight_file(tmp_path / name, torch.load(path))
    elif name == "own.pth":
        torch.save({"state_dict": weights}, tmp_path / name)
    else:
        save_file(weights, tmp_path / name)
    other = TileClassification("bcos_resnet18", ["a", "b", "c"], init_from=str(tmp_path / name))
    assert torch.equal(other.model.layer3[1].conv2.weight, weights["layer3.1.conv2.weight"])
    assert other.model.fc.weight.shape[0] == 3
    with pytest.raises(WeightsError, match="it is of another model"):
        TileClassification("bcos_resnet34", ["a", "b"], init_from=str(tmp_path / name))


def test_a_file_of_something_else_is_no_start(tmp_path):
    for name, content in (("a.pth", {"epoch": 3}), ("b.pth", {}), ("c.bin", ["x"])):
        torch.save(content, tmp_path / name)
        with pytest.raises(WeightsError, match=f"{name}: not a usable checkpoint"):
            TileClassification("bcos_resnet18", ["a", "b"], init_from=str(tmp_path / name))


def test_weights_of_another_model_are_refused_to_start_from(checkpoint):
    _, path = checkpoint
    with pytest.raises(WeightsError, match="it is of another model"):
        TileClassification("bcos_vit_tiny_patch16_224", ["a", "b"], init_from=str(path))


def test_no_weights_to_start_from_is_said_so(tmp_path):
    with pytest.raises(WeightsError, match="not a usable checkpoint"):
        TileClassification("bcos_resnet18", ["a", "b"], init_from=str(tmp_path / "none.ckpt"))


def test_weights_of_another_encoding_are_no_start(checkpoint):
    _, path = checkpoint
    with pytest.raises(WeightsError, match="with encoding None, this run has stain"):
        TileClassification(
            "bcos_resnet18", ["a", "b"], model_args={"encoding": "stain"}, init_from=str(path)
        )


def test_a_run_from_published_weights_comes_back_without_them(monkeypatch, tmp_path):
    """A published ViT is another network than ours of that name; the tag tells which."""
    monkeypatch.setattr("bcos_vit.models.registry.load_published", lambda *_: None)
    task = TileClassification(
        "bcos_vit_tiny_patch16_224", ["a", "b"], model_args={"pretrained": True, "img_size": 32}
    )
    assert task.hparams["model"] == "bcos_vit_tiny_patch16_224.in1k"
    path = tmp_path / "x.ckpt"
    torch.save({"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}, path)
    monkeypatch.undo()
    loaded, _ = load_task(path)
    tiles = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(loaded(tiles), task.eval()(tiles))


def test_an_exponent_without_conversion_is_refused():
    with pytest.raises(ValueError, match="give bcosify_epochs, too"):
        TileClassification("resnet18", ["a", "b"], bcosify_b=1.5)


def test_a_conventional_model_of_ours_becomes_bcos_as_it_is():
    task = TileClassification(
        "vitc_tiny_patch16_224",
        ["a", "b"],
        model_args={"img_size": 32, "depth": 1},
        bcosify_epochs=1,
    )
    assert task.model.stage == (1.0, 1.0)
    assert task.model.logits.bias.tolist() == [-3, -3]
    task.homotopy.apply(task.model, 0)
    assert task.model.stage == (2.0, 0.0)
    assert task(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape == (1, 2)
