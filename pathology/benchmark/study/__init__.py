"""Studies: backbones, explanation methods, data sets and seeds, cell by cell."""

from pathology.benchmark.study.rows import COLUMNS, Value

__all__ = ["COLUMNS", "Value"]
