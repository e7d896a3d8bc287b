"""What manifests say of bags, and what they may not say."""

import pandas as pd
import pytest
import torch

from pathology.data.truth import Columns, read_truth
from pathology.errors import ManifestError


def table(**columns):
    count = len(next(iter(columns.values())))
    return pd.DataFrame({"slide_id": [f"s{i}" for i in range(count)], **columns}, dtype=str)


def read(rows, outcome, classes=(), **options):
    columns = {n: options.pop(n) for n in ("label", "time", "event") if n in options}
    return read_truth("m.csv", rows, Columns(outcome, list(classes), **columns), **options)


def test_classes():
    truth = read(table(label=["b", "a", "b"], site=["x", "y", "x"]), "classes", "ab")
    assert truth.table["label"].tolist() == ["b", "a", "b"]
    assert truth.table["name"].tolist() == ["s0", "s1", "s2"]
    assert truth.table["site"].tolist() == ["x", "y", "x"]
    assert truth.targets["label"].tolist() == [1, 0, 1]
    assert truth.kinds.tolist() == [1, 0, 1]


def test_any_of_several_labels():
    truth = read(table(label=["b; a", "none", "b"]), "labels", "ab")
    assert truth.table["label"].tolist() == ["a;b", "", "b"]
    assert truth.targets["label"].tolist() == [[1, 1], [0, 0], [0, 1]]
    assert len(set(truth.kinds)) == 3


def test_grades_by_name_and_by_number():
    by_name = read(table(grade=["low", "high"]), "grades", ["low", "high"])
    by_number = read(table(grade=["0", "1"]), "grades", ["low", "high"])
    assert by_name.targets["grade"].tolist() == by_number.targets["grade"].tolist() == [0, 1]
    assert by_name.table["grade"].tolist() == [0, 1]
    # Names that are numbers are names: grade 1 of these is the lowest.
    assert read(table(label=["1", "3"]), "grades", "123").targets["grade"].tolist() == [0, 2]
    with pytest.raises(ManifestError, match="row 2 has label '0'; wanted one of 1, 2, 3"):
        read(table(label=["0", "3"]), "grades", "123")


def test_grades_are_in_their_own_column_if_there_is_one():
    rows = table(label=["x", "y"], grade=["1", "0"])
    assert read(rows, "grades", "01").targets["grade"].tolist() == [1, 0]
    rows = table(label=["0", "0"], grade=["1", "0"])
    assert read(rows, "grades", "01", label="label").targets["grade"].tolist() == [0, 0]


def test_survival():
    rows = table(months=["3.5", "12"], died=["1", "0.0"])
    truth = read(rows, "cox", time="months", event="died")
    assert truth.targets["time"].tolist() == [3.5, 12.0]
    assert truth.targets["event"].tolist() == [1.0, 0.0]
    assert truth.targets["time"].dtype == torch.float64
    assert truth.table[["time", "event"]].to_numpy().tolist() == [[3.5, 1.0], [12.0, 0.0]]


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("time", "0", "row 3 has time '0'; wanted a time over 0"),
        ("time", "-1", "row 3 has time '-1'"),
        ("time", "soon", "row 3 has time 'soon'"),
        ("time", "inf", "row 3 has time 'inf'"),
        ("event", "2", r"row 3 has event '2'; wanted 0 \(censored\) or 1"),
        ("event", "yes", "row 3 has event 'yes'"),
    ],
)
def test_times_and_events_that_make_no_sense(column, cell, message):
    rows = table(time=["1", "1"], event=["1", "1"])
    rows.loc[1, column] = cell
    with pytest.raises(ManifestError, match=message):
        read(rows, "hazard")


def test_a_label_that_is_no_class():
    with pytest.raises(ManifestError, match="row 3 has label 'c'; wanted one of a, b"):
        read(table(label=["a", "c"]), "classes", "ab")
    with pytest.raises(ManifestError, match="row 3 has label 'a;c'; wanted some of a, b"):
        read(table(label=["a", "a;c"]), "labels", "ab")


def test_a_missing_column():
    with pytest.raises(ManifestError, match="column 'event' is missing, which outcome cox needs"):
        read(table(time=["1"]), "cox")
    with pytest.raises(ManifestError, match="'patient_id' is missing, which bags of patients need"):
        read(table(label=["a"]), "classes", "ab", bag="patient")


def test_what_nobody_knows_is_left_out_only_if_said():
    rows = table(label=["a", "", " ", "b"])
    with pytest.raises(ManifestError, match=r"2 rows have no label \(rows 3, 4\)"):
        read(rows, "classes", "ab")
    truth = read(rows, "classes", "ab", skip_unlabelled=True)
    assert truth.table["name"].tolist() == ["s0", "s3"]
    assert truth.slides == [[0], [3]]
    with pytest.raises(ManifestError, match="no row has label"):
        read(rows[1:3], "classes", "ab", skip_unlabelled=True)


def test_rows_are_numbered_as_in_the_file():
    rows = table(label=["a", "b", "", "b"])[2:]  # of one split
    with pytest.raises(ManifestError, match=r"\(row 4\)"):
        read(rows, "classes", "ab")


PATIENTS = ["p", "q", "p", "q", "r"]


def test_bags_of_patients():
    rows = table(patient_id=PATIENTS, label=list("ababb"), site=list("xyzyx"))
    truth = read(rows, "classes", "ab", bag="patient")
    assert truth.table["name"].tolist() == ["p", "q", "r"]
    assert truth.slides == [[0, 2], [1, 3], [4]]
    assert truth.table["slide_id"].tolist() == ["s0;s2", "s1;s3", "s4"]
    assert truth.table["patient_id"].tolist() == ["p", "q", "r"]
    assert truth.table["site"].tolist() == ["x;z", "y", "x"]
    assert truth.targets["label"].tolist() == [0, 1, 1]


def test_slides_of_a_patient_must_agree():
    rows = table(patient_id=PATIENTS, label=list("abbbb"))
    message = r"slides of patient 'p' have label 'a' \(row 2\) and 'b' \(row 4\)"
    with pytest.raises(ManifestError, match=message):
        read(rows, "classes", "ab", bag="patient")
    assert len(read(rows, "classes", "ab")) == 5  # as slides they need not
    rows = table(patient_id=PATIENTS, time=["1", "2", "1.0", "3", "1"], event=["1"] * 5)
    with pytest.raises(ManifestError, match=r"'q' have time '2' \(row 3\) and '3' \(row 5\)"):
        read(rows, "cox", bag="patient")


def test_nobody_is_no_patient():
    rows = table(patient_id=["p", ""], label=["a", "b"])
    with pytest.raises(ManifestError, match="bags are of patients, but row 3 name none"):
        read(rows, "classes", "ab", bag="patient")


@pytest.mark.parametrize(
    ("outcome", "classes", "message"),
    [
        ("class", ["a", "b"], "outcome must be one of"),
        ("classes", ["a"], "at least 2"),
        ("cox", ["a"], "no classes"),
        ("labels", ["none"], "must not be called 'none'"),
        ("labels", ["a;b"], "';'"),
    ],
)
def test_nonsense_is_refused(outcome, classes, message):
    with pytest.raises(ValueError, match=message):
        Columns(outcome, classes)
