"""Predictions: a model's logits beside the truth, and what both mean for each outcome."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, log_expit, log_softmax, logsumexp, softmax

from pathology.errors import ManifestError

Outcome = Literal["classes", "labels", "grades", "cox", "hazard"]
Link = Literal["softmax", "sigmoid"]

SURVIVAL = ("cox", "hazard")
GROUP = "bootstrap_group"
"""Column of a stored table that says what belongs together; manifests have a `group` of theirs."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits and truth of ``n`` examples: tiles, slides or patients.

    Args:
        outcome: what is predicted: ``classes`` (one of C), ``labels`` (any of C), ``grades``
            (ordered), ``cox`` (a log risk) or ``hazard`` (one logit per interval of time).
        classes: class names in the order of the logits; of intervals for ``hazard``.
        logits: ``(n, outputs)``; of ``grades`` either one per grade, or one per step between grades
            (the logit that the grade is higher).
        truth: one row per example: ``label`` (names joined by ``;`` for ``labels``), ``grade``
            (index or name), or ``time`` and ``event``; possibly ``name`` and more.
        groups: ``(n,)`` what belongs together, e.g. patients; each example by itself when omitted.
        link: from logits to probabilities of ``classes``: exclusive (softmax) or each by itself.

    Raises:
        ValueError: shapes that do not fit, or logits that are not finite.
        ManifestError: truth that is missing or is no class.
    """

    outcome: Outcome
    classes: Sequence[str]
    logits: NDArray[np.float64]
    truth: pd.DataFrame
    groups: NDArray[Any] | None = None
    link: Link = "softmax"

    def __post_init__(self) -> None:
        if self.outcome not in get_args(Outcome):
            raise ValueError(
                f"outcome must be one of {', '.join(get_args(Outcome))}; got {self.outcome!r}"
            )
        object.__setattr__(self, "logits", np.asarray(self.logits, dtype=np.float64))
        rows = len(self.truth)
        if self.logits.ndim != 2 or len(self.logits) != rows or not rows:
            raise ValueError(f"logits must be ({rows}, outputs), got shape {self.logits.shape}")
        if self.groups is not None and len(self.groups) != rows:
            raise ValueError(f"groups must be ({rows},), got {len(self.groups)}")
        if not np.isfinite(self.logits).all():
            raise ValueError(
                "logits must be finite, got NaN or infinite ones; train the model again"
            )
        outputs, count = self.logits.shape[1], len(self.classes)
        fits = {"grades": outputs in (count - 1, count), "cox": outputs == 1}
        if not fits.get(self.outcome, outputs == count or self.outcome == "hazard"):
            raise ValueError(
                f"{outputs} logits do not fit {count} classes of outcome {self.outcome}"
            )
        self.check_truth()

    def __len__(self) -> int:
        return len(self.truth)

    def check_truth(self) -> None:
        """Read the truth once, so that what is wrong with it is said at the beginning."""
        for name in ("time", "event") if self.outcome in SURVIVAL else ("positive",):
            getattr(self, name)

    def column(self, name: str) -> "pd.Series[Any]":
        """A column of the truth.

        Raises:
            ManifestError: it is missing.
        """
        if name not in self.truth:
            raise ManifestError(
                f"truth has no column {name!r}, which outcome {self.outcome} needs;"
                f" got {', '.join(map(str, self.truth.columns))}"
            )
        return self.truth[name]

    @cached_property
    def codes(self) -> NDArray[np.int64]:
        """``(n,)`` index of each example's class or grade."""
        if self.outcome == "grades":
            grades = self.column("grade")
            if pd.api.types.is_numeric_dtype(grades):
                codes = grades.to_numpy(np.float64)
                if not np.isin(codes, np.arange(len(self.classes))).all():
                    wrong = codes[~np.isin(codes, np.arange(len(self.classes)))][0]
                    raise ManifestError(
                        f"grade {wrong:g} is not in 0 to {len(self.classes) - 1},"
                        f" one for each of {', '.join(self.classes)}"
                    )
                return codes.astype(np.int64)
            return self._indices(grades)
        return self._indices(self.column("label"))

    def _indices(self, names: "pd.Series[Any]") -> NDArray[np.int64]:
        codes = pd.Index(list(self.classes)).get_indexer(pd.Index(names.astype(str)))
        if (codes < 0).any():
            row = int(np.argmax(codes < 0))
            raise ManifestError(
                f"label {names.iloc[row]!r} of example {row + 1} is not one of the classes"
                f" {', '.join(self.classes)}"
            )
        return codes.astype(np.int64)

    @cached_property
    def positive(self) -> NDArray[np.bool_]:
        """``(n, classes)`` which classes each example is of."""
        count = len(self.classes)
        if self.outcome != "labels":
            one_hot: NDArray[np.bool_] = self.codes[:, None] == np.arange(count)
            return one_hot
        positive = np.zeros((len(self), count), bool)
        place = {name: i for i, name in enumerate(self.classes)}
        for row, names in enumerate(self.column("label").fillna("").astype(str)):
            for name in filter(None, (part.strip() for part in names.split(";"))):
                if name not in place:
                    raise ManifestError(
                        f"label {name!r} of example {row + 1} is not one of the classes"
                        f" {', '.join(self.classes)}"
                    )
                positive[row, place[name]] = True
        return positive

    @cached_property
    def log_probabilities(self) -> NDArray[np.float64]:
        """``(n, classes)`` logarithms of :attr:`probabilities`, exact where they are tiny."""
        if self.is_cumulative:
            # Two steps at once leave the grade between them no chance at all.
            return np.log(np.maximum(self.probabilities, np.finfo(np.float64).tiny))
        if self.is_independent:
            return np.asarray(log_expit(self.logits))
        return np.asarray(log_softmax(self.logits, axis=1))

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """``(n, classes)`` the model's probability of each class or grade."""
        if self.is_cumulative:
            higher = np.asarray(expit(self.logits))
            # Steps that contradict each other, P(> 2) over P(> 1), count as the smaller before.
            higher = np.minimum.accumulate(higher, axis=1)
            edges = np.hstack([np.ones((len(self), 1)), higher, np.zeros((len(self), 1))])
            return -np.diff(edges, axis=1)
        if self.is_independent:
            return np.asarray(expit(self.logits))
        return np.asarray(softmax(self.logits, axis=1))

    @property
    def is_cumulative(self) -> bool:
        """Grades by one logit per step."""
        return self.outcome == "grades" and self.logits.shape[1] == len(self.classes) - 1

    @property
    def is_independent(self) -> bool:
        """Each class has a probability of its own; they need not sum to 1."""
        return self.outcome == "labels" or (self.outcome == "classes" and self.link == "sigmoid")

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """``(n, classes)`` what ranks examples by class.

        For ``classes`` the log-odds of the softmax, whatever the loss was: only differences between
        logits tell which class an image is of, and they do not saturate as probabilities do.
        """
        if self.outcome == "labels":
            return self.logits
        if self.is_cumulative:
            return self.log_probabilities
        scores = np.empty_like(self.logits)
        for i in range(self.logits.shape[1]):
            rest = np.delete(self.logits, i, axis=1)
            scores[:, i] = self.logits[:, i] - logsumexp(rest, axis=1)
        return scores

    @cached_property
    def decisions(self) -> NDArray[np.int64]:
        """``(n,)`` index of the predicted class or grade."""
        if self.is_cumulative:
            return (self.logits > 0).sum(1).astype(np.int64)
        return self.logits.argmax(1)

    @cached_property
    def time(self) -> NDArray[np.float64]:
        """``(n,)`` time to the event, or until the example was last seen."""
        time = pd.to_numeric(self.column("time"), errors="coerce").to_numpy(np.float64)
        if not (np.isfinite(time) & (time >= 0)).all():
            row = int(np.argmin(np.isfinite(time) & (time >= 0)))
            raise ManifestError(
                f"time {self.column('time').iloc[row]!r} of example {row + 1} is no number of at"
                " least 0"
            )
        return time

    @cached_property
    def event(self) -> NDArray[np.bool_]:
        """``(n,)`` whether the event was seen."""
        event = pd.to_numeric(self.column("event"), errors="coerce").to_numpy(np.float64)
        if not np.isin(event, (0, 1)).all():
            row = int(np.argmin(np.isin(event, (0, 1))))
            raise ManifestError(
                f"event {self.column('event').iloc[row]!r} of example {row + 1} must be 0 or 1"
            )
        return event == 1

    @cached_property
    def risk(self) -> NDArray[np.float64]:
        """``(n,)`` higher means an earlier event.

        Of ``hazard`` minus the sum over intervals of the probability to be free of the event, which
        orders as minus the expected number of intervals does.
        """
        if self.outcome == "cox":
            return self.logits[:, 0]
        survival = np.exp(np.cumsum(log_expit(-self.logits), axis=1))
        return np.asarray(-survival.sum(1))

    @classmethod
    def of_table(
        cls, table: pd.DataFrame, outcome: Outcome, classes: Sequence[str], link: Link
    ) -> "Predictions":
        """Predictions from their :meth:`table`."""
        logits = [name for name in table if str(name).startswith("logit_")]
        rest = [name for name in table if not str(name).startswith(("logit_", "probability_"))]
        groups = table[GROUP].to_numpy() if GROUP in table else None
        truth = table[rest].drop(columns=GROUP, errors="ignore")
        return cls(outcome, classes, table[logits].to_numpy(), truth, groups, link)

    def rescaled(
        self, temperatures: NDArray[np.float64], shifts: NDArray[np.float64] | float = 0.0
    ) -> "Predictions":
        """The same examples with logits ``logit / temperature + shift``, each per class."""
        return replace(self, logits=self.logits / temperatures + shifts)

    def table(self) -> pd.DataFrame:
        """One row per example: the truth's columns, ``logit_*`` and ``probability_*``."""
        table = self.truth.reset_index(drop=True).copy()
        if self.groups is not None:
            table[GROUP] = np.asarray(self.groups).astype(str)
        if self.outcome in SURVIVAL:
            names = ["risk"] if self.outcome == "cox" else list(self.classes)
            if len(names) != self.logits.shape[1]:
                names = [str(i) for i in range(self.logits.shape[1])]
            table["risk"] = self.risk
        elif self.is_cumulative:
            names = [f"above_{name}" for name in self.classes[:-1]]
        else:
            names = list(self.classes)
        for name, logits in zip(names, self.logits.T, strict=True):
            table[f"logit_{name}"] = logits
        if self.outcome not in SURVIVAL:
            for name, values in zip(self.classes, self.probabilities.T, strict=True):
                table[f"probability_{name}"] = values
        return table
