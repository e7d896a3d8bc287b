"""Methods on one network by one metric, by example and seed: what is compared."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pathology.benchmark.report.metric import Metric
from pathology.metrics.bootstrap import Estimate
from pathology.metrics.comparison import group_means


@dataclass(frozen=True, eq=False)
class Panel:
    """Methods on one network (all its trainings) by one metric.

    A value of an example is the mean over seeds, and is defined where it is for every seed: what is
    tested is the example's, since examples of one network say nothing about another training.

    Args:
        data: name of the tile set.
        backbone: name of the network.
        metric: measured.
        methods: names.
        seeds: of training.
        examples: names, none of a metric of all examples together.
        patients: ``(n,)`` what is drawn as a whole.
        by_seed: ``(seeds, n, methods)``, NaN where not defined.
        together: ``(seeds, methods)`` values of all examples together, NaN otherwise.
        lows: ``(seeds, methods)`` of their intervals.
        highs: likewise.
    """

    data: str
    backbone: str
    metric: Metric
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    examples: tuple[str, ...]
    patients: NDArray[np.str_]
    by_seed: NDArray[np.float64]
    together: NDArray[np.float64]
    lows: NDArray[np.float64]
    highs: NDArray[np.float64]

    @property
    def is_paired(self) -> bool:
        """Whether there are values by example, which can be tested."""
        return bool(self.examples)

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """``(n, methods)`` over seeds."""
        return self.by_seed.mean(0)

    @cached_property
    def seed_means(self) -> NDArray[np.float64]:
        """``(seeds, methods)`` over the examples that are defined."""
        if not self.is_paired:
            return self.together
        return _mean(self.by_seed, 1)

    @cached_property
    def means(self) -> NDArray[np.float64]:
        """``(methods,)`` over seeds and examples."""
        return _mean(self.values, 0) if self.is_paired else self.together.mean(0)

    @property
    def defined(self) -> NDArray[np.int64]:
        """``(methods,)`` how many examples (trainings, without examples) each mean is of."""
        table = self.values if self.is_paired else self.together
        return (~np.isnan(table)).sum(0)

    @property
    def count(self) -> int:
        """Examples, or trainings where there are none."""
        return len(self.examples) if self.is_paired else len(self.seeds)

    @cached_property
    def estimates(self) -> list[Estimate]:
        """Means with intervals: bootstrap by patient; of one patient alone there is none.

        Of values of all examples together: their own interval; over several seeds from the lowest
        end to the highest.
        """
        if self.is_paired:
            known = ~np.isnan(self.values)
            return [
                one if len(set(self.patients[here])) > 1 else Estimate(one.value, note=one.note)
                for one, here in zip(group_means(self.values, self.patients), known.T, strict=True)
            ]
        found = []
        for i, value in enumerate(self.means):
            low, high = self.lows[:, i], self.highs[:, i]
            is_whole = not (np.isnan(low).any() or np.isnan(high).any())
            ends = (float(low.min()), float(high.max())) if is_whole else (math.nan, math.nan)
            found.append(Estimate(float(value), *ends, note="" if is_whole else "no interval"))
        return found

    def column(self, method: str) -> int | None:
        """Where a method is, if it is."""
        return self.methods.index(method) if method in self.methods else None


def make_panel(
    data: str, backbone: str, metric: Metric, methods: list[str], rows: pd.DataFrame
) -> Panel:
    """A panel of its rows.

    Args:
        data: name of the tile set.
        backbone: name of the network.
        metric: measured.
        methods: in order; those without a row are left out.
        rows: of this tile set, network and metric.
    """
    there = set(rows["method"])
    named = tuple(one for one in methods if one in there)
    seeds = tuple(sorted(set(rows["seed"])))
    single = rows[rows["example"] != ""]
    examples = tuple(dict.fromkeys(single["example"]))
    by_seed = np.full((len(seeds), len(examples), len(named)), np.nan)
    at = {name: i for i, name in enumerate(examples)}
    column = {name: i for i, name in enumerate(named)}
    row = {seed: i for i, seed in enumerate(seeds)}
    by_seed[
        single["seed"].map(row).to_numpy(int),
        single["example"].map(at).to_numpy(int),
        single["method"].map(column).to_numpy(int),
    ] = single["value"]
    owner = single.drop_duplicates("example").set_index("example")["patient"]
    patients = np.array([owner[name] or name for name in examples], dtype=np.str_)
    whole = rows[rows["example"] == ""]
    together, lows, highs = np.full((3, len(seeds), len(named)), np.nan)
    places = whole["seed"].map(row).to_numpy(int), whole["method"].map(column).to_numpy(int)
    for table, name in ((together, "value"), (lows, "low"), (highs, "high")):
        table[places] = whole[name]
    return Panel(
        data, backbone, metric, named, seeds, examples, patients, by_seed, together, lows, highs
    )  # fmt: skip


def _mean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Of what is defined; NaN where nothing is."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = np.where(defined, values, 0).sum(axis) / defined.sum(axis)
    return found
