"""The average of the weights against one by hand, and that it is what is measured and kept."""

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from pathology.tasks.checkpoint import load_task
from pathology.tasks.tile_classification import TileClassification
from tests.pathology.tasks.small import BATCHES, Watch, fit, make


class Measured(Callback):
    """Weights that validation sees."""

    def __init__(self):
        self.weights = []

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if not trainer.sanity_checking and batch_idx == 0:
            self.weights.append({k: v.clone() for k, v in pl_module.model.state_dict().items()})


def by_hand(weights, decay, every):
    """``a <- decay a + (1 - decay) w``, begun with the weights after the first step."""
    average = {k: v.double() for k, v in weights[0].items()}
    for state in weights[every::every]:
        average = {k: decay * a + (1 - decay) * state[k].double() for k, a in average.items()}
    return average


@pytest.mark.parametrize(("every", "batches"), [(1, 1), (2, 1), (1, 2)])
def test_the_average_is_that_by_hand_of_weights_and_statistics(tmp_path, every, batches):
    watch, measured = Watch(), Measured()
    keep = ModelCheckpoint(tmp_path, "best", monitor="val_auroc", mode="max")
    task = make("test_resnet", ema_decay=0.8, ema_every=every)
    fit(task, watch, measured, keep, accumulate_grad_batches=batches)
    steps = watch.weights[batches - 1 :: batches]
    floating = {k: v for k, v in steps[0].items() if v.is_floating_point()}
    assert any("running_var" in name for name in floating)
    expected = by_hand([{k: s[k] for k in floating} for s in steps], 0.8, every)
    kept = torch.load(tmp_path / "best.ckpt", weights_only=True)
    loaded, _ = load_task(tmp_path / "best.ckpt")
    for name, value in expected.items():
        assert not torch.equal(value.float(), steps[-1][name]) or torch.equal(
            steps[0][name], steps[-1][name]
        )
        for found in (
            kept["state_dict"][name], loaded.state_dict()[name], task.state_dict()[name],
            measured.weights[-1][name.removeprefix("model.")],
        ):  # fmt: skip
            # float32 in a few steps.
            torch.testing.assert_close(found.double(), value, rtol=1e-5, atol=1e-6)
        assert torch.equal(kept["current_model_state"][name], steps[-1][name])


def test_constants_stay_what_they_are_to_the_last_bit(tmp_path):
    task = make(ema_decay=0.9, logit_bias=-3.3, temperature=0.7)
    logits = {k: v.clone() for k, v in task.model.logits.state_dict().items()}
    fit(task, epochs=2)
    for name, value in task.model.logits.state_dict().items():
        assert torch.equal(value, logits[name])


def test_a_prior_found_when_training_starts_is_averaged_from_there():
    measured = Measured()
    task = make(ema_decay=0.999, logit_bias="prior", model_args={"depth": 1, "img_size": 32})
    fit(task, measured)
    assert measured.weights[-1]["logits.bias"].tolist() == pytest.approx([-3, -3])


def test_a_model_that_is_being_converted_is_followed_and_then_averaged(tmp_path):
    watch, measured = Watch(), Measured()
    task = TileClassification(
        "vit_tiny_patch16_224", ["light", "dark"], bcosify_epochs=1, ema_decay=0.5, ema_every=4,
        model_args={"img_size": 32, "depth": 1, "embed_dim": 64, "num_heads": 1},
    )  # fmt: skip
    keep = ModelCheckpoint(tmp_path, "last", save_on_train_epoch_end=True)
    fit(task, watch, measured, keep, epochs=2)
    # On the way validation sees the weights themselves, at their stage.
    for name, value in measured.weights[0].items():
        if name != "homotopy":
            assert torch.equal(value, watch.weights[BATCHES - 1][f"model.{name}"])
    assert measured.weights[0]["homotopy"].tolist() == [2, 0]
    # The first B-cos step is where the average begins, then every fourth of all steps.
    begin = watch.weights[BATCHES]
    middle = watch.weights[2 * 4]
    name = "model.blocks.0.mlp.fc1.weight"
    expected = (begin[name] + middle[name]) / 2
    torch.testing.assert_close(measured.weights[1][name.removeprefix("model.")], expected)
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    torch.testing.assert_close(kept[name], expected)
    assert kept["model.homotopy"].tolist() == [2, 0]
    assert task.model.stage == (2.0, 0.0)


def test_a_conversion_is_followed_while_gradients_accumulate_too():
    task = make(
        "vit_tiny_patch16_224", bcosify_epochs=1, ema_decay=0.5,
        model_args={"img_size": 32, "depth": 1, "embed_dim": 64, "num_heads": 1},
    )  # fmt: skip
    measured = Measured()
    fit(task, measured, epochs=1, accumulate_grad_batches=3)
    for name, value in task.model.state_dict().items():
        assert torch.equal(measured.weights[-1][name], value)


def test_a_training_that_fails_within_validation_keeps_its_weights():
    class Fail(Callback):
        def on_validation_batch_start(self, trainer, *_):
            if not trainer.sanity_checking:
                raise RuntimeError("out of memory")

    watch, task = Watch(), make(ema_decay=0.9)
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(task, watch, Fail())
    for name, value in watch.weights[-1].items():
        assert torch.equal(task.state_dict()[name], value)


@pytest.mark.parametrize("options", [{"ema_decay": 0.0}, {"ema_decay": 1.0}, {"ema_every": 0}])
def test_averages_that_are_none_are_refused(options):
    with pytest.raises(ValueError, match=r"ema_(decay|every) must be"):
        make(**options)
