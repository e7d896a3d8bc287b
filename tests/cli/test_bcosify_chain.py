"""A conventional model becomes a B-cos model while it is trained, and explains a slide as one."""

import pandas as pd
import pytest
import torch
import yaml

from bcos_vit.layers import BcosLinear
from pathology.tasks.checkpoint import load_task
from pathology.tasks.tile_classification import TileClassification


def arguments(cohort, tiles, run, *more, model="vit_tiny_patch16_224", epochs=2):
    return [
        "train", "--out", run, "--model.model", model,
        "--data.manifest", cohort, "--data.tiles", tiles, "--data.classes", "[normal, tumour]",
        "--data.batch_size", "32", "--data.num_workers", "0", "--trainer.max_epochs", str(epochs),
        "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", *more,
    ]  # fmt: skip


SMALL = ("--model.model_args", "{img_size: 64, depth: 2, embed_dim: 64, num_heads: 1}")


@pytest.fixture(scope="module")
def converted(cohort, cohort_tiles, tmp_path_factory):
    """A run whose second epoch is the first of a B-cos model."""
    from pathology.cli import main

    run = tmp_path_factory.mktemp("bcosified") / "run"
    more = (*SMALL, "--model.bcosify_epochs", "1.5")
    assert main([str(word) for word in arguments(cohort, cohort_tiles, run, *more)]) == 0
    return run


def test_the_best_epoch_is_one_at_the_end_of_the_way(converted):
    task, _ = load_task(converted)
    assert task.model.stage == (2.0, 0.0)
    layers = [module for module in task.model.modules() if isinstance(module, BcosLinear)]
    assert {layer.b for layer in layers} == {2.0}
    log = pd.read_csv(converted / "logs" / "metrics.csv")
    selection = log["val_auroc_as_bcos"].dropna().tolist()
    assert selection[0] == -1
    assert selection[1] == log["val_auroc"].dropna().tolist()[1]
    assert task.loss_name == "bce"


def test_the_last_epoch_is_kept_to_go_on_from_whatever_is_best(converted):
    last = torch.load(converted / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 1
    assert last["state_dict"]["model.homotopy"].tolist() == [2, 0]


def test_early_stopping_waits_for_the_bcos_model(pathology, cohort, cohort_tiles, tmp_path):
    more = (*SMALL, "--model.bcosify_epochs", "2", "--patience", "1")
    code, _, err = pathology(*arguments(cohort, cohort_tiles, tmp_path / "run", *more, epochs=3))
    assert code == 0, err
    assert yaml.safe_load((tmp_path / "run" / "finished").read_text())["val_auroc_as_bcos"] > 0
    assert load_task(tmp_path / "run")[0].model.stage == (2.0, 0.0)


def test_a_training_cut_short_on_the_way_is_not_finished(refused, cohort, cohort_tiles, tmp_path):
    more = (*SMALL, "--model.bcosify_epochs", "2", "--trainer.max_steps", "6",
            "--trainer.limit_train_batches", "4", "--trainer.log_every_n_steps", "1")  # fmt: skip
    line = refused(*arguments(cohort, cohort_tiles, tmp_path / "run", *more))
    assert "training ended before the model was a B-cos model" in line
    assert not (tmp_path / "run" / "finished").exists()


def test_a_converted_run_can_be_started_from(converted, refused, cohort, cohort_tiles, tmp_path):
    best = converted / "checkpoints" / "best.ckpt"
    task = TileClassification(
        "vit_tiny_patch16_224", ["a", "b", "c"], bcosify_epochs=0, init_from=str(best),
        model_args={"img_size": 64, "depth": 2, "embed_dim": 64, "num_heads": 1},
    )  # fmt: skip
    before, _ = load_task(converted)
    assert task.model.stage == (2.0, 0.0)
    assert torch.equal(task.model.blocks[1].mlp.fc1.weight, before.model.blocks[1].mlp.fc1.weight)
    more = (*SMALL, "--model.init_from", best)
    line = refused(*arguments(cohort, cohort_tiles, tmp_path / "run", *more))
    assert "is of a model that was converted; give bcosify_epochs 0" in line


def test_its_head_begins_with_the_logit_bias_of_bcos_models(converted):
    task, _ = load_task(converted)
    assert task.model.logits.bias.tolist() == [-3, -3]


def test_its_slide_explanation_closes(pathology, converted, cohort, cohort_tiles, tmp_path):
    code, out, err = pathology(
        "explain", "--run", converted, "--slides", cohort.parent / "test_000.tif",
        "--tiles", cohort_tiles, "--out", tmp_path, "--target", "tumour", "--device", "cpu",
    )  # fmt: skip
    assert code == 0, err
    assert "closed, tolerance" in out
    # Position and class token are learnt constants: they are in the ledger, the biases are gone.
    assert "position" in out
    assert "tokens" in out


def test_an_end_after_the_last_epoch_is_refused(refused, cohort, cohort_tiles, tmp_path):
    more = (*SMALL, "--model.bcosify_epochs", "3")
    line = refused(*arguments(cohort, cohort_tiles, tmp_path / "run", *more))
    assert "bcosify_epochs is 3, training ends after 2" in line


def test_a_model_without_a_bcos_form_is_refused(refused, cohort, cohort_tiles, tmp_path):
    more = ("--model.bcosify_epochs", "1")
    line = refused(*arguments(cohort, cohort_tiles, tmp_path / "run", *more, model="densenet121"))
    assert "a DenseNet cannot be converted" in line
