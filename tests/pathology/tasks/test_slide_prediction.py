"""Training on bags: it learns, repeats, knows what it was made of, and refuses the rest."""

import itertools
from dataclasses import replace

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from bcos_vit.errors import WeightsError
from pathology.data.bag_module import BagDataModule
from pathology.data.bag_sampler import Draw
from pathology.data.bags import pad_bags
from pathology.errors import StampMismatchError
from pathology.tasks.optimisation import freeze_layers, make_optimizer, rest_frozen
from pathology.tasks.slide_prediction import SlidePrediction
from tests.pathology.made_bags import KIND, write_cohort, write_slide_features

CLASSES = ["normal", "tumour"]
SMALL = {"hidden": 16, "attention_hidden": 8, "expected_tiles": 8}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("bags"), np.random.default_rng(0))


@pytest.fixture(autouse=True, scope="module")
def seed():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PL_GLOBAL_SEED", "0")
        yield


def make_data(cohort, **options):
    defaults = {"classes": CLASSES, "features": cohort[1], "num_workers": 0, "batch_size": 4}
    return BagDataModule(cohort[0], **defaults | options)


def make_task(data, **options):
    defaults = {
        "aggregator": "bcos_gated_sum", "aggregator_args": SMALL, "warmup_epochs": 1, "lr": 0.03,
        "agc": 0.0,
    }  # fmt: skip
    return SlidePrediction(classes=data.classes, outcome=data.outcome, **defaults | options)


def fit(task, data, epochs=12, folder=None, resume=None, **options):
    torch.manual_seed(0)
    saving = {"enable_checkpointing": False, "logger": False} if folder is None else {
        "callbacks": [ModelCheckpoint(folder, every_n_train_steps=3, save_top_k=-1)],
        "logger": False,
    }  # fmt: skip
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=2, **saving | options,
    )  # fmt: skip
    trainer.fit(task, data, ckpt_path=resume, weights_only=True)
    return trainer


def predict(task, data, split="test"):
    task.eval()
    with torch.no_grad():
        return torch.cat([task.predict_step(batch) for batch in data.loader(split)])


OUTCOMES = {
    "classes": (CLASSES, None, "val_auroc"),
    "labels": (["a", "b"], "findings", "val_auroc"),
    "grades": (["none", "few", "many"], None, "val_kappa"),
    "cox": ([], None, "val_c_index"),
    "hazard": ([], None, "val_c_index"),
}


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_outcome_learns_a_simple_rule(outcome, cohort):
    classes, column, monitor = OUTCOMES[outcome]
    data = make_data(cohort, classes=classes, outcome=outcome, label_column=column)
    task = make_task(data, intervals=2)
    assert task.monitor == monitor
    trainer = fit(task, data, check_val_every_n_epoch=12)
    # Times of slides with equally many tiles of the kind are in no order: a tenth of all pairs.
    assert trainer.callback_metrics[monitor] > 0.8
    logits = predict(task, data)
    assert logits.shape[1] == {"labels": 2, "cox": 1}.get(outcome, 2)
    assert torch.isfinite(logits).all()


def test_classes_are_learnt_by_the_loss_that_suits_the_aggregator():
    for name, loss in (("bcos_pooled", "bce"), ("abmil", "ce")):
        assert SlidePrediction(name, CLASSES).loss_name == loss
    assert SlidePrediction("abmil", CLASSES, loss="bce").loss_name == "bce"


def test_gated_sums_expect_as_many_tiles_as_bags_have(cohort):
    data = make_data(cohort)
    usual = float(np.median(data.dataset("train").sizes))
    task = SlidePrediction("bcos_gated_sum", CLASSES)
    task.take_from(data)
    assert task.hparams["aggregator_args"] == {"expected_tiles": usual}
    assert float(task.model.aggregator.scale) == pytest.approx(usual**-0.5)
    task = make_task(data)
    task.take_from(data)
    assert task.hparams["aggregator_args"] == SMALL


def test_risks_are_compared_within_a_batch(cohort):
    data = make_data(cohort, classes=[], outcome="cox", batch_size=1)
    with pytest.raises(ValueError, match="batch_size of at least 2"):
        fit(make_task(data), data, 1)


def test_clam_clusters_beside_its_loss(cohort):
    data = make_data(cohort)
    options = {"hidden": 16, "auxiliary_weight": 0.5}
    task = make_task(data, aggregator="clam", aggregator_args=options, in_features=6)
    task.trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    batch = next(iter(data.loader("train", training=True)))
    features, outputs = task.model(batch)
    clusters = task.model.aggregator.auxiliary_loss(features, batch["present"], batch["label"])
    wanted = task.model.outcome.loss(outputs, batch) + clusters
    assert clusters.item() > 0
    assert task.training_step(batch).item() == pytest.approx(wanted.item(), rel=1e-6)
    with pytest.raises(ValueError, match="clusters tiles by classes"):
        SlidePrediction("clam", [], "cox")


@pytest.fixture(scope="module")
def trained(cohort, tmp_path_factory):
    """A task of hazards, its averaged weights in a checkpoint, and the data."""
    folder = tmp_path_factory.mktemp("trained")
    data = make_data(cohort, classes=[], outcome="hazard")
    task = make_task(data, intervals=2, ema_decay=0.9)
    fit(task, data, 1, folder)
    (*_, path) = sorted(folder.glob("*.ckpt"))
    return task, path, data


def test_a_checkpoint_holds_all_that_is_needed(trained):
    task, path, data = trained
    checkpoint = torch.load(path, weights_only=True)
    settings = checkpoint["hyper_parameters"]
    assert settings["in_features"] == 6
    assert settings["bags"] == {"features": KIND.to_dict()}
    again = SlidePrediction(**settings)
    again.load_state_dict(checkpoint["state_dict"])
    assert torch.equal(again.model.outcome.cuts, task.model.outcome.cuts)
    own, found = predict(task, data), predict(again, data)
    assert not torch.equal(found, own)  # which is a step further
    task.load_state_dict(checkpoint["state_dict"])
    assert torch.equal(found, predict(task, data))
    again.check_data(data)


def test_bags_of_another_encoder_are_refused(trained, cohort, tmp_path, rng):
    task, path, data = trained
    for name in data.table()["slide_id"]:
        other = replace(KIND, encoder="another")
        write_slide_features(tmp_path / "other", name, rng.normal(size=(4, 6)), other)
    others = make_data((cohort[0], str(tmp_path / "other")), classes=[], outcome="hazard")
    with pytest.raises(StampMismatchError, match="encoder"):
        task.check_data(others)
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    with pytest.raises(StampMismatchError, match="encoder"):
        trainer.test(task, others, verbose=False)
    with pytest.raises(StampMismatchError, match="train anew"):
        fit(make_task(others, intervals=2), others, 2, resume=str(path))


def test_a_checkpoint_of_another_aggregator_is_refused(trained):
    _, path, data = trained
    other = make_task(data, aggregator="bcos_mean", aggregator_args={}, intervals=2)
    with pytest.raises(WeightsError, match="aggregator 'bcos_gated_sum'"):
        fit(other, data, 2, resume=str(path))


def test_padding_and_company_change_nothing(cohort):
    data = make_data(cohort)
    for name, args in (("bcos_gated_sum", SMALL), ("bcos_pooled", {"hidden": 16})):
        task = make_task(data, aggregator=name, aggregator_args=args, in_features=6).double().eval()
        bags = data.dataset("val")
        together = task.predict_step(pad_bags([bags[i] for i in range(8)]))
        alone = torch.cat([task.predict_step(pad_bags([bags[i]])) for i in range(8)])
        # predict_step returns float32.
        assert torch.allclose(together, alone, rtol=1e-6, atol=1e-6)


def test_a_gated_sum_of_some_tiles_is_on_average_that_of_all(cohort):
    data = make_data(cohort, max_tiles=2)
    task = make_task(data, in_features=6).double().eval()
    bags = data.dataset("train")
    whole = bags[0]
    count = whole["count"]
    assert count > 3
    with torch.no_grad():
        wanted = task(pad_bags([whole]))
        found = []
        for pair in itertools.combinations(range(count), 2):
            some = {n: whole[n][list(pair)] for n in ("features", "positions")}
            found.append(task(pad_bags([whole | some])))
        drawn = task(pad_bags([bags[Draw(0, 0, 0)]]))
    assert torch.allclose(torch.stack(found).mean(0), wanted, rtol=1e-12)
    assert any(torch.allclose(drawn, one, rtol=1e-12) for one in found)
    assert not torch.allclose(drawn, wanted, rtol=1e-3)


def test_mixed_precision_trains(cohort):
    data = make_data(cohort, outcome="grades", classes=["none", "few", "many"])
    task = make_task(data)
    trainer = fit(task, data, 1, precision="bf16-mixed")
    assert torch.isfinite(trainer.callback_metrics["val_loss"])
    assert next(task.model.aggregator.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aggregator": "abmill"}, "did you mean 'abmil'"),
        ({"aggregator_args": {"depth": 3}}, "do not suit bcos_gated_sum"),
        ({"freeze": "backbone"}, "freeze is of an encoder"),
        ({"layer_decay": 0.5}, "layer_decay is of an encoder"),
        ({"encoder_args": {"img_size": 3}}, "encoder_args is of an encoder"),
        ({"loss": "focal"}, "loss must be"),
    ],
)
def test_nonsense_is_refused(options, message, cohort):
    with pytest.raises(ValueError, match=message):
        make_task(make_data(cohort), **options)


def test_a_loss_of_classes_is_not_for_grades():
    with pytest.raises(ValueError, match="loss is of outcome classes"):
        SlidePrediction("abmil", ["low", "high"], "grades", loss="ce")


def test_size_of_features_has_to_be_known(cohort):
    data = make_data(cohort)
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False
    )
    with pytest.raises(ValueError, match="give in_features"):
        trainer.fit(make_task(data), data.loader("train", training=True))


# --- with an encoder ------------------------------------------------------------------------------


def with_encoder(**options):
    task = SlidePrediction(
        "bcos_gated_sum", CLASSES, aggregator_args=SMALL, encoder="test_resnet", **options
    )
    image = torch.randint(0, 256, (2, 3, 3, 32, 32), dtype=torch.uint8)
    present = torch.tensor([[True] * 3, [True, False, False]])
    batch = {
        "image": image, "present": present, "positions": torch.zeros(2, 3, 2),
        "count": torch.tensor([3, 1]), "label": torch.tensor([0, 1]),
    }  # fmt: skip
    return task, batch


def test_tiles_are_encoded_where_they_are_present(monkeypatch):
    task, batch = with_encoder()
    task.eval()
    model = task.model
    with torch.no_grad():
        whole = model.features(batch)
        monkeypatch.setattr("pathology.tasks.slide_model.ENCODED", 2)
        assert torch.allclose(model.features(batch), whole, atol=1e-6)
        alone = model.encoder(model.encoding(batch["image"][1, :1]))
    assert torch.allclose(whole[1, :1], alone, atol=1e-6)
    assert not whole[1, 1:].any()
    assert whole.shape == (2, 3, task.model.aggregator.in_features)


def test_bags_of_features_are_not_for_an_encoder(cohort):
    data = make_data(cohort)
    with pytest.raises(ValueError, match="the bags are of features: the model needs no encoder"):
        with_encoder()[0].take_from(data)


def test_an_encoder_may_learn_slower_or_not_at_all():
    task, batch = with_encoder(layer_decay=0.1)
    optimizer = make_optimizer(task.model, "adamw", 1.0, 0.05, 0.1)
    scales = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    assert {scales[id(p)] for p in task.model.encoder.parameters()} == {0.1}
    assert {scales[id(p)] for p in task.model.aggregator.parameters()} == {1.0}
    freeze_layers(task.model, "backbone")
    task.train()
    rest_frozen(task.model)
    assert not task.model.encoder.training
    assert task.model.aggregator.training
    task.trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    task.training_step(batch).backward()
    assert all(p.grad is None for p in task.model.encoder.parameters())
    assert any(p.grad is not None for p in task.model.aggregator.parameters())
