"""What is particular to tiles: losses, constants of the head, labels, mixed tiles."""

import math

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from bcos_vit.losses import ClassCrossEntropy, LabelBCE, OneHotBCE
from pathology.tasks.tile_classification import TileClassification
from tests.pathology.tasks.small import Data, Tiles, fit, make


class Labelled(Data):
    """Tiles with any number of two labels."""

    def train_dataloader(self):
        rows = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
        tiles = [
            tile | {"label": rows[i % 4]} for i, tile in enumerate(Tiles(8)[k] for k in range(8))
        ]
        return DataLoader(tiles, batch_size=4)

    val_dataloader = train_dataloader


def bias(task):
    return task.model.logits.bias.tolist()


def test_bcos_models_are_trained_by_bce_and_their_twins_by_cross_entropy():
    assert isinstance(make().loss, OneHotBCE)
    assert isinstance(make("resnet18").loss, ClassCrossEntropy)
    assert isinstance(make("resnet18", loss="bce").loss, OneHotBCE)
    assert isinstance(make("resnet18", outcome="labels").loss, LabelBCE)


def test_the_prior_is_the_log_odds_of_what_training_shows_but_at_most_minus_three():
    task = make(logit_bias="prior")
    assert bias(task) == [-3, -3]
    fit(task, max_steps=1)
    assert bias(task) == pytest.approx([-3, -3])

    class Rare(Data):
        def class_shares(self):
            return [0.99, 0.01]

    task = make(logit_bias="prior", loss="ce", class_weights="balanced")
    fit(task, data=Rare(), max_steps=1)
    assert bias(task) == pytest.approx([-3, math.log(0.01 / 0.99)], abs=1e-5)
    assert task.loss.class_weights.tolist() == pytest.approx([1 / 1.98, 50])
    again = make(logit_bias="prior", loss="ce", class_weights="balanced")
    again.load_state_dict(task.state_dict())
    assert bias(again) == bias(task)


def test_a_logit_bias_and_a_temperature_can_be_given():
    task, plain = make(logit_bias=-1.5, temperature=2.0).eval(), make(logit_bias=0.0).eval()
    assert bias(task) == [-1.5, -1.5]
    tiles = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(task(tiles), plain(tiles) / 2 - 1.5)
        assert torch.equal(task.predict_step({"image": tiles}), task(tiles))


def test_a_bcosified_model_has_a_prior_too():
    task = TileClassification(
        "vit_tiny_patch16_224", ["light", "dark"], bcosify_epochs=0, logit_bias="prior",
        temperature=2.0,
        model_args={"img_size": 32, "depth": 1, "embed_dim": 64, "num_heads": 1},
    )  # fmt: skip

    class Rare(Data):
        def class_shares(self):
            return [0.99, 0.01]

    fit(task, data=Rare(), max_steps=1)
    assert bias(task) == pytest.approx([-3, math.log(0.01 / 0.99)], abs=1e-5)
    assert float(task.model.logits.temperature) == 2.0


def test_class_weights_reach_the_loss_of_training_alone():
    task = make(class_weights=[1.0, 5.0], label_smoothing=0.1, off_target=0.01)
    assert task.loss.class_weights.tolist() == [1, 5]
    assert (task.loss.off_target, task.loss.label_smoothing) == (0.01, 0.1)
    assert task.plain_loss.class_weights is None
    assert (task.plain_loss.off_target, task.plain_loss.label_smoothing) == (0, 0)


def test_labels_are_trained_and_measured_each_by_itself():
    scores = {}

    class Keep(lightning.Callback):
        def on_validation_end(self, trainer, pl_module):
            scores.update(trainer.callback_metrics)

    task = make(outcome="labels", class_weights="balanced", mixup=0.2)
    fit(task, Keep(), data=Labelled())
    assert task.loss.class_weights.tolist() == pytest.approx([1 / 9, 9])
    assert {"val_auroc", "val_auprc", "val_f1", "val_loss"} <= set(scores)
    assert task.monitor == "val_auroc"
    logits = torch.tensor([[1.0, -2.0]])
    assert torch.equal(task.probabilities(logits), logits.sigmoid())


def test_large_logits_of_labels_are_told_apart():
    task = make(outcome="labels")
    logits = torch.tensor([[30.0, -30], [31, -31], [32, -32], [33, -33]])
    task.forward = lambda tiles: logits
    task.log = lambda *args, **options: None
    labels = torch.tensor([[0.0, 1], [0, 1], [1, 0], [1, 0]])
    task.validation_step({"image": torch.zeros(4, 3, 32, 32), "label": labels})
    assert task.val_metrics.compute()["val_auroc"].item() == 1.0


def test_mixed_tiles_and_their_shares_reach_model_and_loss():
    task = make(mixup=0.5)
    seen = {}
    task.loss.register_forward_pre_hook(lambda _, given: seen.update(labels=given[1]))
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    task.training_step({"image": images, "label": torch.tensor([0, 1, 0, 1])})
    assert seen["labels"].shape == (4, 2)
    assert torch.allclose(seen["labels"].sum(1), torch.ones(4))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"outcome": "grades"}, "outcome of tiles must be classes or labels"),
        ({"outcome": "labels", "loss": "ce"}, "labels are trained by loss bce"),
        ({"outcome": "labels", "off_target": 0.1}, "off_target is for classes"),
        ({"loss": "ce", "off_target": 0.1}, "off_target is for loss bce"),
        ({"loss": "mse"}, "loss must be bce or ce"),
        ({"class_weights": [1.0]}, "class_weights must be 2, one per class; got 1"),
        ({"class_weights": "even"}, "class_weights must be numbers or balanced"),
        ({"logit_bias": "none"}, "logit_bias must be default, prior or a number"),
        ({"logit_bias": -1.0, "model_args": {"logit_bias": -2.0}}, "give logit_bias once"),
        ({"model": "resnet18", "logit_bias": "prior"}, "are of B-cos models"),
        ({"model": "resnet18", "temperature": 2.0}, "are of B-cos models"),
        ({"model": "vitc_tiny_patch16_224", "logit_bias": -4.0}, "are of B-cos models"),
        ({"lr": math.inf}, "lr must be positive"),
        ({"agc": math.nan}, "must be at least 0, got nan"),
        ({"agc": 0.0, "clip_norm": math.nan}, "clip_norm must be at least 0"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"optimizer": "adamm"}, "did you mean 'adam"),
        ({"schedule": "plateau"}, "schedule must be one of cosine, step, wsd, constant"),
        ({"schedule": "step"}, "decay_epochs is for the schedules step and wsd, which need it"),
        ({"decay_epochs": 3}, "decay_epochs is for the schedules"),
        ({"clip_norm": 1.0}, "clip_norm must be at least 0, and agc 0 with it"),
        ({"min_lr": 1.0}, r"min_lr in \[0, lr\]"),
        ({"layer_decay": 1.5}, r"layer_decay must be in \(0, 1\]"),
        ({"warmup_steps": -1}, "warmup_steps must be at least 0"),
        ({"label_smoothing": 1.0}, "label_smoothing must be in"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        make(**options)


def test_shares_of_classes_come_with_the_data():
    class Silent(Data):
        class_shares = None

        def __getattribute__(self, name):
            if name == "class_shares":
                raise AttributeError(name)
            return super().__getattribute__(name)

    with pytest.raises(ValueError, match="need data that has classes"):
        fit(make(logit_bias="prior"), data=Silent())
