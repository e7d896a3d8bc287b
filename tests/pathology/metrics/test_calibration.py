"""Temperatures are those of the least NLL, and keep the map exact."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit
from torch import nn

from bcos_vit.explain import explain
from bcos_vit.layers import Logits
from pathology.errors import ManifestError, StampMismatchError
from pathology.metrics import Calibration, Predictions, apply_calibration, fit
from pathology.metrics.calibration import WIDEST, logit_biases
from pathology.metrics.measures import measure
from tests.pathology.metrics.made import of_classes, of_labels, of_survival


def calibration(temperatures, shifts=None, **changes):
    names = [chr(97 + i) for i in range(len(temperatures))]
    options = {
        "classes": names, "link": "sigmoid", "temperatures": list(temperatures),
        "shifts": list(shifts or [0.0] * len(names)), "thresholds": dict.fromkeys(names, 0.5),
        "rule": "Youden", "checkpoint": "abc", "split": "val", "digest": "d", "examples": 10,
    }  # fmt: skip
    return Calibration(**options | changes)


def nll(predictions):
    return measure(predictions, repeats=0)["nll"].value


@pytest.mark.parametrize("link", ["sigmoid", "softmax"])
@pytest.mark.parametrize("shift", [False, True])
def test_no_other_temperature_or_shift_has_a_smaller_nll(rng, link, shift):
    predictions = of_classes(rng, 200, sharpness=3, link=link)
    found = fit(predictions, shift=shift)
    assert not found.unfitted
    best = nll(predictions.rescaled(found.temperatures, found.shifts))
    assert best < nll(predictions)
    count = len(found.temperatures)
    directions = [np.ones(count)] if link == "softmax" else list(np.eye(count))
    for step in directions:
        for sign in (1, -1):
            other = found.temperatures * np.exp(sign * 0.01 * step)
            assert (
                nll(predictions.rescaled(other, found.shifts * (found.temperatures / other))) > best
            )
    if shift:
        for step in np.eye(count):
            for sign in (1, -1):
                moved = predictions.rescaled(found.temperatures, found.shifts + sign * 0.01 * step)
                assert nll(moved) > best
    else:
        assert (found.shifts == 0).all()


def test_temperatures_per_label_undo_what_was_done_to_each(rng):
    as_made = of_labels(rng, 4000)
    by = np.array([0.4, 1.0, 6.0])
    off = Predictions("labels", list("abc"), as_made.logits * by, as_made.truth)
    # 4000 examples tell a slope to about 5 %.
    np.testing.assert_allclose(fit(off).temperatures, by, rtol=0.15)
    shifted = Predictions("labels", list("abc"), (as_made.logits - 0.7) * by, as_made.truth)
    np.testing.assert_allclose(fit(shifted, shift=True).shifts, 0.7, atol=0.2)


def test_a_temperature_of_its_own_divides_the_evidence_and_leaves_the_bias(rng):
    true, bias = of_labels(rng, 4000), np.array([-3.0, -1.0, 0.0])
    by = np.array([0.5, 2.0, 4.0])
    # What is true is evidence over temperature plus bias; the model says evidence plus bias.
    said = by * (true.logits - bias) + bias
    predictions = Predictions("labels", list("abc"), said, true.truth)
    found = fit(predictions, bias)
    np.testing.assert_allclose(found.temperatures, by, rtol=0.15)
    after = predictions.rescaled(found.temperatures, found.shifts)
    np.testing.assert_allclose(after.logits, (said - bias) / found.temperatures + bias, atol=1e-9)
    layer = Logits(3).double()
    layer.bias = torch.from_numpy(bias)
    assert logit_biases(nn.Sequential(layer), 3) == bias.tolist()
    apply_calibration(layer, calibration(found.temperatures, found.shifts.tolist()))
    np.testing.assert_allclose(layer.bias.numpy(), bias, atol=1e-12)
    assert logit_biases(nn.Linear(4, 3), 3) == [0, 0, 0]


def test_exclusive_classes_share_a_temperature(rng):
    found = fit(of_classes(rng, 200, sharpness=4))
    assert len(set(found.temperatures)) == 1
    assert found.temperatures[0] > 1


def test_a_shared_temperature_is_the_best_one_and_keeps_decisions(rng):
    predictions = of_classes(rng, 200, sharpness=3, link="sigmoid")
    found = fit(predictions, shared=True)
    assert len(set(found.temperatures)) == 1
    best = nll(predictions.rescaled(found.temperatures))
    for factor in (0.99, 1.01):
        assert nll(predictions.rescaled(factor * found.temperatures)) > best
    after = predictions.rescaled(found.temperatures)
    np.testing.assert_array_equal(after.decisions, predictions.decisions)
    with pytest.raises(ValueError, match="either shared or shift"):
        fit(predictions, shared=True, shift=True)


@pytest.mark.parametrize("link", ["sigmoid", "softmax"])
@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("sign", [1, -1])
def test_what_no_temperature_helps_is_left_alone_and_said(rng, link, shift, sign):
    # Told apart without an error, and with nothing but errors.
    codes = np.arange(30) % 2
    logits = sign * (np.eye(2)[codes] * 4 - 2 + 0.1 * rng.normal(size=(30, 2)))
    truth = pd.DataFrame({"label": np.array(["a", "b"])[codes]})
    found = fit(Predictions("classes", ["a", "b"], logits, truth, link=link), shift=shift)
    assert set(found.unfitted) == {"a", "b"}
    assert (found.temperatures == 1).all()
    assert (found.shifts == 0).all()


def test_outcomes_without_temperatures_are_refused(rng):
    with pytest.raises(ValueError, match="outcome cox has no temperatures"):
        fit(of_survival(rng))


def test_a_calibrated_model_is_explained_exactly(make_vit):
    model = make_vit(logit_bias=-1.5)
    images = torch.rand(2, 6, 4, 4, dtype=torch.float64)
    before = [explain(model, images, target=t) for t in range(3)]
    logits = model(images)
    temperatures, shifts = [0.5, 2.0, 7.0], [0.3, 0.0, -1.0]
    apply_calibration(model, calibration(temperatures, shifts))
    by = torch.tensor(temperatures, dtype=torch.float64)
    plus = torch.tensor(shifts, dtype=torch.float64)
    torch.testing.assert_close(model(images), logits / by + plus, rtol=0, atol=1e-12)
    for target, old in enumerate(before):
        new = explain(model, images, target=target)
        assert float(torch.as_tensor(new.completeness_gap).max()) < 1e-12
        torch.testing.assert_close(
            new.contributions, old.contributions / temperatures[target], rtol=0, atol=1e-12
        )


def test_a_conventional_model_is_divided_behind_its_logits():
    class Task(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = nn.Linear(4, 2)

        def forward(self, x):
            return self.model(x)

    task, x = Task(), torch.randn(3, 4)
    logits = task(x)
    apply_calibration(task, calibration([2.0, 4.0], [1.0, 0.0]))
    expected = logits / torch.tensor([2.0, 4.0]) + torch.tensor([1.0, 0.0])
    torch.testing.assert_close(task(x), expected, rtol=0, atol=0)


def test_of_a_conventional_model_of_bags_the_aggregator_is_divided():
    class Bags(nn.Module):
        def __init__(self):
            super().__init__()
            self.aggregator = nn.Linear(4, 2)

        def forward(self, x):
            return x, self.aggregator(x)

    task, x = nn.Module(), torch.randn(3, 4)
    task.model = Bags()
    logits = task.model(x)[1]
    apply_calibration(task, calibration([2.0, 4.0]))
    torch.testing.assert_close(task.model(x)[1], logits / torch.tensor([2.0, 4.0]))
    assert torch.equal(task.model(x)[0], x)


def test_a_model_with_two_ends_is_refused():
    with pytest.raises(ValueError, match="2 ends"):
        apply_calibration(nn.Sequential(Logits(2), Logits(2)), calibration([1.0, 1.0]))


def test_predictions_are_calibrated_as_the_model_is(rng):
    predictions = of_classes(rng, 10)
    layer = Logits(3, bias=0.0).double()
    stored = calibration([0.5, 2.0, 3.0], [0.1, 0.2, -0.3])
    apply_calibration(layer, stored)
    by_model = layer(torch.from_numpy(predictions.logits)).numpy()
    np.testing.assert_allclose(stored.applied(predictions).logits, by_model, atol=1e-12)


def test_it_is_read_back_for_the_same_weights_only(tmp_path):
    path, stored = tmp_path / "calibration.json", calibration([0.5, 2.0])
    with pytest.raises(ManifestError, match="run `pathology calibrate` first"):
        Calibration.load(path, "abc", ["a", "b"])
    stored.save(path)
    assert Calibration.load(path, "abc", ["a", "b"]) == stored
    with pytest.raises(StampMismatchError, match="is of checkpoint abc, the run's is xyz"):
        Calibration.load(path, "xyz", ["a", "b"])
    with pytest.raises(StampMismatchError):
        Calibration.load(path, "abc", ["b", "a"])
    for broken in ("{", json.dumps({"classes": []}), "[]"):
        path.write_text(broken)
        with pytest.raises(ManifestError, match="not a calibration"):
            Calibration.load(path, "abc", ["a", "b"])


def test_the_bounds_are_wide_enough_for_logits_of_any_use(rng):
    for factor in (0.01, 100.0):
        z = 2 * rng.normal(size=2000)
        label = np.where(rng.random(2000) < expit(z), "a", "")
        predictions = Predictions(
            "labels", ["a"], factor * z[:, None], pd.DataFrame({"label": label})
        )
        assert fit(predictions).temperatures[0] == pytest.approx(factor, rel=0.15)
    assert WIDEST > 100
