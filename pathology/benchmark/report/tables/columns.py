"""A panel as a column of a table, its head, and what its intervals draw."""

from collections.abc import Iterable

from pathology.benchmark.report.contests import marks
from pathology.benchmark.report.metric import Metric
from pathology.benchmark.report.numbers import bounds, number, span
from pathology.benchmark.report.panel import Panel
from pathology.benchmark.report.tables.table import Cell

ARROWS = {"higher": "↑", "lower": "↓"}
MARKS = {"best": "★", "top": "≈"}


def head(metric: Metric) -> str:
    """A metric as the head of a column."""
    unit = f", {metric.unit}" if metric.unit else ""
    return f"{metric.title}{unit} {ARROWS.get(metric.better, '')}".strip()


def cells(panel: Panel, is_marked: bool = False) -> dict[str, Cell]:
    """A column of a table by method: mean, interval, how many are defined, mark."""
    ahead = marks(panel) if is_marked else {}
    found = {}
    for name, estimate, count in zip(panel.methods, panel.estimates, panel.defined, strict=True):
        mark = ahead.get(name, "")
        small = bounds(estimate)
        if count < panel.count:
            what = "" if panel.is_paired else " seeds"
            small = f"{small}; {count} of {panel.count}{what}".lstrip("; ")
        text = number(estimate.value)
        found[name] = Cell(f"{MARKS[mark]} {text}" if mark else text, small, mark)
    return found


def drawn(panels: Iterable[Panel]) -> str:
    """What intervals draw as a whole, and of how many."""
    found = [one for one in panels if one.is_paired]
    if not found:
        return "values of all examples together, with the intervals that came with them"
    examples = span(len(one.examples) for one in found)
    patients = span(len(set(one.patients)) for one in found)
    if patients == examples:
        return f"{examples} examples, drawn one by one"
    return f"{examples} examples of {patients} patients, each patient drawn as a whole"
