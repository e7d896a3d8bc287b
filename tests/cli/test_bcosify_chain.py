"""A conventional model becomes a B-cos model while it is trained, and explains a slide as one."""

import pandas as pd
import pytest

from bcos_vit.layers import BcosLinear
from pathology.tasks.checkpoint import load_task


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
