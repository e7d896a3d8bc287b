"""Runs together: seeds are averaged, folds pooled, differences paired."""

import json
from pathlib import Path

import numpy as np
import pytest

from pathology.errors import ManifestError, StampMismatchError
from pathology.metrics import Predictions, measure
from pathology.metrics.folds import (
    Evaluation,
    compare,
    read_evaluation,
    summarise,
    together,
)
from tests.pathology.metrics.made import of_classes


def part(predictions, rows, noise=None):
    logits = predictions.logits[rows]
    if noise is not None:
        logits = logits + noise.normal(size=logits.shape)
    groups = None if predictions.groups is None else predictions.groups[rows]
    truth = predictions.truth.iloc[rows].reset_index(drop=True)
    return Predictions("classes", predictions.classes, logits, truth, groups, predictions.link)


def runs(*parts):
    return [Evaluation(Path(f"run{i}"), one) for i, one in enumerate(parts)]


@pytest.fixture
def whole(rng):
    return of_classes(rng, 120, groups=np.array([f"p{i % 24}" for i in range(120)]))


def test_seeds_are_averaged_over_runs_whatever_the_order_of_their_examples(rng, whole):
    order = rng.permutation(120)
    parts = [part(whole, np.arange(120), rng), part(whole, order, rng)]
    side = together(runs(*parts))
    assert side.kind == "seeds"
    row = summarise(side, repeats=60).set_index("measure").loc["auroc"]
    values = [measure(one, repeats=0)["auroc"].value for one in parts]
    assert row["mean"] == row["together"] == pytest.approx(np.mean(values), abs=1e-12)
    assert row["sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    assert row[["run0", "run1"]].tolist() == pytest.approx(values, abs=1e-12)
    assert row["low"] < row["together"] < row["high"]


def test_folds_are_pooled(whole):
    fold = np.array([int(g[1:]) % 3 for g in whole.groups])
    side = together(runs(*(part(whole, np.flatnonzero(fold == k)) for k in range(3))))
    assert side.kind == "folds"
    row = summarise(side, repeats=60).set_index("measure").loc["auroc"]
    assert row["together"] == pytest.approx(measure(whole, repeats=0)["auroc"].value, abs=1e-12)
    assert row["together"] != row["mean"]


def test_a_difference_is_paired(rng, whole):
    better, worse = whole, part(whole, np.arange(120), rng)
    one, two = (together([Evaluation(Path(n), p)]) for n, p in (("a", better), ("b", worse)))
    paired = compare(one, two, repeats=200)["auroc"]
    alone = [measure(p, repeats=200)["auroc"] for p in (better, worse)]
    assert paired.value == pytest.approx(alone[0].value - alone[1].value, abs=1e-12)
    # Draws that are hard for both do not widen it.
    assert paired.high - paired.low < sum(e.high - e.low for e in alone) / 2
    same = compare(one, one, repeats=20)["auroc"]
    assert (same.value, same.low, same.high) == (0, 0, 0)
    back = compare(two, one, repeats=200)["auroc"]
    assert (back.value, back.low) == pytest.approx((-paired.value, -paired.high), abs=1e-12)


def test_folds_are_compared_with_folds_in_another_order(rng, whole):
    fold = np.array([int(g[1:]) % 3 for g in whole.groups])
    parts = [part(whole, np.flatnonzero(fold == k)) for k in range(3)]
    ours, theirs = together(runs(*parts)), together(runs(*parts[::-1]))
    assert compare(ours, theirs, repeats=5)["auroc"].value == pytest.approx(0, abs=1e-12)


def test_each_run_is_measured_at_its_own_thresholds(rng, whole):
    two = part(whole, np.arange(120), rng)
    high, low = dict.fromkeys("abc", 0.6), dict.fromkeys("abc", 0.2)
    runs = [Evaluation(Path("a"), whole, high), Evaluation(Path("b"), two, low)]
    expected = [
        measure(one.predictions, repeats=0, thresholds=one.thresholds)["sensitivity/a"].value
        for one in runs
    ]
    table = summarise(together(runs), repeats=0).set_index("measure").loc["sensitivity/a"]
    assert [table["a"], table["b"]] == pytest.approx(expected, abs=1e-12)
    assert table["together"] == pytest.approx(np.mean(expected), abs=1e-12)
    against = compare(together(runs), together(runs[:1]), repeats=2)["sensitivity/a"].value
    assert against == pytest.approx(np.mean(expected) - expected[0], abs=1e-12)


def test_examples_of_folds_are_measured_at_their_folds_thresholds(whole):
    fold = np.array([int(g[1:]) % 2 for g in whole.groups])
    parts = [part(whole, np.flatnonzero(fold == k)) for k in range(2)]
    given = [dict.fromkeys("abc", 0.6), dict.fromkeys("abc", 0.2)]
    ours, theirs = (
        together([Evaluation(Path(str(k)), parts[k], given[k]) for k in order])
        for order in ((0, 1), (1, 0))
    )
    at = np.where(fold == 0, 0.6, 0.2)
    hit = whole.codes == 1
    expected = (whole.probabilities[:, 1] >= at)[hit].mean()
    table = summarise(ours, repeats=0).set_index("measure")
    assert table.loc["sensitivity/b", "together"] == pytest.approx(expected, abs=1e-12)
    assert compare(ours, theirs, repeats=2)["sensitivity/b"].value == pytest.approx(0, abs=1e-12)


def test_a_mean_over_the_classes_there_is_summarised(rng, whole):
    here = np.flatnonzero(whole.codes < 2)
    one, two = part(whole, here), part(whole, here, rng)
    row = summarise(together(runs(one, two)), repeats=20).set_index("measure")
    values = [measure(p, repeats=0)["auroc_of_present"].value for p in (one, two)]
    assert row.loc["auroc_of_present", "together"] == pytest.approx(np.mean(values), abs=1e-12)
    assert np.isnan(row.loc["auroc", "together"])


def test_nll_of_different_losses_has_no_difference(whole):
    sigmoid = Predictions(
        "classes", whole.classes, whole.logits, whole.truth, whole.groups, "sigmoid"
    )
    ours, theirs = (together([Evaluation(Path(n), p)]) for n, p in (("a", whole), ("b", sigmoid)))
    found = compare(ours, theirs, repeats=2)
    assert np.isnan(found["nll"].value)
    assert found["balanced_accuracy"].value == 0


def test_predictions_that_lost_their_groups_are_refused(whole, tmp_path):
    record = {
        "outcome": "classes", "classes": list("abc"), "link": "softmax", "calibration": None,
        "groups": 24, "ece": {"bins": 15, "binning": "width"}, "made_from": {},
    }  # fmt: skip
    (tmp_path / "val.json").write_text(json.dumps(record))
    whole.table().to_parquet(tmp_path / "val.parquet")
    assert read_evaluation(tmp_path, "val").predictions.groups is not None
    old = whole.table().rename(columns={"bootstrap_group": "group"})
    old.to_parquet(tmp_path / "val.parquet")
    with pytest.raises(ManifestError, match="run `pathology evaluate` again"):
        read_evaluation(tmp_path, "val")


def test_what_does_not_belong_together_is_refused(rng, whole):
    rows = np.arange(120)
    with pytest.raises(StampMismatchError, match=r"neither seeds .* nor folds"):
        together(runs(part(whole, rows[:60]), part(whole, rows[50:])))
    with pytest.raises(StampMismatchError, match="a patient or slide is in one fold only"):
        together(runs(part(whole, rows[:60]), part(whole, rows[60:])))
    with pytest.raises(StampMismatchError, match=r"classes .* cannot be compared"):
        together(runs(whole, of_classes(rng, 120, "abx")))
    other = part(whole, rows)
    other.truth.loc[0, "label"] = "a" if whole.truth["label"][0] != "a" else "b"
    changed = Predictions("classes", "abc", other.logits, other.truth, other.groups)
    with pytest.raises(StampMismatchError, match="other truth"):
        together(runs(whole, changed))
    ungrouped = Predictions("classes", list("abc"), whole.logits, whole.truth)
    with pytest.raises(StampMismatchError, match="--group-column"):
        together(runs(whole, ungrouped))
    with pytest.raises(ValueError, match="there twice"):
        together([Evaluation(Path("a"), whole)] * 2)
    with pytest.raises(ValueError, match="at least one run"):
        together([])
    ours = together(runs(whole))
    with pytest.raises(StampMismatchError, match="other examples"):
        compare(ours, together(runs(part(whole, rows[:60]))), repeats=2)
    same, changed = (
        Evaluation(Path(name), whole, manifest=digest) for name, digest in (("a", "x"), ("b", "y"))
    )
    with pytest.raises(StampMismatchError, match="b: evaluated on another manifest than a"):
        together([same, changed])
    with pytest.raises(StampMismatchError, match="another manifest"):
        compare(together([same]), together([changed]), repeats=2)
    with pytest.raises(StampMismatchError, match="calibration error in 9 bins"):
        compare(together([same]), together([Evaluation(Path("b"), whole, bins=9)]), repeats=2)
