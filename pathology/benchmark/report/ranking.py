"""Ranks of methods over networks and tile sets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathology.benchmark.report.metric import SLIDES
from pathology.benchmark.report.panel import Panel
from pathology.benchmark.report.study import Study
from pathology.benchmark.study.roles import is_control
from pathology.metrics.ranks import (
    block_ranks,
    cliques,
    critical_difference,
    friedman_test,
)

OVERALL = "All headline metrics"
FAMILIES = {"bcos": "B-cos networks", "conventional": "conventional networks"}


@dataclass(frozen=True, eq=False)
class Ranking:
    """Methods ranked over blocks.

    A block is a network on a tile set, its trainings averaged: seeds of one network share its data,
    and as blocks of their own would count them twice. Blocks still share tile sets or networks, so
    the critical difference is rather too small.

    Args:
        title: what is ranked by.
        family: of networks.
        blocks: what each is.
        methods: ranked, those with a value in every block.
        ranks: ``(blocks, methods)``, 1 the best.
        difference: Nemenyi's critical one at 0.05.
        p: of Friedman's test.
        left_out: methods that lack a value somewhere, with the number of blocks that have one.
    """

    title: str
    family: str
    blocks: tuple[str, ...]
    methods: tuple[str, ...]
    ranks: NDArray[np.float64]
    difference: float
    p: float
    left_out: dict[str, int]

    @property
    def is_overall(self) -> bool:
        """Whether it is by all headline metrics together."""
        return self.title == OVERALL

    @property
    def mean(self) -> NDArray[np.float64]:
        """``(methods,)`` mean ranks."""
        return self.ranks.mean(0)

    @property
    def cliques(self) -> list[tuple[int, ...]]:
        """Methods not told apart."""
        return cliques(self.mean, self.difference)


def rankings(study: Study) -> list[Ranking]:
    """By every headline metric and by all together, on each family of networks.

    All together: a block's value is the mean of a method's ranks by the headline metrics, so that
    metrics of one network do not count as blocks of their own.
    """
    found: list[Ranking] = []
    metrics = [one for one in study.headline if one.group != SLIDES]
    for family in FAMILIES:
        tables = []
        for metric in metrics:
            panels = [p for p in study.panels(metric) if _family(study, p) == family]
            ranking = _rank(metric.title, family, panels)
            if ranking is not None:
                found.append(ranking)
                tables.append(ranking)
        together = _together(family, tables)
        if together is not None:
            found.append(together)
    return found


def _family(study: Study, panel: Panel) -> str:
    return str(study.backbones.loc[panel.backbone, "family"])


def _rank(title: str, family: str, panels: Sequence[Panel]) -> Ranking | None:
    panels = [panel for panel in panels if not np.isnan(panel.means).all()]
    names = list(dict.fromkeys(n for p in panels for n in p.methods if not is_control(n)))
    table = np.full((len(panels), len(names)), np.nan)
    for row, panel in zip(table, panels, strict=True):
        for name, mean in zip(panel.methods, panel.means, strict=True):
            if name in names:
                row[names.index(name)] = panel.metric.sign * mean
    return _ranked(title, family, [f"{p.backbone}, {p.data}" for p in panels], names, table)


def _ranked(
    title: str, family: str, blocks: list[str], names: list[str], table: NDArray[np.float64]
) -> Ranking | None:
    counts = (~np.isnan(table)).sum(0)
    whole = [i for i in range(len(names)) if counts[i] == len(table)]
    if len(whole) < 2 or len(table) < 2:
        return None
    ranks = block_ranks(table[:, whole])
    return Ranking(
        title, family, tuple(blocks), tuple(names[i] for i in whole), ranks,
        critical_difference(len(whole), len(table)), friedman_test(ranks)[1],
        {names[i]: int(counts[i]) for i in range(len(names)) if i not in whole},
    )  # fmt: skip


def _together(family: str, tables: Sequence[Ranking]) -> Ranking | None:
    if len(tables) < 2:
        return None
    blocks = [b for b in tables[0].blocks if all(b in one.blocks for one in tables)]
    names = [n for n in tables[0].methods if all(n in one.methods for one in tables)]
    if not blocks or len(names) < 2:
        return None
    ranks = np.stack(
        [
            block_ranks(
                -one.ranks[np.ix_([one.blocks.index(b) for b in blocks],
                                  [one.methods.index(n) for n in names])]
            )
            for one in tables
        ]
    )  # fmt: skip
    found = _ranked(OVERALL, family, blocks, names, -ranks.mean(0))
    if found is not None:
        lacking = {n for one in tables for n in (*one.methods, *one.left_out)} - set(names)
        found.left_out.update(dict.fromkeys(sorted(lacking), 0))
    return found
