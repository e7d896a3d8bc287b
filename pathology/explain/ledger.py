"""The ledger of a slide's score: bias, constants and map, and how far they are from adding up.

::

    gap = | score - (bias + sum(constants) + map sum + cut off) |
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathology.errors import LedgerError


def float32_tolerance(score: float, absolute_sum: float) -> float:
    """How large a gap float32 arithmetic alone may make, in logits.

    ``max(1e-4 * max(1, |score|), 1e-5 * absolute_sum)``. The score is computed in float32, good to
    about seven digits, so through some tens of layers 1e-4 of it is what a correct run reaches
    with room to spare. The contributions are signed and cancel: each is off by a few roundings of
    *its own* size (6e-8 each), so the error of their sum follows the sum of their absolute values,
    which may be a hundred times the score; 1e-5 of that is about 170 roundings. A contribution
    that is missing or counted twice is orders of magnitude above either.

    Args:
        score: the model's score in logits.
        absolute_sum: the sum of all absolute contributions in logits.
    """
    return max(1e-4 * max(1.0, abs(score)), 1e-5 * absolute_sum)


@dataclass(frozen=True, slots=True)
class Undivided:
    """Tiles that were not taken apart: what each adds is exact, and spread evenly over it.

    Sums of the map over whole tiles are what they would be; inside of these tiles the map says
    nothing.

    Args:
        tiles: how many.
        net: what they add to the score, in logits; part of the map and what is cut off.
        absolute: the sum of what each adds, whatever its sign, in logits: no region of whole tiles
            owes them more.
    """

    tiles: int
    net: float
    absolute: float

    @classmethod
    def of(cls, shares: NDArray[np.float64]) -> "Undivided":
        """Of what each such tile adds ``(n,)``."""
        return cls(len(shares), float(shares.sum()), float(np.abs(shares).sum()))


@dataclass(frozen=True, slots=True)
class Ledger:
    """Where a slide's score comes from, in logits.

    Args:
        score: what the model said.
        bias: the constant that any slide gets.
        map_sum: the sum of the map's pixels, as stored.
        cut_off: contributions that fell outside the slide and are not on the map.
        tolerance: the largest gap that counts as closed, see :func:`float32_tolerance`.
        constants: named contributions that belong to no place, e.g. ``{"position code": 0.02}``.
        undivided: what of the map is told by whole tiles only; None where all were taken apart.

    Raises:
        ValueError: a tolerance that is negative or not finite.
    """

    score: float
    bias: float
    map_sum: float
    cut_off: float
    tolerance: float
    constants: Mapping[str, float] = field(default_factory=dict)
    undivided: Undivided | None = None

    def __post_init__(self) -> None:
        if not (self.tolerance >= 0.0 and math.isfinite(self.tolerance)):
            raise ValueError(f"tolerance must be finite and at least 0, got {self.tolerance}")

    @property
    def entries(self) -> dict[str, float]:
        """The parts that should add up to the score, in the order a person reads them."""
        return {
            "bias": self.bias,
            **self.constants,
            "map": self.map_sum,
            "cut off": self.cut_off,
        }

    @property
    def total(self) -> float:
        """What the parts add up to."""
        numbers = (self.bias, *self.constants.values(), self.map_sum, self.cut_off)
        return math.fsum(numbers) if all(map(math.isfinite, numbers)) else math.nan

    @property
    def gap(self) -> float:
        """``|score - total|`` in logits; NaN when a part is not finite."""
        return abs(self.score - self.total)

    @property
    def relative_gap(self) -> float:
        """The gap against ``max(|score|, 1 logit)``, so that a score near zero blows nothing up."""
        return self.gap / max(abs(self.score), 1.0)

    @property
    def is_closed(self) -> bool:
        """Whether the gap is within the tolerance; a gap of NaN is not."""
        return self.gap <= self.tolerance

    def check(self) -> None:
        """Refuse a ledger that does not close.

        Raises:
            LedgerError: the gap is above the tolerance, or a number is not finite.
        """
        if not self.is_closed:
            parts = " + ".join(f"{name} {value:.6g}" for name, value in self.entries.items())
            raise LedgerError(
                f"the map does not account for the score: {parts} = {self.total:.6g}, score "
                f"{self.score:.6g}, gap {self.gap:.3g} above the tolerance {self.tolerance:.3g}; "
                "explain again in float32 without autocast, with the weights that made the score"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON; the gap and verdict are added for readers, not read back."""
        return {
            **asdict(self),
            "constants": dict(self.constants),
            "gap": self.gap,
            "is_closed": self.is_closed,
        }

    @classmethod
    def from_dict(cls, numbers: Mapping[str, Any]) -> "Ledger":
        """The ledger that :meth:`to_dict` wrote.

        Raises:
            ValueError: a number is missing.
        """
        names = ("score", "bias", "map_sum", "cut_off", "tolerance")
        if missing := [name for name in names if name not in numbers]:
            raise ValueError(f"a ledger needs {', '.join(names)}; missing {', '.join(missing)}")
        constants = {str(k): float(v) for k, v in numbers.get("constants", {}).items()}
        told = numbers.get("undivided")
        return cls(
            **{name: float(numbers[name]) for name in names},
            constants=constants,
            undivided=None if told is None else Undivided(**told),
        )

    def _repr_html_(self) -> str:
        from pathology.explain.results.notebook import ledger_html

        return ledger_html(self)

    def __str__(self) -> str:
        verdict = "closed" if self.is_closed else "NOT CLOSED"
        parts = [(name, f"{value:+.6f}") for name, value in self.entries.items()]
        lines = [*parts, ("= total", f"{self.total:+.6f}"), ("score", f"{self.score:+.6f}")]
        lines.append(("gap", f"{self.gap:.2e}"))
        wide, tall = max(len(name) for name, _ in lines), max(len(text) for _, text in lines)
        rows = [f"{name:<{wide}}  {text:>{tall}}" for name, text in lines]
        rows.insert(len(parts), "-" * (wide + 2 + tall))
        rows[-1] += f"  {verdict}, tolerance {self.tolerance:.2e}"
        if self.undivided is not None:
            part = self.undivided
            rows.append(
                f"undivided: {part.tiles} tiles, {part.net:+.6f} of the map, {part.absolute:.6f}"
                " without signs"
            )
        return "\n".join(rows)
