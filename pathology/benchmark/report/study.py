"""One study of the table: its networks, methods and metrics, and the panels of both."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from pathology.benchmark.report.metric import COST, SLIDES, Metric
from pathology.benchmark.report.panel import Panel, make_panel
from pathology.benchmark.study.roles import is_control, is_ours

REFUSED, FAILED = "refused", "failed"
"""Groups of rows that say why there is no value: a method that does not fit a network; an error."""


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
            self._panels[key] = make_panel(data, backbone, metric, order, rows)

    def is_ours(self, backbone: str) -> bool:
        """Whether the network is a B-cos one."""
        return str(self.backbones.loc[backbone, "family"]) == "bcos"

    def twins(self, backbone: str) -> list[str]:
        """Conventional networks of the same pair."""
        pair = self.backbones.loc[backbone, "pair"]
        table = self.backbones
        same = (table["pair"] == pair) & (table["pair"] != "") & (table["family"] != "bcos")
        return [str(one) for one in table.index[same]]


def _metrics(rows: pd.DataFrame) -> list[Metric]:
    columns = ["group", "metric", "unit", "better", "headline"]
    table = rows.loc[rows["stratum"] == "", columns].drop_duplicates(["group", "metric"])
    return [
        Metric(str(group), str(name), str(unit), str(better), bool(headline))
        for group, name, unit, better, headline in table.itertuples(index=False, name=None)
    ]
