"""Predictions to measure."""

import numpy as np
import pandas as pd

from pathology.metrics import Predictions


def of_classes(
    rng, n=120, classes="abc", sharpness=1.5, groups=None, link="softmax", decimals=None
):
    """Classes that logits tell apart somewhat."""
    names = list(classes)
    codes = rng.integers(0, len(names), n)
    logits = sharpness * (rng.normal(size=(n, len(names))) + np.eye(len(names))[codes])
    if decimals is not None:
        logits = logits.round(decimals)
    truth = pd.DataFrame({"name": [f"{i}.png" for i in range(n)], "label": np.array(names)[codes]})
    return Predictions("classes", names, logits, truth, groups, link)


def of_labels(rng, n=150, classes="abc"):
    """Any of several labels, whose logits are their log-odds."""
    names = np.array(list(classes))
    logits = rng.normal(size=(n, len(names))) * 2
    hits = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    truth = pd.DataFrame({"label": [";".join(names[row]) for row in hits]})
    return Predictions("labels", list(names), logits, truth)


def of_grades(rng, n=200, count=4):
    """Grades by one logit per step, as one evidence against thresholds."""
    grade = rng.integers(0, count, n)
    evidence = grade + rng.normal(size=n)
    logits = 2 * (evidence[:, None] - np.arange(0.5, count - 1))
    names = [f"g{i}" for i in range(count)]
    return Predictions("grades", names, logits, pd.DataFrame({"grade": grade}))


def of_survival(rng, n=80, ties=True):
    """Times that risks tell somewhat, with ties and censoring."""
    time = rng.exponential(5, n) + 0.1
    risk = -np.log(time) + rng.normal(size=n)
    if ties:
        time, risk = np.ceil(time), risk.round(1)
    truth = pd.DataFrame({"name": [f"s{i}" for i in range(n)], "time": time})
    truth["event"] = rng.integers(0, 2, n)
    return Predictions("cox", [], risk[:, None], truth)
