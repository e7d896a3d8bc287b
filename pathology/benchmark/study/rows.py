"""The tidy table of studies: one value per row, with all that it is a value of."""

from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower", "none"]

COLUMNS = {
    "study": "string",
    "data": "string",  # name of the tile set
    "backbone": "string",  # its name in the study
    "family": "string",  # bcos, conventional
    "architecture": "string",  # cnn, vit
    "pair": "string",  # shared by a B-cos backbone and its twin
    "seed": "int64",  # of training
    "method": "string",  # of explanation; empty where the value is of a backbone
    "group": "string",  # accuracy, cost, ledger, localisation, grid, faithfulness, robustness, ...
    "metric": "string",
    "example": "string",  # an image or slide; empty where the value is of all together
    "patient": "string",  # what is drawn as a whole by the bootstrap; the example where unknown
    "stratum": "string",  # a part of the examples (a class, a confounder); empty where of all
    "value": "float64",  # NaN where it is not defined, with the reason in note
    "low": "float64",  # interval, of values of all together; NaN where there is none
    "high": "float64",
    "unit": "string",
    "better": "string",  # higher, lower, none
    "headline": "bool",  # among the few numbers that a study is read by
    "note": "string",
}
"""Columns of ``results.parquet`` and their types."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value of a metric, before it is known of which backbone, data and seed.

    Args:
        metric: its name.
        value: NaN where it is not defined.
        group: of metrics.
        example: an image or slide; empty where the value is of all together.
        patient: of the example.
        stratum: a part of the examples.
        low: of an interval.
        high: likewise.
        unit: of the value.
        better: which way.
        headline: among the few numbers that a study is read by.
        note: why there is no value, or what to know about it.
        backbone: where one cell measures several, as slides do; else the cell's own.
        method: likewise, of explanation.
    """

    metric: str
    value: float
    group: str
    example: str = ""
    patient: str = ""
    stratum: str = ""
    low: float = float("nan")
    high: float = float("nan")
    unit: str = ""
    better: Better = "higher"
    headline: bool = False
    note: str = ""
    backbone: str = ""
    method: str = ""
