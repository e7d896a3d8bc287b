"""Groups of metrics: what of :mod:`pathology.map_quality` is asked of a method on a network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pathology.benchmark.study.measures.asked_for_only import asked_for_only
from pathology.benchmark.study.measures.catalogue import METRICS, Metric
from pathology.benchmark.study.measures.confounder import confounder
from pathology.benchmark.study.measures.cost import cost
from pathology.benchmark.study.measures.faithfulness import faithfulness
from pathology.benchmark.study.measures.folds import folds
from pathology.benchmark.study.measures.grid import grid
from pathology.benchmark.study.measures.ledger import ledger
from pathology.benchmark.study.measures.localisation import localisation
from pathology.benchmark.study.measures.sanity import sanity
from pathology.benchmark.study.measures.single import idsds
from pathology.benchmark.study.measures.stability import stability
from pathology.benchmark.study.measures.subject import Subject, UnknownMaskError
from pathology.benchmark.study.measures.worst_case import worst_case
from pathology.benchmark.study.rows import Value
from pathology.benchmark.study.variants import DELETED, FOLD, SHUFFLED
from pathology.map_quality.deletion import removed_shares
from pathology.map_quality.replacement import FILLS

__all__ = ["GROUPS", "METRICS", "Group", "Metric", "Subject", "UnknownMaskError"]

Settings = Mapping[str, Any]
PLAIN_FILLS = [name for name in FILLS if name != "tile"]  # which asks for a tile


@dataclass(frozen=True, slots=True)
class Group:
    """Metrics that are computed together.

    Args:
        measure: from a subject and settings to values.
        settings: its own, with what they are unless a study says otherwise.
        least: of settings, where less than that says nothing.
        version: raised when its numbers change, so that nothing old is taken for new.
        variants: networks trained another way that it needs, by its settings.
        on: ``plain`` tile sets, those with a ``planted`` mark, or ``all``.
        times: whether it measures time or memory, so that nothing else may run beside it.
    """

    measure: Callable[..., list[Value]]
    settings: Settings = field(default_factory=dict)
    least: Settings = field(default_factory=dict)
    version: int = 1
    variants: Callable[[Settings], list[str]] = lambda settings: []
    on: Literal["plain", "planted", "all"] = "all"
    times: bool = False

    def check(self, settings: Settings) -> None:
        """Refuse settings before anything is trained for them.

        Raises:
            ValueError: naming the setting.
        """
        for name, least in self.least.items():
            if settings[name] < least:
                raise ValueError(f"{name}: must be at least {least}, got {settings[name]}")
        if settings.get("kernel", 0) and settings["kernel"] % 2 == 0:
            raise ValueError(f"kernel: must be 0 or odd, got {settings['kernel']}")
        if settings.get("fill", PLAIN_FILLS[0]) not in PLAIN_FILLS:
            known = ", ".join(PLAIN_FILLS)
            raise ValueError(f"fill: must be one of {known}, got {settings['fill']!r}")
        if "levels" in settings:
            try:
                removed_shares(settings["levels"])
            except ValueError as error:
                raise ValueError(f"levels: {error}") from None


GROUPS: dict[str, Group] = {
    "localisation": Group(localisation, {"repeats": 1000}, version=3, on="plain"),
    "confounder": Group(confounder, version=2, on="planted"),
    "grid": Group(
        grid,
        {"mosaics": 50, "cells": 2, "kernel": 0},
        {"mosaics": 1, "cells": 2},
        version=3,
        on="plain",
    ),
    "faithfulness": Group(
        faithfulness,
        {
            "examples": 32,
            "steps": 16,
            "fill": "local_mean",
            "parts": 16,
            "cells": 4,
            "groups": 10,
            "squares": 100,
            "levels": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
        },
        {"steps": 1, "cells": 2, "groups": 2, "squares": 1},
        version=2,
        on="plain",
    ),
    "idsds": Group(
        idsds,
        {"examples": 0, "cells": 4},
        {"cells": 2},
        variants=lambda settings: [DELETED.format(cells=settings["cells"])],
        on="plain",
    ),
    "ledger": Group(ledger, version=2),
    "stability": Group(stability, {"examples": 16}),
    "worst_case": Group(
        worst_case,
        {"examples": 4, "rounds": 20, "samples": 100},
        {"rounds": 1, "samples": 20},
    ),
    "sanity": Group(
        sanity,
        {"examples": 32, "draws": 1},
        {"draws": 1},
        variants=lambda settings: [SHUFFLED],
        on="plain",
    ),
    "folds": Group(
        folds,
        {"folds": 4, "examples": 64},
        {"folds": 2},
        variants=lambda settings: [
            FOLD.format(fold=i, folds=settings["folds"]) for i in range(settings["folds"])
        ],
        on="plain",
    ),
    "asked_for_only": Group(
        asked_for_only, {"tolerance": 0.0, "examples": 16, "radius": 0.02}, on="plain"
    ),
    "cost": Group(cost, {"images": 8, "seconds": 2.0}, {"images": 1}, times=True),
}
"""By name, in the order of reports."""
