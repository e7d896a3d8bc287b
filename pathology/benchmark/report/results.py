"""A study's rows as what is compared: panels of methods on one network, by example and seed."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pathology.benchmark.study.roles import is_control, is_ours
from pathology.benchmark.study.rows import COLUMNS
from pathology.metrics.bootstrap import Estimate
from pathology.metrics.comparison import group_means

REFUSED, FAILED = "refused", "failed"
"""Groups of rows that say why there is no value: a method that does not fit a network; an error."""
COST = "cost"
SLIDES = "slides"
"""Group of metrics whose examples are slides."""

_TITLES = {
    "epg": "EPG", "ap": "AP", "pxap": "PxAP", "auroc": "AUROC",
    "gridpg": "GridPG", "ece": "ECE", "sds": "SDS", "idsds": "IDSDS",
    "road": "ROAD", "rra": "RRA", "saco": "SaCo", "froc": "FROC", "abpc": "ABPC", "dice": "Dice",
    "iou": "IoU", "emprt": "eMPRT", "mege": "MeGe", "reco": "ReCo", "nll": "NLL", "f1": "F1",
    "cpu": "CPU", "auprc": "AUPRC",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as the table has it.

    Args:
        group: of metrics.
        name: in the table.
        unit: of its values.
        better: ``higher``, ``lower`` or ``none``.
        headline: among the few numbers that a study is read by.
    """

    group: str
    name: str
    unit: str = ""
    better: str = "higher"
    headline: bool = False

    @property
    def title(self) -> str:
        """As it is printed."""
        return title(self.name)

    @property
    def primary(self) -> str:
        """The role of the method that a study's claim is about."""
        return "contribution" if self.group == SLIDES else "bcos"

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is, 0 where neither."""
        return {"higher": 1, "lower": -1}.get(self.better, 0)


def title(name: str) -> str:
    """A metric's name in words."""
    text = " ".join(_TITLES.get(word, word) for word in re.split(r"[_ ]", name))
    return text[:1].upper() + text[1:] if text.split(" ")[0].islower() else text


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
        """Means with intervals: bootstrap by patient.

        Of values of all examples together: their own interval; over several seeds from the lowest
        end to the highest.
        """
        if self.is_paired:
            return group_means(self.values, self.patients)
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


@dataclass(eq=False)
class Study:
    """One study of the table.

    Args:
        name: of the study.
        rows: its rows, :data:`COLUMNS`.
    """

    name: str
    rows: pd.DataFrame
    _panels: dict[tuple[str, ...], Panel] = field(default_factory=dict)

    @cached_property
    def values(self) -> pd.DataFrame:
        """Rows that are values, not refusals or failures."""
        return self.rows[~(self.is_refused | self.is_failed)]

    @cached_property
    def is_refused(self) -> "pd.Series[bool]":
        """Rows that say why a method does not fit a network; on slides by the metric's name."""
        return (self.rows["group"] == REFUSED) | (self.rows["metric"] == REFUSED)

    @cached_property
    def is_failed(self) -> "pd.Series[bool]":
        """Rows that say what ended with an error."""
        return self.rows["group"] == FAILED

    @cached_property
    def is_lacking(self) -> "pd.Series[bool]":
        """Values of a metric on a network of which no method has any, as of a set without masks."""
        keys = [self.values[one] for one in ("data", "backbone", "group", "metric", "stratum")]
        found: pd.Series[bool] = self.values["value"].isna().groupby(keys).transform("all")
        return found

    @cached_property
    def of_methods(self) -> pd.DataFrame:
        """Values of explanation methods."""
        return self.values[self.values["method"] != ""]

    @cached_property
    def backbones(self) -> pd.DataFrame:
        """Networks in order, indexed by name: family, architecture, pair."""
        columns = ["backbone", "family", "architecture", "pair"]
        return self.rows[columns].drop_duplicates("backbone").set_index("backbone")

    @cached_property
    def data(self) -> list[str]:
        """Tile sets in order."""
        return list(dict.fromkeys(self.rows["data"]))

    @cached_property
    def seeds(self) -> list[int]:
        """Seeds of training in order."""
        return sorted(set(self.values["seed"]))

    @cached_property
    def methods(self) -> list[str]:
        """Methods: ours first, controls last, else as they come."""
        found = list(dict.fromkeys(self.of_methods["method"]))
        return sorted(found, key=lambda one: (is_control(one), -is_ours(one)))

    def metrics(self, headline: bool | None = None) -> list[Metric]:
        """Metrics of methods over all examples, in order.

        Args:
            headline: only those, or only others.
        """
        found = _metrics(self.of_methods)
        return [one for one in found if headline is None or one.headline == headline]

    @cached_property
    def backbone_metrics(self) -> list[Metric]:
        """Metrics of networks themselves, over all examples, in order."""
        return _metrics(self.values[self.values["method"] == ""])

    @cached_property
    def headline(self) -> list[Metric]:
        """Those of the quality of maps that have a better side, no costs; of slides last."""
        found = [one for one in self.metrics(headline=True) if one.sign and one.group != COST]
        return sorted(found, key=lambda one: one.group == SLIDES)

    def panel(self, data: str, backbone: str, metric: Metric, stratum: str = "") -> Panel | None:
        """Methods on one network; none where nothing was measured or all is undefined.

        A metric of the network itself has one column, a method without a name.
        """
        if not self._panels:
            self._fill()
        key = (data, backbone, metric.group, metric.name, stratum)
        return self._panels.get(key)

    def panels(self, metric: Metric, stratum: str = "") -> Iterator[Panel]:
        """On every tile set and network where the metric is defined for any method."""
        for data in self.data:
            for backbone in self.backbones.index:
                panel = self.panel(data, backbone, metric, stratum)
                if panel is not None:
                    yield panel

    def _fill(self) -> None:
        keys = ["data", "backbone", "group", "metric", "stratum"]
        order = ["", *self.methods]
        # A metric's unit and better side are those of its first row in the study.
        known = {(one.group, one.name): one for one in (*self.metrics(), *self.backbone_metrics)}
        for found, rows in self.values[~self.is_lacking].groupby(keys, sort=False):
            data, backbone, group, name, stratum = map(str, found)
            first = rows.iloc[0]
            metric = known.get((group, name)) or Metric(
                group, name, str(first["unit"]), str(first["better"]), bool(first["headline"])
            )
            key = (data, backbone, group, name, stratum)
            self._panels[key] = _panel(data, backbone, metric, order, rows)

    def is_ours(self, backbone: str) -> bool:
        """Whether the network is a B-cos one."""
        return str(self.backbones.loc[backbone, "family"]) == "bcos"

    def twins(self, backbone: str) -> list[str]:
        """Conventional networks of the same pair."""
        pair = self.backbones.loc[backbone, "pair"]
        table = self.backbones
        same = (table["pair"] == pair) & (table["pair"] != "") & (table["family"] != "bcos")
        return [str(one) for one in table.index[same]]


def read_studies(results: pd.DataFrame) -> list[Study]:
    """A table as its studies, in order.

    Args:
        results: columns :data:`~pathology.benchmark.study.rows.COLUMNS`; text that is missing is
            empty.

    Raises:
        ValueError: columns are missing, a metric has two better sides, or a value stands twice.
    """
    missing = [name for name in COLUMNS if name not in results]
    if missing:
        raise ValueError(f"results lack columns {', '.join(missing)}; see study/rows.py")
    rows = results[list(COLUMNS)].copy()
    for name, kind in COLUMNS.items():
        if kind == "string":
            rows[name] = rows[name].astype("object").where(rows[name].notna(), "").astype(str)
        elif kind == "float64":
            rows[name] = rows[name].astype("float64")
    rows["seed"] = rows["seed"].fillna(0).astype("int64")
    rows["headline"] = rows["headline"].fillna(False).astype(bool)
    studies = [Study(str(name), part) for name, part in rows.groupby("study", sort=False)]
    for study in studies:
        _check(study)
    return studies


def _check(study: Study) -> None:
    sides = study.values.groupby(["group", "metric"])["better"].nunique()
    if (sides > 1).any():
        group, name = sides.index[sides > 1][0]
        raise ValueError(f"{study.name}: {group}/{name} is better both ways; one side is wanted")
    keys = [
        "data", "backbone", "seed", "method", "group", "metric", "example", "stratum",
    ]  # fmt: skip
    twice = study.values.duplicated(keys)
    if twice.any():
        first = study.values.loc[twice, keys].iloc[0]
        where = ", ".join(f"{key} {first[key]}" for key in keys if first[key] != "")
        raise ValueError(f"{study.name}: a value stands twice: {where}")


def _metrics(rows: pd.DataFrame) -> list[Metric]:
    columns = ["group", "metric", "unit", "better", "headline"]
    table = rows.loc[rows["stratum"] == "", columns].drop_duplicates(["group", "metric"])
    return [
        Metric(str(group), str(name), str(unit), str(better), bool(headline))
        for group, name, unit, better, headline in table.itertuples(index=False, name=None)
    ]


def _panel(
    data: str, backbone: str, metric: Metric, methods: list[str], rows: pd.DataFrame
) -> Panel:
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
