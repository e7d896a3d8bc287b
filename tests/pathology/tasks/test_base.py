"""What tasks share, in small trainings: clipping, steps, seeds, freezing, averaging, resuming."""

import lightning
import pytest
import torch
from jsonargparse import ArgumentParser

from pathology.tasks.base import step_seed
from pathology.tasks.tile_classification import TileClassification
from tests.pathology.tasks.small import BATCHES, Watch, fit, make


@pytest.fixture(autouse=True)
def seed(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")


# --- steps ----------------------------------------------------------------------------------------


def test_steps_of_schedules_are_those_of_the_optimiser():
    watch = Watch()
    task = make(lr=0.5, warmup_epochs=1.0, optimizer="sgd", agc=0.01)
    trainer = fit(task, watch, epochs=2, accumulate_grad_batches=2)
    assert trainer.global_step == 6
    # Three of warm-up, three of the cosine; the batches of a step share its rate.
    expected = [0.5 * (0.01 + 0.99 * i / 3) for i in range(3)] + [0.5, 0.375, 0.125]
    assert watch.rates[::2] == pytest.approx(expected)
    assert watch.rates[1::2] == pytest.approx(expected)


def test_warm_up_may_be_said_in_steps():
    watch = Watch()
    fit(make(lr=1e-3, warmup_steps=4, warmup_from=0.5, schedule="constant"), watch)
    assert watch.rates == pytest.approx([5e-4, 6.25e-4, 7.5e-4, 8.75e-4, 1e-3, 1e-3])


def test_steps_alone_may_end_a_training_with_warm_up_in_epochs():
    watch = Watch()
    fit(make(lr=0.5, warmup_epochs=0.5), watch, epochs=-1, max_steps=8)
    assert watch.rates[:4] == pytest.approx([0.005, 0.17, 0.335, 0.5])
    assert len(watch.rates) == 8


def test_a_training_without_an_end_has_no_schedule():
    with pytest.raises(ValueError, match=r"give trainer\.max_epochs or trainer\.max_steps"):
        fit(make(), epochs=-1)


def test_layers_keep_their_share_of_the_rate_from_the_first_step():
    task = make(lr=1e-3, layer_decay=0.5, warmup_epochs=0, schedule="constant")
    watch = Watch()
    trainer = fit(task, watch, max_steps=1)
    groups = trainer.optimizers[0].param_groups
    assert sorted({group["lr"] for group in groups}) == pytest.approx([2.5e-4, 5e-4, 1e-3])


# --- clipping -------------------------------------------------------------------------------------


def _first_step(options, batches=1):
    """Weights, gradients of the first step as they came, and as they were used."""
    found = []
    for clip in ({"agc": 0.0}, options):
        task = make(optimizer="sgd", **clip)
        before = {n: p.detach().clone() for n, p in task.named_parameters()}
        fit(task, max_steps=1, accumulate_grad_batches=batches)
        # Lightning clears them when the next step begins.
        found.append({n: p.grad for n, p in task.named_parameters() if p.grad is not None})
    return before, *found


@pytest.mark.parametrize("batches", [1, 2])
def test_agc_bounds_each_unit_of_all_layers_by_its_weights(batches):
    factor = 1e-3
    weights, plain, clipped = _first_step({"agc": factor}, batches)
    shrunk = set()
    for name, gradient in plain.items():
        weight = weights[name]
        units = range(len(weight)) if weight.ndim > 1 else [slice(None)]
        expected = gradient.clone()
        for unit in units:
            most = factor * max(float(weight[unit].norm()), 1e-3)
            norm = float(gradient[unit].norm())
            if norm > most:
                expected[unit] = gradient[unit] * (most / norm)
                shrunk.add(name)
        # float32, once each way.
        torch.testing.assert_close(clipped[name], expected, rtol=1e-5, atol=1e-12)
    assert any("head" in name for name in shrunk)
    assert any("patch_embed" in name for name in shrunk)


def test_the_norm_of_all_gradients_is_clipped_instead_when_asked():
    _, plain, clipped = _first_step({"agc": 0.0, "clip_norm": 1e-3})
    norm = torch.stack([g.norm() for g in plain.values()]).norm()
    assert norm > 1e-3
    for name, gradient in plain.items():
        torch.testing.assert_close(clipped[name], gradient * 1e-3 / norm, rtol=1e-4, atol=1e-12)


def test_the_trainers_own_clipping_is_refused():
    with pytest.raises(ValueError, match=r"gradient_clip_val is not used; give model\.clip_norm"):
        fit(make(), gradient_clip_val=1.0)


# --- freezing -------------------------------------------------------------------------------------


def test_a_linear_probe_trains_the_head_alone():
    task = make("test_resnet", freeze="backbone", ema_decay=0.9)
    before = {k: v.clone() for k, v in task.state_dict().items()}
    trainer = fit(task)
    changed = {k for k, v in task.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"model.fc.weight", "model.fc.bias"}
    assert len(trainer.optimizers[0].state) == 2
    assert task.model.fc.training
    assert not task.model.layer4.training
    assert not task.train().model.bn1.training


# --- what is drawn --------------------------------------------------------------------------------


def test_a_batch_draws_by_seed_rank_and_number():
    seeds = {step_seed(rank, number) for rank in range(3) for number in range(50)}
    assert len(seeds) == 150


def test_every_batch_draws_anew_and_the_same_again(monkeypatch):
    drawn = []

    class Draw(lightning.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            drawn.append(float(torch.rand(())))

    fit(make(), Draw())
    first = list(drawn)
    drawn.clear()
    torch.manual_seed(1234)
    fit(make(), Draw())
    assert drawn == first
    assert len(set(first)) == BATCHES
    drawn.clear()
    monkeypatch.setenv("PL_GLOBAL_SEED", "8")
    fit(make(), Draw())
    assert not set(drawn) & set(first)


def test_a_resumed_run_is_the_one_that_was_not_interrupted(tmp_path):
    """With all that is drawn or kept: dropped paths, mixed tiles, an average."""
    options = {
        "mixup": 0.5, "cutmix": 1.0, "ema_decay": 0.5, "ema_every": 2, "warmup_steps": 3,
        "model_args": {"depth": 2, "img_size": 32, "drop_path_rate": 0.5}, "label_smoothing": 0.1,
    }  # fmt: skip
    path = tmp_path / "half.ckpt"

    class Keep(lightning.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 0:
                trainer.save_checkpoint(path)

    whole, rest = Watch(), Watch()
    ending = make(**options)
    fit(ending, whole, Keep(), epochs=2)
    resumed = make(**options)
    torch.manual_seed(99)  # as in another process
    fit(resumed, rest, epochs=2, resume=path)
    assert rest.losses == whole.losses[BATCHES:]
    assert rest.rates == whole.rates[BATCHES:]
    for key, value in ending.state_dict().items():
        if torch.is_tensor(value):
            assert torch.equal(value, resumed.state_dict()[key]), key


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--freeze", "2"], "freeze", 2),
        (["--freeze", "blocks.1"], "freeze", "blocks.1"),
        (["--logit_bias", "prior"], "logit_bias", "prior"),
        (["--logit_bias", "-4.6"], "logit_bias", -4.6),
        (["--class_weights", "balanced"], "class_weights", "balanced"),
        (["--class_weights", "[1, 2]"], "class_weights", [1.0, 2.0]),
        (["--optimizer_args", "{betas: [0.9, 0.98]}"], "optimizer_args", {"betas": [0.9, 0.98]}),
    ],
)
def test_settings_are_read_as_what_they_are(words, name, value):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TileClassification)
    read = parser.parse_args(["--model", "m", "--classes", "[a, b]", *words])[name]
    assert read == value
    assert type(read) is type(value)
