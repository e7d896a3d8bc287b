"""Several runs together: seeds on the same examples, folds on others, and one side against another.

Runs on the same examples are **seeds**: a measure is averaged over them. Runs on disjoint examples
are **folds**: their predictions are pooled, each example predicted by the model that never saw it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pathology.errors import ManifestError, StampMismatchError
from pathology.metrics.bootstrap import (
    Estimate,
    Statistic,
    Weights,
    check_bootstrap,
    interval,
    sample,
)
from pathology.metrics.measures import Thresholds, make_statistic
from pathology.metrics.predictions import GROUP, SURVIVAL, Predictions
from pathology.metrics.reliability import Binning

Kind = Literal["one", "seeds", "folds"]


@dataclass(frozen=True)
class Evaluation:
    """What ``pathology evaluate`` stored of one run.

    Args:
        run: its folder.
        predictions: of the split.
        thresholds: that sensitivity and specificity are at, if any.
        bins: of the calibration error.
        binning: likewise.
        manifest: SHA-256 of the table that the examples stand in, where known.
    """

    run: Path
    predictions: Predictions
    thresholds: Thresholds | None = None
    bins: int = 15
    binning: Binning = "width"
    manifest: str | None = None

    def statistic(self) -> Statistic:
        """The measures as a function of weights."""
        return make_statistic(self.predictions, self.thresholds, self.bins, self.binning)


def read_evaluation(run: Path, stem: str) -> Evaluation:
    """Read predictions back.

    Args:
        run: folder of a run, or the folder that an evaluation was written to.
        stem: the split, with ``_calibrated`` where it was.

    Raises:
        ManifestError: there are none, or they cannot be read.
    """
    nested = run / "evaluation"
    folder = nested if (nested / f"{stem}.json").is_file() else run
    path = folder / f"{stem}.json"
    try:
        record = json.loads(path.read_text())
        table = pd.read_parquet(folder / f"{stem}.parquet")
        predictions = Predictions.of_table(
            table, record["outcome"], record["classes"], record["link"]
        )
        thresholds = (record["calibration"] or {}).get("thresholds") or None
        bins, binning = record["ece"]["bins"], record["ece"]["binning"]
        manifest = record["made_from"].get("manifest_sha256")
        if (record["groups"] is None) != (predictions.groups is None):
            # Without a word intervals would be over examples.
            raise KeyError(GROUP)
    except FileNotFoundError:
        raise ManifestError(
            f"{nested}: no measures of {stem}; run `pathology evaluate --run {run}` first"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ManifestError(
            f"{path}: not predictions of this version ({type(error).__name__}); run"
            " `pathology evaluate` again"
        ) from error
    return Evaluation(run, predictions, thresholds, bins, binning, manifest)


@dataclass(frozen=True)
class Side:
    """Runs that make one figure together.

    Args:
        kind: one run, seeds or folds.
        evaluations: of the runs.
        parts: whose measures are averaged, each at its own thresholds; one of folds, which are
            pooled.
    """

    kind: Kind
    evaluations: Sequence[Evaluation]
    parts: Sequence[Evaluation]

    @property
    def predictions(self) -> Predictions:
        """Of the first part: examples, truth and groups are those of all."""
        return self.parts[0].predictions

    def statistic(self) -> Statistic:
        """Each measure's mean over the parts, as a function of weights."""
        statistics = [part.statistic() for part in self.parts]

        def mean(weights: Weights) -> dict[str, NDArray[np.float64]]:
            found = [statistic(weights) for statistic in statistics]
            return {name: np.mean([one[name] for one in found], axis=0) for name in found[0]}

        return mean


def together(evaluations: Sequence[Evaluation]) -> Side:
    """Say whether runs are seeds or folds, and bring their examples into one order.

    Raises:
        ValueError: no run, or one that is there twice.
        StampMismatchError: runs of different outcomes or classes; examples that overlap in part;
            a group in two folds; truth that differs.
    """
    if not evaluations:
        raise ValueError("give the folder of at least one run")
    folders = [one.run.resolve() for one in evaluations]
    if len(set(folders)) < len(folders):
        raise ValueError("a run is there twice")
    first = evaluations[0]
    for one in evaluations[1:]:
        check_same_task(first, one)
    if len(evaluations) == 1:
        return Side("one", evaluations, [first])
    keys = [example_keys(one) for one in evaluations]
    if all(set(key) == set(keys[0]) for key in keys):
        return Side("seeds", evaluations, [aligned(first, one) for one in evaluations])
    everything = pd.concat([pd.Series(key) for key in keys])
    if everything.duplicated().any():
        raise StampMismatchError(
            f"{first.run} and the others share some examples, as"
            f" {everything[everything.duplicated()].iloc[0]!r}, and not all: they are neither seeds"
            " (the same examples) nor folds (none in common)"
        )
    _check_apart(evaluations)
    return Side("folds", evaluations, [_pooled(evaluations)])


def check_same_task(first: Evaluation, other: Evaluation) -> None:
    """Refuse to bring runs together that predict different things.

    Raises:
        StampMismatchError: saying which.
    """
    one, two = first.predictions, other.predictions
    for what in ("outcome", "classes"):
        ours, theirs = getattr(one, what), getattr(two, what)
        if list(ours) != list(theirs):
            raise StampMismatchError(
                f"{other.run}: {what} {theirs}, but {first.run} has {ours}; they cannot be compared"
            )
    if (first.bins, first.binning) != (other.bins, other.binning):
        raise StampMismatchError(
            f"{other.run}: calibration error in {other.bins} bins of equal {other.binning}, but"
            f" {first.run} has {first.bins} of equal {first.binning}; evaluate both alike"
        )


def example_keys(evaluation: Evaluation) -> list[str]:
    """What tells the examples of a run apart.

    Raises:
        ManifestError: two have the same name.
    """
    truth = evaluation.predictions.truth
    names = truth["name"].astype(str)
    if names.duplicated().any():
        # Tiles of slides may have no name of their own: then by their number under it.
        names = names + "#" + names.groupby(names).cumcount().astype(str)
    return list(names)


def aligned(first: Evaluation, other: Evaluation) -> Evaluation:
    """The other run's predictions in the order of the first's.

    Raises:
        StampMismatchError: other examples, truth or groups, or another manifest, whose files of the
            same names may be others.
    """
    if None not in (first.manifest, other.manifest) and first.manifest != other.manifest:
        raise StampMismatchError(
            f"{other.run}: evaluated on another manifest than {first.run}, or before it changed;"
            " evaluate both on the same one"
        )
    ours, theirs = example_keys(first), example_keys(other)
    if set(ours) != set(theirs):
        extra = sorted(set(ours) ^ set(theirs))
        raise StampMismatchError(
            f"{other.run}: other examples than {first.run}, as {extra[0]!r}; evaluate both on the"
            " same manifest and split"
        )
    order = pd.Index(theirs).get_indexer(pd.Index(ours))
    predictions = other.predictions
    groups = predictions.groups
    moved = Predictions(
        predictions.outcome,
        predictions.classes,
        predictions.logits[order],
        predictions.truth.iloc[order].reset_index(drop=True),
        None if groups is None else np.asarray(groups)[order],
        predictions.link,
    )
    wanted = first.predictions
    columns = ("time", "event") if wanted.outcome in SURVIVAL else ("positive",)
    for name in columns:
        if not np.array_equal(getattr(wanted, name), getattr(moved, name)):
            raise StampMismatchError(f"{other.run}: its examples have other truth than {first.run}")
    if (wanted.groups is None) != (groups is None) or (
        groups is not None and list(np.asarray(wanted.groups)) != list(np.asarray(moved.groups))
    ):
        raise StampMismatchError(
            f"{other.run}: its examples are of other groups than {first.run}; evaluate both with"
            " the same --group-column"
        )
    thresholds = other.thresholds
    if isinstance(thresholds, np.ndarray):
        thresholds = thresholds[order]
    return replace(other, predictions=moved, thresholds=thresholds)


def _check_apart(evaluations: Sequence[Evaluation]) -> None:
    """Refuse folds that share a group: it would be on both sides of a model's training."""
    seen: dict[str, Path] = {}
    for one in evaluations:
        groups = one.predictions.groups
        for group in () if groups is None else dict.fromkeys(groups):
            if group in seen:
                raise StampMismatchError(
                    f"{one.run}: has examples of {group!r}, as {seen[group]} has; a patient or"
                    " slide is in one fold only"
                )
            seen[group] = one.run


def _pooled(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Predictions of folds, one after the other; each example at its own fold's thresholds."""
    parts = [one.predictions for one in evaluations]
    first = parts[0]
    if len({part.link for part in parts}) > 1 or len({part.logits.shape[1] for part in parts}) > 1:
        raise StampMismatchError(
            f"{evaluations[0].run} and the other folds were trained with different losses; their"
            " logits cannot be pooled"
        )
    known = [part.groups is not None for part in parts]
    if any(known) and not all(known):
        raise StampMismatchError(
            f"{evaluations[known.index(False)].run}: its examples have no groups, those of other"
            " folds have; evaluate all with the same --group-column"
        )
    groups = np.concatenate([np.asarray(part.groups) for part in parts]) if all(known) else None
    pooled = Predictions(
        first.outcome,
        first.classes,
        np.concatenate([part.logits for part in parts]),
        pd.concat([part.truth for part in parts], ignore_index=True),
        groups,
        first.link,
    )
    thresholds = [_per_example(one) for one in evaluations]
    known_thresholds = [rows for rows in thresholds if rows is not None]
    if known_thresholds and len(known_thresholds) < len(thresholds):
        raise StampMismatchError(
            f"{evaluations[0].run} and the other folds: some have thresholds, some have not;"
            " calibrate and evaluate all"
        )
    # Manifests of folds differ in what is a split; as a whole they are known by all.
    manifests = [one.manifest for one in evaluations if one.manifest is not None]
    return replace(
        evaluations[0],
        predictions=pooled,
        thresholds=np.concatenate(known_thresholds) if known_thresholds else None,
        manifest=" ".join(sorted(manifests)) if len(manifests) == len(evaluations) else None,
    )


def _per_example(evaluation: Evaluation) -> NDArray[np.float64] | None:
    """``(n, classes)`` thresholds."""
    thresholds = evaluation.thresholds
    if thresholds is None or isinstance(thresholds, np.ndarray):
        return thresholds
    row = [thresholds[name] for name in evaluation.predictions.classes]
    return np.tile(row, (len(evaluation.predictions), 1))


def summarise(
    side: Side, *, repeats: int = 1000, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Measures of several runs.

    Returns:
        One row per measure: ``measure``, one column per run, ``mean`` and ``sd`` over runs, and
        ``together`` with ``low`` and ``high``: of seeds the mean over runs, of folds that of
        pooled predictions, with the bootstrap interval over groups.

    Raises:
        ValueError: an argument out of range.
    """
    check_bootstrap(repeats, level)
    runs = [one.statistic()(np.ones((1, len(one.predictions)))) for one in side.evaluations]
    part = side.predictions
    values, draws = sample(side.statistic(), len(part), part.groups, repeats=repeats, seed=seed)
    rows = []
    for name, value in values.items():
        estimate = interval(value, draws[name], level)
        each = np.array([run.get(name, [np.nan])[0] for run in runs])
        rows.append(
            {
                "measure": name,
                **{str(one.run): v for one, v in zip(side.evaluations, each, strict=True)},
                "mean": each.mean(),
                "sd": each.std(ddof=1) if len(each) > 1 else np.nan,
                "together": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
            }
        )
    return pd.DataFrame(rows)


def compare(
    side: Side, against: Side, *, repeats: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, Estimate]:
    """Differences of measures on the same examples: paired, since both get the same draws.

    Args:
        side: what is compared.
        against: with what; on the same examples.
        repeats: bootstrap draws.
        level: of the intervals.
        seed: of the draws.

    Returns:
        By measure the difference, positive where ``side`` has more. NLL has none between losses: of
        sigmoids it sums over classes.

    Raises:
        StampMismatchError: other outcome, classes, examples, truth or groups.
    """
    check_bootstrap(repeats, level)
    check_same_task(side.parts[0], against.parts[0])
    moved = [aligned(side.parts[0], part) for part in against.parts]
    other = Side(against.kind, against.evaluations, moved)
    left, right = side.statistic(), other.statistic()

    def difference(weights: Weights) -> dict[str, NDArray[np.float64]]:
        a, b = left(weights), right(weights)
        return {name: a[name] - b[name] for name in a}

    part = side.predictions
    values, draws = sample(difference, len(part), part.groups, repeats=repeats, seed=seed)
    found = {name: interval(value, draws[name], level) for name, value in values.items()}
    if part.is_independent != other.predictions.is_independent:
        found["nll"] = Estimate(np.nan, note="of different losses")
    return found
