"""One finding in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["better", "worse", "open", "warn"]


@dataclass(frozen=True, slots=True)
class Sentence:
    """One finding.

    Args:
        text: in words and numbers.
        kind: for or against the B-cos maps, neither, or about the measurement itself.
        is_lead: whether it is the answer in short.
    """

    text: str
    kind: Kind = "open"
    is_lead: bool = False


def listed(parts: Sequence[str]) -> str:
    """Parts of a sentence: ``a, b and c``."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
