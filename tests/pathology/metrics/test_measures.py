"""Measures equal other people's on the same predictions, and say what does not exist."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics as sk
from torchmetrics.functional.classification import (
    multiclass_auroc,
    multiclass_calibration_error,
    multiclass_cohen_kappa,
)

from pathology.metrics import Predictions, measure
from pathology.metrics.measures import make_statistic
from tests.pathology.metrics.made import of_classes, of_grades, of_labels, of_survival

# Sums in another order.
CLOSE = {"abs": 1e-12}


@pytest.mark.parametrize("decimals", [None, 0])
@pytest.mark.parametrize("classes", ["ab", "abcd"])
def test_measures_of_classes_equal_scikit_learn(rng, classes, decimals):
    predictions = of_classes(rng, 150, classes, decimals=decimals)
    found = {name: one.value for name, one in measure(predictions, repeats=0).items()}
    truth, logits = predictions.codes, predictions.logits
    decided = logits.argmax(1)
    for i, name in enumerate(classes):
        hit, scores = truth == i, predictions.scores[:, i]
        assert found[f"auroc/{name}"] == pytest.approx(sk.roc_auc_score(hit, scores), **CLOSE)
        average = sk.average_precision_score(hit, scores)
        assert found[f"auprc/{name}"] == pytest.approx(average, **CLOSE)
        assert found[f"sensitivity/{name}"] == pytest.approx(
            sk.recall_score(hit, decided == i), **CLOSE
        )
        assert found[f"specificity/{name}"] == pytest.approx(
            sk.recall_score(~hit, decided != i), **CLOSE
        )
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = {
        "balanced_accuracy": sk.balanced_accuracy_score(truth, decided),
        "accuracy": sk.accuracy_score(truth, decided),
        "f1": sk.f1_score(truth, decided, average="macro"),
        "brier": ((softmax - np.eye(len(classes))[truth]) ** 2).sum(1).mean(),
        "nll": sk.log_loss(truth, softmax),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, **CLOSE), name
    auroc = multiclass_auroc(
        torch.from_numpy(softmax), torch.from_numpy(truth), len(classes), average="macro"
    )
    means = [found[f"auroc/{name}"] for name in classes]
    assert found["auroc"] == pytest.approx(np.mean(means), **CLOSE)
    if decimals is None:  # rounding of a softmax breaks ties that differences of logits keep
        assert found["auroc"] == pytest.approx(float(auroc), abs=1e-6)  # float32 inside
    ece = multiclass_calibration_error(
        torch.from_numpy(softmax), torch.from_numpy(truth), len(classes), n_bins=15
    )
    assert found["ece"] == pytest.approx(float(ece), abs=1e-5)


def test_measures_of_labels_equal_scikit_learn(rng):
    predictions = of_labels(rng)
    found = {name: one.value for name, one in measure(predictions, repeats=0).items()}
    truth, logits = predictions.positive, predictions.logits
    expected = {
        "auroc": sk.roc_auc_score(truth, logits),
        "auprc": sk.average_precision_score(truth, logits),
        "f1": sk.f1_score(truth, logits > 0, average="macro"),
        "accuracy": sk.accuracy_score(truth, logits > 0),
        "balanced_accuracy": np.mean(
            [sk.balanced_accuracy_score(t, z > 0) for t, z in zip(truth.T, logits.T, strict=True)]
        ),
        "brier": ((1 / (1 + np.exp(-logits)) - truth) ** 2).mean(),
        "nll": np.logaddexp(0, np.where(truth, -logits, logits)).mean(),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, **CLOSE), name


def test_measures_of_grades_equal_torchmetrics_and_scikit_learn(rng):
    predictions = of_grades(rng)
    found = {name: one.value for name, one in measure(predictions, repeats=0).items()}
    grade, truth = predictions.decisions, predictions.codes
    kappa = multiclass_cohen_kappa(
        torch.from_numpy(grade), torch.from_numpy(truth), 4, weights="quadratic"
    )
    assert found["kappa"] == pytest.approx(float(kappa), abs=1e-6)
    assert found["kappa"] == pytest.approx(
        sk.cohen_kappa_score(grade, truth, weights="quadratic"), **CLOSE
    )
    assert found["mean_error"] == pytest.approx(np.abs(grade - truth).mean(), **CLOSE)
    at_least = sk.roc_auc_score(truth >= 2, predictions.logits[:, 1])
    assert found["auroc/>=g2"] == pytest.approx(at_least, **CLOSE)
    np.testing.assert_allclose(predictions.probabilities.sum(1), 1, atol=1e-12)
    assert (predictions.probabilities >= 0).all()


def test_grades_may_have_a_logit_each(rng):
    classes = of_classes(rng)
    truth = pd.DataFrame({"grade": classes.codes})
    grades = Predictions("grades", list("abc"), classes.logits, truth)
    found = measure(grades, repeats=0)
    kappa = sk.cohen_kappa_score(classes.codes, classes.decisions, weights="quadratic")
    assert found["kappa"].value == pytest.approx(kappa, **CLOSE)
    reached = classes.probabilities[:, 1:].sum(1)
    assert found["auroc/>=b"].value == pytest.approx(
        sk.roc_auc_score(classes.codes >= 1, reached), **CLOSE
    )


def c_index_by_pairs(risk, time, event, weights):
    """Harrell's definition, pair by pair."""
    right = comparable = 0.0
    for i in range(len(risk)):
        for j in range(len(risk)):
            if event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
                weight = weights[i] * weights[j]
                comparable += weight
                right += weight * (1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0)
    return right / comparable


@pytest.mark.parametrize("ties", [False, True])
def test_the_c_index_equals_its_definition_under_any_weights(rng, ties):
    predictions = of_survival(rng, 40, ties)
    weights = rng.integers(0, 3, (3, 40)).astype(float)
    found = make_statistic(predictions)(weights)["c_index"]
    for value, row in zip(found, weights, strict=True):
        parts = predictions.risk, predictions.time, predictions.event
        assert value == pytest.approx(c_index_by_pairs(*parts, row), **CLOSE)


def test_hazards_are_ordered_by_expected_survival():
    logits = np.array([[3.0, 0, 0], [-3, 0, 0], [-3, -3, -3]])
    truth = pd.DataFrame({"time": [1, 2, 3], "event": [1, 1, 1]})
    hazard = Predictions("hazard", [], logits, truth)
    survival = np.cumprod(1 - 1 / (1 + np.exp(-logits)), axis=1)
    np.testing.assert_allclose(hazard.risk, -survival.sum(1), atol=1e-12)
    assert measure(hazard, repeats=0)["c_index"].value == 1


@pytest.mark.parametrize("make", [of_classes, of_labels, of_grades])
def test_a_weight_is_a_number_of_copies(rng, make):
    one = make(rng, 40)
    times = rng.integers(0, 4, 40)
    rows = np.repeat(np.arange(40), times)
    copied = Predictions(
        one.outcome, one.classes, one.logits[rows], one.truth.iloc[rows], link=one.link
    )
    by_weight = make_statistic(one)(times[None].astype(float))
    by_copy = make_statistic(copied)(np.ones((1, len(rows))))
    assert set(by_weight) == set(by_copy)
    for name, value in by_weight.items():
        np.testing.assert_allclose(value, by_copy[name], atol=1e-12, err_msg=name)


def test_ranks_do_not_saturate():
    logits = np.array([[0.0, 800], [0, 801], [0, 802], [0, 803]])
    truth = pd.DataFrame({"label": ["a", "b", "a", "b"]})
    found = measure(Predictions("classes", ["a", "b"], logits, truth), repeats=0)
    assert found["auroc"].value == 0.75
    assert np.isfinite(found["nll"].value)


def test_a_class_that_is_not_there_is_said_and_the_others_are_measured(rng):
    three = of_classes(rng, 90)
    here = three.codes < 2
    some = Predictions("classes", list("abc"), three.logits[here], three.truth[here])
    found = measure(some, repeats=50)
    for name in ("auroc", "auprc", "f1", "balanced_accuracy", "auroc/c", "sensitivity/c"):
        assert np.isnan(found[name].value)
        assert "no example of c" in str(found[name]), name
        assert found[name].record()["value"] is None
    hit = some.codes == 0
    expected = sk.roc_auc_score(hit, some.scores[:, 0])
    assert found["auroc/a"].value == pytest.approx(expected, **CLOSE)
    means = [found[f"auroc/{name}"].value for name in "ab"]
    assert found["auroc_of_present"].value == pytest.approx(np.mean(means), **CLOSE)
    recalls = [found[f"sensitivity/{name}"].value for name in "ab"]
    assert found["balanced_accuracy_of_present"].value == pytest.approx(np.mean(recalls), **CLOSE)
    assert found["auroc_of_present"].low < found["auroc_of_present"].high
    assert np.isfinite(found["accuracy"].value)
    assert np.isfinite(found["ece"].value)


@pytest.mark.parametrize("thresholds", [None, dict.fromkeys("abc", 0.9)])
def test_balanced_accuracy_of_the_classes_there_is_of_decisions(rng, thresholds):
    three = of_classes(rng, 90, link="sigmoid")
    here = three.codes < 2
    some = Predictions(
        "classes", list("abc"), three.logits[here], three.truth[here], None, "sigmoid"
    )
    found = measure(some, repeats=0, thresholds=thresholds)["balanced_accuracy_of_present"].value
    recalls = [(some.decisions == i)[some.codes == i].mean() for i in range(2)]
    assert found == pytest.approx(np.mean(recalls), **CLOSE)


def test_means_over_the_labels_and_grades_that_are_there(rng):
    labels = of_labels(rng)
    here = ~labels.positive[:, 2]
    some = Predictions("labels", list("abc"), labels.logits[here], labels.truth[here])
    truth, decided = some.positive, some.logits > 0
    found = measure(some, repeats=0)
    expected = [sk.balanced_accuracy_score(truth[:, i], decided[:, i]) for i in range(2)]
    assert np.isnan(found["balanced_accuracy"].value)
    assert found["balanced_accuracy_of_present"].value == pytest.approx(np.mean(expected), **CLOSE)
    assert "balanced_accuracy/a" not in found
    grades = of_grades(rng)
    here = grades.codes < 3
    some = Predictions("grades", grades.classes, grades.logits[here], grades.truth[here])
    found = measure(some, repeats=0)
    assert np.isnan(found["auroc"].value)
    means = [found[f"auroc/>=g{i}"].value for i in (1, 2)]
    assert found["auroc_of_present"].value == pytest.approx(np.mean(means), **CLOSE)


def test_data_of_a_single_class_are_measured_as_far_as_can_be(rng):
    some = of_classes(rng, 60)
    rows = some.codes == 1
    found = measure(
        Predictions("classes", list("abc"), some.logits[rows], some.truth[rows]), repeats=20
    )
    assert "every example is of b" in str(found["auroc/b"])
    assert found["sensitivity/b"].value == found["accuracy"].value
    assert np.isnan(found["specificity/b"].value)


def test_thresholds_move_sensitivity_and_nothing_else(rng):
    predictions = of_classes(rng, link="sigmoid")
    plain = measure(predictions, repeats=0)
    thresholds = {"a": 0.2, "b": 0.5, "c": 0.9}
    moved = measure(predictions, repeats=0, thresholds=thresholds)
    for i, (name, at) in enumerate(thresholds.items()):
        over = predictions.probabilities[:, i] >= at
        hit = predictions.codes == i
        assert moved[f"sensitivity/{name}"].value == pytest.approx(over[hit].mean(), **CLOSE)
        assert moved[f"specificity/{name}"].value == pytest.approx((~over)[~hit].mean(), **CLOSE)
    for name, one in plain.items():
        if not name.startswith(("sensitivity", "specificity")):
            assert one == moved[name]
    with pytest.raises(ValueError, match="thresholds must be one for each of a, b, c"):
        measure(predictions, repeats=0, thresholds={"a": 0.5})


def test_bins_of_equal_count_hold_equally_many(rng):
    from pathology.metrics.reliability import Reliability

    probability = rng.random(1000) ** 3
    table = Reliability(probability, rng.random(1000) < probability, 10, "count")
    assert (table.points()[2] == 100).all()
    constant = Reliability(np.full(8, 0.25), np.arange(8) < 4, 10, "count")
    assert constant(np.ones(8)) == pytest.approx(0.25)


def test_what_cannot_be_measured_is_refused(rng):
    some = of_classes(rng, 10)
    with pytest.raises(ValueError, match="finite"):
        Predictions("classes", list("abc"), some.logits * np.nan, some.truth)
    with pytest.raises(ValueError, match="logits must be"):
        Predictions("classes", list("abc"), some.logits[:5], some.truth)
    with pytest.raises(ValueError, match="2 logits do not fit 3 classes"):
        Predictions("classes", list("abc"), some.logits[:, :2], some.truth)
    with pytest.raises(ValueError, match="outcome must be one of"):
        Predictions("regression", list("abc"), some.logits, some.truth)
    with pytest.raises(ValueError, match="repeats must be at least 0"):
        measure(some, repeats=-1)
    with pytest.raises(ValueError, match="bins must be at least 1"):
        measure(some, bins=0)
    wrong = some.truth.assign(label=["x", *some.truth["label"][1:]])
    from pathology.errors import ManifestError

    with pytest.raises(ManifestError, match="label 'x' of example 1 is not one of"):
        Predictions("classes", list("abc"), some.logits, wrong)
    for column, cell in (("time", -1), ("event", 2)):
        truth = pd.DataFrame({"time": [1.0, 2], "event": [0, 1]}).astype(float)
        truth.loc[1, column] = cell
        with pytest.raises(ManifestError, match=f"{column} .* of example 2"):
            Predictions("cox", [], np.zeros((2, 1)), truth)
