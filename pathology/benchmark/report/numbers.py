"""Numbers, intervals and p-values as they are printed."""

import math
from collections.abc import Callable, Iterable

from pathology.metrics.bootstrap import Estimate

NONE, MINUS = "\u2013", "\u2212"


def number(value: float) -> str:
    """As many digits as are worth reading."""
    if math.isnan(value):
        return NONE
    if value < 0:
        return MINUS + number(-value)
    size = value
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 0.01 or value == 0:
        return f"{value:.3f}"
    return f"{value:.4f}" if size >= 0.0005 else f"{value:.0e}".replace("e-0", "e-")


def signed(value: float) -> str:
    """With its sign, a minus as long as a plus."""
    return ("+" if value >= 0 else MINUS) + number(abs(value))


def bounds(estimate: Estimate, show: Callable[[float], str] = number) -> str:
    """An interval; empty where there is none."""
    if math.isnan(estimate.low) or math.isnan(estimate.high):
        return ""
    return f"{show(estimate.low)} to {show(estimate.high)}"


def p_text(p: float) -> str:
    """A p-value."""
    return NONE if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def span(numbers: Iterable[int]) -> str:
    """The least and the highest, or the one that there is."""
    found = sorted(set(numbers))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"
