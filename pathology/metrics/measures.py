"""The measures of each outcome, with bootstrap intervals.

Names: a mean over classes has the measure's name (``auroc``), one class has the class behind a
slash (``auroc/tumour``). Where the data lack a class, or hold nothing else, means over all classes
are not defined, and say so; the mean over those that are there has a name of its own
(``auroc_of_present``).
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit

from pathology.metrics.bootstrap import (
    Estimate,
    Statistic,
    Weights,
    check_bootstrap,
    interval,
    sample,
)
from pathology.metrics.predictions import SURVIVAL, Predictions
from pathology.metrics.ranking import Ranking
from pathology.metrics.reliability import Binning, Reliability
from pathology.metrics.survival import Concordance

Row = dict[str, float]
Thresholds = Mapping[str, float] | NDArray[np.float64]
"""A probability by class; or ``(n, classes)``, of examples that have their own."""
PRESENT = "_of_present"
"""Ends the name of a mean over the classes for which a measure is defined."""


def measure(
    predictions: Predictions,
    *,
    repeats: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    thresholds: Mapping[str, float] | None = None,
    bins: int = 15,
    binning: Binning = "width",
) -> dict[str, Estimate]:
    """Measures of an outcome with bootstrap intervals over groups.

    ``classes``: AUROC and AUPRC of each class against the rest and their means, balanced accuracy,
    accuracy, macro F1, sensitivity, specificity and F1 of each class, ECE of the predicted class,
    Brier score (sum over classes, 0 to 2) and NLL. ``labels``: the same of each label; ECE, Brier
    score and NLL are means over labels. ``grades``: quadratic kappa, mean error in grades and those
    of ``classes``, AUROC for "at least this grade". ``cox``, ``hazard``: C-index.

    Decisions are for the class of the highest logit; of ``labels`` for probabilities above 0.5.

    Args:
        predictions: what to measure.
        repeats: bootstrap draws.
        level: of the intervals.
        seed: of the draws.
        thresholds: probability by class from which on sensitivity and specificity count an example
            as of that class, instead of decisions.
        bins: of the calibration error.
        binning: bins of equal ``width``, or of equal ``count``.

    Returns:
        Estimates by name. A measure that is not defined is NaN with a note why, and none is left
        out.

    Raises:
        ValueError: an argument out of range, thresholds of no class.
    """
    check_bootstrap(repeats, level)
    statistic = make_statistic(predictions, thresholds, bins, binning)
    values, draws = sample(
        statistic, len(predictions), predictions.groups, repeats=repeats, seed=seed
    )
    return {
        name: interval(value, draws[name], level, _why_not(name, predictions))
        for name, value in values.items()
    }


def make_statistic(
    predictions: Predictions,
    thresholds: Thresholds | None = None,
    bins: int = 15,
    binning: Binning = "width",
) -> Statistic:
    """The measures of an outcome as a function of weights, see :func:`measure`."""
    if isinstance(thresholds, Mapping):
        if predictions.outcome not in ("classes", "labels") or set(thresholds) != set(
            predictions.classes
        ):
            raise ValueError(
                f"thresholds must be one for each of {', '.join(predictions.classes)} of outcome"
                f" classes or labels; got {', '.join(thresholds)}"
            )
        thresholds = np.array([thresholds[name] for name in predictions.classes])
    if predictions.outcome in SURVIVAL:
        return _survival(predictions)
    parts = [
        _ranking(predictions),
        _decisions(predictions, thresholds),
        _probabilities(predictions, bins, binning),
    ]

    def statistic(weights: Weights) -> dict[str, NDArray[np.float64]]:
        rows = [_merged(part(one) for part in parts) for one in weights]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    return _with_means_of_present(statistic, len(predictions))


def _with_means_of_present(statistic: Statistic, count: int) -> Statistic:
    """Beside each mean that is not defined on the examples, the mean over the classes where it is.

    Args:
        statistic: means, and what each is of, named with the class behind a slash.
        count: of examples.
    """
    whole = statistic(np.ones((1, count)))
    defined = [name for name, values in whole.items() if not np.isnan(values).any()]
    present = {
        mean: [name for name in defined if name.startswith(f"{mean}/")]
        for mean in whole
        if "/" not in mean and mean not in defined
    }

    def extended(weights: Weights) -> dict[str, NDArray[np.float64]]:
        found = dict(statistic(weights))
        for mean, names in present.items():
            if names:
                found[mean + PRESENT] = np.mean([found[name] for name in names], axis=0)
        return {name: values for name, values in found.items() if not name.startswith(_BALANCED)}

    return extended


# Not told by class: it is the sensitivity of decisions, of labels its mean with specificity.
_BALANCED = "balanced_accuracy/"


def absent(predictions: Predictions) -> list[str]:
    """Classes without an example, for which nothing can be said."""
    if predictions.outcome in SURVIVAL:
        return []
    counts = predictions.positive.sum(0)
    return [name for name, n in zip(predictions.classes, counts, strict=True) if not n]


def _why_not(name: str, predictions: Predictions) -> str:
    """Why a measure is not defined on these examples."""
    if predictions.outcome in SURVIVAL:
        return "no two examples can be compared: of none is it known that it outlived an event"
    counts, total = predictions.positive.sum(0), len(predictions)
    reasons = []
    for one, n in zip(predictions.classes, counts, strict=True):
        if "/" in name and name.partition("/")[2].removeprefix(">=") != one:
            continue
        if not n:
            reasons.append(f"no example of {one}")
        elif n == total:
            reasons.append(f"every example is of {one}")
    return "; ".join(reasons) or "the examples do not determine it"


def _merged(parts: Iterable[Row]) -> Row:
    row: Row = {}
    for part in parts:
        row |= part
    return row


def _ranking(predictions: Predictions) -> Callable[[NDArray[np.float64]], Row]:
    """Areas under curves."""
    names = list(predictions.classes)
    if predictions.outcome == "grades":
        # Whether a grade is reached, ranked by the probability that it is.
        steps = range(1, len(names))
        reached = predictions.probabilities[:, ::-1].cumsum(1)[:, ::-1]
        scores = predictions.logits if predictions.is_cumulative else reached[:, 1:]
        rankings = {
            f">={names[k]}": Ranking(scores[:, k - 1], predictions.codes >= k) for k in steps
        }
    else:
        rankings = {
            name: Ranking(score, hit)
            for name, score, hit in zip(
                names, predictions.scores.T, predictions.positive.T, strict=True
            )
        }

    def areas(weights: NDArray[np.float64]) -> Row:
        found = {name: ranking(weights) for name, ranking in rankings.items()}
        row: Row = {}
        for area in ("auroc", "auprc"):
            row[area] = float(np.mean([getattr(one, area) for one in found.values()]))
            row |= {f"{area}/{name}": getattr(one, area) for name, one in found.items()}
        return row

    return areas


def _decisions(
    predictions: Predictions, thresholds: NDArray[np.float64] | None
) -> Callable[[NDArray[np.float64]], Row]:
    """What comes of deciding."""
    names = list(predictions.classes)
    if predictions.outcome == "labels":
        decided = predictions.logits > 0
    else:
        decided = predictions.decisions[:, None] == np.arange(len(names))
    positive = predictions.positive
    crossed = decided
    if thresholds is not None:
        crossed = predictions.probabilities >= thresholds
    single = predictions.outcome != "labels"
    # Four cells of each class's table are sums of weights: one product for all classes.
    truth = positive.astype(np.float64)
    table = np.hstack([truth, decided, positive & decided, crossed, positive & crossed])
    right = (positive == decided).all(1).astype(np.float64)
    grade = _Grades(predictions) if predictions.outcome == "grades" else None

    def decisions(weights: NDArray[np.float64]) -> Row:
        total = weights.sum()
        sums = (weights @ table).reshape(5, -1)
        true, said, hits, over, hits_over = sums
        with np.errstate(invalid="ignore", divide="ignore"):
            recall = np.where(true > 0, hits / true, np.nan)
            f1 = np.where(true > 0, 2 * hits / (true + said), np.nan)
            off = (said - hits) / np.where(total > true, total - true, np.nan)
            sensitivity = np.where(true > 0, hits_over / true, np.nan)
            specificity = 1 - (over - hits_over) / np.where(total > true, total - true, np.nan)
        balanced = recall if single else (recall + 1 - off) / 2
        row = {
            "balanced_accuracy": float(balanced.mean()),
            "accuracy": float(weights @ right / total),
            "f1": float(f1.mean()),
        }
        if grade is not None:
            row |= grade(weights)
        for name, values in (
            ("balanced_accuracy", balanced), ("f1", f1),
            ("sensitivity", sensitivity), ("specificity", specificity),
        ):  # fmt: skip
            row |= {f"{name}/{one}": float(v) for one, v in zip(names, values, strict=True)}
        return row

    return decisions


class _Grades:
    """Quadratic kappa (Cohen, Psychological Bulletin 70, 1968) and mean error in grades."""

    def __init__(self, predictions: Predictions) -> None:
        count = len(predictions.classes)
        self.count = count
        self.cell = predictions.codes * count + predictions.decisions
        grade = np.arange(count)
        self.apart = np.abs(grade[:, None] - grade)

    def __call__(self, weights: NDArray[np.float64]) -> Row:
        size = self.count**2
        table = np.bincount(self.cell, weights, size).reshape(self.count, self.count)
        total = table.sum()
        by_chance = np.outer(table.sum(1), table.sum(0)) / total
        squared = self.apart**2
        chance = float((squared * by_chance).sum())
        return {
            # Where all have one grade, and get it, agreement is no better than chance's.
            "kappa": 1 - float((squared * table).sum()) / chance if chance else np.nan,
            "mean_error": float((self.apart * table).sum() / total),
        }


def _probabilities(
    predictions: Predictions, bins: int, binning: Binning
) -> Callable[[NDArray[np.float64]], Row]:
    """Whether probabilities are what they say; by the task's own link."""
    probabilities, positive = predictions.probabilities, predictions.positive
    squared = (probabilities - positive) ** 2
    if predictions.outcome == "labels":
        tables = [
            Reliability(p, hit, bins, binning)
            for p, hit in zip(probabilities.T, positive.T, strict=True)
        ]
        brier = squared.mean(1)
        nll = -np.where(positive, predictions.log_probabilities, _log_not(predictions)).mean(1)
    else:
        tables = [confidence(predictions, bins, binning)]
        brier = squared.sum(1)
        own = predictions.log_probabilities[np.arange(len(positive)), predictions.codes]
        nll = -own
        if predictions.is_independent:
            nll = -np.where(positive, predictions.log_probabilities, _log_not(predictions)).sum(1)

    def calibration(weights: NDArray[np.float64]) -> Row:
        total = weights.sum()
        return {
            "ece": float(np.mean([table(weights) for table in tables])),
            "brier": float(weights @ brier / total),
            "nll": float(weights @ nll / total),
        }

    return calibration


def confidence(predictions: Predictions, bins: int, binning: Binning) -> Reliability:
    """Reliability of the predicted class: its probability, and whether it was right."""
    chosen = predictions.decisions
    rows = np.arange(len(predictions))
    return Reliability(
        predictions.probabilities[rows, chosen], chosen == predictions.codes, bins, binning
    )


def _log_not(predictions: Predictions) -> NDArray[np.float64]:
    """Logarithm of the probability that an example is not of a class, without loss."""
    return np.asarray(log_expit(-predictions.logits))


def _survival(predictions: Predictions) -> Statistic:
    index = Concordance(predictions.risk, predictions.time, predictions.event)
    return lambda weights: {"c_index": index(weights)}
