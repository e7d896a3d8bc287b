"""The page: whole in itself, escaped, the worst first, for every outcome."""

import base64
import hashlib
import re

import numpy as np
import pandas as pd
import pytest

from pathology.metrics import Predictions, measure
from pathology.metrics.report import (
    Report,
    absence_note,
    example_table,
    render_report,
    worst,
    write_report,
)
from tests.pathology.metrics.made import of_classes, of_grades, of_labels, of_survival


def page(predictions, **options):
    estimates = measure(predictions, repeats=10)
    return render_report(Report("A title", predictions, estimates, {"run": "here"}, **options))


@pytest.mark.parametrize("make", [of_classes, of_labels, of_grades, of_survival])
def test_every_outcome_has_a_page_that_asks_nobody_for_anything(rng, make):
    html = page(make(rng), unit="slides")
    assert html.count("data:image/svg+xml;base64,") == {"of_labels": 3, "of_survival": 1}.get(
        make.__name__, 4
    )
    assert not re.search(r'(src|href)="(?!data:)', html)
    for tag in ("style", "script"):
        inside = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL).group(1)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in html


def test_the_same_predictions_make_the_same_page(rng):
    predictions = of_survival(rng)
    assert page(predictions) == page(predictions)


def test_names_are_escaped(rng):
    some = of_classes(rng, 20)
    evil = '"><script>alert(1)</script>'
    truth = some.truth.assign(name=evil)
    html = page(Predictions("classes", list("abc"), some.logits, truth, np.array([evil] * 20)))
    assert "<script>alert" not in html
    assert "alert(1)" in html


def test_the_surest_mistake_comes_first():
    logits = np.array([[4.0, 0], [0, 1], [3, 0], [0, 2]])
    truth = pd.DataFrame({"name": list("wxyz"), "label": ["b", "b", "b", "a"]})
    predictions = Predictions("classes", ["a", "b"], logits, truth)
    table = example_table(predictions)
    assert "".join(table["name"]) == "wyzx"
    assert table["right"].tolist() == [False, False, False, True]
    assert worst(predictions, 2) == [0, 2]


def test_patients_are_in_the_order_of_how_much_is_right():
    logits = np.array([[2.0, 0], [2, 0], [2, 0], [0, 2]])
    truth = pd.DataFrame({"name": list("wxyz"), "label": ["a", "a", "b", "a"]})
    groups = np.array(["good", "half", "half", "bad"])
    html = page(Predictions("classes", ["a", "b"], logits, truth, groups), group_name="patients")
    assert html.index(">bad<") < html.index(">half<") < html.index(">good<")
    assert "4 examples of 3 patients" in html


def test_a_class_that_is_not_there_is_said_on_the_page(rng):
    some = of_classes(rng, 60)
    rows = some.codes != 2
    less = Predictions("classes", list("abc"), some.logits[rows], some.truth[rows])
    note = absence_note(less)
    assert "No example of c" in note
    html = page(less, notes=[note])
    assert note in html
    assert "classes that are there" in html
    assert "nan" not in html.lower().replace("balanced", "")
    assert absence_note(some) is None


def test_pictures_of_mistakes_and_both_calibrations_are_shown(rng, tmp_path):
    predictions = of_classes(rng, link="sigmoid")
    after = predictions.rescaled(np.full(3, 2.0))
    rows = worst(after, 2)
    pictures = {row: np.full((8, 8, 3), 90, np.uint8) for row in rows}
    estimates = measure(after, repeats=5, thresholds=dict.fromkeys("abc", 0.4))
    report = Report(
        "t", after, estimates, before=predictions, pictures=pictures,
        thresholds=dict.fromkeys("abc", 0.4),
    )  # fmt: skip
    html = write_report(tmp_path / "page.html", report).read_text()
    assert html.count("data:image/jpeg") == 2
    assert after.truth["name"][rows[0]] in html
    assert "0.400" in html
